//! Writes through the client: what routelet itself may do, and what kubelets and controllers do.

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Error, ResourceExt};
use routelet_lab::api::{Resource, objects};
use serde_json::json;

use crate::support::Lab;

fn code<T: std::fmt::Debug>(result: Result<T, Error>) -> u16 {
    let Err(Error::Api(status)) = result else {
        panic!("an API error, not {result:?}")
    };
    status.code
}

#[tokio::test]
async fn create_replace_delete() {
    let lab = Lab::with_nodes(&[]);
    let nodes = lab.nodes();
    let new: Node = serde_json::from_value(objects::node("a").pod_cidrs(["10.0.0.0/24"]).build()).unwrap();
    let made = nodes.create(&PostParams::default(), &new).await.unwrap();
    assert_eq!(code(nodes.create(&PostParams::default(), &new).await), 409);

    let mut changed = made.clone();
    changed.labels_mut().insert("x".into(), "y".into());
    changed.status = None;
    let replaced = nodes
        .replace("a", &PostParams::default(), &changed)
        .await
        .unwrap();
    assert_eq!(replaced.labels()["x"], "y");
    assert_eq!(
        (replaced.uid(), replaced.status),
        (made.uid(), made.status),
        "the status is not written here"
    );
    assert_eq!(
        code(nodes.replace("a", &PostParams::default(), &changed).await),
        409,
        "the version is outdated"
    );

    nodes.delete("a", &DeleteParams::default()).await.unwrap();
    assert_eq!(code(nodes.delete("a", &DeleteParams::default()).await), 404);
}

#[tokio::test]
async fn a_write_that_changes_nothing_is_no_event() {
    let lab = Lab::with_nodes(&["a"]);
    let node = lab.nodes().get("a").await.unwrap();
    let again = lab
        .nodes()
        .replace("a", &PostParams::default(), &node)
        .await
        .unwrap();
    assert_eq!(again.resource_version(), node.resource_version());
}

#[tokio::test]
async fn a_status_patch_joins_conditions_by_type_and_leaves_the_spec_alone() {
    let lab = Lab::with_nodes(&["a"]);
    let patch = json!({
        "spec": {"unschedulable": true},
        "status": {"conditions": [{"type": "NetworkUnavailable", "status": "False", "reason": "RouteletIsUp"}]},
    });
    let node = lab
        .nodes()
        .patch_status("a", &PatchParams::default(), &Patch::Strategic(patch))
        .await
        .unwrap();
    let kinds: Vec<String> = node
        .status
        .unwrap()
        .conditions
        .unwrap()
        .into_iter()
        .map(|c| c.type_)
        .collect();
    assert_eq!(
        kinds,
        [
            "MemoryPressure",
            "DiskPressure",
            "PIDPressure",
            "Ready",
            "NetworkUnavailable"
        ]
    );
    assert_eq!(node.spec.unwrap().unschedulable, None);
}

#[tokio::test]
async fn merge_patches() {
    let lab = Lab::with_nodes(&["a"]);
    let nodes = lab.nodes();
    let set = json!({"metadata": {"annotations": {"x": "1"}}});
    let node = nodes
        .patch("a", &PatchParams::default(), &Patch::Merge(set))
        .await
        .unwrap();
    assert_eq!(node.annotations()["x"], "1");
    let unset = json!({"metadata": {"annotations": {"x": null}}});
    let node = nodes
        .patch("a", &PatchParams::default(), &Patch::Merge(unset))
        .await
        .unwrap();
    assert!(!node.annotations().contains_key("x"));
    let outdated = json!({"metadata": {"resourceVersion": "1", "annotations": {"x": "2"}}});
    assert_eq!(
        code(
            nodes
                .patch("a", &PatchParams::default(), &Patch::Merge(outdated))
                .await
        ),
        409
    );
    let none = Patch::Merge(json!({}));
    assert_eq!(code(nodes.patch("b", &PatchParams::default(), &none).await), 404);
}

#[tokio::test]
async fn a_new_pod_is_pending_whatever_its_maker_says() {
    let lab = Lab::with_nodes(&[]);
    let wanted = objects::pod("default", "p").node("a").ips(["10.0.0.1"]).build();
    let wanted: Pod = serde_json::from_value(wanted).unwrap();
    let made = lab.pods().create(&PostParams::default(), &wanted).await.unwrap();
    let status = made.status.unwrap();
    assert_eq!((status.phase.as_deref(), status.pod_ip), (Some("Pending"), None));
    let patch = json!({"status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]}});
    lab.pods()
        .patch_status("p", &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
    assert_eq!(
        lab.api.get(Resource::Pods, "p").unwrap()["status"]["podIPs"][0]["ip"],
        "10.0.0.1"
    );
}

#[tokio::test]
async fn events_are_made_patched_and_applied() {
    let lab = Lab::with_nodes(&[]);
    let events: kube::Api<Event> = kube::Api::namespaced(lab.client.clone(), "default");
    let event = |name: &str| {
        serde_json::from_value::<Event>(json!({
            "metadata": {"name": name, "namespace": "default"},
            "eventTime": "2026-01-01T00:00:00.000000Z", "action": "Refuse", "reason": "AddressRefused",
            "type": "Warning", "note": "n", "regarding": {"kind": "Pod", "name": "p"},
            "reportingController": "routelet", "reportingInstance": "a",
        }))
        .unwrap()
    };
    events.create(&PostParams::default(), &event("e")).await.unwrap();
    let series = json!({"series": {"count": 2, "lastObservedTime": "2026-01-01T00:01:00.000000Z"}});
    let patched = events
        .patch("e", &PatchParams::default(), &Patch::Merge(series))
        .await
        .unwrap();
    assert_eq!(patched.series.unwrap().count, 2);
    let apply = PatchParams::apply("routelet");
    let mut other = event("f");
    for _ in 0..2 {
        other.metadata.managed_fields = None;
        events.patch("f", &apply, &Patch::Apply(&other)).await.unwrap();
    }
    let kept = lab.api.list(Resource::Events);
    assert_eq!(kept.len(), 2);
    assert_eq!(
        (&kept[0]["kind"], &kept[0]["apiVersion"]),
        (&"Event".into(), &"events.k8s.io/v1".into())
    );
}
