//! docs/security.md tells all that the manifests give to the agent.

use std::collections::BTreeSet;

use serde_json::Value;

const PAGE: &str = include_str!("../../../../docs/security.md");
const RIGHTS: &str = include_str!("../../../../charts/routelet/templates/rbac.yaml");
const MANIFESTS: &str = include_str!("../../../../deploy/routelet.yaml");

fn objects() -> Vec<Value> {
    let documents = MANIFESTS.split("\n---\n");
    documents
        .map(|document| serde_saphyr::from_str(document).unwrap())
        .collect()
}

fn object(kind: &str) -> Value {
    let mut found = objects().into_iter().filter(|object| object["kind"] == kind);
    let object = found.next().unwrap();
    assert!(found.next().is_none(), "several objects of the kind {kind}");
    object
}

fn texts(value: &Value) -> Vec<&str> {
    let list = value.as_array().unwrap();
    list.iter().map(|text| text.as_str().unwrap()).collect()
}

#[test]
fn the_page_tells_each_capability_and_each_directory() {
    let pod = &object("DaemonSet")["spec"]["template"]["spec"];
    let [container] = &pod["containers"].as_array().unwrap()[..] else {
        panic!("several containers")
    };
    let context = &container["securityContext"];
    assert_eq!(texts(&context["capabilities"]["drop"]), ["ALL"]);
    assert_eq!(texts(&context["capabilities"]["add"]), ["NET_ADMIN"]);
    assert!(PAGE.contains("| capability NET_ADMIN, all others dropped |"));
    assert_eq!(context["privileged"], false);
    assert_eq!(context["allowPrivilegeEscalation"], false);
    assert_eq!(context["readOnlyRootFilesystem"], true);
    assert_eq!(context["runAsUser"], 0);
    assert_eq!(pod["hostNetwork"], true);
    assert!(pod["hostPID"].is_null() && pod["hostIPC"].is_null());
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");

    let volumes = pod["volumes"].as_array().unwrap();
    let paths: BTreeSet<&str> = volumes
        .iter()
        .map(|volume| volume["hostPath"]["path"].as_str().unwrap())
        .collect();
    let rows: String = PAGE
        .lines()
        .filter(|line| line.starts_with("| hostPath"))
        .collect();
    for path in &paths {
        assert!(rows.contains(path), "{path} is not told");
    }
    let told = rows
        .split([' ', ','])
        .filter(|word| word.starts_with('/') && !word.starts_with("/host/") && *word != "/proc/sys");
    assert_eq!(told.collect::<BTreeSet<_>>(), paths);
}

#[test]
fn the_page_tells_each_right_with_the_api() {
    let rules = object("ClusterRole")["rules"].clone();
    let mut rows: Vec<String> = Vec::new();
    for rule in rules.as_array().unwrap() {
        let groups: Vec<&str> = texts(&rule["apiGroups"]);
        let group = groups
            .iter()
            .filter(|group| !group.is_empty())
            .copied()
            .collect::<Vec<_>>();
        let mut resources = texts(&rule["resources"]).join(", ");
        if !group.is_empty() {
            resources = format!("{resources} ({})", group.join(", "));
        }
        rows.push(format!("| {resources} | {} |", texts(&rule["verbs"]).join(", ")));
    }
    let section = PAGE
        .split("## What it may do with the Kubernetes API")
        .nth(1)
        .unwrap();
    let table: Vec<&str> = section
        .lines()
        .skip_while(|line| !line.starts_with("|---"))
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .collect();
    assert_eq!(table.len(), rows.len(), "{rows:?}");
    for (line, row) in table.iter().zip(&rows) {
        assert!(line.starts_with(row.as_str()), "{line}\nis not about\n{row}");
    }
}

#[test]
fn the_page_tells_each_right_that_a_value_brings() {
    let lists = RIGHTS
        .lines()
        .filter_map(|line| line.trim().strip_prefix("resources: ["));
    let resources: Vec<&str> = lists
        .flat_map(|list| list.trim_end_matches(']').split(", "))
        .collect();
    assert!(resources.contains(&"nodes/status"), "{resources:?}");
    for resource in resources {
        assert!(PAGE.contains(resource), "{resource} is not told");
    }
    assert!(PAGE.contains("nodeCondition") && PAGE.contains("ValidatingAdmissionPolicy"));
}
