//! The command line: every setting as a flag and as a `ROUTELET_…` variable.
//!
//! What can be wrong with a value is found here, before anything else happens. What the values mean to the
//! other crates is not this file's concern.

mod asking;
mod cleanup;
mod cni;
mod diff;
#[cfg(test)]
mod docs;
#[cfg(test)]
mod documented;
mod exit;
mod explain;
mod marks;
mod overlay_check;
mod setting;
#[cfg(test)]
mod tests;
mod trace;
mod underlay;
mod values;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;

use crate::logging::{LogFilter, LogFormat};
use exit::{
    CLEANUP_EXIT_CODES, DIFF_EXIT_CODES, EXIT_CODES, INSTALL_CNI_EXIT_CODES, LOG_LEVEL_EXIT_CODES,
    STATUS_EXIT_CODES, TRACE_EXIT_CODES,
};

pub(crate) use asking::{LogLevelArgs, Output, StatusArgs};
pub(crate) use cleanup::CleanupArgs;
pub(crate) use cni::{CniArgs, CniFilesArgs, InstallCniArgs};
pub(crate) use diff::DiffArgs;
pub(crate) use exit::{
    EXIT_ALREADY_RUNS, EXIT_BROKEN, EXIT_CANNOT_COMPARE, EXIT_DIFFERS, EXIT_FAILURE, EXIT_IN_TROUBLE,
    EXIT_NOT_READY, EXIT_STOPPED, EXIT_USAGE,
};
pub(crate) use marks::MarkArgs;
pub(crate) use overlay_check::OverlayCheckArgs;
pub(crate) use setting::{Setting, Settings};
pub(crate) use trace::{TraceArgs, TraceSettings};
pub(crate) use underlay::UnderlayArgs;
pub(crate) use values::{AdminAddress, AdminSocket, Mtu};

/// A node-local routing daemon for Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "routelet", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What the program shall do.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Command {
    /// Run the agent: watch Pods and Nodes, and keep this node's kernel in the state that they ask for.
    #[command(after_help = EXIT_CODES)]
    Run(Box<RunArgs>),
    /// Show this node at a glance, from the running agent: whether the kernel is as it should be, peers, pods, what is
    /// refused, the last repair.
    #[command(after_help = STATUS_EXIT_CODES)]
    Status(Box<StatusArgs>),
    /// Compare what the cluster asks for with what the kernel has, object by object, and change nothing. Works with an
    /// agent and without: it reads Pods, Nodes and the kernel itself. The settings are those of the agent that runs on
    /// this node; a flag goes before them, and where no agent runs, they are given as to run.
    #[command(after_help = DIFF_EXIT_CODES)]
    Diff(Box<DiffArgs>),
    /// Show what the running agent logs, or change it until it starts anew.
    #[command(after_help = LOG_LEVEL_EXIT_CODES)]
    LogLevel(Box<LogLevelArgs>),
    /// Put the CNI plugin and its configuration where the container runtime looks for them, as soon as the agent on this
    /// node is ready. The agent does the same with --install-cni, and keeps them there.
    #[command(after_help = INSTALL_CNI_EXIT_CODES)]
    InstallCni(Box<InstallCniArgs>),
    /// Take away all that the agent and the CNI plugin's installation have put on this node. The agent must not run.
    #[command(after_help = CLEANUP_EXIT_CODES)]
    Cleanup(Box<CleanupArgs>),
    /// Follow a packet from a pod of this node, hop by hop, check each hop against the kernel, and name the first that
    /// breaks. Works without the agent, by the kernel alone, where a pod of another node is given by its address. The
    /// settings are those of the agent that runs on this node; a flag goes before them, and where no agent runs, they are given
    /// as to run.
    #[command(after_help = TRACE_EXIT_CODES)]
    Trace(Box<TraceArgs>),
}

/// The command line, read.
#[derive(Debug, Clone)]
pub(crate) struct Invocation {
    /// What to do.
    pub(crate) command: Command,
    /// Its settings.
    pub(crate) settings: Settings,
}

