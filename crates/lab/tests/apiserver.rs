//! The real kube-apiserver in the lab: it serves, it keeps to the rules given, it comes back, it goes with its lab.

use routelet_lab::{ApiServer, Lab, apiserver, skip};
use serde_json::json;

#[test]
fn serves_nodes_and_pods_to_whom_it_may() {
    if let Err(reason) = apiserver::assets() {
        skip!("{reason}");
    }
    let lab = Lab::new().unwrap();
    let mut api = ApiServer::start(&lab).unwrap();

    let node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": { "name": "node-1" },
        "spec": { "podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24"] },
        "status": { "addresses": [{ "type": "InternalIP", "address": "172.30.0.2" }] },
    });
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "web", "namespace": "default" },
        "spec": { "nodeName": "node-1", "containers": [{ "name": "web", "image": "web" }] },
        "status": { "phase": "Running", "podIP": "10.244.1.2", "podIPs": [{ "ip": "10.244.1.2" }] },
    });
    api.apply_all(&[node.clone(), pod.clone()]).unwrap();
    let web = "/api/v1/namespaces/default/pods/web";
    assert_eq!(
        api.request("GET", web, None).unwrap()["status"]["podIPs"][0]["ip"],
        "10.244.1.2"
    );
    let read = api.request("GET", "/api/v1/nodes/node-1", None).unwrap();
    assert_eq!(read["status"]["addresses"][0]["address"], "172.30.0.2");
    assert_eq!(read["spec"]["podCIDRs"][0], "10.244.1.0/24");

    // As the agent will: from a node, with the rights it was given and no others.
    let rules = json!([{ "apiGroups": [""], "resources": ["nodes"], "verbs": ["list", "watch"] }]);
    let kubeconfig = api.kubeconfig_for("reader", &rules).unwrap();
    let node_1 = lab.node("node-1").unwrap();
    let list = |resource: &str| {
        let path = format!("/api/v1/{resource}");
        node_1
            .netns()
            .run(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(async {
                    let config = kube::config::Kubeconfig::read_from(&kubeconfig).unwrap();
                    let config = kube::Config::from_custom_kubeconfig(config, &Default::default())
                        .await
                        .unwrap();
                    let request = http::Request::get(path).body(Vec::new()).unwrap();
                    kube::Client::try_from(config)
                        .unwrap()
                        .request::<serde_json::Value>(request)
                        .await
                })
            })
            .unwrap()
    };
    assert_eq!(list("nodes").unwrap()["items"][0]["metadata"]["name"], "node-1");
    let refused = list("pods").unwrap_err();
    assert!(refused.to_string().contains("forbidden"), "{refused}");

    api.kill().unwrap();
    assert!(list("nodes").is_err());
    api.restart().unwrap();
    assert_eq!(list("nodes").unwrap()["items"][0]["metadata"]["name"], "node-1");

    api.delete(&pod).unwrap();
    let gone = api.request("GET", web, None).unwrap_err();
    assert!(format!("{gone:#}").contains("not found"), "{gone:#}");

    let directory = api.admin_kubeconfig().parent().unwrap().to_owned();
    drop(api);
    assert!(!directory.exists());
}
