//! The list of commands in `common/places.rs`, held against the pages and the tests.

use std::fs;
use std::path::Path;

use crate::pages::places::{NOT_RUN, RUN, RUN_BY_CI};
use crate::pages::{Command, ROOT, all, commands, names};

const TESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests");

/// Whether the entry is about the command.
fn is_about(page: &str, entry: &str, command: &Command) -> bool {
    page == command.page && names(entry, &command.text)
}

/// Each page and entry of commands that are run.
fn entries() -> impl Iterator<Item = (&'static str, &'static str)> {
    let by_tests = RUN.iter().flat_map(|(_, pages)| *pages);
    let by_tests = by_tests.flat_map(|(page, entries)| entries.iter().map(|entry| (*page, *entry)));
    by_tests.chain(RUN_BY_CI.iter().copied())
}

#[test]
fn each_command_of_each_page_is_run_or_there_is_a_reason() {
    let commands = all();
    assert!(commands.len() > 100, "{commands:#?}");
    for command in &commands {
        let is_run = entries().any(|(page, entry)| is_about(page, entry, command));
        let has_reason = NOT_RUN
            .iter()
            .any(|(page, entry, reason)| is_about(page, entry, command) && !reason.is_empty());
        assert!(is_run || has_reason, "no test runs {}", command.place());
        assert!(!(is_run && has_reason), "a test runs {}", command.place());
        assert_eq!(
            command.is_yours,
            has_reason,
            "the page does not tell whether a test runs {}",
            command.place()
        );
    }
}

#[test]
fn the_list_names_no_command_that_no_page_has() {
    let commands = all();
    let reasons = NOT_RUN.iter().map(|(page, entry, _)| (*page, *entry));
    for (page, entry) in entries().chain(reasons) {
        let found = commands.iter().any(|command| is_about(page, entry, command));
        assert!(found, "{page} has no command {entry:?}");
    }
}

#[test]
fn the_tests_of_the_list_are_there_and_take_their_commands_from_it() {
    for (test, _) in RUN {
        let (file, function) = test.split_once(": ").unwrap();
        let source = fs::read_to_string(Path::new(TESTS).join(file)).unwrap();
        assert!(
            source.contains(&format!("#[test]\nfn {function}() {{")),
            "{file} has no test {function}"
        );
        assert!(
            source.contains(&format!("\"{test}\"")),
            "{test} does not ask for its commands"
        );
    }
    let ci = fs::read_to_string(Path::new(ROOT).join(".ci/run")).unwrap();
    for (_, command) in RUN_BY_CI {
        let runs = ci.lines().any(|line| begins_with(line, command));
        assert!(runs, "continuous integration does not run {command}");
    }
}

/// Whether a line of a script runs the command, with whatever variables before it and words behind.
fn begins_with(line: &str, command: &str) -> bool {
    let mut words = line.split_whitespace().skip_while(|word| word.contains('='));
    command.split(' ').all(|word| words.next() == Some(word))
}

/// Text and line of each command, and whether it is the reader's own.
fn found(page: &str) -> Vec<(String, usize, bool)> {
    let commands = commands("page.md", page).into_iter();
    commands
        .map(|command| (command.text, command.line, command.is_yours))
        .collect()
}

#[test]
fn commands_are_found_in_indented_blocks() {
    let page = "\
Text with `ip link`.

    # a comment
    ip link
    helm install \\
      --set a=b

    # yours: a reason
    kubectl patch --patch '{\"a\":
      {\"b\": 1}}' \\
      --type merge
    reboot

- in a list

      ip route
";
    let expected = [
        ("ip link", 4, false),
        ("helm install --set a=b", 5, false),
        (
            "kubectl patch --patch '{\"a\": {\"b\": 1}}' --type merge",
            9,
            true,
        ),
        ("reboot", 12, true),
        ("ip route", 16, false),
    ];
    assert_eq!(
        found(page),
        expected.map(|(text, line, is_yours)| (text.to_owned(), line, is_yours))
    );
}

#[test]
fn commands_and_what_they_print_are_found_in_consoles() {
    let page = "\
```console
$ ip route
default

    indented
$ ip link
```

```json
    {}
```
";
    let commands = commands("page.md", page);
    let [route, link] = &commands[..] else {
        panic!("{commands:?}")
    };
    assert_eq!(
        (route.text.as_str(), &route.shown[..]),
        (
            "ip route",
            &["default", "", "    indented"].map(str::to_owned)[..]
        )
    );
    assert_eq!((link.text.as_str(), link.line), ("ip link", 6));
    assert!(link.shown.is_empty());
}

#[test]
#[should_panic(expected = "a fenced block of the language \"sh\"")]
fn other_fences_are_refused() {
    commands("page.md", "```sh\nip link\n```\n");
}

#[test]
#[should_panic(expected = "this mark begins no block")]
fn a_mark_within_a_block_is_refused() {
    commands("page.md", "    ip link\n    # yours\n    reboot\n");
}

#[test]
#[should_panic(expected = "the command before does not end")]
fn a_command_that_does_not_end_is_refused() {
    commands("page.md", "    echo 'a\n\n    b'\n");
}
