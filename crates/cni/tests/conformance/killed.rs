//! The plugin killed, or refused by the kernel, at each of its steps: strace does it, at the n-th system call of a kind.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use routelet_lab::wait;

use crate::runtime::{NEWEST, Runtime, Sandbox, VERSIONS, WITH_CHECK, links, runtime};

const V4: &str = "10.244.1.0/24";
const V6: &str = "fd00:244:1::/64";

/// The system calls that change anything: netlink requests, and settings below /proc/sys (besides what the IPAM plugin is
/// told, and the answer).
const STEPS: [&str; 2] = ["sendto", "write"];

/// Whether strace is there and may trace.
fn has_strace() -> bool {
    let mut command = Command::new("strace");
    command.args(["-o", "/dev/null", "true"]);
    command.output().is_ok_and(|output| output.status.success())
}

macro_rules! strace {
    () => {
        if !has_strace() {
            routelet_lab::skip!("no strace, or it may not trace here");
        }
    };
}

/// Has `fault` happen at the `number`-th call of `call`. Other threads than the first make none that counts.
fn at_step(runtime: &mut Runtime, call: &str, fault: &str, number: usize) {
    let inject = format!("inject={call}:{fault}:when={number}");
    let words = [
        "strace",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "trace=sendto,write",
        "-e",
        &inject,
    ];
    runtime.wrapper = words.map(str::to_owned).into();
}

/// Does `work` with the fault at the first step, then at the second and so on, until `work` says that it got by without.
/// Returns how many steps there were.
fn at_each_step(
    runtime: &mut Runtime,
    call: &str,
    fault: &str,
    mut work: impl FnMut(&mut Runtime, &str) -> bool,
) -> usize {
    for number in 1..200 {
        at_step(runtime, call, fault, number);
        let done = work(runtime, &format!("{call} {number}, {fault}"));
        runtime.wrapper.clear();
        if done {
            return number - 1;
        }
    }
    panic!("200 steps and no end");
}

/// Runs an ADD that the fault may hit, then DEL, and sees that nothing is left. Returns whether the fault missed.
fn add_and_del(runtime: &mut Runtime, sandbox: &mut Sandbox, when: &str) -> bool {
    let answer = runtime.add(sandbox);
    runtime.wrapper.clear();
    // Written in part, the answer would be none for a runtime, either.
    let succeeded = answer.success;
    for _ in 0..2 {
        runtime.del(sandbox).ok();
        runtime.assert_empty(when);
        assert_eq!(links(&sandbox.netns), [""; 0], "{when}");
    }
    succeeded
}

#[test]
fn add_killed_at_any_step_is_cleaned_up_by_del() {
    strace!();
    for version in VERSIONS {
        for call in STEPS {
            let mut runtime = runtime!(V4, V6).of_version(version);
            let mut sandbox = runtime.sandbox("web");
            let steps = at_each_step(&mut runtime, call, "signal=KILL", |runtime, when| {
                add_and_del(runtime, &mut sandbox, when)
            });
            assert!(steps > 3, "{call}: {steps} steps");
        }
    }
}

#[test]
fn add_refused_at_any_step_leaves_nothing() {
    strace!();
    for call in STEPS {
        let mut runtime = runtime!(V4, V6);
        let mut sandbox = runtime.sandbox("web");
        let steps = at_each_step(&mut runtime, call, "error=EPERM", |runtime, when| {
            let answer = runtime.add(&mut sandbox);
            runtime.wrapper.clear();
            if answer.success {
                // What failed did not matter, or nothing did.
                return add_done(runtime, &sandbox);
            }
            let error = serde_json::from_str(&answer.stdout).unwrap_or(serde_json::Value::Null);
            if error["code"].is_null() {
                // The answer is what could not be written, or not at once.
                runtime.del(&sandbox).ok();
            } else {
                let message = error["msg"].as_str();
                assert!(message.is_some_and(|text| !text.is_empty()), "{error}");
            }
            runtime.assert_empty(when);
            assert_eq!(links(&sandbox.netns), [""; 0], "{when}");
            false
        });
        assert!(steps > 3, "{call}: {steps} steps");
    }
}

