//! `routelet diff`: what the cluster asks for against what the kernel has, object by object, and nothing is written.
//!
//! The wanted objects are derived here as the agent derives them, from the API and the kernel, with an agent or without:
//! so an agent that is mistaken shows.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use routelet_model::{ClusterEvent, Key, Object, Resource};
use routelet_netlink::Kernel;
use routelet_planner::{Missing, Plan, Planner};
use routelet_reconciler::Reconciler;
use routelet_watcher::{ApiSettings, HostAddresses, Status, WatchState};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::args::{AdminSocket, DiffArgs, EXIT_DIFFERS, EXIT_STOPPED, EXIT_USAGE, Output, RunArgs, Setting};
use crate::ask::table::Table;
use crate::ask::{print, state};
use crate::logging::{self, LogFormat};
use crate::node::{self, Opened};

/// Cluster events between watcher and planner.
const CHANNEL: usize = 4096;
/// Beside an agent at work, only what still differs after this time is a difference: list and look are not of one moment.
const SECOND_LOOK: Duration = Duration::from_secs(1);
/// How often the kernel is read where a dump of it is cut short by others' changes.
const LOOKS: u32 = 10;

/// The wanted objects are not complete, so that nothing can be compared with them.
#[derive(Debug, thiserror::Error)]
#[error("not all is known that the wanted objects follow from: {}", join(.0))]
pub(crate) struct NotAllKnown(Vec<Missing>);

fn join(missing: &[Missing]) -> String {
    let reasons: Vec<_> = missing.iter().map(ToString::to_string).collect();
    reasons.join("; ")
}

/// What was found.
#[derive(Debug, Serialize)]
struct Found {
    /// Where the settings come from: `agent` or `flags`.
    settings: &'static str,
    /// How many objects are wanted.
    wanted: usize,
    /// What differs, in the order in which objects are made.
    differences: Vec<Difference>,
}

/// An object that is not as it is wanted.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Difference {
    #[serde(skip)]
    key: Key,
    kind: &'static str,
    object: String,
    /// `missing`, `differs` or `surplus`.
    difference: &'static str,
    wanted: Option<String>,
    actual: Option<String>,
}

