//! The agent's answer to who asks what it knows: put together when asked, so that it costs nothing in between.

use std::path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use routelet_model::Resource;
use routelet_watcher::{Status, WatchState as Watch};
use tokio::sync::{mpsc, oneshot, watch};

use crate::admin::NotReady;
use crate::args::{RunArgs, Setting};
use crate::state::{DataplaneState, Moment, State, WatchState};

/// Where the dataplane's answer goes.
pub(crate) type Inquiry = oneshot::Sender<DataplaneState>;

/// Inquiries that may wait; who comes when there are more waits as well.
const WAITING: usize = 8;
/// How long the dataplane may take to come to an answer: it gives it between two batches.
const PATIENCE: Duration = Duration::from_secs(5);

/// The dataplane has not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the dataplane has not answered within {} s: it is at a long piece of work, or hangs (/livez tells)",
    PATIENCE.as_secs()
)]
pub(crate) struct NoAnswer;

/// All that is known of, and whom to ask for the rest.
#[derive(Debug)]
pub(crate) struct Knowledge {
    node: String,
    encapsulation: String,
    settings: Vec<Setting>,
    started: Instant,
    watches: Arc<Status>,
    not_ready: watch::Receiver<NotReady>,
    inquiries: mpsc::Sender<Inquiry>,
}

impl Knowledge {
    /// Of an agent that starts now. The inquiries are for the dataplane to answer.
    pub(crate) fn new(
        args: &RunArgs,
        settings: &[Setting],
        watches: Arc<Status>,
        not_ready: watch::Receiver<NotReady>,
    ) -> (Self, mpsc::Receiver<Inquiry>) {
        let (inquiries, receiver) = mpsc::channel(WAITING);
        let encapsulation = args.overlay.encapsulation.to_possible_value();
        let knowledge = Self {
            node: args.cluster.node_name.clone(),
            encapsulation: encapsulation.map_or_else(String::new, |value| value.get_name().to_owned()),
            settings: settings.iter().map(for_elsewhere).collect(),
            started: Instant::now(),
            watches,
            not_ready,
            inquiries,
        };
        (knowledge, receiver)
    }

    /// Of an agent of which nothing is known.
    #[cfg(test)]
    pub(crate) fn for_test(not_ready: watch::Receiver<NotReady>) -> (Arc<Self>, mpsc::Receiver<Inquiry>) {
        let invocation = crate::args::parse(["routelet", "run", "--node-name", "node-1"]).unwrap();
        let crate::args::Command::Run(args) = &invocation.command else {
            panic!("not run");
        };
        let watches = Arc::default();
        let (knowledge, inquiries) = Self::new(args, &invocation.settings.all, watches, not_ready);
        (Arc::new(knowledge), inquiries)
    }

    /// All that the agent knows now.
    pub(crate) async fn state(&self) -> Result<State, NoAnswer> {
        let (inquiry, answer) = oneshot::channel();
        let ask = async {
            self.inquiries.send(inquiry).await.ok()?;
            answer.await.ok()
        };
        let dataplane = tokio::time::timeout(PATIENCE, ask)
            .await
            .ok()
            .flatten()
            .ok_or(NoAnswer)?;
        let not_ready = self.not_ready.borrow().clone();
        Ok(State {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: self.node.clone(),
            encapsulation: self.encapsulation.clone(),
            settings: self.settings.clone(),
            started: Moment::of(self.started),
            ready: not_ready.is_empty(),
            not_ready,
            watches: [Resource::Pods, Resource::Nodes]
                .map(|resource| watch_state(resource, &self.watches))
                .into(),
            dataplane,
        })
    }
}

/// The setting as it holds for who runs elsewhere.
fn for_elsewhere(setting: &Setting) -> Setting {
    let value = match setting.flag.as_str() {
        "kubeconfig" => path::absolute(&setting.value)
            .ok()
            .and_then(|path| path.into_os_string().into_string().ok()),
        _ => None,
    };
    Setting {
        flag: setting.flag.clone(),
        value: value.unwrap_or_else(|| setting.value.clone()),
    }
}

fn watch_state(resource: Resource, watches: &Status) -> WatchState {
    let status = watches.get(resource);
    let (state, failing) = match status.state {
        Watch::Connecting => ("connecting", None),
        Watch::Listing => ("listing", None),
        Watch::Watching => ("watching", None),
        Watch::Failing { since, error, .. } => ("failing", Some((Moment::of(since), error))),
    };
    let (failing_since, error) = failing.unzip();
    WatchState {
        resource: resource.to_string(),
        state: state.to_owned(),
        error,
        failing_since,
        synced: status.synced,
        last_contact: status.last_contact.map(Moment::of),
        objects: status.objects,
        relists: status.relists,
    }
}
