//! Runs a program as root of a user namespace of its own, where we are not root already: `rootless PROGRAM …`.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

#[expect(clippy::print_stderr, reason = "a program of the command line")]
fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let Some(program) = arguments.next() else {
        eprintln!("usage: rootless PROGRAM [ARGUMENT…]");
        return ExitCode::from(2);
    };
    if let Err(error) = routelet_lab::privilege::enter_user_namespace_if_needed() {
        eprintln!("{error:#}");
        return ExitCode::FAILURE;
    }
    let error = Command::new(&program).args(arguments).exec();
    eprintln!("{}: {error}", program.display());
    ExitCode::from(127)
}
