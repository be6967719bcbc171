//! The chart on a real kube-apiserver, by the real helm: installed, upgraded, and gone again with all that it had made.

use std::path::Path;
use std::process::Command;

use routelet_lab::process::Process;
use routelet_lab::{ApiServer, Lab, apiserver, skip, wait};
use serde_json::{Value, json};

use crate::helm::{CHART, is_missing, kubectl};
use crate::pages::{ROOT, Script};

const NAMESPACE: &str = "/api/v1/namespaces/kube-system";
const APPS: &str = "/apis/apps/v1/namespaces/kube-system";

/// The cluster's side of helm.
struct Stage {
    lab: Lab,
    server: ApiServer,
}

impl Stage {
    fn new() -> Self {
        let lab = Lab::new().unwrap();
        let server = ApiServer::start(&lab).unwrap();
        Self { lab, server }
    }

    /// A program with the admin's kubeconfig, inside the LAN, in the root of the source.
    fn start(&self, program: &Path, arguments: &[&str]) -> Process {
        let mut command = Command::new(program);
        command.current_dir(ROOT).args(arguments);
        command.env("KUBECONFIG", self.server.admin_kubeconfig());
        // Where it would keep what it has learnt of this server.
        let home = self.server.admin_kubeconfig().parent().unwrap();
        command.env("HOME", home);
        Process::start("helm", self.lab.netns(), command).unwrap()
    }

    /// The same of a command line.
    fn start_line(&self, line: &str) -> Process {
        self.start(Path::new("sh"), &["-euc", line])
    }

    fn helm(&self, arguments: &[&str]) -> Vec<String> {
        finish(self.start(Path::new("helm"), arguments))
    }

    fn get(&self, path: &str) -> Option<Value> {
        self.server.request("GET", path, None).ok()
    }

    /// Names of all objects of the chart's kinds, hooks included.
    fn ours(&self) -> Vec<String> {
        let rbac = "/apis/rbac.authorization.k8s.io/v1";
        let lists = [
            format!("{NAMESPACE}/serviceaccounts"),
            format!("{NAMESPACE}/configmaps"),
            format!("{NAMESPACE}/pods"),
            format!("{APPS}/daemonsets"),
            "/apis/batch/v1/namespaces/kube-system/jobs".to_owned(),
            format!("{rbac}/clusterroles"),
            format!("{rbac}/clusterrolebindings"),
            format!("{rbac}/namespaces/kube-system/roles"),
            format!("{rbac}/namespaces/kube-system/rolebindings"),
        ];
        let names = lists.iter().flat_map(|list| {
            let items = self.get(list).unwrap()["items"].clone();
            let names = items
                .as_array()
                .unwrap()
                .iter()
                .map(|item| item["metadata"]["name"].as_str().unwrap().to_owned());
            names.collect::<Vec<_>>()
        });
        names.filter(|name| name.contains("routelet")).collect()
    }
}

fn finish(mut process: Process) -> Vec<String> {
    let status = process.wait_exit(wait::LONG).unwrap();
    assert!(status.success(), "{:?}", process.log());
    process.log()
}