fn add_done(runtime: &Runtime, sandbox: &Sandbox) -> bool {
    runtime.check(sandbox).ok();
    runtime.del(sandbox).ok();
    runtime.assert_empty("after DEL");
    true
}

#[test]
fn del_killed_or_refused_at_any_step_is_finished_by_the_next() {
    strace!();
    for version in VERSIONS {
        for fault in ["signal=KILL", "error=EPERM"] {
            let mut runtime = runtime!(V4, V6).of_version(version);
            at_each_step(&mut runtime, "sendto", fault, |runtime, when| {
                let wrapper = std::mem::take(&mut runtime.wrapper);
                let pod = runtime.pod("web");
                runtime.wrapper = wrapper;
                let succeeded = runtime.del(&pod).success;
                runtime.wrapper.clear();
                runtime.del(&pod).ok();
                runtime.assert_empty(when);
                succeeded
            });
        }
    }
}

#[test]
fn gc_killed_at_any_step_is_finished_by_the_next() {
    strace!();
    let mut runtime = runtime!(V4, V6);
    let living = runtime.pod("living");
    at_each_step(&mut runtime, "sendto", "signal=KILL", |runtime, when| {
        let wrapper = std::mem::take(&mut runtime.wrapper);
        for name in ["dead", "lost"] {
            runtime.pod(name);
        }
        runtime.wrapper = wrapper;
        let succeeded = runtime.gc(&[&living]).success;
        runtime.wrapper.clear();
        runtime.gc(&[&living]).ok();
        assert_eq!(runtime.veths(), [living.host_veth()], "{when}");
        assert_eq!(runtime.leased(), [living.id.as_str()], "{when}");
        succeeded
    });
    runtime.check(&living).ok();
}

#[test]
fn check_killed_changes_nothing() {
    strace!();
    for version in WITH_CHECK {
        let mut runtime = runtime!(V4).of_version(version);
        let pod = runtime.pod("web");
        at_step(&mut runtime, "sendto", "signal=KILL", 3);
        assert!(!runtime.check(&pod).success);
        runtime.wrapper.clear();
        runtime.check(&pod).ok();
    }
}

#[test]
fn add_killed_while_the_ipam_plugin_runs_is_cleaned_up_by_del() {
    let mut runtime = runtime!(V4, V6);
    // Gives an address, then says nothing until it is let go.
    let (given, go) = (runtime.file("given"), runtime.file("go"));
    let directory = runtime.file("plugins");
    std::fs::create_dir(&directory).unwrap();
    let script = format!(
        "#!/bin/sh\nanswer=$({}/host-local)\necho \"$answer\"\nif [ \"$CNI_COMMAND\" = ADD ]; then echo $PPID >{1}.new; mv \
         {1}.new {1}; read line <{2}; fi\n",
        runtime.path.display(),
        given.display(),
        go.display()
    );
    let program = directory.join("slow");
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let made = Command::new("mkfifo").arg(&go).output().unwrap();
    assert!(made.status.success());
    runtime.config["ipam"]["type"] = "slow".into();
    runtime.path = directory;

    let sandbox = runtime.sandbox("web");
    let answer = std::thread::scope(|scope| {
        let adding = scope.spawn(|| runtime.call("ADD", &sandbox, &runtime.config));
        let plugin = wait::until_some(wait::LONG, "an address to be given", || {
            std::fs::read_to_string(&given).ok()?.trim().parse::<u32>().ok()
        })
        .unwrap();
        let killed = Command::new("kill")
            .args(["-9", &plugin.to_string()])
            .output()
            .unwrap();
        assert!(killed.status.success());
        // The orphan comes to its end.
        std::fs::write(&go, "go\n").unwrap();
        adding.join().unwrap()
    });
    assert!(!answer.success);
    assert_eq!(runtime.leases().len(), 2);
    runtime.call("DEL", &sandbox, &runtime.config).ok();
    runtime.assert_empty("after DEL");
    assert_eq!(runtime.config["cniVersion"], NEWEST);
}
