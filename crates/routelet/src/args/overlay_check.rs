//! Whether the way to the other nodes is tested.

use std::str::FromStr;

use clap::Args;

use super::values;

/// The test of the way to the other nodes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Overlay check")]
pub(crate) struct OverlayCheckArgs {
    /// Test the way to the other nodes through the tunnel, by ICMP echo, small and as large as the tunnel shall carry:
    /// so many probes a second at most from this node, whatever the number of nodes, 1 to 1000, or "off".
    #[arg(
        long,
        env = "ROUTELET_OVERLAY_CHECK",
        value_name = "off|PROBES",
        default_value = "off"
    )]
    pub(crate) overlay_check: OverlayCheck,
}

/// How many probes a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OverlayCheck {
    /// None.
    Off,
    /// So many at most.
    Rate(u32),
}

impl OverlayCheck {
    /// The number, where there are any.
    pub(crate) fn rate(self) -> Option<u32> {
        match self {
            Self::Off => None,
            Self::Rate(rate) => Some(rate),
        }
    }
}

impl FromStr for OverlayCheck {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            _ => values::probes(text)
                .map(Self::Rate)
                .map_err(|allowed| format!("{allowed}, or \"off\"")),
        }
    }
}
