//! The watches over real HTTP, against the lab's Kubernetes API and its faults.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panic as tests do")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use routelet_lab::api::objects::{node, pod};
use routelet_lab::api::{Api, Fault, Garbage, On, Resource as Kind, Server, Status as ApiStatus, Verb};
use routelet_model::{ClusterEvent, Resource};
use routelet_watcher::{ApiSettings, ErrorKind, HostAddresses, Status, WatchState};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Longest wait for anything.
const DEADLINE: Duration = Duration::from_secs(20);

struct Setup {
    api: Api,
    server: Server,
    events: mpsc::Receiver<ClusterEvent>,
    status: Arc<Status>,
    agent: JoinHandle<()>,
}

impl Drop for Setup {
    fn drop(&mut self) {
        self.agent.abort();
    }
}

/// A client from a kubeconfig, with these lines about the user.
async fn client(server: &Server, user: &str) -> Client {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kubeconfig");
    let url = server.url();
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: lab\n\
         contexts: [{{name: lab, context: {{cluster: lab, user: lab}}}}]\n\
         clusters: [{{name: lab, cluster: {{server: \"{url}\"}}}}]\n\
         users: [{{name: lab, user: {{{user}}}}}]\n"
    );
    std::fs::write(&path, text).unwrap();
    routelet_watcher::connect(&ApiSettings {
        kubeconfig: Some(path),
        ..ApiSettings::default()
    })
    .await
    .unwrap()
}

impl Setup {
    async fn new(api: Api) -> Self {
        let server = api.serve_locally().unwrap();
        let client = client(&server, "").await;
        Self::with_client(api, server, client)
    }

    fn with_client(api: Api, server: Server, client: Client) -> Self {
        let (sender, events) = mpsc::channel(100_000);
        let status = Arc::new(Status::default());
        let agent = tokio::spawn(routelet_watcher::run(
            client,
            "n1".to_owned(),
            sender,
            status.clone(),
            HostAddresses::unknown(),
        ));
        Self {
            api,
            server,
            events,
            status,
            agent,
        }
    }

    /// Nodes n1 and n2, and the agent in sync with them.
    async fn synced() -> Self {
        let api = Api::new();
        for (name, subnet) in [("n1", "10.0.1.0/24"), ("n2", "10.0.2.0/24")] {
            api.create(Kind::Nodes, node(name).pod_cidrs([subnet])).unwrap();
        }
        let mut setup = Self::new(api).await;
        setup.tells(&["+n1", "+n2", "nodes", "pods"]).await;
        setup.watches(1).await;
        setup
    }

    /// Waits until exactly these events have come, in any order, and checks that no other has.
    async fn tells(&mut self, wanted: &[&str]) {
        let wanted: BTreeSet<String> = wanted.iter().map(|event| (*event).to_owned()).collect();
        let mut told = BTreeSet::new();
        while told != wanted {
            let event = tokio::time::timeout(DEADLINE, self.events.recv()).await;
            let Ok(Some(event)) = event else {
                panic!("told {told:?}, then nothing; wanted {wanted:?}")
            };
            let event = short(event);
            assert!(
                wanted.contains(&event),
                "told {event} after {told:?}; wanted {wanted:?}"
            );
            assert!(told.insert(event.clone()), "told {event} twice");
        }
    }

    /// Waits until as many watches of Nodes are open.
    async fn watches(&self, count: u64) {
        self.counted(move |counters| counters.open_watches(Kind::Nodes) == count)
            .await;
    }

    async fn counted(&self, condition: impl FnMut(&routelet_lab::api::Counters) -> bool + Send + 'static) {
        let api = self.api.clone();
        let waited = tokio::task::spawn_blocking(move || api.wait_for(DEADLINE, condition))
            .await
            .unwrap();
        waited.unwrap();
    }

    fn requests(&self, resource: Kind, verb: Verb) -> u64 {
        self.api.counters().requests(resource, verb)
    }

    fn errors(&self, kind: ErrorKind) -> u64 {
        self.status
            .get(Resource::Nodes)
            .errors
            .get(&kind)
            .copied()
            .unwrap_or_default()
    }

    /// Adds a Node and waits until it has been told: all is well.
    async fn is_well(&mut self, name: &str) {
        self.api
            .create(Kind::Nodes, node(name).pod_cidrs(["10.9.0.0/24"]))
            .unwrap();
        self.tells(&[&format!("+{name}")]).await;
        assert!(matches!(
            self.status.get(Resource::Nodes).state,
            WatchState::Watching
        ));
    }
}

/// An event in short: `+n1`, `-n1`, `nodes`.
fn short(event: ClusterEvent) -> String {
    match event {
        ClusterEvent::PodApplied(pod) => format!("+{}", pod.id),
        ClusterEvent::PodDeleted(id) => format!("-{id}"),
        ClusterEvent::NodeApplied(node) => format!("+{}", node.name),
        ClusterEvent::NodeDeleted(name) => format!("-{name}"),
        ClusterEvent::Synced(resource, _) => resource.to_string(),
    }
}

#[tokio::test]
async fn streaming_lists_cost_one_request_each() {
    let mut setup = Setup::synced().await;
    setup.is_well("n3").await;
    for resource in [Kind::Nodes, Kind::Pods] {
        assert_eq!(setup.requests(resource, Verb::List), 0, "{resource:?}");
        assert_eq!(setup.requests(resource, Verb::Watch), 1, "{resource:?}");
    }
    assert!(setup.status.get(Resource::Nodes).streaming_list);
    assert_eq!(setup.api.counters().connections, 2);
}

#[tokio::test]
async fn an_older_server_costs_one_more_and_is_remembered() {
    let api = Api::new();
    api.streaming_lists(false);
    api.create(Kind::Nodes, node("n1").pod_cidrs(["10.0.1.0/24"]))
        .unwrap();
    let mut setup = Setup::new(api).await;
    setup.tells(&["+n1", "nodes", "pods"]).await;
    setup.is_well("n2").await;
    assert_eq!(setup.requests(Kind::Nodes, Verb::List), 1);
    assert_eq!(setup.requests(Kind::Nodes, Verb::Watch), 2);
    assert!(!setup.status.get(Resource::Nodes).streaming_list);
    setup.api.faults().expire_watches(Kind::Nodes);
    setup.tells(&["nodes"]).await;
    setup.is_well("n3").await;
    assert_eq!(setup.requests(Kind::Nodes, Verb::List), 2);
    assert_eq!(setup.requests(Kind::Nodes, Verb::Watch), 3);
}

#[tokio::test]
async fn pods_of_this_node_only() {
    let mut setup = Setup::synced().await;
    let add = |name: &str, node: &str| {
        setup
            .api
            .create(Kind::Pods, pod("shop", name).node(node).ips(["10.0.1.5"]))
            .unwrap()
    };
    add("other", "n2");
    add("web", "n1");
    setup.tells(&["+shop/web"]).await;
    setup
        .api
        .patch(Kind::Pods, "shop/web", json!({"status": {"phase": "Succeeded"}}))
        .unwrap();
    setup.tells(&["+shop/web"]).await;
    setup.api.delete(Kind::Pods, "shop/other").unwrap();
    setup.api.delete(Kind::Pods, "shop/web").unwrap();
    setup.tells(&["-shop/web"]).await;
}

#[tokio::test]
async fn a_pod_that_is_bound_appears() {
    let mut setup = Setup::synced().await;
    setup.api.create(Kind::Pods, pod("shop", "web")).unwrap();
    setup
        .api
        .patch(Kind::Pods, "shop/web", json!({"spec": {"nodeName": "n1"}}))
        .unwrap();
    setup.tells(&["+shop/web"]).await;
}

#[tokio::test]
async fn heartbeats_end_here() {
    let mut setup = Setup::synced().await;
    for _ in 0..100 {
        setup.api.heartbeat("n1").unwrap();
    }
    setup.is_well("n3").await;
    assert_eq!(setup.status.get(Resource::Nodes).events_dropped_unchanged, 100);
}

#[tokio::test]
async fn what_went_while_the_server_was_away_is_told() {
    for streaming in [true, false] {
        let api = Api::new();
        api.streaming_lists(streaming);
        for (name, subnet) in [("n1", "10.0.1.0/24"), ("n2", "10.0.2.0/24")] {
            api.create(Kind::Nodes, node(name).pod_cidrs([subnet])).unwrap();
        }
        let mut setup = Setup::new(api).await;
        setup.tells(&["+n1", "+n2", "nodes", "pods"]).await;
        setup.server.stop().unwrap();
        setup.api.delete(Kind::Nodes, "n2").unwrap();
        setup
            .api
            .create(Kind::Nodes, node("n3").pod_cidrs(["10.0.2.0/24"]))
            .unwrap();
        setup.api.compact(); // the watch cannot resume
        setup.server.start().unwrap();
        setup.tells(&["+n3", "-n2", "nodes", "pods"]).await;
        assert!(setup.errors(ErrorKind::Expired) >= 1);
        setup.is_well("n4").await;
    }
}

#[tokio::test]
async fn a_restarted_server_costs_no_list() {
    let mut setup = Setup::synced().await;
    for round in 0..3 {
        setup.server.stop().unwrap();
        setup.api.delete(Kind::Nodes, &format!("n{}", round + 2)).unwrap();
        setup.server.start().unwrap();
        setup.tells(&[&format!("-n{}", round + 2)]).await;
        setup.is_well(&format!("n{}", round + 3)).await;
    }
    assert_eq!(setup.status.get(Resource::Nodes).relists, 0);
}

#[tokio::test]
async fn every_fault_passes() {
    let busy = ApiStatus::new(429, "busy").retry_after(Duration::from_secs(1));
    for streaming in [true, false] {
        for (fault, kind) in [
            (Fault::Status(busy.clone()), ErrorKind::Throttled),
            (Fault::Status(ApiStatus::new(500, "oh")), ErrorKind::Server),
            (Fault::Status(ApiStatus::new(503, "not ready")), ErrorKind::Server),
            (Fault::Status(ApiStatus::new(401, "who?")), ErrorKind::Denied),
            (Fault::Drop, ErrorKind::Unreachable),
            (Fault::Expired, ErrorKind::Expired),
            (Fault::Garbage(Garbage::NotJson), ErrorKind::Garbage),
        ] {
            let api = Api::new();
            api.streaming_lists(streaming);
            api.create(Kind::Nodes, node("n1").pod_cidrs(["10.0.1.0/24"]))
                .unwrap();
            let on = if streaming {
                On::watch(Kind::Nodes)
            } else {
                On::list(Kind::Nodes)
            };
            api.faults().next(2, on, fault.clone());
            let mut setup = Setup::new(api).await;
            setup.tells(&["+n1", "nodes", "pods"]).await;
            setup.is_well("n2").await;
            assert!(
                setup.errors(kind) >= 1,
                "{streaming} {fault:?}: {:?}",
                setup.status.get(Resource::Nodes).errors
            );
            assert_eq!(
                setup.status.get(Resource::Nodes).streaming_list,
                streaming,
                "{fault:?}"
            );
        }
    }
}

#[tokio::test]
async fn open_watches_survive_whatever_is_done_to_them() {
    let mut setup = Setup::synced().await;
    let faults = setup.api.faults();
    faults.cut_watches(None);
    setup.is_well("n3").await;
    setup.watches(1).await;
    setup
        .api
        .faults()
        .garble_watches(Kind::Nodes, Garbage::HalfDocument);
    setup.is_well("n4").await;
    setup.watches(1).await;
    setup.api.faults().garble_watches(Kind::Nodes, Garbage::NotJson);
    setup.is_well("n5").await;
    setup.watches(1).await;
    setup
        .api
        .faults()
        .garble_watches(Kind::Nodes, Garbage::WrongShape);
    setup.is_well("n6").await;
    setup.api.faults().end_watches(None);
    setup.is_well("n7").await;
    setup.watches(1).await;
    setup
        .api
        .faults()
        .fail_watches(Kind::Nodes, ApiStatus::new(500, "oh"));
    setup.is_well("n8").await;
    assert_eq!(setup.status.get(Resource::Nodes).relists, 0);
    setup.watches(1).await;
    setup.api.faults().expire_watches(Kind::Nodes);
    setup.tells(&["nodes"]).await;
    assert_eq!(setup.status.get(Resource::Nodes).relists, 1);
    setup.is_well("n9").await;
}

#[tokio::test]
async fn a_stalled_and_a_slow_server() {
    let api = Api::new();
    api.create(Kind::Nodes, node("n1").pod_cidrs(["10.0.1.0/24"]).full_size())
        .unwrap();
    api.faults().next(1, On::watch(Kind::Nodes), Fault::Stall);
    let mut setup = Setup::new(api).await;
    setup.tells(&["pods"]).await;
    setup.counted(|counters| counters.faults == 1).await;
    setup.api.faults().clear();
    setup.tells(&["+n1", "nodes"]).await;
    let slow = Fault::Slow {
        bytes: 100,
        delay: Duration::from_millis(1),
    };
    setup.api.faults().next(1, On::watch(Kind::Nodes), slow);
    setup.api.faults().expire_watches(Kind::Nodes);
    setup.tells(&["nodes"]).await;
    setup.is_well("n2").await;
}

#[tokio::test]
async fn odd_nodes_do_not_hide_the_others() {
    for streaming in [true, false] {
        let api = Api::new();
        api.streaming_lists(streaming);
        api.create(Kind::Nodes, node("garbage").pod_cidrs(["::/-1", "x"]))
            .unwrap();
        api.create(Kind::Nodes, node("shape").set("/spec/podCIDRs", json!({"a": 1})))
            .unwrap();
        api.create(Kind::Nodes, node("none")).unwrap();
        api.create(Kind::Nodes, node("n1").pod_cidrs(["10.0.1.0/24", "fd00:1::/64"]))
            .unwrap();
        let mut setup = Setup::new(api).await;
        setup
            .tells(&["+garbage", "+shape", "+none", "+n1", "nodes", "pods"])
            .await;
    }
}

/// Slow: kube reads a token file anew 60 s after it has read it.
#[tokio::test]
async fn a_rotated_token_is_taken_up() {
    let api = Api::new();
    api.create(Kind::Nodes, node("n1")).unwrap();
    api.require_token(Some("first"));
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, "first").unwrap();
    let server = api.serve_locally().unwrap();
    let client = client(&server, &format!("tokenFile: {token:?}")).await;
    let mut setup = Setup::with_client(api, server, client);
    setup.tells(&["+n1", "nodes", "pods"]).await;
    std::fs::write(&token, "second").unwrap();
    setup.api.require_token(Some("second"));
    setup.api.faults().cut_watches(None);
    setup.counted(|counters| counters.unauthorized > 0).await;
    setup.api.create(Kind::Nodes, node("n2")).unwrap();
    let told = tokio::time::timeout(Duration::from_secs(120), setup.events.recv()).await;
    assert_eq!(short(told.unwrap().unwrap()), "+n2");
    assert!(setup.errors(ErrorKind::Denied) > 0);
}
