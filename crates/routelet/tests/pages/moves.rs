//! The commands of kubectl and helm that move a cluster from another network, and back.

use routelet_lab::{skip, wait};
use serde_json::{Value, json};

use crate::helm::texts;
use crate::pages::{Command, Script};
use crate::world::{NODES, World, fill, missing};

/// What differs between the two pages.
struct Network {
    namespace: &'static str,
    daemonset: &'static str,
    /// How the annotations of its Nodes begin.
    annotations: &'static str,
    /// Those that the page takes away.
    names: &'static [&'static str],
    /// Arguments of routelet's agent that the page sets, beside `--cni-conf-name`.
    arguments: &'static [&'static str],
    /// What begins and ends a node's turn.
    empties: &'static str,
}

const CALICO: Network = Network {
    namespace: "kube-system",
    daemonset: "calico-node",
    annotations: "projectcalico.org/",
    names: &[
        "IPv4Address",
        "IPv4VXLANTunnelAddr",
        "IPv6Address",
        "IPv6VXLANTunnelAddr",
    ],
    arguments: &[],
    empties: "kubectl cordon",
};

const FLANNEL: Network = Network {
    namespace: "kube-flannel",
    daemonset: "kube-flannel-ds",
    annotations: "flannel.alpha.coreos.com/",
    names: &[
        "backend-data",
        "backend-v6-data",
        "backend-type",
        "kube-subnet-manager",
        "public-ip",
        "public-ipv6",
    ],
    arguments: &[
        "--vxlan-vni=1",
        "--vxlan-port=8472",
        "--vxlan-device=flannel.1",
        "--vxlan-device-v6=flannel-v6.1",
    ],
    empties: "kubectl drain",
};

/// A workload of this kind whose pods run a container each.
fn workload(kind: &str, namespace: &str, name: &str) -> Value {
    let labels = json!({ "app": name });
    json!({
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": { "name": name, "namespace": namespace },
        "spec": {
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels, "annotations": { "from": "the test" } },
                "spec": { "containers": [{ "name": name, "image": name }] },
            },
        },
    })
}

/// A pod on a node, whose controller is a ReplicaSet, with a directory of its own.
fn pod(node: &str) -> Value {
    let owner = json!({ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "app", "uid": "1", "controller": true });
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": format!("app-{node}"), "namespace": "default", "ownerReferences": [owner] },
        "spec": {
            "nodeName": node,
            "containers": [{ "name": "app", "image": "app" }],
            "volumes": [{ "name": "own", "emptyDir": {} }],
        },
    })
}

impl Network {
    /// A cluster that has it.
    fn world(&self) -> World {
        let world = World::new();
        if self.namespace != "kube-system" {
            let namespace =
                json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": self.namespace } });
            world.apply(&namespace);
        }
        world.apply(&workload("DaemonSet", self.namespace, self.daemonset));
        for node in NODES {
            let annotations = self
                .names
                .iter()
                .map(|name| (format!("{}{name}", self.annotations), json!("there")));
            let annotations: serde_json::Map<_, _> = annotations.collect();
            let mut object = world.node(node);
            object["metadata"] =
                json!({ "name": node, "labels": object["metadata"]["labels"], "annotations": annotations });
            world.apply(&object);
            world.apply(&pod(node));
        }
        assert_eq!(world.pods_of(self.daemonset).len(), NODES.len());
        world
    }
}

/// A cluster that is moved by the commands of a page.
struct Move {
    network: Network,
    world: World,
    script: Script,
}

impl Move {
    /// Runs the command that begins so.
    fn run(&mut self, beginning: &str) -> String {
        let command = self.script.take(beginning);
        self.world.run(&command.text)
    }

    fn take(&mut self, beginning: &str) -> Command {
        self.script.take(beginning)
    }

