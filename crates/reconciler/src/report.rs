//! What the reconciler did, for logs and metrics: it writes none itself.

use std::net::IpAddr;
use std::time::Duration;

use routelet_model::{Key, Kind, Object};
use routelet_netlink::Verb;

use crate::backoff::Trouble;
use crate::table::{Cause, KINDS};

/// All that happened since the last report was taken.
#[derive(Debug, Default)]
pub struct Report {
    /// Objects that were brought back to what they should be after someone else had changed them.
    pub repairs: Vec<Repaired>,
    /// Keys that the kernel refused, where that is news.
    pub refused: Vec<(Key, Trouble)>,
    /// Keys that the kernel took after it had refused them.
    pub recovered: Vec<(Key, Trouble)>,
    /// Keys that someone keeps changing, so that they are repaired ever more rarely; told once.
    pub fights: Vec<Key>,
    /// Foreign objects that stood where one of ours belongs and were replaced.
    pub replaced: Vec<(Key, Object)>,
    /// Foreign objects that stand where one of ours belongs, serve as well, and stay.
    pub yielded: Vec<(Key, Object)>,
    /// Operations that succeeded, by kind and verb.
    pub operations: OperationCounts,
    /// Operations that failed, by kind and error number (0 where there is none).
    pub errors: Vec<(Kind, i32)>,
    /// Kinds that could not be read, with the error's text; everything is read again after a while.
    pub failed_reads: Vec<(Kind, String)>,
    /// Sizes of the batches, in operations.
    pub batches: Vec<usize>,
    /// Why long batches are not carried out on a thread of their own, which is told once: the host had none to give.
    pub no_thread: Option<String>,
    /// How long each full resync took.
    pub resyncs: Vec<Duration>,
    /// How often notifications were lost.
    pub lost: u32,
    /// Addresses that moved or went, and how many flows of theirs were forgotten.
    pub flushed: FlushedFlows,
}

/// What became of the flows of addresses that moved or went.
#[derive(Debug, Default)]
pub struct FlushedFlows {
    /// The addresses.
    pub addresses: Vec<IpAddr>,
    /// How many flows of theirs were forgotten.
    pub flows: usize,
    /// Why flows could not be forgotten, where that is news; it is tried again after a while.
    pub failed: Option<String>,
}

/// A repair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repaired {
    /// What was repaired.
    pub key: Key,
    /// What someone had done to it.
    pub cause: Cause,
    /// What stood there instead, if anything.
    pub found: Option<Object>,
}

/// Numbers of operations by kind and verb.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OperationCounts([[u64; 4]; KINDS]);

impl OperationCounts {
    /// The number for one kind and verb.
    pub fn get(&self, kind: Kind, verb: Verb) -> u64 {
        self.0[kind as usize][verb as usize]
    }

    /// All of them together.
    pub fn total(&self) -> u64 {
        self.0.iter().flatten().sum()
    }

    pub(crate) fn add(&mut self, kind: Kind, verb: Verb) {
        self.0[kind as usize][verb as usize] += 1;
    }

    pub(crate) fn take_back(&mut self, kind: Kind, verb: Verb) {
        self.0[kind as usize][verb as usize] -= 1;
    }
}
