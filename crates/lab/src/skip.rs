//! Tests that cannot run where they are: never silently green.

use std::fs::OpenOptions;
use std::io::Write;

/// Names the file that skipped tests are listed in.
const LIST: &str = "ROUTELET_SKIPPED";

/// With the value 1, a test that would be skipped fails.
const FORBID: &str = "ROUTELET_NO_SKIP";

/// Ends a test that cannot run here: `skip!("no kube-apiserver in {dir}")`. Says so on the standard error, adds a
/// line to the file named by ROUTELET_SKIPPED, and fails where ROUTELET_NO_SKIP=1.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)*) => {{
        $crate::skip::record(&format!($($reason)*));
        return;
    }};
}

/// What [`skip!`] does before it returns from the test.
///
/// # Panics
/// Where ROUTELET_NO_SKIP=1 says that no test may be skipped, or where the list cannot be written.
#[expect(
    clippy::print_stderr,
    reason = "a skipped test must be seen by whoever runs it"
)]
#[expect(
    clippy::expect_used,
    reason = "a skip that is not listed would look like a success"
)]
pub fn record(reason: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("test");
    assert!(
        std::env::var_os(FORBID).is_none_or(|value| value != "1"),
        "{test} would be skipped: {reason}"
    );
    eprintln!("SKIPPED {test}: {reason}");
    if let Some(path) = std::env::var_os(LIST) {
        let list = OpenOptions::new().create(true).append(true).open(path);
        list.and_then(|mut list| writeln!(list, "{test}: {reason}"))
            .expect("ROUTELET_SKIPPED names a file that can be written");
    }
}