    /// Expects the pods of the other network, and of routelet, on these nodes and no others.
    fn expect(&self, others: &[&str], ours: &[&str]) {
        for (daemonset, nodes) in [(self.network.daemonset, others), ("routelet", ours)] {
            let pods = self.world.pods_of(daemonset);
            let is_right =
                pods.len() == nodes.len() && pods.iter().zip(nodes).all(|(pod, node)| pod.ends_with(node));
            assert!(is_right, "{daemonset}: {pods:?}");
        }
    }

    fn arguments(&self) -> Vec<String> {
        let set = self.world.daemonset("kube-system", "routelet").unwrap();
        let container = &set["spec"]["template"]["spec"]["containers"][0];
        texts(&container["args"]).into_iter().map(str::to_owned).collect()
    }

    /// Has a node left by one network and taken by the other, with the label given or taken away.
    fn turn(&self, [empty, label, rollout]: &[Command; 3], node: &str) {
        self.world.run(&fill(&empty.text, "NODE", node));
        assert_eq!(self.world.node(node)["spec"]["unschedulable"], true);
        let pods = format!("/api/v1/namespaces/default/pods/app-{node}");
        let is_drained = self.network.empties == "kubectl drain";
        assert_eq!(self.world.get(&pods).is_none(), is_drained);
        self.world.run(&fill(&label.text, "NODE", node));
        let told = self.world.run(&rollout.text);
        assert!(told.contains("successfully rolled out"), "{told}");
    }

    fn uncordon(&self, command: &Command, node: &str) {
        self.world.run(&fill(&command.text, "NODE", node));
        assert!(self.world.node(node)["spec"]["unschedulable"].is_null());
    }

    /// The move, but for what only one of the pages has.
    fn go(&mut self) {
        let empties = self.network.empties;
        self.expect(&NODES, &[]);
        self.run(&format!(
            "kubectl --namespace {} patch daemonset",
            self.network.namespace
        ));
        self.expect(&NODES, &[]);
        self.run("helm install");
        self.expect(&NODES, &[]);
        let arguments = self.arguments();
        let expected = self
            .network
            .arguments
            .iter()
            .chain(&["--cni-conf-name=05-routelet.conflist"]);
        for argument in expected {
            assert!(
                arguments.iter().any(|known| known == argument),
                "no {argument} in {arguments:?}"
            );
        }
        let turn = [
            empties,
            "kubectl label",
            "kubectl --namespace kube-system rollout",
        ]
        .map(|beginning| self.take(beginning));
        self.turn(&turn, NODES[0]);
        self.expect(&NODES[1..], &NODES[..1]);
        self.turn(&turn, NODES[1]);
        self.expect(&[], &NODES);
    }

    fn forget_annotations(&mut self) {
        self.run("kubectl annotate nodes --all");
        for node in NODES {
            let metadata = self.world.node(node)["metadata"].take();
            assert!(!metadata.to_string().contains("there"), "{metadata}");
        }
    }

    /// The way back, but for what only one of the pages has.
    fn come_back(&mut self) {
        let (empties, namespace) = (self.network.empties, self.network.namespace);
        self.run("helm upgrade");
        let arguments = self.arguments();
        let expected = self.network.arguments.iter().chain(&["--nexthop-objects=off"]);
        for argument in expected {
            assert!(
                arguments.iter().any(|known| known == argument),
                "no {argument} in {arguments:?}"
            );
        }
        self.expect(&[], &NODES);
        for node in NODES {
            self.world.apply(&pod(node));
        }
        let rollout = format!("kubectl --namespace {namespace} rollout");
        let turn = [empties, "kubectl label", &rollout].map(|beginning| self.take(beginning));
        let uncordon = self.take("kubectl uncordon");
        self.turn(&turn, NODES[0]);
        self.uncordon(&uncordon, NODES[0]);
        self.expect(&NODES[..1], &NODES[1..]);
        self.turn(&turn, NODES[1]);
        self.uncordon(&uncordon, NODES[1]);
        self.expect(&NODES, &[]);
        // The first of the cleanup's hooks would take it for its own, and replace it.
        let account = json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": { "name": "routelet-cleanup", "namespace": "kube-system" },
        });
        self.world.apply(&account);
        self.run("helm uninstall");
        assert!(self.world.daemonset("kube-system", "routelet").is_none());
        let path = "/api/v1/namespaces/kube-system/serviceaccounts/routelet-cleanup";
        assert!(self.world.get(path).is_some(), "the cleanup has run");
        self.expect(&NODES, &[]);
    }
}

