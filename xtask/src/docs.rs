//! `cargo xtask docs`: the parts of docs/ that are made from the source, as the table of settings and that of metrics.

use std::process::{Command, ExitCode};

use anyhow::Result;
use clap::Args;

use crate::run::{cargo_program, finish};

/// What to do with the pages.
#[derive(Debug, Args)]
pub(crate) struct DocsArgs {
    /// Change nothing, and fail where a page is not what the source makes of it.
    #[arg(long)]
    check: bool,
}

/// Has the tests that compare the pages with the source write them, or look at them.
pub(crate) fn docs(args: &DocsArgs) -> Result<ExitCode> {
    let mut tests = Command::new(cargo_program());
    tests.args([
        "test",
        "--quiet",
        "--package",
        "routelet",
        "--bins",
        "the_documentation",
    ]);
    if !args.check {
        tests.env("ROUTELET_WRITE_DOCS", "1");
    }
    finish(tests)
}
