//! The CNI plugin and its configuration, put where the container runtime looks for them and kept as the agent knows
//! the node.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use routelet_cni::install::{self, CONFLIST_MODE};
use routelet_cni::{Conflist, DEFAULT_SOCKET, PLUGIN};
use routelet_netlink::DirectoryWatch;
use routelet_planner::Planner;

use crate::args::{AdminSocket, CniArgs, RunArgs};

/// The network's name, by which IPAM plugins keep leases.
const NETWORK: &str = "k8s-pod-network";
/// How long after files were written others' changes are let go by: whoever keeps changing them is not fought in a loop.
const REST: Duration = Duration::from_secs(1);
/// How long after a failure it is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// Endings of the files that container runtimes read as configurations.
const ENDINGS: [&str; 3] = ["conf", "conflist", "json"];

/// What is installed on this node.
pub(crate) struct Installation {
    args: CniArgs,
    /// The configuration, but for what the node says.
    conflist: Conflist,
    watch: Option<DirectoryWatch>,
    look_at: Option<Instant>,
    rest_until: Option<Instant>,
    /// The failure that was told, as long as it lasts.
    failing: Option<String>,
    /// The configuration that goes before ours, as it was told.
    rival: Option<String>,
}

impl Installation {
    /// Of nothing yet.
    pub(crate) fn new(args: &RunArgs) -> Self {
        let socket = match &args.admin.admin_socket {
            AdminSocket::At(path) => path.clone(),
            AdminSocket::Off => DEFAULT_SOCKET.into(),
        };
        Self {
            args: args.cni.clone(),
            conflist: Conflist {
                name: NETWORK.to_owned(),
                mtu: 0,
                subnets: Vec::new(),
                socket,
                interface_prefix: args.kernel.interface_prefix.clone(),
                route_protocol: args.kernel.route_protocol,
                port_maps: false,
            },
            watch: None,
            look_at: None,
            rest_until: None,
            failing: None,
            rival: None,
        }
    }

    /// Waits until something has changed in the directories.
    pub(crate) async fn changed(&mut self) {
        let Some(watch) = &mut self.watch else {
            return std::future::pending().await;
        };
        if watch.changed().await.is_err() {
            // Audits go on without it.
            self.watch = None;
            return;
        }
        let now = Instant::now();
        let look_at = self.rest_until.map_or(now, |rest| rest.max(now));
        self.look_at.get_or_insert(look_at);
    }

    /// Orders a look, though nothing hints at a change.
    pub(crate) fn audit(&mut self, now: Instant) {
        self.look_at = Some(now);
    }

    /// Looks and writes where something has changed; returns when there will be more to do, if that is known. To be
    /// called when the node's network is ready, for from then on the runtime starts pods.
    pub(crate) fn follow(&mut self, planner: &Planner, now: Instant) -> Option<Instant> {
        if !self.args.install_cni {
            return None;
        }
        let (node, mtu) = (planner.own_node()?, planner.pod_mtu()?);
        if mtu != self.conflist.mtu || node.pod_subnets != self.conflist.subnets {
            self.conflist.mtu = mtu;
            self.conflist.subnets.clone_from(&node.pod_subnets);
            self.look_at = Some(now);
        }
        if self.look_at.is_some_and(|at| at <= now) {
            let looked = self.look(now);
            self.look_at = looked.is_err().then(|| now + AGAIN);
            let failure = looked.err().map(|error| error.to_string());
            if let Some(error) = &failure
                && self.failing != failure
            {
                tracing::warn!(
                    %error,
                    "cannot install the CNI plugin, trying again: the directories must be there and writable to the \
                     agent (--cni-bin-dir, --cni-conf-dir), and the program readable (--cni-binary)"
                );
            }
            self.failing = failure;
        }
        self.look_at
    }

    /// The program first: from the configuration on the runtime wants to run it.
    fn look(&mut self, now: Instant) -> io::Result<()> {
        self.watch_directories();
        let program = match &self.args.cni_binary {
            Some(program) => program.clone(),
            None => std::env::current_exe()?.with_file_name(PLUGIN),
        };
        let (programs, file) = (&self.args.cni_bin_dir, self.file());
        if install::install_binary(&program, programs)? {
            self.rest_until = Some(now + REST);
            tracing::info!(directory = %programs.display(), "installed the CNI plugin");
        }
        // A list with a plugin that is not there would start no pod at all.
        self.conflist.port_maps = programs.join("portmap").exists();
        if install::write_if_different(&file, self.conflist.to_text().as_bytes(), CONFLIST_MODE)? {
            self.rest_until = Some(now + REST);
            let subnets: Vec<_> = self.conflist.subnets.iter().map(ToString::to_string).collect();
            tracing::info!(
                file = %file.display(), mtu = self.conflist.mtu, subnets = subnets.join(","),
                port_maps = self.conflist.port_maps, "wrote the CNI configuration"
            );
        }
        self.look_for_rival()
    }

    fn file(&self) -> PathBuf {
        self.args.cni_conf_dir.join(&self.args.cni_conf_name)
    }

    /// The watch is taken anew each time: a directory that was removed and made again is another one. Without a watch,
    /// audits see what it would have told.
    fn watch_directories(&mut self) {
        if self.watch.is_none() {
            self.watch = DirectoryWatch::open().ok();
        }
        if let Some(watch) = &self.watch {
            for directory in [&self.args.cni_bin_dir, &self.args.cni_conf_dir] {
                // What fails here fails in the writing as well, which tells.
                let _ = watch.add(directory);
            }
        }
    }

    fn look_for_rival(&mut self) -> io::Result<()> {
        let mut first: Option<String> = None;
        for entry in fs::read_dir(&self.args.cni_conf_dir)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let ending = Path::new(&name).extension().and_then(|ending| ending.to_str());
            let is_read = ending.is_some_and(|ending| ENDINGS.contains(&ending));
            if is_read && name < self.args.cni_conf_name && first.as_ref().is_none_or(|first| name < *first) {
                first = Some(name);
            }
        }
        if let Some(name) = &first
            && self.rival != first
        {
            tracing::warn!(
                file = %self.args.cni_conf_dir.join(name).display(),
                "another CNI configuration goes before {}, and the container runtime uses it for the pods: remove it, \
                 or choose a --cni-conf-name that comes first", self.args.cni_conf_name
            );
        }
        self.rival = first;
        Ok(())
    }
}