/// Everything that `routelet run` can be told.
#[derive(Debug, Clone, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    #[command(flatten)]
    pub(crate) underlay: UnderlayArgs,
    #[command(flatten)]
    pub(crate) overlay: OverlayArgs,
    #[command(flatten)]
    pub(crate) overlay_check: OverlayCheckArgs,
    #[command(flatten)]
    pub(crate) nft: NftArgs,
    #[command(flatten)]
    pub(crate) marks: MarkArgs,
    #[command(flatten)]
    pub(crate) kernel: KernelArgs,
    #[command(flatten)]
    pub(crate) cni: CniArgs,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
}

/// Who this node is, and where the Kubernetes API is.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Cluster")]
pub(crate) struct ClusterArgs {
    /// Name of this node's Node object; in a pod, from the downward API's spec.nodeName.
    #[arg(long, env = "ROUTELET_NODE_NAME", value_name = "NAME", value_parser = values::node_name)]
    pub(crate) node_name: String,

    #[command(flatten)]
    pub(crate) api: ApiArgs,

    /// Write the condition NetworkUnavailable of this node's Node object: True while a new node has no network yet, so
    /// that no pods are sent to it, and False once it has one. Takes the permission to patch nodes/status.
    #[arg(long, env = "ROUTELET_NODE_CONDITION", value_name = "true|false", default_value = "false",
        default_missing_value = "true", num_args = 0..=1, require_equals = true,
        action = clap::ArgAction::Set)]
    pub(crate) node_condition: bool,
}

/// Where the Kubernetes API is.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Cluster")]
pub(crate) struct ApiArgs {
    /// Kubeconfig file to reach the API with. Without it: the service account of the pod.
    #[arg(long, env = "ROUTELET_KUBECONFIG", value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,

    /// Host name or address of the API server, in place of the one that the kubeconfig or the pod's environment
    /// names; needed where the API's service address works only once kube-proxy runs.
    #[arg(long, env = "ROUTELET_API_SERVER_HOST", value_name = "HOST", value_parser = values::host)]
    pub(crate) api_server_host: Option<String>,

    /// Port of the API server, in place of the one that the kubeconfig or the pod's environment names.
    #[arg(long, env = "ROUTELET_API_SERVER_PORT", value_name = "PORT", value_parser = values::port)]
    pub(crate) api_server_port: Option<u16>,
}

/// How packets reach the pods of other nodes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Overlay")]
pub(crate) struct OverlayArgs {
    /// How packets to the pods of other nodes travel; docs/modes.md compares the ways.
    #[arg(
        long,
        env = "ROUTELET_ENCAPSULATION",
        value_name = "HOW",
        value_enum,
        default_value = "vxlan"
    )]
    pub(crate) encapsulation: Encapsulation,

    /// VXLAN network identifier, the same on all nodes: 0 to 16777215. IPv6 pods over an IPv4 underlay (or the other
    /// way round) have a device with the next number.
    #[arg(long, env = "ROUTELET_VXLAN_VNI", value_name = "NUMBER", default_value = "4096",
        value_parser = values::vni)]
    pub(crate) vxlan_vni: u32,

    /// UDP port of the VXLAN packets, the same on all nodes.
    #[arg(long, env = "ROUTELET_VXLAN_PORT", value_name = "PORT", default_value = "4789",
        value_parser = values::port)]
    pub(crate) vxlan_port: u16,

    /// TX checksum offload of the VXLAN devices: switched on or off, or left as it is where the kernel is not known to
    /// spoil checksums (before Linux 5.7 it is switched off).
    #[arg(
        long,
        env = "ROUTELET_VXLAN_CHECKSUM_OFFLOAD",
        value_name = "WHETHER",
        value_enum,
        default_value = "auto"
    )]
    pub(crate) vxlan_checksum_offload: ChecksumOffload,

    /// MTU of the tunnel devices, and of pods, in bytes, 576 to 65535 (IPv6 needs 1280), or "auto": what the device below
    /// leaves, followed as it changes.
    #[arg(long, env = "ROUTELET_MTU", value_name = "auto|BYTES", default_value = "auto")]
    pub(crate) mtu: Mtu,
}

