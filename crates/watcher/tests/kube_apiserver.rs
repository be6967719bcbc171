//! The watches and Events against a real kube-apiserver and etcd, with no more permissions than are documented.
//!
//! The programs are looked for in KUBEBUILDER_ASSETS, then in ~/.cache/routelet/kube-assets.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests fail by panic as tests do"
)]

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, Resource as ApiResource};
use routelet_lab::process::Process;
use routelet_lab::{TempDir, agent_rules, skip, wait};
use routelet_model::{ClusterEvent, Resource, Subject};
use routelet_netlink::Netns;
use routelet_watcher::events::{Notice, Publisher, Severity};
use routelet_watcher::{ApiSettings, ErrorKind, HostAddresses, Status};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// Longest wait for anything: a kube-apiserver takes seconds to start.
const DEADLINE: Duration = Duration::from_secs(90);
const URL: &str = "https://127.0.0.1:6443";

fn assets() -> PathBuf {
    if let Some(directory) = std::env::var_os("KUBEBUILDER_ASSETS") {
        return directory.into();
    }
    let home = std::env::var_os("HOME").unwrap_or_default();
    PathBuf::from(home).join(".cache/routelet/kube-assets")
}

/// etcd and kube-apiserver in a network namespace of their own.
struct Cluster {
    netns: Netns,
    directory: TempDir,
    _etcd: Process,
}

impl Cluster {
    fn new() -> Self {
        let netns = Netns::new().unwrap();
        let directory = TempDir::new().unwrap();
        directory
            .write(
                "tokens",
                "admin,admin,admin,\"system:masters\"\nagent,routelet,routelet\n",
            )
            .unwrap();
        let mut etcd = Command::new(assets().join("etcd"));
        etcd.arg("--data-dir").arg(directory.path().join("etcd"));
        let etcd = Process::start("etcd", &netns, etcd).unwrap();
        Self {
            netns,
            directory,
            _etcd: etcd,
        }
    }

    fn start_apiserver(&self) -> Process {
        let certs = self.directory.path().join("certs");
        let key = certs.join("apiserver.key"); // the server makes it, before it reads the next two
        let mut command = Command::new(assets().join("kube-apiserver"));
        command
            // one that is not of the loopback is wanted, and not used
            .args(["--advertise-address", "192.0.2.1"])
            .args([
                "--etcd-servers",
                "http://127.0.0.1:2379",
                "--bind-address",
                "127.0.0.1",
            ])
            .args([
                "--secure-port",
                "6443",
                "--service-cluster-ip-range",
                "10.0.0.0/24",
            ])
            .args([
                "--authorization-mode",
                "RBAC",
                "--disable-admission-plugins",
                "ServiceAccount",
            ])
            .args(["--service-account-issuer", "https://routelet.test"])
            .arg("--cert-dir")
            .arg(&certs)
            .arg("--service-account-key-file")
            .arg(&key)
            .arg("--service-account-signing-key-file")
            .arg(&key)
            .arg("--token-auth-file")
            .arg(self.directory.path().join("tokens"));
        Process::start("kube-apiserver", &self.netns, command).unwrap()
    }

    /// A client with one of the tokens, made as the agent makes its own.
    async fn client(&self, token: &str) -> Client {
        let ca = self.directory.path().join("certs/apiserver.crt");
        wait::until(DEADLINE, "the server's certificate", || {
            std::fs::metadata(&ca).is_ok_and(|file| file.len() > 0)
        })
        .unwrap();
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{"name": "test", "cluster": {"server": URL, "certificate-authority": ca}}],
            "users": [{"name": "test", "user": {"token": token}}],
        });
        let kubeconfig = self.directory.write(token, kubeconfig.to_string()).unwrap();
        let settings = ApiSettings {
            kubeconfig: Some(kubeconfig),
            ..ApiSettings::default()
        };
        routelet_watcher::connect(&settings).await.unwrap()
    }
}

async fn create<K>(api: &Api<K>, object: Value) -> K
where
    K: ApiResource + Clone + Serialize + DeserializeOwned + std::fmt::Debug,
{
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap())
        .await
        .unwrap()
}

async fn told(events: &mut mpsc::Receiver<ClusterEvent>) -> ClusterEvent {
    tokio::time::timeout(DEADLINE, events.recv())
        .await
        .expect("no event came")
        .unwrap()
}

