//! The helm commands of the pages on moving from other networks, and on BGP: each renders, and sets what the page is about.

use std::process::Command;

use routelet_lab::skip;

use crate::helm::is_missing;

/// The pages, and of each of their helm commands in order some of the text that it must give.
const PAGES: &[(&str, &[&[&str]])] = &[
    (
        include_str!("../../../../docs/from-calico.md"),
        &[
            &["network: routelet", "--cni-conf-name=05-routelet.conflist"],
            &["--nexthop-objects=off"],
        ],
    ),
    (
        include_str!("../../../../docs/from-flannel.md"),
        &[
            &[
                "network: routelet",
                "--cni-conf-name=05-routelet.conflist",
                "--vxlan-vni=1\n",
                "--vxlan-port=8472",
                "\"--vxlan-device=flannel.1\"",
                "\"--vxlan-device-v6=flannel-v6.1\"",
            ],
            &["\"--vxlan-device=flannel.1\"", "--nexthop-objects=off"],
        ],
    ),
    (
        include_str!("../../../../docs/bgp.md"),
        &[&["--encapsulation=none", "--pod-cidrs=10.244.0.0/16"]],
    ),
];

/// The commands of a page that begin with `helm` and are not in a block for the reader alone, continuation lines joined.
fn commands(page: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let (mut is_yours, mut goes_on) = (false, false);
    for line in page.lines() {
        let Some(code) = line.strip_prefix("    ") else {
            (is_yours, goes_on) = (false, false);
            continue;
        };
        is_yours |= code.starts_with("# yours");
        if is_yours {
            continue;
        }
        let text = code.trim_end_matches('\\');
        match found.last_mut().filter(|_| goes_on) {
            Some(command) => command.push_str(text),
            None if code.starts_with("helm ") => found.push(text.to_owned()),
            None => continue,
        }
        goes_on = code.ends_with('\\');
    }
    found
}

#[test]
fn the_helm_commands_of_the_pages_set_what_they_are_about() {
    if is_missing() {
        skip!("helm is not installed");
    }
    for (page, expected) in PAGES {
        let commands = commands(page);
        assert_eq!(commands.len(), expected.len(), "{commands:#?}");
        for (command, texts) in commands.iter().zip(*expected) {
            // What is installed is shown instead.
            let shown = command
                .replace("helm install ", "helm template ")
                .replace("helm upgrade ", "helm template ")
                .replace(" --reuse-values", "");
            let mut shell = Command::new("sh");
            shell.args(["-euc", &shown]).env_remove("KUBECONFIG");
            let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
            let output = shell.current_dir(root).output().unwrap();
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{shown}: {error}");
            let rendered = String::from_utf8(output.stdout).unwrap();
            for text in *texts {
                assert!(rendered.contains(text), "{shown} gives no {text:?}");
            }
        }
    }
}