/// What the agent's nft table does, beside keeping out what pods and strangers must not send.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Masquerade")]
pub(crate) struct NftArgs {
    /// Give packets that leave the cluster from a pod of this node the node's own address, so that answers find
    /// back.
    #[arg(long, env = "ROUTELET_MASQUERADE", value_name = "true|false", default_value = "true",
        default_missing_value = "true", num_args = 0..=1, require_equals = true,
        action = clap::ArgAction::Set)]
    pub(crate) masquerade: bool,

    /// Destinations that pods keep their own address towards, beside pods and nodes: networks that know the way
    /// back to the pods.
    #[arg(long, env = "ROUTELET_MASQUERADE_EXCEPT", value_name = "CIDR,...", value_delimiter = ',',
        value_parser = values::cidr)]
    pub(crate) masquerade_except: Vec<IpNet>,

    /// The cluster's pod networks, the controller manager's --cluster-cidr: pods keep their own address towards
    /// them, also where no node has the subnet yet.
    #[arg(long, env = "ROUTELET_POD_CIDRS", value_name = "CIDR,...", value_delimiter = ',',
        value_parser = values::cidr)]
    pub(crate) pod_cidrs: Vec<IpNet>,
}

/// How the agent speaks with the kernel.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Kernel")]
pub(crate) struct KernelArgs {
    /// Nexthop objects, which keep clusters of many nodes fast: used where the kernel has them (Linux 5.3), or
    /// never.
    #[arg(
        long,
        env = "ROUTELET_NEXTHOP_OBJECTS",
        value_name = "WHEN",
        value_enum,
        default_value = "auto"
    )]
    pub(crate) nexthop_objects: NexthopObjects,

    /// Route pod addresses that lie outside this node's pod subnets, too. Whoever may write a Pod's status can
    /// then draw the traffic of any address to it.
    #[arg(long, env = "ROUTELET_ALLOW_ANY_POD_ADDRESS", value_name = "true|false", default_value = "false",
        default_missing_value = "true", num_args = 0..=1, require_equals = true,
        action = clap::ArgAction::Set)]
    pub(crate) allow_any_pod_address: bool,

    /// Let packets from and to this node's pod subnets through chains of nftables (iptables-nft's included) that drop by
    /// policy what the host forwards, as Docker sets them up. The agent puts rules at the head of these chains, and
    /// takes them away when they are needed no more. Without it, such a chain is only told of.
    #[arg(long, env = "ROUTELET_OPEN_FORWARD", value_name = "true|false", default_value = "false",
        default_missing_value = "true", num_args = 0..=1, require_equals = true,
        action = clap::ArgAction::Set)]
    pub(crate) open_forward: bool,

    /// Receive buffer for the kernel's notifications, in bytes: 65536 to 1073741824. A larger one outlasts larger
    /// bursts before everything has to be read anew.
    #[arg(long, env = "ROUTELET_RECEIVE_BUFFER", value_name = "BYTES", default_value = "8388608",
        value_parser = values::receive_buffer)]
    pub(crate) receive_buffer: u32,

    /// How often the kernel is read in full and compared, though nothing hints at a difference: 1s to 24h, as
    /// in 90s, 5m or 1h. Each time is drawn anew around this, so that nodes don't do it at once.
    #[arg(long, env = "ROUTELET_AUDIT_INTERVAL", value_name = "TIME", default_value = "60s",
        value_parser = values::audit_interval)]
    pub(crate) audit_interval: Duration,
}

