//! The agent: watcher, dataplane and admin endpoint, put together.

use std::sync::Arc;

use anyhow::{Context, bail};
use routelet_model::Resource;
use routelet_planner::NoPodNetwork;
use routelet_watcher::events::Publisher;
use routelet_watcher::{ApiSettings, Status, condition};
use tokio::sync::{mpsc, watch};

use crate::admin::{self, NotReady};
use crate::args::{AdminAddress, AdminSocket, RunArgs, Settings};
use crate::cni::{self, Cni, Installation, Sweep};
use crate::dataplane::{Dataplane, Inputs};
use crate::inquiry::Knowledge;
use crate::instance::Instance;
use crate::liveness::Liveness;
use crate::log_level::LogControl;
use crate::metrics::Metrics;
use crate::overlay_check;
use crate::signals::StopSignals;
use crate::story::Story;

/// Cluster events between watcher and dataplane; a full channel holds the watcher up.
const CHANNEL: usize = 4096;

/// Runs the agent until a signal stops it.
pub(crate) async fn run(args: &RunArgs, settings: &Settings, log: LogControl) -> anyhow::Result<()> {
    let mut signals = StopSignals::listen()?;
    let _instance = Instance::acquire()?;
    let changed: Vec<_> = settings.changed.iter().map(ToString::to_string).collect();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        settings = changed.join(" "),
        "routelet starts"
    );

    let metrics = Arc::new(Metrics::new());
    let watches = Arc::new(Status::default());
    let (health, health_seen) = watch::channel(vec!["the agent has just started".to_owned()]);
    let health_to_check = health_seen.clone();
    let liveness = Liveness::default();
    let refresh = {
        let (metrics, watches) = (metrics.clone(), watches.clone());
        move || {
            for resource in [Resource::Pods, Resource::Nodes] {
                metrics.set_watch(resource, &watches.get(resource));
            }
            metrics.encode()
        }
    };
    let (configuration, configuration_seen) = watch::channel(Err(NoPodNetwork::Unknown));
    let (knowledge, inquiries) = Knowledge::new(args, &settings.all, watches.clone(), health_seen.clone());
    let router = admin::router(liveness.clone(), health_seen.clone(), refresh);
    if let AdminSocket::At(path) = &args.admin.admin_socket {
        let listener = admin::bind_socket(path)?;
        let files = args.cni.files.clone();
        let text = move || match &*configuration_seen.borrow() {
            Ok(list) => Ok(cni::text(&files, list)),
            Err(reason) => Err(reason.to_string()),
        };
        let router = admin::for_root(
            router.clone(),
            health_seen.clone(),
            text,
            Arc::new(knowledge),
            log,
        );
        tokio::spawn(axum::serve(listener, router).into_future());
    }
    if let AdminAddress::At(address) = args.admin.admin_address {
        let listener = admin::bind(address).await?;
        tracing::info!(%address, "probes and metrics are served");
        tokio::spawn(axum::serve(listener, router).into_future());
    }

    let api = ApiSettings::from(&args.cluster.api);
    let client = routelet_watcher::connect(&api).await?;
    let (publisher, events) = Publisher::new(client.clone(), args.cluster.node_name.clone());
    tokio::spawn(events);
    if args.cluster.node_condition {
        let node_name = args.cluster.node_name.clone();
        tokio::spawn(condition::keep(client.clone(), node_name, ready(health_seen)));
    }

    let (told, cluster) = mpsc::channel(CHANNEL);
    let inputs = Inputs {
        cluster,
        watches: watches.clone(),
        inquiries,
    };
    let story = Story::new(metrics.clone(), publisher);
    let cni = Cni {
        installation: Installation::new(args, configuration),
        sweep: Sweep::new(args, watches.clone(), metrics.clone()),
    };
    let overlay_check = args.overlay_check.overlay_check.rate();
    let overlay_check =
        overlay_check.map(|rate| overlay_check::start(rate, health_to_check, metrics.clone()));
    let dataplane = Dataplane::open(args, inputs, health, liveness, metrics, story, cni)?
        .with_overlay_check(overlay_check);
    let host = dataplane.host_addresses().into();
    let dataplane = dataplane.spawn().context("cannot start the dataplane's thread")?;

    tokio::select! {
        () = routelet_watcher::run(client, args.cluster.node_name.clone(), told, watches, host) => {
            bail!("the watcher has ended");
        }
        _ = dataplane => bail!("the dataplane's thread has ended"),
        signal = signals.received() => {
            tracing::info!(signal, "routelet stops and leaves the kernel as it is");
        }
    }
    Ok(())
}

/// Resolves once nothing stands in the way of the node's network.
async fn ready(mut health: watch::Receiver<NotReady>) {
    if health.wait_for(Vec::is_empty).await.is_err() {
        // The dataplane has ended without.
        std::future::pending::<()>().await;
    }
}
