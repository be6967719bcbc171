//! Which of the node's addresses its tunnels send from.

use clap::Args;
use routelet_planner::UnderlayRule;

/// The network between the nodes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Underlay")]
pub(crate) struct UnderlayArgs {
    /// Which of its addresses a node's tunnels send from, the same on all nodes: "internal-ip" (of its Node object), that
    /// of the first link named so (interface=bond0,eth*), the one within a network (cidr=10.0.0.0/8), or the one that
    /// the kernel sends from to an address (can-reach=192.0.2.1). docs/underlay.md says what the other nodes need.
    #[arg(
        long,
        env = "ROUTELET_UNDERLAY",
        value_name = "HOW",
        default_value = "internal-ip"
    )]
    pub(crate) underlay: UnderlayRule,
}
