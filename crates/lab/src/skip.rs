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
pub fn record(reason: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("test");
    assert!(
        std::env::var_os(FORBID).is_none_or(|value| value != "1"),
        "{test} would be skipped: {reason}"
    );
    list(reason);
}

/// Says on the standard error and in the list that the calling test is skipped.
#[expect(
    clippy::print_stderr,
    reason = "a skipped test must be seen by whoever runs it"
)]
#[expect(
    clippy::expect_used,
    reason = "a skip that is not listed would look like a success"
)]
fn list(reason: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("test");
    eprintln!("SKIPPED {test}: {reason}");
    if let Some(path) = std::env::var_os(LIST) {
        let list = OpenOptions::new().create(true).append(true).open(path);
        list.and_then(|mut list| writeln!(list, "{test}: {reason}"))
            .expect("ROUTELET_SKIPPED names a file that can be written");
    }
}

/// Names the kernel features, after commas, that the tests' kernel is known to have: a test that finds one lacking fails.
const KERNEL_HAS: &str = "ROUTELET_KERNEL_HAS";

/// Ends a test that needs what this kernel was built without: `kernel_lacks!(ipip)`. The kernel itself is asked, and only
/// its word that it knows no such thing counts. That is no fault of whoever runs the tests, so ROUTELET_NO_SKIP=1 lets it
/// pass; it is listed and said like any other skip, and fails where ROUTELET_KERNEL_HAS names the feature.
#[macro_export]
macro_rules! kernel_lacks {
    ($feature:ident) => {
        if $crate::skip::kernel_lacks(stringify!($feature)) {
            return;
        }
    };
}

/// What [`kernel_lacks!`] asks and records: whether the kernel has no devices of the kind `feature`. False where there is
/// no right to ask.
///
/// # Panics
/// Where the kernel fails otherwise than by not knowing the kind, or where ROUTELET_KERNEL_HAS names the feature.
#[expect(
    clippy::expect_used,
    reason = "who cannot ask the kernel cannot tell what it lacks"
)]
pub fn kernel_lacks(feature: &str) -> bool {
    let netns = match routelet_netlink::Netns::new() {
        // Of that the test itself says what it makes of it.
        Err(error) if error.errno() == Some(nix::libc::EPERM) => return false,
        netns => netns.expect("a network namespace to ask the kernel in"),
    };
    let asked = netns.run(|| routelet_netlink::knows_link_kind(feature));
    let knows = asked
        .expect("the namespace can be entered")
        .expect("the kernel makes a device, or knows no such kind");
    if knows {
        return false;
    }
    let must = std::env::var(KERNEL_HAS).unwrap_or_default();
    assert!(
        !must.split(',').any(|has| has == feature),
        "{KERNEL_HAS} says that this kernel has {feature}, but it knows no such devices"
    );
    list(&format!("this kernel has no {feature}"));
    true
}
