//! A real API server with two Nodes, and a shell with kubectl and helm beside it.

use std::process::Command;

use routelet_lab::process::Process;
use routelet_lab::{ApiServer, Lab, apiserver, wait};
use routelet_model::Family;
use serde_json::{Value, json};

use crate::controllers;
use crate::helm;
use crate::kubelet::Kubelet;
use crate::pages::ROOT;

pub(crate) const NODES: [&str; 2] = ["node-1", "node-2"];

pub(crate) struct World {
    // Dropped in this order: the server before its network.
    server: ApiServer,
    pub(crate) kubelet: Kubelet,
    lab: Lab,
}

/// What is missing to run the commands of kubectl and helm here.
pub(crate) fn missing() -> Option<String> {
    if helm::is_missing() {
        return Some("helm is not installed".to_owned());
    }
    if let Err(reason) = apiserver::assets() {
        return Some(format!("{reason}"));
    }
    // `--subresource` is of that version.
    let told = Command::new("kubectl")
        .args(["version", "--client", "--output", "json"])
        .output();
    let Ok(told) = told else {
        return Some("kubectl is not installed".to_owned());
    };
    let version: Value = serde_json::from_slice(&told.stdout).unwrap_or_default();
    let minor = version["clientVersion"]["minor"].as_str().unwrap_or_default();
    match minor.trim_end_matches('+').parse() {
        Ok(24u32..) => None,
        _ => Some(format!("kubectl is older than 1.24: {version}")),
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let lab = Lab::new().unwrap();
        let server = ApiServer::start(&lab).unwrap();
        let directory = server.admin_kubeconfig().parent().unwrap();
        let kubelet = Kubelet::start(lab.netns(), directory);
        for (name, number) in NODES.into_iter().zip(1..) {
            let node = json!({
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": { "name": name, "labels": { "kubernetes.io/os": "linux" } },
                "spec": { "podCIDRs": [format!("10.244.{number}.0/24")], "podCIDR": format!("10.244.{number}.0/24") },
                "status": {
                    // All kubelets are one.
                    "addresses": [{ "type": "InternalIP", "address": lab.address(Family::V4) }],
                    "conditions": [{ "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "ready" }],
                },
            });
            server.apply(&node).unwrap();
        }
        Self { server, kubelet, lab }
    }

    pub(crate) fn apply(&self, object: &Value) {
        self.server.apply(object).unwrap();
    }

    pub(crate) fn put(&self, path: &str, object: &Value) {
        self.server.request("PUT", path, Some(object)).unwrap();
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.server.request("GET", path, None).ok()
    }

    pub(crate) fn daemonset(&self, namespace: &str, name: &str) -> Option<Value> {
        self.get(&format!("/apis/apps/v1/namespaces/{namespace}/daemonsets/{name}"))
    }

    pub(crate) fn node(&self, name: &str) -> Value {
        self.get(&format!("/api/v1/nodes/{name}")).unwrap()
    }

    /// Names of the pods of a DaemonSet.
    pub(crate) fn pods_of(&self, daemonset: &str) -> Vec<String> {
        controllers::settle(&self.server);
        let pods = self.get("/api/v1/pods").unwrap()["items"].take();
        let pods = pods.as_array().unwrap().iter();
        let mine = pods.filter(|pod| pod["metadata"]["ownerReferences"][0]["name"] == daemonset);
        let mut names: Vec<_> = mine
            .map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    }

    /// Runs a line in the source's root, with an admin's rights, while the controllers do their work; it must succeed.
    pub(crate) fn run(&self, line: &str) -> String {
        let (succeeds, told) = self.try_run(line);
        assert!(succeeds, "{line}:\n{told}");
        told
    }

    /// Whether the line succeeds, and what it prints.
    pub(crate) fn try_run(&self, line: &str) -> (bool, String) {
        let mut command = Command::new("sh");
        command.args(["-euc", line]).current_dir(ROOT).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("KUBECONFIG", self.server.admin_kubeconfig());
        // Where the programs keep what they have learnt of this server.
        command.env("HOME", self.server.admin_kubeconfig().parent().unwrap());
        let mut process = Process::start(line, self.lab.netns(), command).unwrap();
        wait::until(wait::LONG, line, || {
            controllers::step(&self.server);
            !process.is_running()
        })
        .unwrap();
        let status = process.wait_exit(wait::LONG).unwrap();
        controllers::settle(&self.server);
        (status.success(), process.log().join("\n"))
    }
}

/// A command with the value of a placeholder in it.
pub(crate) fn fill(command: &str, placeholder: &str, value: &str) -> String {
    assert!(command.contains(placeholder), "no {placeholder} in {command}");
    command.replace(placeholder, value)
}
