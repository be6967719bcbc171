//! The commands of docs/troubleshooting.md, run on a node of the lab, and what the page says that they print.

use std::path::Path;
use std::process::Command;

use routelet_lab::skip;
use routelet_model::{Family, vtep_mac};

use crate::stage::Stage;

const PAGE: &str = include_str!("../../../../docs/troubleshooting.md");

/// The page's blocks of code that are not for the reader's own machines.
fn blocks() -> Vec<Vec<&'static str>> {
    let mut blocks = vec![Vec::new()];
    for line in PAGE.lines() {
        match (line.strip_prefix("    "), blocks.last_mut()) {
            (Some(code), Some(block)) => block.push(code),
            // An empty line within a block.
            (None, Some(block)) if line.is_empty() && !block.is_empty() => block.push(""),
            _ => blocks.push(Vec::new()),
        }
    }
    blocks.retain_mut(|block| {
        while block.last().is_some_and(|line| line.is_empty()) {
            block.pop();
        }
        block.first().is_some_and(|line| !line.starts_with("# yours"))
    });
    blocks
}

/// Runs a line of a shell on the stage's first node; what it prints.
fn run(stage: &Stage, line: &str) -> (Option<i32>, String) {
    let programs = Path::new(env!("CARGO_BIN_EXE_routelet")).parent().unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("sh");
    shell
        .args(["-c", line])
        .env("PATH", path)
        .env("ROUTELET_ADMIN_SOCKET", stage.socket());
    let output = stage.netns().run(|| shell.output()).unwrap().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(text(&output.stderr), "", "{line}");
    (output.status.code(), text(&output.stdout))
}

#[test]
fn each_command_of_the_page_is_understood_and_answered() {
    for program in ["ip", "bridge", "nft"] {
        let found = Command::new(program).arg("-V").output();
        if found.is_err() {
            skip!("{program} is not installed");
        }
    }
    let stage = Stage::new();
    let mut count = 0;
    for block in blocks().iter().filter(|block| !block[0].starts_with("$ ")) {
        // What these directories hold is the node's own affair.
        for line in block
            .iter()
            .filter(|line| !line.is_empty() && !line.starts_with("ls "))
        {
            let (code, text) = run(&stage, line);
            assert_eq!(code, Some(0), "{line}: {text}");
            // Where nothing differs, there is nothing to tell.
            let may_be_silent = *line == "routelet diff";
            assert!(may_be_silent || !text.trim().is_empty(), "{line} prints nothing");
            count += 1;
        }
    }
    assert!(count >= 12, "only {count} commands were found");
}

#[test]
fn the_example_is_what_the_program_says() {
    let stage = Stage::without_agent();
    stage
        .setup()
        .delete_fdb("vxlan.calico", vtep_mac("node-2", Family::V4))
        .unwrap();
    let blocks = blocks();
    let example: Vec<_> = blocks.iter().filter(|block| block[0].starts_with("$ ")).collect();
    let [block] = example[..] else {
        panic!("{} examples", example.len())
    };
    let (code, text) = run(&stage, &block[0][2..]);
    let text = text.replace(
        &stage.socket().display().to_string(),
        "/run/routelet/routelet.sock",
    );
    assert_eq!(text.trim_end(), block[1..].join("\n"));
    assert_eq!(code, Some(1));
}
