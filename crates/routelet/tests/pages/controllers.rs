//! What the controllers, the scheduler and the kubelets of a cluster do, as far as the pages' commands wait for it: the pods
//! of DaemonSets come, run and go; pods that are to be deleted are gone; what no one owns any more is gone; the Jobs and the
//! test of the chart succeed once each pod is ready.

use routelet_lab::ApiServer;
use routelet_lab::wait;
use serde_json::{Value, json};

const APPS: &str = "/apis/apps/v1";
const BATCH: &str = "/apis/batch/v1";

/// Steps until there is nothing left to do.
pub(crate) fn settle(server: &ApiServer) {
    wait::until(wait::LONG, "the controllers to be done", || !step(server)).unwrap();
}

/// Does what is to be done; whether there was anything. What fails, as by a write in between, is done by the next step.
pub(crate) fn step(server: &ApiServer) -> bool {
    let sets = list(server, &format!("{APPS}/daemonsets"));
    let nodes = list(server, "/api/v1/nodes");
    let pods = list(server, "/api/v1/pods");
    let mut has_worked = false;
    for pod in &pods {
        let owner = &pod["metadata"]["ownerReferences"][0];
        let is_orphan =
            owner["kind"] == "DaemonSet" && !sets.iter().any(|set| set["metadata"]["uid"] == owner["uid"]);
        if is_orphan || !pod["metadata"]["deletionTimestamp"].is_null() {
            delete(server, pod);
            has_worked = true;
        } else if pod["status"]["phase"] == "Pending" {
            run(server, pod);
            has_worked = true;
        }
    }
    for set in &sets {
        has_worked |= follow(server, set, &nodes, &pods);
    }
    let all_ready = sets
        .iter()
        .all(|set| set["status"]["numberReady"] == set["status"]["desiredNumberScheduled"]);
    for job in list(server, &format!("{BATCH}/jobs")) {
        if all_ready && job["status"]["succeeded"].is_null() {
            has_worked = true;
            complete(server, job);
        }
    }
    has_worked
}

/// Makes the pods of a DaemonSet what they are to be, and tells how they stand.
fn follow(server: &ApiServer, set: &Value, nodes: &[Value], pods: &[Value]) -> bool {
    let generation = set["metadata"]["generation"].to_string();
    let spec = &set["spec"]["template"]["spec"];
    let wanted: Vec<_> = nodes
        .iter()
        .filter(|node| suits(spec, node))
        .map(|node| text(&node["metadata"]["name"]))
        .collect();
    let mine = pods
        .iter()
        .filter(|pod| pod["metadata"]["ownerReferences"][0]["uid"] == set["metadata"]["uid"]);
    let (current, former): (Vec<_>, Vec<_>) = mine.partition(|pod| {
        pod["metadata"]["annotations"]["generation"] == generation.as_str()
            && wanted.contains(&text(&pod["spec"]["nodeName"]))
    });
    let mut has_worked = false;
    for pod in &former {
        delete(server, pod);
        has_worked = true;
    }
    for node in &wanted {
        if current.iter().any(|pod| pod["spec"]["nodeName"] == *node) {
            continue;
        }
        has_worked = true;
        let mut pod = set["spec"]["template"].clone();
        let (name, uid) = (&set["metadata"]["name"], &set["metadata"]["uid"]);
        pod["apiVersion"] = json!("v1");
        pod["kind"] = json!("Pod");
        // The names would be random ones.
        pod["metadata"]["name"] = json!(format!("{}-{generation}-{node}", text(name)));
        pod["metadata"]["annotations"]["generation"] = json!(generation);
        pod["metadata"]["ownerReferences"] = json!([{ "apiVersion": "apps/v1", "kind": "DaemonSet", "name": name, "uid": uid, "controller": true }]);
        pod["spec"]["nodeName"] = json!(node);
        let namespace = text(&set["metadata"]["namespace"]);
        let _ = server.request(
            "POST",
            &format!("/api/v1/namespaces/{namespace}/pods"),
            Some(&pod),
        );
    }
    let ready = current
        .iter()
        .filter(|pod| pod["status"]["phase"] == "Running")
        .count();
    let status = json!({
        "observedGeneration": set["metadata"]["generation"],
        "desiredNumberScheduled": wanted.len(),
        "currentNumberScheduled": current.len(),
        "updatedNumberScheduled": current.len(),
        "numberAvailable": ready,
        "numberReady": ready,
        "numberMisscheduled": 0,
    });
    let known = &set["status"];
    let is_known =
        |(field, value): (&String, &Value)| known[field] == *value || known[field].is_null() && *value == 0;
    if !status.as_object().unwrap().iter().all(is_known) {
        has_worked = true;
        let mut told = set.clone();
        told["status"] = status;
        put(
            server,
            &format!(
                "{APPS}/namespaces/{}/daemonsets",
                text(&set["metadata"]["namespace"])
            ),
            &told,
        );
    }
    has_worked
}

