//! The commands of kubectl that look at a cluster in which routelet is installed.

use routelet_lab::skip;

use crate::pages::Script;
use crate::world::{NODES, World, fill, missing};

#[test]
fn an_agent_is_asked_through_its_pod() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let mut script = Script::of("pages/cluster.rs: an_agent_is_asked_through_its_pod");
    let world = World::new();
    world.run("kubectl apply -f deploy/routelet.yaml");
    let pods = world.pods_of("routelet");
    let [first, second] = &pods[..] else {
        panic!("{pods:?}")
    };

    for (page, beginning) in [
        ("docs/operations.md", "kubectl --namespace kube-system get pods"),
        ("docs/troubleshooting.md", "kubectl get pods"),
    ] {
        let told = world.run(&script.take_of(page, beginning).text);
        for (pod, node) in pods.iter().zip(NODES) {
            let is_there = |line: &str| line.contains(pod) && line.contains(node);
            assert!(told.lines().any(is_there), "{page}: {told}");
        }
    }
    let told = world.run(
        &script
            .take("kubectl --namespace kube-system get pods --output wide --selector")
            .text,
    );
    assert!(told.contains(first) && told.contains(second), "{told}");
    let logs = script.take("kubectl --namespace kube-system logs POD").text;
    let told = world.run(&fill(&logs, "POD", second));
    assert_eq!(told, format!("the log of kube-system/{second}/routelet"));

    // No kubelet runs them here: what is asked of it is what another test runs on a node.
    world.kubelet.asked();
    let exec = script
        .take_of(
            "docs/troubleshooting.md",
            "kubectl --namespace kube-system exec POD",
        )
        .text;
    let asked = exec_reaches_the_kubelet(&world, &fill(&exec, "POD", second));
    assert!(
        asked.starts_with(&format!("/exec/kube-system/{second}/routelet?")),
        "{asked}"
    );
    for command in script.rest_of("docs/operations.md") {
        let asked = exec_reaches_the_kubelet(&world, &command.text);
        assert!(asked.starts_with("/exec/kube-system/routelet-"), "{asked}");
    }

    let told = world.run(&fill(
        &script.take("kubectl describe pod NAME").text,
        "NAME",
        &format!("{first} --namespace kube-system"),
    ));
    assert!(told.contains("Events:"), "{told}");
    let told = world.run(&fill(
        &script.take("kubectl describe node NODE").text,
        "NODE",
        NODES[0],
    ));
    assert!(told.contains("KubeletReady"), "{told}");
    let told = world.run(
        &script
            .take("kubectl get nodes -o custom-columns=NAME:.metadata.name,CIDRS")
            .text,
    );
    let rows: Vec<Vec<_>> = told
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        rows,
        [
            ["NAME", "CIDRS"],
            [NODES[0], "[10.244.1.0/24]"],
            [NODES[1], "[10.244.2.0/24]"]
        ]
    );
    world.run(&fill(
        &script.take("kubectl annotate node NODE").text,
        "NODE",
        NODES[1],
    ));
    let annotations = world.node(NODES[1])["metadata"]["annotations"].take();
    assert_eq!(annotations["projectcalico.org/IPv4Address"], "10.99.0.7/24");
}

/// Runs a line of `kubectl exec`, which the kubelet refuses; returns what that was asked for.
fn exec_reaches_the_kubelet(world: &World, line: &str) -> String {
    let (succeeds, told) = world.try_run(line);
    assert!(!succeeds, "{told}");
    let asked = world.kubelet.asked().pop();
    let asked = asked.unwrap_or_else(|| panic!("{line} does not reach the kubelet: {told}"));
    let (_, command) = line.split_once(" -- ").unwrap();
    let words = form_of(command);
    assert!(asked.contains(&words), "{words} is not in {asked}");
    asked
}

/// A command's words as the kubelet gets them.
fn form_of(command: &str) -> String {
    let words = command.split(' ').map(|word| {
        let word = word.replace(',', "%2C").replace('=', "%3D");
        format!("command={word}")
    });
    words.collect::<Vec<_>>().join("&")
}
