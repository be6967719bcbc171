//! The README, followed as by someone who has just come: a clone, and each of its commands in their order.
//!
//! It builds the workspace anew, which takes minutes, so it runs only where it is named: `cargo test -p routelet --test readme`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "common/pages.rs"]
mod pages;

use std::path::{Path, PathBuf};
use std::process::Command;

use routelet_lab::process::Process;
use routelet_lab::{Backend, Cluster, KubeApi, TempDir, wait};
use routelet_netlink::Netns;

use crate::pages::{ROOT, Script};

/// The directory that this was built into.
fn target() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.ancestors().nth(3).unwrap().to_owned()
}

/// Copies what was built of others' crates, so that it need not be built again. Not shared: to cargo, a clone's crates are the
/// same as the checkout's, and each would take the other's for its own.
const BUILT: &str = r#"
    find debug release */debug */release \( -name incremental -o -path 'upgrade/*' -o -path 'kernels/*' \) -prune -o -type f \
      \( -name '*.rlib' -o -name '*.rmeta' -o -name '*.so' -o -name '*.d' -o -path '*/.fingerprint/*' -o -path '*/build/*' \) \
      -print0 2>/dev/null | tar --null --no-recursion -T - -cf - | tar -xf - -C "$CLONE""#;

/// Runs a line of the shell in the clone, and in a namespace where that is given; it must succeed.
fn run(line: &str, clone: &Path, netns: Option<&Netns>, variables: &[(&str, &Path)]) -> String {
    let mut command = Command::new("sh");
    command.args(["-euc", line]).current_dir(clone);
    command.envs(variables.iter().copied());
    let output = match netns {
        Some(netns) => netns.run(|| command.output().unwrap()).unwrap(),
        None => command.output().unwrap(),
    };
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}:\n{told}\n{errors}");
    told
}

#[test]
fn each_command_of_the_readme_works_in_its_order() {
    let directory = TempDir::new().unwrap();
    let clone = directory.path().join("routelet");
    // The clone may belong to another user than the checkout.
    let line = format!(
        "git -c safe.directory='*' clone --quiet '{ROOT}' '{}'",
        clone.display()
    );
    run(&line, directory.path(), None, &[]);
    std::fs::create_dir(clone.join("target")).unwrap();
    run(BUILT, &target(), None, &[("CLONE", &clone.join("target"))]);
    let readme = std::fs::read_to_string(clone.join("README.md")).unwrap();
    let mut cluster = Cluster::new(Backend::KubeApiserver).unwrap();
    cluster.add_node().unwrap();
    let KubeApi::Real(server) = cluster.api() else {
        unreachable!()
    };
    let admin = server.admin_kubeconfig().to_owned();
    let node = cluster.nodes()[0].node.netns().clone();
    let mut agent = None;
    let mut script = Script::of("readme.rs: each_command_of_the_readme_works_in_its_order");
    for pages::Command {
        text: command, shown, ..
    } in script.rest_of("README.md")
    {
        let words: Vec<_> = command.split(' ').collect();
        match words[..] {
            // Not all tests again within one of them, and no figures that take minutes.
            ["cargo", "xtask", "test"] => {
                drop(run(&format!("{command} -p routelet-model"), &clone, None, &[]))
            }
            ["cargo", "xtask", "bench"] => {
                drop(run(&format!("{command} --quick --only start"), &clone, None, &[]));
            }
            ["cargo", "xtask", "demo"] => {
                let told = run(&command, &clone, None, &[]);
                let shown = "pod to pod across nodes";
                assert!(told.contains(shown) && readme.contains(shown), "{told}");
            }
            ["cargo", "xtask", "image"] => {
                run(&command, &clone, None, &[]);
                assert!(clone.join("target/image/routelet.tar").is_file());
            }
            ["helm", "install", ..] => {
                // The lab has a service account of this name, which helm would not take over.
                let command = command.replacen("install routelet ", "install net ", 1);
                let variables = [("KUBECONFIG", admin.as_path()), ("HOME", directory.path())];
                let told = run(&command, &clone, Some(cluster.lab().netns()), &variables);
                assert!(told.contains("STATUS: deployed"), "{told}");
            }
            ["routelet", "run", ..] => {
                let path = std::env::var("PATH").unwrap();
                let mut shell = Command::new("sh");
                shell.args(["-euc", &format!("exec {command}")]);
                shell.current_dir(directory.path());
                shell.env("PATH", format!("{}/target/debug:{path}", clone.display()));
                shell.env("NODE_NAME", cluster.nodes()[0].node.name());
                shell.env("ROUTELET_KUBECONFIG", cluster.kubeconfig());
                for (name, file) in [("ADMIN_SOCKET", "socket"), ("SAVED_SYSCTLS", "sysctls")] {
                    shell.env(format!("ROUTELET_{name}"), directory.path().join(file));
                }
                let started = Process::start("the agent", &node, shell).unwrap();
                started.wait_log("in sync", wait::LONG).unwrap();
                agent = Some(started);
            }
            ["curl", ..] => {
                assert!(agent.as_mut().unwrap().is_running());
                let told = run(&command, &clone, Some(&node), &[]);
                assert_eq!(told.lines().collect::<Vec<_>>(), shown);
            }
            _ => panic!("no one has followed {command}"),
        }
    }
}