/// Whether a pod with this spec may be on the node, by its selector and its affinity.
fn suits(spec: &Value, node: &Value) -> bool {
    let labels = &node["metadata"]["labels"];
    let selector = spec["nodeSelector"].as_object();
    let is_selected = selector.is_none_or(|wanted| wanted.iter().all(|(key, value)| labels[key] == *value));
    let required = &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let terms = required["nodeSelectorTerms"].as_array();
    let holds = |expression: &Value| {
        let is_among = expression["values"]
            .as_array()
            .unwrap()
            .contains(&labels[text(&expression["key"])]);
        match text(&expression["operator"]) {
            "In" => is_among,
            "NotIn" => !is_among,
            other => panic!("the operator {other}"),
        }
    };
    let fits = |term: &Value| term["matchExpressions"].as_array().unwrap().iter().all(holds);
    is_selected && terms.is_none_or(|terms| terms.iter().any(fits))
}

/// The pod runs from now on; that of `helm test` has run.
fn run(server: &ApiServer, pod: &Value) {
    let is_test = pod["metadata"]["annotations"]["helm.sh/hook"] == "test";
    let mut pod = pod.clone();
    pod["status"]["phase"] = json!(if is_test { "Succeeded" } else { "Running" });
    pod["status"]["conditions"] =
        json!([{ "type": "Ready", "status": if is_test { "False" } else { "True" } }]);
    put(
        server,
        &format!("/api/v1/namespaces/{}/pods", text(&pod["metadata"]["namespace"])),
        &pod,
    );
}

fn complete(server: &ApiServer, mut job: Value) {
    job["status"] = json!({
        "succeeded": 1,
        "startTime": "2026-01-01T00:00:00Z",
        "completionTime": "2026-01-01T00:00:01Z",
        "conditions": [{ "type": "Complete", "status": "True" }],
    });
    put(
        server,
        &format!("{BATCH}/namespaces/{}/jobs", text(&job["metadata"]["namespace"])),
        &job,
    );
}

fn list(server: &ApiServer, path: &str) -> Vec<Value> {
    let mut list = server.request("GET", path, None).unwrap();
    match list["items"].take() {
        Value::Array(items) => items,
        other => panic!("{path}: {other}"),
    }
}

fn delete(server: &ApiServer, pod: &Value) {
    let (namespace, name) = (
        text(&pod["metadata"]["namespace"]),
        text(&pod["metadata"]["name"]),
    );
    let at_once = json!({ "gracePeriodSeconds": 0 });
    let _ = server.request(
        "DELETE",
        &format!("/api/v1/namespaces/{namespace}/pods/{name}"),
        Some(&at_once),
    );
}

/// Writes an object's status.
fn put(server: &ApiServer, path: &str, object: &Value) {
    let name = text(&object["metadata"]["name"]);
    let _ = server.request("PUT", &format!("{path}/{name}/status"), Some(object));
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}
