//! Waiting for a condition that nothing notifies of: polling with a deadline.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long anything may take that takes milliseconds on an idle machine: generous, for it is only ever used up by
/// what has failed.
pub const LONG: Duration = Duration::from_secs(30);

/// Between two looks at the condition. Short: what waits here is often measured or repeated.
const PAUSE: Duration = Duration::from_millis(2);

/// Names how many times slower than usual this machine is, where it is emulated.
const SLOWNESS: &str = "ROUTELET_LAB_SLOWNESS";

/// By how much longer everything takes here: waits have that much more time, and pings are sent that much more rarely, for
/// what a machine cannot keep up with would look like a loss. 1 unless ROUTELET_LAB_SLOWNESS says otherwise.
pub fn slowness() -> u32 {
    static SAID: LazyLock<u32> = LazyLock::new(|| {
        let said = std::env::var(SLOWNESS).ok();
        said.and_then(|said| said.parse().ok()).unwrap_or(1).max(1)
    });
    *SAID
}

/// Polls until `condition` holds. The error, after `timeout`, says what was waited for.
pub fn until(timeout: Duration, what: &str, mut condition: impl FnMut() -> bool) -> Result<()> {
    until_some(timeout, what, || condition().then_some(()))
}

/// Polls until `attempt` gives a value, and returns it.
pub fn until_some<T>(timeout: Duration, what: &str, mut attempt: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + timeout * slowness();
    loop {
        if let Some(value) = attempt() {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            bail!("waited {timeout:?} in vain: {what}");
        }
        pause(PAUSE);
    }
}

/// Polls until `attempt` succeeds. The error, after `timeout`, carries that of the last attempt.
pub fn until_ok<T, E: std::fmt::Display>(
    timeout: Duration,
    what: &str,
    mut attempt: impl FnMut() -> Result<T, E>,
) -> Result<T> {
    let mut last = String::new();
    until_some(timeout, what, || {
        attempt().map_err(|error| last = format!("{error:#}")).ok()
    })
    .map_err(|error| error.context(last))
}

#[expect(clippy::disallowed_methods, reason = "the one place that polls")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls_until_it_holds() {
        let mut looks = 0;
        until(LONG, "the third look", || {
            looks += 1;
            looks == 3
        })
        .unwrap();
    }

    #[test]
    fn the_failure_says_what_was_waited_for() {
        let error = until(Duration::ZERO, "the moon to turn blue", || false).unwrap_err();
        assert!(error.to_string().contains("the moon to turn blue"));
        let error = until_ok(Duration::ZERO, "a dice", || Err::<(), _>("rolled a one")).unwrap_err();
        assert!(format!("{error:#}").contains("rolled a one"));
    }
}
