//! By what the agent's own is known on the node: to the agent, and to `routelet cleanup`.

use std::path::PathBuf;

use clap::Args;
use routelet_model::IfName;

use super::values;

/// Names and numbers of what is the agent's.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Marks")]
pub(crate) struct MarkArgs {
    /// Name of the VXLAN device for IPv4.
    #[arg(
        long,
        env = "ROUTELET_VXLAN_DEVICE",
        value_name = "NAME",
        default_value = "vxlan.calico"
    )]
    pub(crate) vxlan_device: IfName,

    /// Name of the VXLAN device for IPv6.
    #[arg(
        long,
        env = "ROUTELET_VXLAN_DEVICE_V6",
        value_name = "NAME",
        default_value = "vxlan-v6.calico"
    )]
    pub(crate) vxlan_device_v6: IfName,

    /// First letters of the names of the pods' host veths, at most four. The agent puts routes and settings only
    /// on links that are named so.
    #[arg(long, env = "ROUTELET_INTERFACE_PREFIX", value_name = "PREFIX", default_value = "cali",
        value_parser = values::interface_prefix)]
    pub(crate) interface_prefix: String,

    /// Protocol number that marks routes, nexthops and neighbours as the agent's: 5 to 255, without those that
    /// other programs use. The agent removes what carries this number and is not wanted.
    #[arg(long, env = "ROUTELET_ROUTE_PROTOCOL", value_name = "NUMBER", default_value = "80",
        value_parser = values::route_protocol)]
    pub(crate) route_protocol: u8,

    /// Name of the agent's nft table, of family inet. The agent removes from it all that it has not made. Who chooses
    /// another name later must delete the former table.
    #[arg(long, env = "ROUTELET_NFT_TABLE", value_name = "NAME", default_value = "routelet",
        value_parser = values::nft_table)]
    pub(crate) nft_table: String,

    /// File in which the agent notes the host's settings as they were before it changed them, for `routelet cleanup` to
    /// set back. It should not outlast a restart of the host.
    #[arg(long, env = "ROUTELET_SAVED_SYSCTLS", value_name = "FILE", default_value = "/run/routelet/saved-sysctls",
        value_parser = values::absolute)]
    pub(crate) saved_sysctls: PathBuf,
}

impl MarkArgs {
    /// What the kernel is opened with; the buffer for its notifications is in bytes.
    pub(crate) fn kernel_config(
        &self,
        devices: Vec<IfName>,
        receive_buffer: u32,
    ) -> routelet_netlink::Config {
        routelet_netlink::Config {
            protocol: self.route_protocol,
            devices,
            interface_prefix: self.interface_prefix.clone(),
            nft_table: self.nft_table.clone(),
            receive_buffer: usize::try_from(receive_buffer).unwrap_or(usize::MAX),
        }
    }
}
