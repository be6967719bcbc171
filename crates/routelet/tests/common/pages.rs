//! The commands in the pages of the documentation, found by the form that they have there, and given to the tests that run
//! them by the list in `places.rs`.
//!
//! The form: a block that is indented by four blanks holds commands, one a line (a line that ends with `\`, or within quotes,
//! goes on in the next), and lines of comment that begin with `#`. A block fenced as `console` holds commands behind `$ `, and
//! what they print. Other fenced blocks name another language, and hold no command.

#![allow(dead_code, reason = "each test program uses a part of this")]

use std::collections::VecDeque;
use std::fs;
use std::path::Path;

#[path = "places.rs"]
pub(crate) mod places;

pub(crate) const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Languages of fenced blocks that hold no command.
const OTHER_LANGUAGES: [&str; 4] = ["json", "promql", "text", "yaml"];

/// How a paragraph of a block begins whose commands no test runs.
const YOURS: &str = "# yours";

/// A command in a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Command {
    /// The page's path in the repository.
    pub(crate) page: String,
    /// The line that it begins at, from 1 on.
    pub(crate) line: usize,
    /// It, on one line.
    pub(crate) text: String,
    /// What the page says that it prints; nothing where it says nothing of that.
    pub(crate) shown: Vec<String>,
    /// Whether the page marks it as the reader's own.
    pub(crate) is_yours: bool,
}

impl Command {
    /// Where it stands.
    pub(crate) fn place(&self) -> String {
        format!("{}:{}: {}", self.page, self.line, self.text)
    }
}

/// The pages: paths in the repository.
pub(crate) fn pages() -> Vec<String> {
    let chart = "charts/routelet";
    let mut pages = vec![
        "README.md".to_owned(),
        format!("{chart}/README.md"),
        format!("{chart}/templates/NOTES.txt"),
    ];
    for entry in fs::read_dir(Path::new(ROOT).join("docs")).unwrap() {
        pages.push(format!("docs/{}", entry.unwrap().file_name().to_str().unwrap()));
    }
    pages.sort();
    pages
}

/// All commands of all pages.
pub(crate) fn all() -> Vec<Command> {
    let pages = pages().into_iter();
    pages
        .flat_map(|page| {
            let text = fs::read_to_string(Path::new(ROOT).join(&page)).unwrap();
            commands(&page, &text)
        })
        .collect()
}

/// The commands of a page's text.
pub(crate) fn commands(page: &str, text: &str) -> Vec<Command> {
    let mut found: Vec<Command> = Vec::new();
    let mut fence: Option<&str> = None;
    // Within an indented block: whether its paragraph is the reader's own, and whether the last command goes on.
    let (mut is_inside, mut is_yours, mut goes_on) = (false, false, false);
    for (number, line) in (1..).zip(text.lines()) {
        let command = |text: &str, is_yours| Command {
            page: page.to_owned(),
            line: number,
            text: text.to_owned(),
            shown: Vec::new(),
            is_yours,
        };
        if let Some(language) = line.trim_start().strip_prefix("```") {
            fence = match fence {
                Some(_) => None,
                None if language == "console" || OTHER_LANGUAGES.contains(&language) => Some(language),
                None => panic!("{page}:{number}: a fenced block of the language {language:?}"),
            };
        } else if let Some(language) = fence {
            match line.strip_prefix("$ ") {
                _ if language != "console" => {}
                Some(text) => found.push(command(text, false)),
                None => {
                    let last = found.last_mut().filter(|last| last.page == page);
                    last.unwrap().shown.push(line.to_owned());
                }
            }
        } else if let Some(code) = line.strip_prefix("    ").map(str::trim) {
            let is_mark = code.starts_with(YOURS);
            assert!(
                !(is_inside && is_mark),
                "{page}:{number}: this mark begins no block"
            );
            is_yours = is_mark || is_inside && is_yours;
            is_inside = true;
            let text = code.trim_end_matches('\\').trim_end();
            match found.last_mut().filter(|_| goes_on) {
                Some(last) => last.text += &format!(" {text}"),
                None if code.starts_with('#') => continue,
                None => found.push(command(text, is_yours)),
            }
            goes_on = code.ends_with('\\') || has_open_quote(&found.last().unwrap().text);
        } else {
            assert!(!goes_on, "{page}:{number}: the command before does not end");
            is_inside = false;
        }
    }
    found
}

/// Whether a single or a double quote is open at the end.
fn has_open_quote(text: &str) -> bool {
    let mut open = None;
    for letter in text.chars() {
        match open {
            Some(quote) if quote == letter => open = None,
            None if letter == '\'' || letter == '"' => open = Some(letter),
            _ => {}
        }
    }
    open.is_some()
}

/// Whether an entry of the list names a command: it is that, or its beginning followed by `…`.
pub(crate) fn names(entry: &str, text: &str) -> bool {
    match entry.strip_suffix('…') {
        Some(beginning) => text.starts_with(beginning),
        None => text == entry,
    }
}

/// The commands that the list gives to a test. A test that ends well without having taken each of them fails.
pub(crate) struct Script {
    test: &'static str,
    left: VecDeque<Command>,
}

impl Script {
    /// Those of a test that the list names so.
    pub(crate) fn of(test: &'static str) -> Self {
        let pages = places::RUN.iter().find(|(name, _)| *name == test);
        let (_, pages) = pages.unwrap_or_else(|| panic!("the list has no test {test:?}"));
        let is_mine = |command: &Command| {
            let mine = pages.iter().filter(|(page, _)| *page == command.page);
            mine.flat_map(|(_, entries)| *entries)
                .any(|entry| names(entry, &command.text))
        };
        let left = all().into_iter().filter(is_mine).collect();
        Self { test, left }
    }

    /// The first of what is left that begins so.
    pub(crate) fn take(&mut self, beginning: &str) -> Command {
        let index = self
            .left
            .iter()
            .position(|command| command.text.starts_with(beginning));
        let index = index.unwrap_or_else(|| panic!("{:?} is not among {:#?}", beginning, self.left));
        self.left.remove(index).unwrap()
    }

    /// The same of one page.
    pub(crate) fn take_of(&mut self, page: &str, beginning: &str) -> Command {
        let is_it = |command: &Command| command.page == page && command.text.starts_with(beginning);
        let index = self.left.iter().position(is_it);
        let index = index.unwrap_or_else(|| panic!("{beginning:?} of {page} is not among {:#?}", self.left));
        self.left.remove(index).unwrap()
    }

    /// Whether a command that begins so is left.
    pub(crate) fn is_left(&self, beginning: &str) -> bool {
        self.left
            .iter()
            .any(|command| command.text.starts_with(beginning))
    }

    /// All that is left of one page, in its order.
    pub(crate) fn rest_of(&mut self, page: &str) -> Vec<Command> {
        let left = std::mem::take(&mut self.left).into_iter();
        let (mine, others): (Vec<_>, Vec<_>) = left.partition(|command| command.page == page);
        self.left = others.into();
        assert!(!mine.is_empty(), "{} has nothing of {page} left", self.test);
        mine
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.left.is_empty(), "{} has not run {:#?}", self.test, self.left);
        }
    }
}
