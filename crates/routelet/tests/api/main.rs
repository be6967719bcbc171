//! The agent against an API that is away, wrong or slow, and what it costs the API: on the in-memory API, which
//! misbehaves on demand.

#![expect(
    clippy::unwrap_used,
    reason = "a test panics where it fails; clippy allows this by itself only inside the test functions"
)]

mod answers;
mod condition;
mod economy;
mod outages;
mod startup;
#[path = "../common/api.rs"]
mod support;
