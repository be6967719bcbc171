//! Ctrl-C and SIGTERM. The first ends the play after the step at hand, so that everything is taken away in order; a
//! second one ends the process at once (the kernel takes namespaces and agents away with it).

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

use crate::INTERRUPTED;

/// Whether someone has asked us to end.
#[derive(Debug)]
pub(crate) struct Interrupt {
    happened: Arc<AtomicBool>,
    told: Receiver<()>,
}

impl Interrupt {
    /// Listens from now on.
    pub(crate) fn listen() -> Result<Self> {
        let happened = Arc::new(AtomicBool::new(false));
        let (tell, told) = mpsc::channel();
        let (ready, listening) = mpsc::channel();
        let flag = Arc::clone(&happened);
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || ready.send(listen(&flag, &tell, &ready)))
            .context("starting a thread")?;
        listening
            .recv()
            .context("listening for signals")?
            .context("listening for signals")?;
        Ok(Self { happened, told })
    }

    /// Whether it has happened.
    pub(crate) fn happened(&self) -> bool {
        self.happened.load(Ordering::SeqCst)
    }

    /// An error where it has happened.
    pub(crate) fn check(&self) -> Result<()> {
        if self.happened() {
            bail!("interrupted");
        }
        Ok(())
    }

    /// Waits until it happens.
    pub(crate) fn wait(&self) -> Result<()> {
        self.told.recv().context("waiting for a signal")
    }
}

/// Returns only where it cannot listen.
fn listen(happened: &AtomicBool, tell: &Sender<()>, ready: &Sender<Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        ready.send(Ok(()))?;
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if happened.swap(true, Ordering::SeqCst) {
                process::exit(INTERRUPTED.into());
            }
            tell.send(())?;
        }
    })
}