/// Probes and metrics.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Admin")]
pub(crate) struct AdminArgs {
    /// Where to serve /livez, /readyz and /metrics: ADDRESS:PORT, or "off".
    #[arg(
        long,
        env = "ROUTELET_ADMIN_ADDRESS",
        value_name = "ADDRESS:PORT|off",
        default_value = "127.0.0.1:9099"
    )]
    pub(crate) admin_address: AdminAddress,

    /// Unix socket that serves the same to root on this node, and beside it the plugin's configuration (/cni), all that the
    /// agent knows (/state) and what it logs (/log-level): a path, or "off". The CNI plugin and the other subcommands ask here.
    #[arg(
        long,
        env = "ROUTELET_ADMIN_SOCKET",
        value_name = "PATH|off",
        default_value = "/run/routelet/routelet.sock"
    )]
    pub(crate) admin_socket: AdminSocket,

    #[command(flatten)]
    pub(crate) log: LogArgs,
}

/// What the program tells, and how.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Log")]
pub(crate) struct LogArgs {
    /// Format of the log: text for people, json for machines.
    #[arg(
        long,
        env = "ROUTELET_LOG_FORMAT",
        value_name = "FORMAT",
        value_enum,
        default_value = "text"
    )]
    pub(crate) log_format: LogFormat,

    /// What to log: a level (off, error, warn, info, debug, trace) for the agent's own messages; after commas
    /// TARGET=LEVEL for a module or a library, as in info,routelet_watcher=debug,kube_client=debug.
    #[arg(
        long,
        env = "ROUTELET_LOG_LEVEL",
        value_name = "FILTER",
        default_value = "info"
    )]
    pub(crate) log_level: LogFilter,
}

/// How packets to the pods of other nodes travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Encapsulation {
    /// In VXLAN, always.
    Vxlan,
    /// In VXLAN, but straight to nodes of this node's own network.
    VxlanCrossSubnet,
    /// In IPIP, always; IPv4 only.
    Ipip,
    /// In IPIP, but straight to nodes of this node's own network; by the tunnel IPv4 only.
    IpipCrossSubnet,
    /// As they are: straight to nodes of this node's own network; a BGP daemon brings the routes to others.
    None,
}

/// What becomes of the VXLAN devices' TX checksum offload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ChecksumOffload {
    /// Off where the kernel is known to spoil checksums, else as it is.
    Auto,
    /// On.
    On,
    /// Off.
    Off,
}

/// Whether nexthop objects are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum NexthopObjects {
    /// Where the kernel has them.
    Auto,
    /// Never: each route names its gateway.
    Off,
}

/// Reads a command line, the program's name first, and the `ROUTELET_…` variables. The error may also be a
/// demand for help or the version; its `exit` prints it and ends the program with the right code.
pub(crate) fn parse<I, T>(words: I) -> Result<Invocation, clap::Error>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString>,
{
    let words: Vec<OsString> = words.into_iter().map(Into::into).collect();
    let mut cli = Cli::command();
    let read = || -> Result<Invocation, clap::Error> {
        let matches = cli.try_get_matches_from_mut(&words)?;
        let command = Cli::from_arg_matches(&matches)?.command;
        let checked = match &command {
            Command::Run(args) => args.check(),
            Command::LogLevel(args) => args.check(),
            _ => Ok(()),
        };
        checked.map_err(|fault| cli.error(ErrorKind::ValueValidation, fault))?;
        Ok(Invocation {
            command,
            settings: Settings::of(&cli, &matches),
        })
    }();
    read.map_err(|error| explain::name_variables(error, &Cli::command(), &words))
}

impl RunArgs {
    /// What is wrong between settings that are right each by itself.
    fn check(&self) -> Result<(), String> {
        let (v4, v6) = (self.marks.vxlan_device, self.marks.vxlan_device_v6);
        if v4 == v6 {
            return Err(format!(
                "--vxlan-device and --vxlan-device-v6 both name {v4}: each family needs a device of its own"
            ));
        }
        let prefix = &self.marks.interface_prefix;
        for (flag, device) in [("--vxlan-device", v4), ("--vxlan-device-v6", v6)] {
            if device.as_str().starts_with(prefix) {
                return Err(format!(
                    "{flag} {device} begins with --interface-prefix {prefix}, which marks host veths: \
                     choose another name or another prefix"
                ));
            }
        }
        Ok(())
    }
}
