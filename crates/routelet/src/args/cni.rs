//! Settings of the CNI plugin's installation, by the agent and by `routelet install-cni`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use routelet_cni::UNINSTALLED_CONFLIST;

use super::LogArgs;
use super::values::{self, SweepAfter};

/// How the CNI plugin gets onto the node.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "CNI")]
pub(crate) struct CniArgs {
    /// Put the CNI plugin and its configuration where the container runtime looks for them, once the node's network is
    /// ready, and keep them there as the agent knows the node.
    #[arg(long, env = "ROUTELET_INSTALL_CNI", value_name = "true|false", default_value = "false",
        default_missing_value = "true", num_args = 0..=1, require_equals = true,
        action = clap::ArgAction::Set)]
    pub(crate) install_cni: bool,

    #[command(flatten)]
    pub(crate) files: CniFilesArgs,

    /// Directory in which host-local keeps its leases, one below it for each network; the configuration says so to
    /// host-local.
    #[arg(long, env = "ROUTELET_CNI_LEASE_DIR", value_name = "DIRECTORY", default_value = "/var/lib/cni/networks",
        value_parser = values::absolute)]
    pub(crate) cni_lease_dir: PathBuf,

    /// How long a lease of host-local, or a host veth, must have belonged to no pod before the agent takes it away: 1s to
    /// 24h, as in 90s, 10m or 1h, and longer than it takes to start a pod; or "off". Without it: 10m with --install-cni,
    /// else off.
    #[arg(long, env = "ROUTELET_CNI_SWEEP_AFTER", value_name = "TIME|off")]
    pub(crate) cni_sweep_after: Option<SweepAfter>,
}

/// How long a pod takes to start at most, with a good measure to spare: kubelets give a runtime four minutes.
const SWEEP_AFTER: Duration = Duration::from_secs(600);

impl CniArgs {
    /// How long a thing must have been nobody's to be swept; `None` where nothing is.
    pub(crate) fn sweep_after(&self) -> Option<Duration> {
        match self.cni_sweep_after {
            Some(SweepAfter::Off) => None,
            Some(SweepAfter::Time(time)) => Some(time),
            None => self.install_cni.then_some(SWEEP_AFTER),
        }
    }
}

/// Where the plugin and its configuration go.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "CNI")]
pub(crate) struct CniFilesArgs {
    /// Directory in which the container runtime looks for plugins.
    #[arg(long, env = "ROUTELET_CNI_BIN_DIR", value_name = "DIRECTORY", default_value = "/opt/cni/bin",
        value_parser = values::absolute)]
    pub(crate) cni_bin_dir: PathBuf,

    /// Directory in which the container runtime looks for configurations. It takes the first by name.
    #[arg(long, env = "ROUTELET_CNI_CONF_DIR", value_name = "DIRECTORY", default_value = "/etc/cni/net.d",
        value_parser = values::absolute)]
    pub(crate) cni_conf_dir: PathBuf,

    /// Name of the configuration's file.
    #[arg(long, env = "ROUTELET_CNI_CONF_NAME", value_name = "NAME", default_value = "10-routelet.conflist",
        value_parser = conflist_name)]
    pub(crate) cni_conf_name: String,

    /// The plugin's program. Without it: routelet-cni beside this program.
    #[arg(long, env = "ROUTELET_CNI_BINARY", value_name = "FILE", value_parser = values::absolute)]
    pub(crate) cni_binary: Option<PathBuf>,
}

/// Everything that `routelet install-cni` can be told.
#[derive(Debug, Clone, Args)]
pub(crate) struct InstallCniArgs {
    #[command(flatten)]
    pub(crate) files: CniFilesArgs,

    /// Unix socket of the agent on this node, which knows what the configuration has to say.
    #[arg(long, env = "ROUTELET_ADMIN_SOCKET", value_name = "PATH", default_value = "/run/routelet/routelet.sock",
        value_parser = values::absolute, help_heading = "Agent")]
    pub(crate) admin_socket: PathBuf,

    /// How long to wait until the agent is ready: 0s to 24h, as in 90s, 5m or 1h; 0s asks once.
    #[arg(long, env = "ROUTELET_TIMEOUT", value_name = "TIME", default_value = "5m", value_parser = values::timeout,
        help_heading = "Agent")]
    pub(crate) timeout: Duration,

    #[command(flatten)]
    pub(crate) log: LogArgs,
}

/// Runtimes read lists of plugins only from files of this ending.
fn conflist_name(text: &str) -> Result<String, String> {
    let fits = text.ends_with(".conflist")
        && !text.starts_with('.')
        && !text.contains('/')
        && text != UNINSTALLED_CONFLIST;
    match fits {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "a file name that ends in .conflist is wanted, without '/', no hidden one, and not {UNINSTALLED_CONFLIST}"
        )),
    }
}
