//! Lists and single reads.

use kube::api::{GetParams, ListParams, VersionMatch};
use kube::{Error, ResourceExt};
use routelet_lab::api::{Resource, Verb, objects};

use crate::support::{Lab, client};

fn names<K: ResourceExt + Clone>(list: &kube::api::ObjectList<K>) -> Vec<String> {
    list.iter().map(ResourceExt::name_any).collect()
}

fn code(error: Error) -> u16 {
    let Error::Api(status) = error else {
        panic!("an API error, not {error:?}")
    };
    status.code
}

#[tokio::test]
async fn a_list_has_all_objects_and_the_version_to_watch_from() {
    let lab = Lab::with_nodes(&["b", "a"]);
    let list = lab.nodes().list(&ListParams::default()).await.unwrap();
    assert_eq!(names(&list), ["a", "b"]);
    assert_eq!(
        list.metadata.resource_version,
        Some(lab.api.resource_version().to_string())
    );
    let node = &list.items[0];
    assert!(node.uid().is_some() && node.creation_timestamp().is_some());
    assert_eq!(lab.api.counters().requests(Resource::Nodes, Verb::List), 1);
}

#[tokio::test]
async fn list_items_carry_no_type_and_single_objects_do() {
    let lab = Lab::with_nodes(&["a"]);
    let get = |path: &str| {
        let request = hyper::Request::get(path).body(Vec::new()).unwrap();
        let client = lab.client.clone();
        async move { client.request::<serde_json::Value>(request).await.unwrap() }
    };
    let list = get("/api/v1/nodes").await;
    assert_eq!(
        (&list["kind"], &list["apiVersion"]),
        (&"NodeList".into(), &"v1".into())
    );
    assert_eq!(
        (&list["items"][0]["kind"], &list["items"][0]["apiVersion"]),
        (&().into(), &().into())
    );
    let object = get("/api/v1/nodes/a").await;
    assert_eq!(
        (&object["kind"], &object["apiVersion"]),
        (&"Node".into(), &"v1".into())
    );
    assert_eq!(object["metadata"]["resourceVersion"], "2");
}

#[tokio::test]
async fn pages_show_one_consistent_state() {
    let lab = Lab::with_nodes(&["a", "b", "c", "d", "e"]);
    let first = lab.nodes().list(&ListParams::default().limit(2)).await.unwrap();
    assert_eq!(
        (names(&first), first.metadata.remaining_item_count),
        (vec!["a".into(), "b".into()], Some(3))
    );
    lab.api.delete(Resource::Nodes, "c").unwrap();
    lab.api.create(Resource::Nodes, objects::node("z")).unwrap();

    let token = first.metadata.continue_.unwrap();
    let second = lab
        .nodes()
        .list(&ListParams::default().limit(2).continue_token(&token))
        .await
        .unwrap();
    assert_eq!(names(&second), ["c", "d"]);
    let token = second.metadata.continue_.unwrap();
    let last = lab
        .nodes()
        .list(&ListParams::default().limit(2).continue_token(&token))
        .await
        .unwrap();
    assert_eq!((names(&last), last.metadata.continue_), (vec!["e".into()], None));
    assert_eq!(last.metadata.resource_version, first.metadata.resource_version);

    lab.api.compact();
    let expired = lab
        .nodes()
        .list(&ListParams::default().continue_token(&token))
        .await
        .unwrap_err();
    assert_eq!(code(expired), 410);
}

