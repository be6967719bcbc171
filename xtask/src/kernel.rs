//! Tests on other kernels than this machine's: a kernel of Debian's in an emulated virtual machine, which has the test
//! programs in memory and runs them as root, one after the other.

mod fetch;
mod image;
mod machine;
mod programs;

use std::ffi::OsString;
use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use programs::Program;

use crate::run::{complain, target_directory};

/// How long one test program may take, and all of them. An emulated CPU is about twenty times slower.
const PROGRAM_LIMIT: Duration = Duration::from_secs(600);
const LIMIT: Duration = Duration::from_secs(1500);

/// Loaded before the tests begin; what else they ask for, the kernel loads by itself.
const MODULES: &str = "veth vxlan ipip dummy bridge br_netfilter ifb sch_netem nf_tables nft_masq nft_nat nft_ct \
                       nft_fib_inet nf_conntrack nf_conntrack_netlink xt_conntrack xt_comment";

/// Of these, a test that finds them lacking is not skipped but fails.
const FEATURES: &str = "ipip,vrf";

/// Variables that the tests in the virtual machine see as they are here.
const VARIABLES: [&str; 3] = ["ROUTELET_NO_SKIP", "RUST_BACKTRACE", "PROPTEST_RNG_SEED"];

/// The same, with what they are where they are not set here. One test at a time: the agents and pings that it starts have
/// the machine's other processor.
const DEFAULTS: [(&str, &str); 3] = [
    ("RUST_TEST_THREADS", "1"),
    ("PROPTEST_CASES", "8"),
    ("ROUTELET_LAB_SLOWNESS", "5"),
];

/// Runs tests on each kernel series. `arguments` are those of `cargo test`.
pub(crate) fn test(series: &[String], arguments: &[String]) -> Result<ExitCode> {
    let (build, run) = match arguments.iter().position(|argument| argument == "--") {
        Some(end) => (&arguments[..end], &arguments[end + 1..]),
        None => (arguments, &[][..]),
    };
    let (programs, left_out) = programs::build(build)?;
    for reason in left_out {
        complain(&format!("does not run in the virtual machine: {reason}"));
    }
    let mut code = ExitCode::SUCCESS;
    for series in series {
        let failures = test_on(series, &programs, run)?;
        if !failures.is_empty() {
            complain(&format!("failed on Linux {series}: {}", failures.join(", ")));
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}

/// Runs the programs on a kernel; which of them failed.
fn test_on(series: &str, programs: &[Program], arguments: &[String]) -> Result<Vec<String>> {
    let directory = target_directory()?.join("kernels");
    fs::create_dir_all(&directory)?;
    let kernel = fetch::kernel(series, &directory)?;
    let (file, report) = (directory.join("image"), directory.join("report"));
    image::write(
        &kernel,
        programs,
        &environment(arguments)?,
        &directory.join("root"),
        &file,
    )?;
    if report.exists() {
        fs::remove_file(&report)?;
    }
    let began = Instant::now();
    let told = machine::run(&kernel, &file, &report, LIMIT)?;
    for line in told.lines() {
        complain(line);
    }
    complain(&format!(
        "Linux {}: {} test programs in {} s",
        kernel.release,
        programs.len(),
        began.elapsed().as_secs()
    ));
    Ok(failures(programs, &told))
}

/// What the virtual machine's shell sets before the tests.
fn environment(arguments: &[String]) -> Result<String> {
    let mut lines = format!("MODULES='{MODULES}'\nLIMIT={}\n", PROGRAM_LIMIT.as_secs());
    lines += &format!("ARGUMENTS={}\n", quoted(&arguments.join(" ")));
    lines += &format!("export ROUTELET_KERNEL_HAS={FEATURES}\n");
    let variables = VARIABLES.map(|name| (name, None)).into_iter();
    let defaults = DEFAULTS.map(|(name, value)| (name, Some(OsString::from(value))));
    for (name, default) in variables.chain(defaults) {
        if let Some(value) = std::env::var_os(name).or(default) {
            let value = value.to_str().with_context(|| format!("{name} is no text"))?;
            lines += &format!("export {name}={}\n", quoted(value));
        }
    }
    Ok(lines)
}

/// A word for a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The programs of which the report does not say that they succeeded, and `the machine` where it ended too early.
fn failures(programs: &[Program], report: &str) -> Vec<String> {
    let succeeded = |name: &str| {
        report
            .lines()
            .any(|line| line.starts_with(&format!("ended {name} 0 ")))
    };
    let mut failures: Vec<String> = programs
        .iter()
        .filter(|program| !succeeded(&program.name))
        .map(|program| program.name.clone())
        .collect();
    if report.lines().last() != Some("complete") {
        failures.push("the virtual machine, which ended before it was done".to_owned());
    }
    failures
}