/// Compares and shows; the exit code.
pub(crate) fn run(args: &DiffArgs) -> anyhow::Result<u8> {
    let quiet = || "warn".parse().map_err(anyhow::Error::msg);
    let filter = args.log_level.clone().map_or_else(quiet, Ok)?;
    logging::init(LogFormat::Text, filter)?;
    let of_agent = settings_of_agent(&args.admin_socket)?;
    let settings = match args.settings(of_agent.as_deref().unwrap_or_default()) {
        Ok(settings) => settings,
        Err(error) => {
            error.print()?;
            return Ok(EXIT_USAGE);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (wanted, differences) = runtime.block_on(compare(&settings, args.timeout, of_agent.is_some()))?;
    let differs = !differences.is_empty();
    print(&match args.output {
        Output::Table if differs => table(&differences),
        Output::Table => String::new(),
        Output::Json => {
            let settings = if of_agent.is_some() { "agent" } else { "flags" };
            let found = Found {
                settings,
                wanted,
                differences,
            };
            format!("{}\n", serde_json::to_string(&found)?)
        }
    })?;
    Ok(if differs { EXIT_DIFFERS } else { EXIT_STOPPED })
}

/// The settings of the agent that runs here, if one does.
fn settings_of_agent(socket: &AdminSocket) -> anyhow::Result<Option<Vec<Setting>>> {
    let AdminSocket::At(socket) = socket else {
        return Ok(None);
    };
    match state(socket) {
        Ok((state, _)) => Ok(Some(state.settings)),
        Err(error) if error.is_no_agent() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The number of wanted objects, and what differs.
async fn compare(
    settings: &RunArgs,
    patience: Duration,
    agent_runs: bool,
) -> anyhow::Result<(usize, Vec<Difference>)> {
    let give_up = Instant::now() + patience;
    let mut view = View::open(settings).await?;
    view.follow_until_synced(give_up).await?;
    view.look().await?;
    let missing = view.planner.missing();
    if !missing.is_empty() {
        return Err(NotAllKnown(missing).into());
    }
    let mut differences = view.differences();
    if agent_runs && !differences.is_empty() {
        view.follow_until(Instant::now() + SECOND_LOOK).await;
        view.look().await?;
        let still: BTreeSet<_> = view.differences().into_iter().collect();
        differences.retain(|difference| still.contains(difference));
    }
    Ok((view.wanted.len(), differences))
}

/// The cluster and this node's kernel.
struct View {
    events: mpsc::Receiver<ClusterEvent>,
    watches: Arc<Status>,
    planner: Planner,
    plan: Plan,
    wanted: BTreeSet<Key>,
    reconciler: Reconciler<Kernel>,
}

impl View {
    async fn open(settings: &RunArgs) -> anyhow::Result<Self> {
        let Opened {
            kernel,
            ownership,
            planner,
        } = node::open(settings)?;
        let client = routelet_watcher::connect(&ApiSettings::from(&settings.cluster.api)).await?;
        let (told, events) = mpsc::channel(CHANNEL);
        let watches = Arc::new(Status::default());
        let node_name = settings.cluster.node_name.clone();
        let host = HostAddresses::unknown();
        tokio::spawn(routelet_watcher::run(
            client,
            node_name,
            told,
            watches.clone(),
            host,
        ));
        Ok(Self {
            events,
            watches,
            planner: Planner::new(planner),
            plan: Plan::default(),
            wanted: BTreeSet::new(),
            reconciler: Reconciler::new(kernel, ownership, std::time::Instant::now()),
        })
    }

    /// Takes the cluster's events in until both lists are complete.
    async fn follow_until_synced(&mut self, give_up: Instant) -> anyhow::Result<()> {
        let unsynced = |planner: &Planner| {
            let missing = planner.missing();
            missing.contains(&Missing::PodsNotSynced) || missing.contains(&Missing::NodesNotSynced)
        };
        while unsynced(&self.planner) {
            match timeout_at(give_up, self.events.recv()).await {
                Ok(Some(event)) => self.planner.cluster(event, &mut self.plan),
                Ok(None) => bail!("the watcher has ended"),
                Err(_) => bail!(
                    "Pods and Nodes could not be listed within --timeout: {}",
                    self.why_unsynced()
                ),
            }
        }
        Ok(())
    }

    fn why_unsynced(&self) -> String {
        let unsynced = [Resource::Pods, Resource::Nodes]
            .map(|resource| (resource, self.watches.get(resource)))
            .into_iter()
            .filter(|(_, status)| !status.synced);
        let reasons = unsynced.map(|(resource, status)| match status.state {
            WatchState::Failing { error, .. } => format!("{resource}: {error}"),
            _ => format!("{resource}: the API server has not answered to the end"),
        });
        reasons.collect::<Vec<_>>().join("; ")
    }

    /// Takes the cluster's events in for a while.
    async fn follow_until(&mut self, end: Instant) {
        while let Ok(Some(event)) = timeout_at(end, self.events.recv()).await {
            self.planner.cluster(event, &mut self.plan);
        }
    }

    /// Reads the kernel.
    async fn look(&mut self) -> anyhow::Result<()> {
        let host = self.reconciler.host_if_changed(std::time::Instant::now());
        if let Some(host) = host.context("cannot read the host's links and addresses")? {
            self.planner.host(&host, &mut self.plan);
        }
        for (key, object) in self.plan.changes.drain(..) {
            match &object {
                Some(_) => self.wanted.insert(key),
                None => self.wanted.remove(&key),
            };
            self.reconciler.want(key, object);
        }
        self.plan.notices.clear();
        self.reconciler.allow_removal();
        for _ in 0..LOOKS {
            if self.reconciler.look(std::time::Instant::now()) {
                return Ok(());
            }
            // Whoever cut the dump short has the processor.
            tokio::task::yield_now().await;
        }
        let failed = self.reconciler.take_report().failed_reads;
        let reason = failed.last().map_or_else(
            || "others keep changing it while it is read".to_owned(),
            |(kind, error)| format!("{kind}: {error}"),
        );
        bail!("cannot read the kernel's state: {reason}");
    }

    fn differences(&self) -> Vec<Difference> {
        let wanted = self.reconciler.differences();
        let wanted = wanted.map(|(key, wanted, actual)| difference(*key, Some(wanted), actual));
        let surplus = self.reconciler.surplus();
        let surplus = surplus.map(|(key, actual)| difference(*key, None, Some(actual)));
        let mut differences: Vec<_> = wanted.chain(surplus).collect();
        differences.sort_unstable();
        differences
    }
}

fn difference(key: Key, wanted: Option<&Object>, actual: Option<&Object>) -> Difference {
    Difference {
        key,
        kind: key.kind().as_str(),
        object: key.to_string(),
        difference: match (wanted, actual) {
            (Some(_), None) => "missing",
            (Some(_), Some(_)) => "differs",
            (None, _) => "surplus",
        },
        wanted: wanted.map(ToString::to_string),
        actual: actual.map(ToString::to_string),
    }
}

fn table(differences: &[Difference]) -> String {
    let mut table = Table::new(["OBJECT", "DIFFERENCE", "WANTED", "ACTUAL"]);
    for row in differences {
        table.row([
            row.object.clone(),
            row.difference.to_owned(),
            row.wanted.clone().unwrap_or_default(),
            row.actual.clone().unwrap_or_default(),
        ]);
    }
    table.to_string()
}
