//! The lab's API as the real Kubernetes client sees it.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that fails may say so by a panic"
)]

mod faults;
mod lists;
mod support;
mod watches;
mod writes;
