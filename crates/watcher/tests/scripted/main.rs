//! The watches and the Events against a server that the test plays, on a paused clock.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests fail by panic as tests do"
)]

mod events;
mod lists;
mod server;
mod setup;
mod watches;
