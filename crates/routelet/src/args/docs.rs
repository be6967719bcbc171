//! The command lines that the documents show are understood.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// The README and all of docs/.
fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let entries = fs::read_dir(root.join("docs")).unwrap();
    let mut pages: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    pages.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages.push(root.join("README.md"));
    pages
}

/// The words after `routelet` of a line of a block of code, if it runs the program: on the node, or in a pod.
fn words(line: &str) -> Option<Vec<String>> {
    let code = line.strip_prefix("    ")?.trim_start_matches("$ ");
    let code = code.split(" # ").next().unwrap_or_default().trim_end();
    let command = match code.split_once(" -- routelet ") {
        Some((before, after)) if before.starts_with("kubectl") => after,
        _ => code.strip_prefix("routelet ")?,
    };
    Some(
        command
            .split_whitespace()
            .map(|word| word.trim_matches('"').to_owned())
            .collect(),
    )
}

#[test]
fn each_command_of_the_documents_is_understood() {
    let mut count = 0;
    for page in pages() {
        for line in fs::read_to_string(&page).unwrap().lines() {
            let Some(mut words) = words(line) else { continue };
            // What comes from the variable of the chart's pods, or stands for itself.
            if words[0] == "run" && !words.iter().any(|word| word.starts_with("--node-name")) {
                words.push("--node-name=node-1".to_owned());
            }
            let words: Vec<OsString> = std::iter::once("routelet".to_owned())
                .chain(words.into_iter().map(|word| word.replace("$NODE_NAME", "node-1")))
                .map(OsString::from)
                .collect();
            let parsed = super::parse(words.iter().cloned());
            assert!(
                parsed.is_ok(),
                "{}: {line}: {}",
                page.display(),
                parsed.unwrap_err()
            );
            count += 1;
        }
    }
    assert!(count >= 6, "only {count} commands were found");
}
