//! Whom the two ends are: by name, by address, with and without agent and API.

use routelet_lab::api::objects;
use routelet_model::Family;

use crate::stage::Stage;

fn refused(stage: &Stage, words: &[&str], parts: &[&str]) {
    let said = stage.trace(words);
    assert_eq!((said.code, said.stdout.as_str()), (2, ""), "{said:?}");
    for part in parts {
        assert!(said.stderr.contains(part), "{part:?} is not in {said:?}");
    }
}

#[test]
fn pods_go_by_name_or_address_and_both_families_are_looked_at() {
    let mut stage = Stage::new();
    let kubeconfig = stage.cluster.kubeconfig().display().to_string();
    let variables = [("ROUTELET_KUBECONFIG", kubeconfig.as_str())];
    for with_agent in [true, false] {
        if !with_agent {
            stage.stop_agent();
        }
        // The agent tells where the API is.
        let variables = if with_agent { &[][..] } else { &variables };
        let said = stage.trace(&["default/a", "default/b"]);
        assert_eq!(said.code, 0, "{said:?}");
        for family in Family::ALL {
            let head = format!(
                "default/a ({}) to default/b ({}), a pod of this node\n",
                stage.a(family),
                stage.b(family)
            );
            assert!(said.stdout.contains(&head), "{}", said.stdout);
        }
        assert_eq!(
            said.stdout
                .matches("\nwhole: each hop is as it should be\n")
                .count(),
            2
        );
        let silent = "the agent does not answer: judged by the kernel alone";
        assert_eq!(said.stdout.starts_with(silent), !with_agent, "{}", said.stdout);

        // One of another node: by the API.
        let said = stage.trace_with(&["default/a", "default/c"], variables);
        assert_eq!(said.code, 0, "{said:?}");
        let head = format!(
            "default/a ({}) to default/c ({}), a pod of node node-2\n",
            stage.a(Family::V4),
            stage.c(Family::V4)
        );
        assert!(said.stdout.contains(&head), "{}", said.stdout);
    }
}

#[test]
fn what_cannot_be_looked_at_says_why() {
    let mut stage = Stage::new();
    let lonely = objects::pod("default", "lonely").node("node-2").build();
    stage.cluster.api().apply(&lonely).unwrap();
    let (a, c) = (stage.a(Family::V4).to_string(), stage.c(Family::V6).to_string());

    refused(
        &stage,
        &["web", &a],
        &["'web'", "NAMESPACE/NAME or an IP address"],
    );
    refused(
        &stage,
        &[&c, &a],
        &[&c, "is no pod of this node", "kubectl get pod"],
    );
    refused(&stage, &["default/c", &a], &["default/c is no pod of this node"]);
    refused(
        &stage,
        &["203.0.113.1", &a],
        &["203.0.113.1 is no pod of this node"],
    );
    refused(&stage, &[&a, &c], &["no address of the same family"]);
    refused(&stage, &[&a, "default/gone"], &["there is no pod default/gone"]);
    refused(
        &stage,
        &[&a, "default/lonely"],
        &["default/lonely has no address yet"],
    );
    let mut silent = stage.cluster.directory().path().to_owned();
    silent.push("nowhere.sock");
    let said = stage.trace(&[&a, &a, "--admin-socket", silent.to_str().unwrap()]);
    assert!(said.stdout.contains("nowhere.sock: No such file"), "{said:?}");
    stage.stop_agent();
    let without_api = ["default/c is no pod of this node", "--kubeconfig", "its address"];
    refused(&stage, &[&a, "default/c"], &without_api);
}

/// What is the agent's is told by the agent, where it answers, and a flag goes before what it says.
#[test]
fn other_names_and_numbers_are_the_agents_to_tell() {
    let mut stage = Stage::with(&["--vxlan-device=vx4", "--route-protocol=77", "--nft-table=pods"]);
    for family in Family::ALL {
        stage.whole(stage.c(family));
    }
    let (a, c) = (stage.a(Family::V4).to_string(), stage.c(Family::V4).to_string());
    let said = stage.trace_with(&[&a, &c], &[("ROUTELET_ROUTE_PROTOCOL", "78")]);
    assert_eq!(said.code, 0, "the agent goes before a variable: {said:?}");
    let said = stage.trace(&[&a, &c, "--route-protocol=78"]);
    assert_eq!(
        said.code, 1,
        "routes of protocol 77 are not the agent's: {said:?}"
    );
    stage.stop_agent();
    let variables = [
        ("ROUTELET_VXLAN_DEVICE", "vx4"),
        ("ROUTELET_ROUTE_PROTOCOL", "77"),
        ("ROUTELET_NFT_TABLE", "pods"),
    ];
    let said = stage.trace_with(&[&a, &c], &variables);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.stdout.contains("proto 77"), "{}", said.stdout);
}
