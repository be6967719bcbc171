//! The CNI plugin and its configuration on the node, as the agent knows the node: told to who asks, and, where it is to,
//! put where the container runtime looks for them and kept there.

mod files;
pub(crate) mod install;
mod leaks;
mod sweep;

use std::io;
use std::time::{Duration, Instant};

use routelet_cni::{Conflist, DEFAULT_SOCKET};
use routelet_netlink::DirectoryWatch;
use routelet_planner::{NoPodNetwork, Planner};
use tokio::sync::watch;

use crate::args::{AdminSocket, CniArgs, CniFilesArgs, RunArgs};

pub(crate) use leaks::Leak;
pub(crate) use sweep::Sweep;

/// The network's name, by which IPAM plugins keep leases.
const NETWORK: &str = "k8s-pod-network";
/// How long after files were written others' changes are let go by: whoever keeps changing them is not fought in a loop.
const REST: Duration = Duration::from_secs(1);
/// How long after a failure it is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// The configuration that suits the node, or why there is none.
pub(crate) type Configuration = Result<Conflist, NoPodNetwork>;

/// The text of a configuration, as the agent would write it now.
pub(crate) fn text(args: &CniFilesArgs, list: &Conflist) -> String {
    files::with_port_maps(args, list).to_text()
}

/// What the agent does for the CNI plugin on this node.
pub(crate) struct Cni {
    pub(crate) installation: Installation,
    pub(crate) sweep: Sweep,
}

impl Cni {
    /// Orders a look at everything.
    pub(crate) fn audit(&mut self, now: Instant) {
        self.installation.audit(now);
        self.sweep.audit(now);
    }
}

/// What is installed on this node.
pub(crate) struct Installation {
    args: CniArgs,
    /// The configuration, but for what the node says.
    conflist: Conflist,
    told: watch::Sender<Configuration>,
    /// Why there is none for pods at present.
    refusal: Option<NoPodNetwork>,
    watch: Option<DirectoryWatch>,
    look_at: Option<Instant>,
    rest_until: Option<Instant>,
    /// The failure that was told, as long as it lasts.
    failing: Option<String>,
    /// The configuration that goes before ours, as it was told.
    rival: Option<String>,
}

impl Installation {
    /// Of nothing yet. What the configuration is goes to `told`.
    pub(crate) fn new(args: &RunArgs, told: watch::Sender<Configuration>) -> Self {
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
                interface_prefix: args.marks.interface_prefix.clone(),
                route_protocol: args.marks.route_protocol,
                leases: args.cni.cni_lease_dir.clone(),
                port_maps: false,
            },
            told,
            refusal: None,
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
        match planner.pod_network() {
            Ok(pods) => {
                let is_news = pods.mtu != self.conflist.mtu || pods.subnets != self.conflist.subnets;
                if self.refusal.take().is_some() || is_news {
                    self.conflist.mtu = pods.mtu;
                    self.conflist.subnets = pods.subnets;
                    _ = self.told.send_replace(Ok(self.conflist.clone()));
                    self.look_at = Some(now);
                }
            }
            Err(NoPodNetwork::Unknown) => return None,
            Err(refusal) => {
                if self.refusal.replace(refusal) != Some(refusal) {
                    _ = self.told.send_replace(Err(refusal));
                    self.look_at = Some(now);
                }
            }
        }
        if !self.args.install_cni {
            return None;
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
                    "cannot install the CNI plugin, trying again: {}", files::REMEDY
                );
            }
            self.failing = failure;
        }
        self.look_at
    }

    fn look(&mut self, now: Instant) -> io::Result<()> {
        self.watch_directories();
        let written = match self.refusal {
            None => files::install(&self.args.files, &self.conflist)?,
            Some(refusal) => files::refuse(&self.args.files, &refusal.to_string())?,
        };
        if written {
            self.rest_until = Some(now + REST);
        }
        let rival = files::rival(&self.args.files)?;
        if let Some(name) = &rival
            && self.rival != rival
        {
            files::tell_rival(&self.args.files, name);
        }
        self.rival = rival;
        Ok(())
    }

    /// The watch is taken anew each time: a directory that was removed and made again is another one. Without a watch,
    /// audits see what it would have told.
    fn watch_directories(&mut self) {
        if self.watch.is_none() {
            self.watch = DirectoryWatch::open().ok();
        }
        if let Some(watch) = &self.watch {
            for directory in [&self.args.files.cni_bin_dir, &self.args.files.cni_conf_dir] {
                // What fails here fails in the writing as well, which tells.
                let _ = watch.add(directory);
            }
        }
    }
}
