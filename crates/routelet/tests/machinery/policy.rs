//! The chart's admission policy as helm renders it, in force on a server.

use std::path::{Path, PathBuf};

use routelet_lab::{ApiServer, api_machinery, wait};
use serde_json::{Value, json};

use crate::helm::{is_missing, object, template_for};

const KINDS: &[&str] = &["admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy"];
pub(crate) const NAME: &str = "routelet-own-node";
pub(crate) const STRATEGIC: &str = "application/strategic-merge-patch+json";
pub(crate) const MERGE: &str = "application/merge-patch+json";

/// Why there is nothing to test the policy with.
pub(crate) fn lacks() -> Option<String> {
    if is_missing() {
        return Some("helm is not installed".to_owned());
    }
    api_machinery::assets().err().map(|reason| reason.to_string())
}

/// A kubeconfig of the agent on a node.
pub(crate) fn agent_on(server: &ApiServer, node: Option<&str>) -> PathBuf {
    server
        .kubeconfig_of(&api_machinery::service_account("routelet", node))
        .unwrap()
}

/// Says what a request would do, and what the server says to it.
pub(crate) fn ask(
    server: &ApiServer,
    by: &Path,
    path: &str,
    content: &str,
    body: &Value,
) -> Result<Value, String> {
    let separator = if path.contains('?') { '&' } else { '?' };
    let path = format!("{path}{separator}dryRun=All");
    let method = if content == "application/json" {
        "PUT"
    } else {
        "PATCH"
    };
    server
        .request_as(by, method, &path, content, Some(body))
        .map_err(|error| format!("{error:#}"))
}

/// Puts the policy on the server, and waits until it is in force: a Node of the name must be there.
pub(crate) fn enforce(server: &ApiServer, node: &str) {
    let objects = template_for(&["nodeCondition=true"], KINDS);
    for kind in ["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"] {
        server.apply(object(&objects, kind, NAME)).unwrap();
    }
    let agent = agent_on(server, None);
    let path = format!("/api/v1/nodes/{node}/status");
    wait::until(wait::LONG, "the policy to be in force", || {
        ask(server, &agent, &path, MERGE, &json!({})).is_err()
    })
    .unwrap();
}
