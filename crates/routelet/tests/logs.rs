//! docs/logs.md and the source say the same: each line of level info or above is on the page, with its fields, and none
//! that is gone.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const PAGE: &str = include_str!("../../../docs/logs.md");

/// Crates of which something runs on a node.
const CRATES: [&str; 7] = [
    "cni",
    "model",
    "netlink",
    "planner",
    "reconciler",
    "routelet",
    "watcher",
];

/// Messages that are put together elsewhere: where, after which words, by which macro.
const ELSEWHERE: [(&str, &str, &str, &str); 2] = [
    (
        "{notice}",
        "planner/src/plan.rs",
        "impl fmt::Display for Notice",
        "write!(",
    ),
    ("{note}", "routelet/src/story.rs", "let note = ", "format!("),
];

/// A line of the log: level, message, names of its fields.
type Line = (String, String, Vec<String>);

#[test]
fn the_page_has_every_line_of_the_log_and_no_other() {
    let (source, page) = (lines_of_source(), lines_of_page());
    let not_on_the_page: Vec<_> = source.difference(&page).collect();
    let not_in_the_source: Vec<_> = page.difference(&source).collect();
    assert!(
        not_on_the_page.is_empty() && not_in_the_source.is_empty(),
        "docs/logs.md lacks {not_on_the_page:#?}, and has {not_in_the_source:#?}"
    );
    assert!(source.len() > 40, "the scan finds too little: {source:#?}");
}

fn lines_of_page() -> BTreeSet<Line> {
    let rows = PAGE.lines().filter_map(|line| {
        let cells: Vec<_> = line.strip_prefix('|')?.split('|').map(str::trim).collect();
        let [level, message, fields, ..] = cells[..] else {
            return None;
        };
        let message = message.strip_prefix('`')?.strip_suffix('`')?;
        let fields = fields.split(", ").map(|field| field.trim_matches('`'));
        let fields = fields.filter(|field| !field.is_empty()).map(str::to_owned);
        Some(line_of(level, message, fields.collect()))
    });
    rows.collect()
}

fn line_of(level: &str, message: &str, mut fields: Vec<String>) -> Line {
    fields.sort();
    (level.to_owned(), message.to_owned(), fields)
}

fn lines_of_source() -> BTreeSet<Line> {
    let mut lines = BTreeSet::new();
    for name in CRATES {
        for file in sources(&crates().join(name).join("src")) {
            let text = fs::read_to_string(&file).unwrap();
            let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
            for level in ["info", "warn", "error"] {
                for arguments in calls(text, &format!("tracing::{level}!(")) {
                    let (fields, message) = read(&arguments);
                    match elsewhere(&message) {
                        Some(texts) => {
                            lines.extend(texts.iter().map(|text| line_of(level, text, fields.clone())))
                        }
                        None => _ = lines.insert(line_of(level, &message, fields)),
                    }
                }
            }
        }
    }
    // Which of the planner's notices are warnings is not to be seen from their texts.
    lines.retain(|(level, message, fields)| match message.as_str() {
        "refused: {}" => level == "warn" && !fields.is_empty(),
        "what was planned stays in force, although {missing}" => level == "warn" && fields.is_empty(),
        text if elsewhere("{notice}").unwrap().iter().any(|notice| notice == text) => level == "info",
        _ => true,
    });
    lines
}

fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") && !path.ends_with("tests.rs") {
            files.push(path);
        }
    }
    files
}

/// The texts of a message that is put together elsewhere.
fn elsewhere(message: &str) -> Option<Vec<String>> {
    let (_, file, after, call) = ELSEWHERE.iter().find(|(name, ..)| *name == message)?;
    let text = fs::read_to_string(crates().join(file)).unwrap();
    let rest = text.split(after).nth(1).unwrap();
    let rest = rest.split("\n}\n").next().unwrap();
    let mut texts: Vec<_> = calls(rest, call)
        .iter()
        .map(|arguments| read(arguments).1)
        .collect();
    if *call == "format!(" {
        texts.truncate(1);
    }
    Some(texts)
}

/// The arguments of each call of a macro, split at their commas.
fn calls(text: &str, call: &str) -> Vec<Vec<String>> {
    let begins = text.match_indices(call).map(|(at, _)| at + call.len());
    begins.map(|begin| arguments(&text[begin..])).collect()
}

/// The arguments up to the parenthesis that closes the call.
fn arguments(text: &str) -> Vec<String> {
    let (mut arguments, mut depth, mut quoted, mut escaped) = (vec![String::new()], 0, false, false);
    for letter in text.chars() {
        match letter {
            _ if quoted => {
                quoted = letter != '"' || escaped;
                escaped = letter == '\\' && !escaped;
            }
            '"' => quoted = true,
            '(' | '[' | '{' => depth += 1,
            ')' if depth == 0 => break,
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                arguments.push(String::new());
                continue;
            }
            _ => {}
        }
        arguments.last_mut().unwrap().push(letter);
    }
    arguments
        .iter()
        .map(|argument| argument.trim().to_owned())
        .collect()
}

/// Names of the fields, and the message: the first argument that is nothing but a string.
fn read(arguments: &[String]) -> (Vec<String>, String) {
    let at = arguments
        .iter()
        .position(|argument| argument.starts_with('"'))
        .unwrap_or_else(|| panic!("no message in {arguments:?}"));
    let name = |argument: &String| {
        let name = argument.split([' ', '=']).next().unwrap();
        name.trim_start_matches(['%', '?']).to_owned()
    };
    let fields = arguments[..at].iter().filter(|argument| *argument != "f");
    (fields.map(name).collect(), unquoted(&arguments[at]))
}

/// What a string literal stands for.
fn unquoted(literal: &str) -> String {
    let inner = literal.strip_prefix('"').unwrap().strip_suffix('"').unwrap();
    let mut lines = inner.split("\\\n");
    let mut text = lines.next().unwrap().to_owned();
    lines.for_each(|line| text.push_str(line.trim_start()));
    text.replace("\\\"", "\"")
}
