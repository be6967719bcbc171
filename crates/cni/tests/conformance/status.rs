//! STATUS, and what the other verbs do while the agent is not ready.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::thread;

use crate::runtime::{NEWEST, Runtime, VERSIONS, WITH_CHECK, runtime};

const V4: &str = "10.244.1.0/24";

/// An agent that gives the same answer to everyone.
pub(crate) fn agent(runtime: &Runtime, answer: &'static str) {
    let listener = UnixListener::bind(runtime.file("agent.sock")).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut question = [0; 256];
            let length = stream.read(&mut question).unwrap();
            assert!(question[..length].starts_with(b"GET /readyz HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
}

#[test]
fn ready_as_often_as_it_is_asked() {
    let runtime = runtime!(V4);
    agent(&runtime, "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n");
    for _ in 0..2 {
        assert_eq!(runtime.status().ok().stdout, "");
    }
}

#[test]
fn not_ready_without_an_agent_and_without_its_consent() {
    runtime!(V4).status().fails(NEWEST, 50, "does not answer on");
    for (answer, text) in [
        (
            "HTTP/1.1 503 Service Unavailable\r\n\r\nnodes: not listed yet\n",
            "nodes: not listed yet",
        ),
        ("HTTP/1.1 404 Not Found\r\n\r\n", "HTTP status 404"),
        ("good morning", "does not answer in HTTP"),
        ("", "does not answer in HTTP"),
    ] {
        let runtime = runtime!(V4);
        agent(&runtime, answer);
        runtime.status().fails(NEWEST, 50, text);
    }
}

#[test]
fn by_a_configuration_that_refuses_pods_can_be_taken_down_only() {
    let mut runtime = runtime!(V4);
    agent(&runtime, "HTTP/1.1 200 OK\r\n\r\n");
    let pod = runtime.pod("web");
    let why = "no pod can be started for a reason";
    runtime.config["refuse"] = why.into();
    runtime.status().fails(NEWEST, 50, why);
    runtime.add(&mut runtime.sandbox("late")).fails(NEWEST, 50, why);
    runtime.check(&pod).ok();
    runtime.del(&pod).ok();
    runtime.assert_empty("after DEL");
}

#[test]
fn an_agent_that_says_nothing_is_not_waited_for() {
    let runtime = runtime!(V4);
    // Connections wait in its queue.
    let _listener = UnixListener::bind(runtime.file("agent.sock")).unwrap();
    runtime.status().fails(NEWEST, 50, "no answer within");
}

#[test]
fn not_ready_without_the_ipam_plugin() {
    let mut runtime = runtime!(V4);
    agent(&runtime, "HTTP/1.1 200 OK\r\n\r\n");
    runtime.path = "/no/such".into();
    runtime
        .status()
        .fails(NEWEST, 50, "host-local is not in CNI_PATH");
}

#[test]
fn the_other_verbs_need_no_agent() {
    for version in VERSIONS {
        let runtime = runtime!(V4).of_version(version);
        agent(&runtime, "HTTP/1.1 503 Service Unavailable\r\n\r\nnot yet\n");
        let pod = runtime.pod("web");
        if WITH_CHECK.contains(&version) {
            runtime.check(&pod).ok();
        }
        if version == NEWEST {
            runtime.gc(&[&pod]).ok();
        }
        runtime.del(&pod).ok();
    }
}
