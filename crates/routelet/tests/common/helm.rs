//! The Helm chart, rendered by the real `helm`.

#![allow(dead_code, reason = "each test program uses a part of this")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use routelet_lab::apiserver;
use serde_json::Value;

/// The chart's directory.
pub(crate) const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../charts/routelet");

/// Whether helm is not there.
pub(crate) fn is_missing() -> bool {
    Command::new("helm").arg("version").output().is_err()
}

/// The kubectl for the real API server beside helm, or why there is none.
pub(crate) fn kubectl() -> Result<PathBuf, &'static str> {
    if is_missing() {
        return Err("helm is not installed");
    }
    let assets = apiserver::assets().map_err(|_| "there is no kube-apiserver")?;
    let kubectl = assets.join("kubectl");
    match kubectl.is_file() {
        true => Ok(kubectl),
        false => Err("no kubectl beside kube-apiserver"),
    }
}

/// What `helm` says to these arguments.
pub(crate) fn helm(arguments: &[&str]) -> Output {
    // Without what whoever runs the tests has set up for it.
    let mut command = Command::new("helm");
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HELM_") {
            command.env_remove(name);
        }
    }
    command.env_remove("KUBECONFIG").args(arguments).output().unwrap()
}

/// The chart's objects with these values set, each as in `mtu=1400`.
pub(crate) fn template(values: &[&str]) -> Vec<Value> {
    template_for(values, &[])
}

/// The same for an API server that has these as well, each as in `apps/v1/DaemonSet`.
pub(crate) fn template_for(values: &[&str], kinds: &[&str]) -> Vec<Value> {
    let kinds = kinds.iter().flat_map(|kind| ["--api-versions", kind]);
    let values = values.iter().flat_map(|value| ["--set", value]);
    rendered(&kinds.chain(values).collect::<Vec<_>>())
}

/// The same with a file of values.
pub(crate) fn template_with_file(values: &Path) -> Vec<Value> {
    rendered(&["--values", values.to_str().unwrap()])
}

fn rendered(more: &[&str]) -> Vec<Value> {
    let arguments = ["template", "routelet", CHART, "--namespace", "kube-system"];
    let output = helm(&[&arguments, more].concat());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{more:?}: {error}");
    let text = String::from_utf8(output.stdout).unwrap();
    let documents = text.split("---\n").filter(|document| !document.trim().is_empty());
    documents
        .map(|document| {
            serde_saphyr::from_str(document).unwrap_or_else(|error| panic!("{error}:\n{document}"))
        })
        .collect()
}

/// The object of this kind and name.
pub(crate) fn object<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == name;
    let found = objects.iter().find(found);
    found.unwrap_or_else(|| panic!("no {kind} {name} among {objects:#?}"))
}

/// The agent's container.
pub(crate) fn container(objects: &[Value]) -> &Value {
    &object(objects, "DaemonSet", "routelet")["spec"]["template"]["spec"]["containers"][0]
}

/// The texts of a list.
pub(crate) fn texts(list: &Value) -> Vec<&str> {
    let list = list.as_array().unwrap();
    list.iter().map(|text| text.as_str().unwrap()).collect()
}
