//! `helm test`: the real one, on a real kube-apiserver. The test does what the kubelet and the DaemonSet's controller would:
//! it runs the pod's command, with the pod's own credentials and over the network that routelet gives to a pod.

use std::path::Path;
use std::process::Command;

use routelet_lab::process::Process;
use routelet_lab::{ApiServer, Backend, Cluster, KubeApi, Pod, skip, wait};
use serde_json::{Value, json};

use crate::helm::{CHART, kubectl, texts};

/// The release; the lab's own service account has the name routelet.
const RELEASE: &str = "net";
const POD: &str = "/api/v1/namespaces/kube-system/pods/net-test";
const DAEMONSET: &str = "/apis/apps/v1/namespaces/kube-system/daemonsets/net";

fn server(cluster: &mut Cluster) -> &ApiServer {
    match cluster.api() {
        KubeApi::Real(server) => server,
        KubeApi::Memory(..) => unreachable!(),
    }
}

/// Starts helm with the admin's rights.
fn helm(cluster: &mut Cluster, arguments: &[&str]) -> Process {
    let kubeconfig = server(cluster).admin_kubeconfig().to_owned();
    let mut command = Command::new("helm");
    command.arg("--kubeconfig").arg(&kubeconfig);
    command.args(["--namespace", "kube-system"]).args(arguments);
    command.env("HOME", kubeconfig.parent().unwrap());
    Process::start("helm", cluster.lab().netns(), command).unwrap()
}

/// The controller's word about the DaemonSet: so many nodes, and agents that are ready.
fn set_ready(cluster: &mut Cluster, nodes: u32, ready: u32) {
    let mut set = server(cluster).request("GET", DAEMONSET, None).unwrap();
    set["status"] = json!({
        "observedGeneration": set["metadata"]["generation"], "desiredNumberScheduled": nodes,
        "currentNumberScheduled": nodes, "updatedNumberScheduled": nodes, "numberReady": ready,
        "numberAvailable": ready, "numberMisscheduled": 0,
    });
    let path = format!("{DAEMONSET}/status");
    server(cluster).request("PUT", &path, Some(&set)).unwrap();
}

/// Runs the command of the pod `of` where the lab's pod is; whether it succeeds within `limit`, and what it writes.
fn run_as(
    cluster: &mut Cluster,
    kubectl: &Path,
    of: &Value,
    place: &Pod,
    limit: &str,
) -> (bool, Vec<String>) {
    let account = of["spec"]["serviceAccountName"].as_str().unwrap();
    let path = format!("/api/v1/namespaces/kube-system/serviceaccounts/{account}/token");
    let wanted = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let answer = server(cluster).request("POST", &path, Some(&wanted)).unwrap();
    let admin = std::fs::read_to_string(server(cluster).admin_kubeconfig()).unwrap();
    let admin: Value = serde_json::from_str(&admin).unwrap();
    let known = &admin["clusters"][0]["cluster"];
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut command = Command::new(kubectl);
    command.env_clear().env("HOME", "/nonexistent");
    command.args(["--server", &text(&known["server"])]);
    command.args(["--certificate-authority", &text(&known["certificate-authority"])]);
    command.args(["--token", &text(&answer["status"]["token"])]);
    let container = &of["spec"]["containers"][0];
    let timeout = |argument: &&str| argument.starts_with("--timeout=");
    command.args(
        texts(&container["args"])
            .into_iter()
            .filter(|argument| !timeout(argument)),
    );
    command.arg(format!("--timeout={limit}"));
    let mut process = Process::start("the test's pod", place.netns(), command).unwrap();
    (process.wait_exit(wait::LONG).unwrap().success(), process.log())
}

#[test]
fn helm_test_asks_from_a_pod_whether_each_node_has_a_ready_agent() {
    let kubectl = match kubectl() {
        Ok(kubectl) => kubectl,
        Err(reason) => skip!("{reason}"),
    };
    let mut cluster = Cluster::with_agents(Backend::KubeApiserver, 1).unwrap();
    let place = cluster.add_pod(0, "place", 2).unwrap();
    let mut install = helm(&mut cluster, &["install", RELEASE, CHART]);
    assert!(
        install.wait_exit(wait::LONG).unwrap().success(),
        "{:?}",
        install.log()
    );

    let mut test = helm(&mut cluster, &["test", RELEASE]);
    let pod = wait::until_some(wait::LONG, "the test's pod", || {
        server(&mut cluster).request("GET", POD, None).ok()
    });
    let mut pod = pod.unwrap();
    set_ready(&mut cluster, 2, 1);
    let (passes, told) = run_as(&mut cluster, &kubectl, &pod, &place, "1s");
    assert!(
        !passes && told.iter().any(|line| line.contains("1 of 2")),
        "{told:?}"
    );
    assert!(test.is_running(), "{:?}", test.log());
    set_ready(&mut cluster, 2, 2);
    let (passes, told) = run_as(&mut cluster, &kubectl, &pod, &place, "20s");
    assert!(
        passes && told.iter().any(|line| line.contains("successfully rolled out")),
        "{told:?}"
    );

    // What the kubelet would say of it.
    pod["status"]["phase"] = json!("Succeeded");
    let path = format!("{POD}/status");
    server(&mut cluster).request("PUT", &path, Some(&pod)).unwrap();
    assert!(test.wait_exit(wait::LONG).unwrap().success(), "{:?}", test.log());
    assert!(
        test.log().iter().any(|line| line.contains("Succeeded")),
        "{:?}",
        test.log()
    );
    let gone = wait::until(wait::LONG, "the test's pod to go", || {
        server(&mut cluster).request("GET", POD, None).is_err()
    });
    gone.unwrap();
}
