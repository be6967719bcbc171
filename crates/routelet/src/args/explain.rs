//! Names the environment variables in clap's errors, which know only flags.

use std::ffi::OsString;

use clap::Arg;
use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Adds to an error about a flag which variable the value came from, or could come from.
pub(super) fn name_variables(mut error: clap::Error, cli: &clap::Command, words: &[OsString]) -> clap::Error {
    let arguments = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(argument)) => std::slice::from_ref(argument),
        Some(ContextValue::Strings(arguments)) => arguments.as_slice(),
        _ => return error,
    };
    let named = arguments.iter().filter_map(|argument| find(cli, argument));
    let tips: Vec<StyledStr> = match error.kind() {
        ErrorKind::MissingRequiredArgument => named
            .filter_map(|(_, variable)| Some(format!("the variable {} does as well", variable?).into()))
            .collect(),
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => named
            .filter(|(flag, _)| !is_given(flag, words))
            .filter_map(|(_, variable)| {
                Some(format!("the value comes from the variable {}", variable?).into())
            })
            .collect(),
        _ => return error,
    };
    if !tips.is_empty() {
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
    }
    error
}

/// The flag that clap calls `described` ("--mtu <auto|BYTES>"), and its variable.
fn find(cli: &clap::Command, described: &str) -> Option<(String, Option<String>)> {
    let flag = described.split([' ', '=', '[']).next()?;
    let is_it = |argument: &&Arg| {
        argument
            .get_long()
            .is_some_and(|long| flag.strip_prefix("--") == Some(long))
    };
    let argument = cli
        .get_subcommands()
        .flat_map(clap::Command::get_arguments)
        .find(is_it)?;
    let variable = argument.get_env().map(|name| name.to_string_lossy().into_owned());
    Some((flag.to_owned(), variable))
}

/// Whether the flag stands on the command line, so that its variable does not count.
fn is_given(flag: &str, words: &[OsString]) -> bool {
    words.iter().filter_map(|word| word.to_str()).any(|word| {
        word.strip_prefix(flag)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    })
}
