//! The program that the container runtime runs: see the library.

use std::io::{self, Write};
use std::process::ExitCode;

use routelet_cni::Answer;

fn main() -> ExitCode {
    let (text, code) = match routelet_cni::run(&mut io::stdin().lock()) {
        Answer::Done(None) => return ExitCode::SUCCESS,
        Answer::Done(Some(value)) => (value.to_string(), ExitCode::SUCCESS),
        Answer::Failed(value) => (value.to_string(), ExitCode::FAILURE),
    };
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => code,
        // Nobody learns of the answer: the runtime takes it for a failure, and asks for DEL.
        Err(_) => ExitCode::FAILURE,
    }
}
