//! Wanted against actual: brings the kernel to what the planner wants and keeps it there.
//!
//! The planner's changes arrive by [`Reconciler::want`], the kernel's own by notification; both only mark
//! keys in one table, and [`Reconciler::step`] compares the marked keys and emits operations. A
//! notification is a hint, a dump is the truth.
//!
//! Nothing here logs or knows Kubernetes: the caller gives the time and takes the report. By a clock of its own it measures
//! how long a full comparison with the kernel took, from which the pause after it follows, and nothing else. While a long batch
//! is in the kernel, on a thread of its own, the next one is planned.

mod act;
mod answers;
mod backoff;
mod carrier;
mod flows;
mod hint;
mod kernel;
mod ownership;
mod reconciler;
mod report;
mod resync;
mod table;
mod withdrawal;

pub use backoff::Trouble;
pub use kernel::Kernel;
pub use ownership::Ownership;
pub use reconciler::{Progress, Reconciler};
pub use report::{FlushedFlows, OperationCounts, Repaired, Report};
pub use table::{Cause, Count};
