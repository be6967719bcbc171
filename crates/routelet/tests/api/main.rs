//! The agent against an API that is away, wrong or slow, and what it costs the API: on the in-memory API, which
//! misbehaves on demand.

mod answers;
mod economy;
mod outages;
mod startup;
#[path = "../common/api.rs"]
mod support;