#[tokio::test]
async fn a_list_of_any_version_comes_whole_whatever_the_limit() {
    let lab = Lab::with_nodes(&["a", "b", "c"]);
    let request = hyper::Request::get("/api/v1/nodes?resourceVersion=0&limit=1")
        .body(Vec::new())
        .unwrap();
    let list: serde_json::Value = lab.client.request(request).await.unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn versions_that_are_gone_or_not_there_yet_are_refused() {
    let lab = Lab::with_nodes(&["a", "b"]);
    let old = ListParams::default().at("2").matching(VersionMatch::Exact);
    assert_eq!(code(lab.nodes().list(&old).await.unwrap_err()), 410);
    let future = ListParams::default()
        .at("900")
        .matching(VersionMatch::NotOlderThan);
    assert_eq!(code(lab.nodes().list(&future).await.unwrap_err()), 504);
}

#[tokio::test]
async fn selectors_and_namespaces_choose() {
    let lab = Lab::with_nodes(&["a", "b"]);
    for (namespace, name, node) in [("x", "p1", "a"), ("x", "p2", "b"), ("y", "p3", "a")] {
        lab.api
            .create(
                Resource::Pods,
                objects::pod(namespace, name).node(node).ips(["10.0.0.1"]),
            )
            .unwrap();
    }
    lab.api
        .patch(
            Resource::Pods,
            "y/p3",
            serde_json::json!({"status": {"phase": "Failed"}}),
        )
        .unwrap();
    let all: kube::Api<k8s_openapi::api::core::v1::Pod> = kube::Api::all(lab.client.clone());
    let list = async |fields: &str| {
        all.list(&ListParams::default().fields(fields))
            .await
            .map(|l| names(&l))
    };
    assert_eq!(list("spec.nodeName=a").await.unwrap(), ["p1", "p3"]);
    assert_eq!(
        list("spec.nodeName=a,status.phase!=Failed").await.unwrap(),
        ["p1"]
    );
    assert_eq!(
        list("metadata.namespace==x,metadata.name=p2").await.unwrap(),
        ["p2"]
    );
    assert_eq!(code(list("spec.colour=red").await.unwrap_err()), 400);
    let in_x: kube::Api<k8s_openapi::api::core::v1::Pod> = kube::Api::namespaced(lab.client.clone(), "x");
    assert_eq!(
        names(&in_x.list(&ListParams::default()).await.unwrap()),
        ["p1", "p2"]
    );
    let node = lab
        .nodes()
        .list(&ListParams::default().fields("metadata.name=b"))
        .await
        .unwrap();
    assert_eq!(names(&node), ["b"]);
}

#[tokio::test]
async fn a_list_larger_than_a_chunk_arrives_whole() {
    let lab = Lab::with_nodes(&[]);
    for n in 0..100 {
        lab.api
            .create(Resource::Nodes, objects::node(format!("n{n:03}")).full_size())
            .unwrap();
    }
    let list = lab.nodes().list(&ListParams::default()).await.unwrap();
    assert_eq!(
        (list.items.len(), list.items[99].name_any()),
        (100, "n099".to_owned())
    );
    assert_eq!(
        list.items[50]
            .status
            .as_ref()
            .unwrap()
            .images
            .as_ref()
            .unwrap()
            .len(),
        50
    );
    assert!(lab.api.counters().bytes_sent(Resource::Nodes, Verb::List) > 1_000_000);
}

#[tokio::test]
async fn what_is_not_there_is_404_and_the_version_is_served() {
    let lab = Lab::with_nodes(&[]);
    assert_eq!(code(lab.nodes().get("nobody").await.unwrap_err()), 404);
    let missing: kube::Api<k8s_openapi::api::core::v1::Secret> = kube::Api::all(lab.client.clone());
    assert_eq!(code(missing.list(&ListParams::default()).await.unwrap_err()), 404);
    assert_eq!(lab.client.apiserver_version().await.unwrap().minor, "33");
    assert!(lab.nodes().get_with("nobody", &GetParams::any()).await.is_err());
}

#[tokio::test]
async fn a_rotated_token_locks_out_the_old_one() {
    let lab = Lab::with_nodes(&["a"]);
    lab.api.require_token(Some("first"));
    assert_eq!(code(lab.nodes().get("a").await.unwrap_err()), 401);
    let nodes: kube::Api<k8s_openapi::api::core::v1::Node> =
        kube::Api::all(client(&lab.server, Some("first")));
    nodes.get("a").await.unwrap();
    lab.api.require_token(Some("second"));
    assert_eq!(code(nodes.get("a").await.unwrap_err()), 401);
    assert_eq!(lab.api.counters().unauthorized, 2);
}