/// The resource of Calico's policies.
fn policies() -> Value {
    let schema = json!({ "openAPIV3Schema": { "type": "object" } });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": "globalnetworkpolicies.crd.projectcalico.org" },
        "spec": {
            "group": "crd.projectcalico.org",
            "scope": "Cluster",
            "names": { "kind": "GlobalNetworkPolicy", "plural": "globalnetworkpolicies" },
            "versions": [{ "name": "v1", "served": true, "storage": true, "schema": schema }],
        },
    })
}

/// What Calico's agent says of a node when it leaves.
fn leave_word(world: &World, node: &str) {
    let mut object = world.node(node);
    let conditions = object["status"]["conditions"].as_array_mut().unwrap();
    conditions.push(
        json!({ "type": "NetworkUnavailable", "status": "True", "reason": "CalicoIsDown", "message": "-" }),
    );
    world.put(&format!("/api/v1/nodes/{node}/status"), &object);
}

#[test]
fn a_cluster_with_calico_moves_and_comes_back() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let world = CALICO.world();
    world.apply(&workload("Deployment", "kube-system", "calico-kube-controllers"));
    world.apply(&policies());
    let served = "/apis/crd.projectcalico.org/v1/globalnetworkpolicies";
    wait::until(wait::LONG, "Calico's policies", || world.get(served).is_some()).unwrap();
    let mut moves = Move {
        network: CALICO,
        world,
        script: Script::of("pages/moves.rs: a_cluster_with_calico_moves_and_comes_back"),
    };
    let told = moves.run("kubectl get nodes");
    assert!(
        told.contains("[10.244.2.0/24]") && told.contains("there"),
        "{told}"
    );
    let told = moves.run("kubectl get pods");
    assert!(told.lines().any(|line| line.starts_with("node-2 ")), "{told}");
    for resource in ["networkpolicies", "globalnetworkpolicies"] {
        let told = moves.run(&format!("kubectl get {resource}"));
        assert_eq!(told, "No resources found");
    }
    let replicas = |world: &World| {
        let path = "/apis/apps/v1/namespaces/kube-system/deployments/calico-kube-controllers";
        world.get(path).unwrap()["spec"]["replicas"].take()
    };
    moves.run("kubectl --namespace kube-system scale");
    assert_eq!(replicas(&moves.world), 0);
    moves.go();
    let word = moves.take("kubectl patch node");
    let uncordon = moves.take("kubectl uncordon");
    for node in NODES {
        leave_word(&moves.world, node);
        moves.world.run(&fill(&word.text, "NODE", node));
        let conditions = moves.world.node(node)["status"]["conditions"].take();
        let conditions = conditions.as_array().unwrap().iter();
        let told: Vec<_> = conditions
            .map(|condition| (&condition["type"], &condition["status"]))
            .collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(
            told.contains(&(&json!("NetworkUnavailable"), &json!("False"))),
            "{told:?}"
        );
        moves.uncordon(&uncordon, node);
    }
    moves.forget_annotations();
    moves.come_back();
    moves.run("kubectl --namespace kube-system scale");
    assert_eq!(replicas(&moves.world), 1);
}

#[test]
fn a_cluster_with_flannel_moves_and_comes_back() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let mut moves = Move {
        network: FLANNEL,
        world: FLANNEL.world(),
        script: Script::of("pages/moves.rs: a_cluster_with_flannel_moves_and_comes_back"),
    };
    moves.go();
    let uncordon = moves.take("kubectl uncordon");
    for node in NODES {
        moves.uncordon(&uncordon, node);
    }
    moves.forget_annotations();
    moves.come_back();
}
