//! The kernel, at hand or away with a batch: a long batch is carried out on a thread of its own, so that what comes next
//! is planned meanwhile.
//!
//! The kernel itself travels, not a share of it: as long as it is away no one here can read from it what the batch is
//! about to change.

use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::{io, thread};

use routelet_model::Object;
use routelet_netlink::{Failure, Operation, Verb};

use crate::Kernel;

/// Operations that are worth the way to the other thread and back, some ten microseconds.
const WORTH_THE_WAY: usize = 256;

/// Whether another thread shall carry out the batch. One that takes away is done at once: what is gone may be wanted
/// again.
fn is_worth_the_way(operations: &[Operation]) -> bool {
    operations.len() >= WORTH_THE_WAY && operations.iter().all(|operation| operation.verb != Verb::Delete)
}

/// A slot before an operation was emitted for it.
#[derive(Debug, Default)]
pub(crate) struct Before {
    pub(crate) actual: Option<Object>,
    pub(crate) crowded: bool,
}

/// Operations that are carried out together.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) operations: Vec<Operation>,
    /// For each, what the table had of the kernel before.
    pub(crate) previous: Vec<Before>,
    /// What failed, once it has been carried out.
    pub(crate) failures: Vec<Failure>,
}

impl Batch {
    pub(crate) fn clear(&mut self) {
        self.operations.clear();
        self.previous.clear();
        self.failures.clear();
    }
}

/// Holds the kernel, and has batches carried out.
#[derive(Debug)]
pub(crate) struct Carrier<K> {
    at_hand: Option<Box<K>>,
    worker: Option<Worker<K>>,
    /// Whether the thread is still to be started. It is tried once.
    is_new: bool,
    /// Why it could not be started, until that is taken.
    no_thread: Option<io::Error>,
    /// A batch that came back when the kernel was wanted.
    landed: Option<Batch>,
}

#[derive(Debug)]
struct Worker<K> {
    to: SyncSender<(Box<K>, Batch)>,
    from: Receiver<(Box<K>, Batch)>,
    thread: JoinHandle<()>,
}

impl<K: Kernel> Carrier<K> {
    pub(crate) fn new(kernel: K) -> Self {
        Self {
            at_hand: Some(Box::new(kernel)),
            worker: None,
            is_new: true,
            no_thread: None,
            landed: None,
        }
    }

    /// Why there is no thread, so that each batch is carried out at once; told once.
    pub(crate) fn take_no_thread(&mut self) -> Option<io::Error> {
        self.no_thread.take()
    }

    /// Whether a batch is under way or came back untaken.
    pub(crate) fn is_away(&self) -> bool {
        self.at_hand.is_none() || self.landed.is_some()
    }

    /// The kernel. Where it is away, its return is waited for.
    pub(crate) fn at_hand(&mut self) -> &mut K {
        let Self {
            at_hand,
            worker,
            landed,
            ..
        } = self;
        at_hand.get_or_insert_with(|| {
            let (kernel, batch) = Worker::receive(worker);
            *landed = Some(batch);
            kernel
        })
    }

    /// Waits for the batch that is under way, if there is one.
    pub(crate) fn land(&mut self) -> Option<Batch> {
        self.at_hand();
        self.landed.take()
    }

    /// Has a batch carried out. It comes back done where it was short; a long one is under way, and [`Self::land`]
    /// gives it back.
    pub(crate) fn send(&mut self, batch: Batch) -> Option<Batch> {
        if !is_worth_the_way(&batch.operations) {
            return Some(self.carry_out(batch));
        }
        self.at_hand();
        let kernel = self.at_hand.take()?;
        let Some(worker) = self.worker() else {
            self.at_hand = Some(kernel);
            return Some(self.carry_out(batch));
        };
        match worker.to.send((kernel, batch)) {
            Ok(()) => None,
            Err(returned) => {
                let (kernel, batch) = returned.0;
                self.at_hand = Some(kernel);
                Some(self.carry_out(batch))
            }
        }
    }

    /// Carries a batch out at once.
    fn carry_out(&mut self, mut batch: Batch) -> Batch {
        self.at_hand().apply(&batch.operations, &mut batch.failures);
        batch
    }

    /// The thread; none where the host had none to give.
    fn worker(&mut self) -> Option<&Worker<K>> {
        if std::mem::take(&mut self.is_new) {
            match Worker::start() {
                Ok(worker) => self.worker = Some(worker),
                Err(error) => self.no_thread = Some(error),
            }
        }
        self.worker.as_ref()
    }
}

impl<K: Kernel> Worker<K> {
    /// In the network namespace of the calling thread, which counts for what is written below /proc/sys.
    fn start() -> io::Result<Self> {
        let (to, tasks) = sync_channel::<(Box<K>, Batch)>(1);
        let (done, from) = sync_channel(1);
        let work = move || {
            while let Ok((mut kernel, mut batch)) = tasks.recv() {
                kernel.apply(&batch.operations, &mut batch.failures);
                if done.send((kernel, batch)).is_err() {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("kernel".to_owned()).spawn(work)?;
        Ok(Self { to, from, thread })
    }

    /// # Panics
    /// With the thread's own panic, where it had one.
    fn receive(worker: &mut Option<Self>) -> (Box<K>, Batch) {
        if let Some(Ok(back)) = worker.as_ref().map(|worker| worker.from.recv()) {
            return back;
        }
        match worker.take().map(|worker| worker.thread.join()) {
            Some(Err(panic)) => resume_unwind(panic),
            _ => panic!("the kernel is away, and its thread has ended"),
        }
    }
}