#[test]
fn helm_installs_and_upgrades() {
    if is_missing() {
        skip!("helm is not installed");
    }
    if let Err(reason) = apiserver::assets() {
        skip!("{reason}");
    }
    let stage = Stage::new();
    let mut script = Script::of("chart/install.rs: helm_installs_and_upgrades");
    let told = finish(stage.start_line(&script.take("helm install").text));
    assert!(
        told.iter()
            .any(|line| line.contains("rollout status daemonset/routelet")),
        "{told:?}"
    );
    let set = stage.get(&format!("{APPS}/daemonsets/routelet")).unwrap();
    let pod = &set["spec"]["template"]["spec"];
    assert_eq!(pod["containers"][0]["image"], "routelet:dev");
    assert_eq!(
        pod["containers"][0]["securityContext"]["capabilities"],
        json!({"add": ["NET_ADMIN"], "drop": ["ALL"]})
    );
    assert_eq!(pod["hostNetwork"], true);
    let role = stage
        .get("/apis/rbac.authorization.k8s.io/v1/clusterroles/routelet")
        .unwrap();
    assert_eq!(
        role["rules"],
        json!([
            {"apiGroups": [""], "resources": ["nodes", "pods"], "verbs": ["get", "list", "watch"]},
            {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
        ])
    );

    finish(stage.start_line(&script.take("helm upgrade").text));
    let told = stage.helm(&[
        "upgrade",
        "routelet",
        CHART,
        "--namespace",
        "kube-system",
        "--set",
        "mtu=1400,grafanaDashboard.enabled=true,nodeCondition=true",
    ]);
    // This server knows no ValidatingAdmissionPolicies.
    assert!(
        told.iter()
            .any(|line| line.contains("may write the status of every Node")),
        "{told:?}"
    );
    let role = stage
        .get("/apis/rbac.authorization.k8s.io/v1/clusterroles/routelet")
        .unwrap();
    assert_eq!(
        role["rules"][2],
        json!({"apiGroups": [""], "resources": ["nodes/status"], "verbs": ["patch"]})
    );
    let set = stage.get(&format!("{APPS}/daemonsets/routelet")).unwrap();
    assert!(set.to_string().contains("--mtu=1400"), "{set}");
    let dashboard = stage
        .get(&format!("{NAMESPACE}/configmaps/routelet-dashboard"))
        .unwrap();
    let dashboard: Value =
        serde_json::from_str(dashboard["data"]["routelet.json"].as_str().unwrap()).unwrap();
    assert_eq!(dashboard["title"], "routelet");

    // The cleanup needs controllers and nodes, for which the test below stands in.
    stage.helm(&[
        "uninstall",
        "routelet",
        "--namespace",
        "kube-system",
        "--no-hooks",
    ]);
    assert_eq!(stage.ours(), [""; 0]);
}

/// No controllers run here: the test does what those of DaemonSets and Jobs would do.
#[test]
fn an_uninstall_waits_until_each_node_is_clean() {
    let kubectl = match kubectl() {
        Ok(kubectl) => kubectl,
        Err(reason) => skip!("{reason}"),
    };
    let stage = Stage::new();
    let mut script = Script::of("chart/install.rs: an_uninstall_waits_until_each_node_is_clean");
    finish(stage.start_line(&script.take("helm install").text));
    assert!(
        stage
            .get(&format!("{APPS}/daemonsets/routelet-cleanup"))
            .is_none()
    );

    // Two pages have the same command.
    let command = script.take("helm uninstall").text;
    assert_eq!(script.take("helm uninstall").text, command);
    let mut uninstall = stage.start_line(&command);
    let job = "/apis/batch/v1/namespaces/kube-system/jobs/routelet-cleanup";
    let waits = wait::until_some(wait::LONG, "the job that waits", || stage.get(job)).unwrap();
    assert!(
        stage.get(&format!("{APPS}/daemonsets/routelet")).is_none(),
        "the agents go first"
    );
    let cleans = stage.get(&format!("{APPS}/daemonsets/routelet-cleanup")).unwrap();
    assert_eq!(
        cleans["spec"]["template"]["spec"]["initContainers"][0]["args"][0],
        "cleanup"
    );

    // What the job's container does, with the permissions that its service account has.
    let account = waits["spec"]["template"]["spec"]["serviceAccountName"]
        .as_str()
        .unwrap()
        .to_owned();
    let container = &waits["spec"]["template"]["spec"]["containers"][0];
    let arguments: Vec<_> = container["args"]
        .as_array()
        .unwrap()
        .iter()
        .map(|word| word.as_str().unwrap())
        .collect();
    let user = format!("system:serviceaccount:kube-system:{account}");
    let options = ["--namespace", "kube-system", "--as", &user];
    let waiter = stage.start(&kubectl, &[&options, &arguments[..]].concat());
    let status = |desired: u32, ready: u32| {
        let generation = &cleans["metadata"]["generation"];
        let status = json!({"status": {
            "observedGeneration": generation, "desiredNumberScheduled": desired, "currentNumberScheduled": desired,
            "updatedNumberScheduled": desired, "numberReady": ready, "numberAvailable": ready, "numberMisscheduled": 0,
        }});
        let mut set = stage.get(&format!("{APPS}/daemonsets/routelet-cleanup")).unwrap();
        set["status"] = status["status"].clone();
        let path = format!("{APPS}/daemonsets/routelet-cleanup/status");
        stage.server.request("PUT", &path, Some(&set)).unwrap();
    };
    status(3, 2);
    waiter
        .wait_log("2 of 3 updated pods are available", wait::LONG)
        .unwrap();
    assert!(uninstall.is_running(), "{:?}", uninstall.log());
    status(3, 3);
    let told = finish(waiter);
    assert!(
        told.iter().any(|line| line.contains("successfully rolled out")),
        "{told:?}"
    );

    let mut done = stage.get(job).unwrap();
    done["status"] = json!({
        "succeeded": 1, "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:00:01Z",
        "conditions": [{"type": "Complete", "status": "True"}],
    });
    stage
        .server
        .request("PUT", &format!("{job}/status"), Some(&done))
        .unwrap();
    finish(uninstall);
    assert_eq!(stage.ours(), [""; 0]);
}
