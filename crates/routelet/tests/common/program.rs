//! The program, run to its end.

use std::process::{Command, Output};

/// The program with these words and nothing in its environment.
pub(crate) fn routelet(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_routelet"));
    command.env_clear().args(words);
    command
}

/// Runs it: exit code, standard output, standard error.
pub(crate) fn told(command: &mut Command) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}