async fn permit(admin: &Client) {
    create::<ClusterRole>(
        &Api::all(admin.clone()),
        json!({"metadata": {"name": "routelet"}, "rules": agent_rules().unwrap()}),
    )
    .await;
    create::<ClusterRoleBinding>(
        &Api::all(admin.clone()),
        json!({"metadata": {"name": "routelet"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "routelet"},
            "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "routelet"}]}),
    )
    .await;
}

#[test]
fn a_real_kube_apiserver() {
    for program in ["etcd", "kube-apiserver"] {
        if !assets().join(program).is_file() {
            skip!("no {program} in {} (see KUBEBUILDER_ASSETS)", assets().display());
        }
    }
    let cluster = Cluster::new();
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    cluster
        .netns
        .run(|| runtime().block_on(the_whole_story(&cluster)))
        .unwrap();
}

async fn the_whole_story(cluster: &Cluster) {
    let apiserver = cluster.start_apiserver();
    let (agent, admin) = (cluster.client("agent").await, cluster.client("admin").await);
    let status = Arc::new(Status::default());
    let (sender, mut events) = mpsc::channel(100);
    // begins before the server listens, and without permission
    let watches = routelet_watcher::run(
        agent.clone(),
        "n1".to_owned(),
        sender,
        status.clone(),
        HostAddresses::unknown(),
    );
    let watches = tokio::spawn(watches);
    let ready = || async {
        admin
            .request_text(http::Request::get("/readyz").body(Vec::new()).unwrap())
            .await
    };
    tokio::time::timeout(DEADLINE, async {
        while ready().await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
    permit(&admin).await;
    let first = [told(&mut events).await, told(&mut events).await];
    for resource in [Resource::Pods, Resource::Nodes] {
        let is_synced =
            |event: &ClusterEvent| matches!(event, ClusterEvent::Synced(of, _) if *of == resource);
        assert!(first.iter().any(is_synced), "{first:?}");
    }
    let version = admin.apiserver_version().await.unwrap();
    let minor: u32 = version.minor.trim_end_matches('+').parse().unwrap();
    // behind a gate from 1.27 on, on by default from 1.34 on; between these it varies
    if !(27..34).contains(&minor) {
        assert_eq!(
            status.get(Resource::Nodes).streaming_list,
            minor >= 34,
            "Kubernetes 1.{minor}"
        );
    }

    let nodes = Api::<Node>::all(admin.clone());
    let created = create(
        &nodes,
        json!({"metadata": {"name": "n1"}, "spec": {"podCIDR": "10.1.1.0/24"}}),
    )
    .await;
    let ClusterEvent::NodeApplied(node) = told(&mut events).await else {
        panic!("no Node")
    };
    assert_eq!(node.uid, created.metadata.uid.unwrap());
    assert!(node.created > 1_600_000_000, "{node:?}");
    assert_eq!(node.pod_subnets, ["10.1.1.0/24".parse().unwrap()]);
    for patch in [
        json!({"status": {"addresses": [{"type": "InternalIP", "address": "192.168.0.1"}]}}),
        json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}), // no news
        json!({"status": {"addresses": [{"type": "InternalIP", "address": "192.168.0.2"}]}}),
    ] {
        nodes
            .patch_status("n1", &PatchParams::default(), &Patch::Strategic(patch))
            .await
            .unwrap();
    }
    for address in ["192.168.0.1", "192.168.0.2"] {
        let ClusterEvent::NodeApplied(node) = told(&mut events).await else {
            panic!("no Node")
        };
        assert!(
            node.addresses.iter().any(|a| a.address.to_string() == address),
            "{address}: {node:?}"
        );
    }

    let pods = Api::<Pod>::namespaced(admin.clone(), "default");
    for (name, node) in [("other", "n2"), ("web", "n1")] {
        create(
            &pods,
            json!({"metadata": {"name": name},
                "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]}}),
        )
        .await;
    }
    let ClusterEvent::PodApplied(pod) = told(&mut events).await else {
        panic!("no Pod")
    };
    assert_eq!(
        (pod.id.to_string().as_str(), pod.addresses.len()),
        ("default/web", 0)
    );
    let running =
        json!({"status": {"phase": "Running", "podIP": "10.1.1.5", "podIPs": [{"ip": "10.1.1.5"}]}});
    pods.patch_status("web", &PatchParams::default(), &Patch::Merge(running))
        .await
        .unwrap();
    let ClusterEvent::PodApplied(pod) = told(&mut events).await else {
        panic!("no Pod")
    };
    assert_eq!(pod.addresses, ["10.1.1.5".parse::<std::net::IpAddr>().unwrap()]);

    let (publisher, work) = Publisher::new(agent, "n1".to_owned());
    let work = tokio::spawn(work);
    let subject = Subject::Pod {
        id: pod.id.clone(),
        uid: pod.uid.clone(),
    };
    let note = "two pods hold 10.1.1.5".to_owned();
    publisher.publish(Notice {
        subject,
        reason: "DuplicateAddress",
        note,
        severity: Severity::Warning,
    });
    let subject = Subject::Node {
        name: "n1".to_owned(),
        uid: node.uid,
    };
    let note = "two nodes hold 10.1.1.0/24".to_owned();
    publisher.publish(Notice {
        subject,
        reason: "DuplicateSubnet",
        note,
        severity: Severity::Warning,
    });
    drop(publisher);
    work.await.unwrap();
    for (namespace, reason) in [
        ("default", "DuplicateAddress"),
        ("kube-system", "DuplicateSubnet"),
    ] {
        let written = Api::<Event>::namespaced(admin.clone(), namespace)
            .list(&Default::default())
            .await
            .unwrap();
        let reasons: Vec<_> = written
            .iter()
            .filter_map(|event| event.reason.as_deref())
            .collect();
        assert_eq!(reasons, [reason], "{namespace}");
    }

    // the server dies and comes back; what was done meanwhile is told, and no more
    let relists = status.get(Resource::Nodes).relists;
    drop(apiserver);
    let _apiserver = cluster.start_apiserver();
    let gone = DeleteParams::default().grace_period(0);
    tokio::time::timeout(DEADLINE, async {
        while pods.delete("web", &gone).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
    nodes.delete("n1", &DeleteParams::default()).await.unwrap();
    let mut rest = Vec::new();
    while rest.len() < 2 {
        match told(&mut events).await {
            ClusterEvent::Synced(..) => {} // where the new server's cache does not reach back
            event => rest.push(event),
        }
    }
    assert!(rest.contains(&ClusterEvent::PodDeleted(pod.id)), "{rest:?}");
    assert!(
        rest.contains(&ClusterEvent::NodeDeleted("n1".to_owned())),
        "{rest:?}"
    );
    let now = status.get(Resource::Nodes);
    assert!(now.relists <= relists + 1, "{now:?}");
    assert!(
        now.errors.contains_key(&ErrorKind::Denied) && now.errors.contains_key(&ErrorKind::Cut),
        "{now:?}"
    );
    watches.abort();
}
