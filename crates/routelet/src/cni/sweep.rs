//! Takes away what sandboxes that are gone have left: leases of host-local, so that the node does not run out of addresses,
//! and host veths. The runtimes do not: one that was killed, or a node that was switched off, asks for no DEL.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use routelet_cni::{Removal, read_leases, remove_lease};
use routelet_model::{IfName, Resource, given_addresses, host_veth_name};
use routelet_netlink::Setup;
use routelet_planner::Planner;
use routelet_watcher::{ErrorKind, Status, WatchState};

use super::NETWORK;
use super::leaks::{Evidence, HostVeth, Leak, Sightings};
use crate::args::RunArgs;
use crate::metrics::Metrics;

/// How long after a look that was in vain there is the next one.
const AGAIN: Duration = Duration::from_secs(1);

/// Why it could not be looked or swept.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("host-local's leases in {}: {source}", directory.display())]
    Leases { directory: PathBuf, source: io::Error },
    #[error("the host's links: {0}")]
    Kernel(#[from] routelet_netlink::Error),
}

/// What is nobody's, and what of it is to go.
pub(crate) struct Sweep {
    /// How long a thing must have been nobody's; `None` where nothing is swept.
    after: Option<Duration>,
    /// Where host-local keeps the network's leases.
    directory: PathBuf,
    interface_prefix: String,
    watches: Arc<Status>,
    metrics: Arc<Metrics>,
    host: Option<Setup>,
    sightings: Sightings,
    /// Troubles of the watch of Pods until the last look, other than those of one that goes on at once.
    troubles: u64,
    look_at: Option<Instant>,
    /// The failure that was told, as long as it lasts.
    failing: Option<String>,
}

impl Sweep {
    /// One that has seen nothing yet. `watches` says how far the API is to be believed.
    pub(crate) fn new(args: &RunArgs, watches: Arc<Status>, metrics: Arc<Metrics>) -> Self {
        Self {
            after: args.cni.sweep_after(),
            directory: args.cni.cni_lease_dir.join(NETWORK),
            interface_prefix: args.marks.interface_prefix.clone(),
            watches,
            metrics,
            host: None,
            sightings: Sightings::default(),
            troubles: 0,
            look_at: None,
            failing: None,
        }
    }

    /// Orders a look.
    pub(crate) fn audit(&mut self, now: Instant) {
        self.look_at = Some(now);
    }

    /// Looks and sweeps where it is time to; returns when there will be more to do, if that is known. To be called when
    /// the Pods are known. `abandoned` gives the host veths whose Pod is known to be gone.
    pub(crate) fn follow(
        &mut self,
        planner: &Planner,
        abandoned: impl FnOnce() -> BTreeSet<IfName>,
        now: Instant,
    ) -> Option<Instant> {
        let after = self.after?;
        if self.look_at.is_none_or(|at| at > now) {
            return self.look_at;
        }
        let watch = self.watches.get(Resource::Pods);
        // Who knows which pods there were meanwhile. The time before counts for nothing.
        let troubles = watch.errors.iter().filter(|(kind, _)| is_outage(**kind));
        let troubles = troubles.map(|(_, count)| count).sum();
        if troubles != self.troubles {
            self.troubles = troubles;
            self.sightings.clear();
        }
        self.look_at = match watch.state {
            WatchState::Watching => {
                let swept = self.sweep(planner, abandoned(), after, now);
                self.tell(swept.err());
                // What could not be swept is no reason to look all the time.
                self.sightings.next(after).map(|at| at.max(now + AGAIN))
            }
            WatchState::Connecting | WatchState::Listing => Some(now + AGAIN),
            // Audits look again.
            WatchState::Failing { .. } => None,
        };
        self.look_at
    }

    fn sweep(
        &mut self,
        planner: &Planner,
        abandoned: BTreeSet<IfName>,
        after: Duration,
        now: Instant,
    ) -> Result<(), Error> {
        let host = match &mut self.host {
            Some(host) => host,
            none => none.insert(Setup::open()?),
        };
        let in_directory = |source| Error::Leases {
            directory: self.directory.clone(),
            source,
        };
        let mut evidence = Evidence {
            leases: read_leases(&self.directory).map_err(in_directory)?,
            veths: host_veths(host)?,
            abandoned,
            ..Evidence::default()
        };
        for pod in planner.local_pods() {
            evidence.pod_addresses.extend(&pod.addresses);
            let veth = host_veth_name(&self.interface_prefix, &pod.id.namespace, &pod.id.name);
            evidence.pod_veths.extend(veth.ok());
        }
        let mut failed = None;
        let leaks = evidence.leaks(NETWORK, |address| {
            host.leads_anywhere(address).unwrap_or_else(|error| {
                failed = Some(error);
                true
            })
        });
        if let Some(error) = failed {
            return Err(error.into());
        }
        for (leak, unused) in self.sightings.note(leaks, after, now) {
            let is_dealt_with = match &leak {
                Leak::Lease(lease) => {
                    let removal = remove_lease(&self.directory, lease).map_err(in_directory)?;
                    if removal == Removal::Removed {
                        let age = SystemTime::now().duration_since(lease.written);
                        tracing::info!(
                            address = %lease.address, container = %lease.container_id, interface = %lease.ifname,
                            age_seconds = age.unwrap_or_default().as_secs(), unused_seconds = unused.as_secs(),
                            "swept a lease of host-local: no pod and no host veth has the address"
                        );
                        self.metrics.swept(&leak);
                    }
                    removal != Removal::Busy
                }
                Leak::Veth(veth) => {
                    sweep_veth(host, veth, unused)?;
                    self.metrics.swept(&leak);
                    true
                }
            };
            if is_dealt_with {
                self.sightings.remove(&leak);
            }
        }
        Ok(())
    }

    fn tell(&mut self, failure: Option<Error>) {
        let failure = failure.map(|error| error.to_string());
        if let Some(error) = &failure
            && self.failing != failure
        {
            tracing::warn!(
                %error,
                "cannot sweep what sandboxes that are gone have left, trying again: the agent must be able to write to the \
                 directory of the leases (--cni-lease-dir); --cni-sweep-after=off leaves them alone"
            );
        }
        self.failing = failure;
    }
}

/// Whether a watch that met such trouble may have left pods unknown for a while. One that is cut and goes on where it
/// was, or lists anew at once, has missed nothing; where it cannot, trouble of another kind follows.
fn is_outage(kind: ErrorKind) -> bool {
    !matches!(kind, ErrorKind::Cut | ErrorKind::Expired)
}

/// The plugin's host veths, by what is written on them.
fn host_veths(host: &mut Setup) -> Result<Vec<HostVeth>, routelet_netlink::Error> {
    let read = |link: routelet_netlink::setup::LinkState| {
        let alias = link.alias?;
        Some(HostVeth {
            name: link.name?,
            index: link.index,
            attachment: alias.parse().ok()?,
            addresses: given_addresses(&alias),
        })
    };
    Ok(host.links()?.into_iter().filter_map(read).collect())
}

/// Deletes this very veth: another may have its name by now.
fn sweep_veth(host: &mut Setup, veth: &HostVeth, unused: Duration) -> Result<(), routelet_netlink::Error> {
    host.delete_index(veth.index)?;
    let addresses: Vec<_> = veth.addresses.iter().map(ToString::to_string).collect();
    tracing::info!(
        veth = %veth.name, container = %veth.attachment.container_id, addresses = %addresses.join(","),
        unused_seconds = unused.as_secs(),
        "swept a host veth: its pod is gone from the API, and no route leads to it"
    );
    Ok(())
}
