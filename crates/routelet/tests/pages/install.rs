//! The commands that install routelet, each kind of cluster's, look whether it works, and take it away.

use routelet_lab::skip;
use serde_json::Value;

use crate::helm::texts;
use crate::pages::Script;
use crate::world::{NODES, World, fill, missing};

/// The arguments of the agent that is installed.
fn arguments(world: &World) -> Vec<String> {
    let set = world.daemonset("kube-system", "routelet").unwrap();
    let container = &set["spec"]["template"]["spec"]["containers"][0];
    texts(&container["args"]).into_iter().map(str::to_owned).collect()
}

fn image(set: &Value) -> &Value {
    &set["spec"]["template"]["spec"]["containers"][0]["image"]
}

#[test]
fn the_manifests_are_applied() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let mut script = Script::of("pages/install.rs: the_manifests_are_applied");
    let world = World::new();
    world.run(&script.take("kubectl apply").text);
    assert_eq!(world.pods_of("routelet").len(), NODES.len());
    let set = world.daemonset("kube-system", "routelet").unwrap();
    assert_eq!(image(&set), "routelet:0.1.0", "as the page says");
}

#[test]
fn each_kind_of_cluster_gets_its_settings() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let mut script = Script::of("pages/install.rs: each_kind_of_cluster_gets_its_settings");
    let world = World::new();
    let checks = [
        "kubectl --namespace kube-system rollout",
        "kubectl --namespace kube-system logs",
        "helm --namespace",
    ];
    let checks = checks.map(|beginning| script.take_of("docs/install.md", beginning).text);
    let notes = script.rest_of("charts/routelet/templates/NOTES.txt");
    // The page on BGP has one more.
    let clusters = [
        (
            "docs/install.md",
            Some(("ADDRESS-OF-THE-CONTROL-PLANE", "192.0.2.1")),
            Some("10.244.0.0/16"),
        ),
        (
            "docs/install.md",
            Some(("ADDRESS-OF-A-SERVER", "192.0.2.1")),
            Some("10.42.0.0/16"),
        ),
        ("docs/install.md", None, None),
        ("docs/bgp.md", None, Some("10.244.0.0/16")),
    ];
    for (page, address, pod_cidrs) in clusters {
        let mut install = script.take_of(page, "helm install").text;
        if let Some((placeholder, value)) = address {
            install = fill(&install, placeholder, value);
        }
        let told = world.run(&install);
        // What helm says is what the page says.
        for (note, check) in notes.iter().zip(&checks) {
            let note = note.text.replace("{{ .Release.Namespace }}", "kube-system");
            let note = note.replace("{{ include \"routelet.name\" . }}", "routelet");
            assert_eq!(note.replace("{{ .Release.Name }}", "routelet"), *check);
            assert!(told.lines().any(|line| line == format!("     {check}")), "{told}");
        }
        let arguments = arguments(&world);
        let mut expected: Vec<_> = pod_cidrs
            .iter()
            .map(|cidrs| format!("--pod-cidrs={cidrs}"))
            .collect();
        match page {
            "docs/install.md" => {
                let host = address.map_or("kind-control-plane", |(_, value)| value);
                expected.extend([
                    format!("--api-server-host={host}"),
                    "--api-server-port=6443".to_owned(),
                ]);
            }
            _ => expected.push("--encapsulation=none".to_owned()),
        }
        for argument in expected {
            assert!(arguments.contains(&argument), "{install}: {arguments:?}");
        }
        assert_eq!(
            image(&world.daemonset("kube-system", "routelet").unwrap()),
            "routelet:dev"
        );
        if script.is_left("helm upgrade") {
            look_and_uninstall(&world, &mut script, &checks);
        } else {
            world.run("helm uninstall routelet --namespace kube-system --no-hooks");
        }
    }
}

/// Looks whether it works, and has it uninstalled with more patience.
fn look_and_uninstall(world: &World, script: &mut Script, checks: &[String; 3]) {
    let [rollout, logs, test] = checks.each_ref().map(|line| world.run(line));
    assert!(rollout.contains("successfully rolled out"), "{rollout}");
    assert!(logs.contains("the log of kube-system/routelet-"), "{logs}");
    assert!(test.contains("Phase:") && test.contains("Succeeded"), "{test}");
    world.run(&script.take("helm upgrade").text);
    world.run(&script.take("helm uninstall").text);
    assert!(world.daemonset("kube-system", "routelet").is_none());
}
