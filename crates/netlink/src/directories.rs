//! Directories whose files others change.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;

use crate::monitor::register;

/// Hears that files of directories were written, renamed or removed, by inotify.
pub struct DirectoryWatch {
    /// Another descriptor of it, registered by the first wait in the runtime that waits.
    readiness: Option<AsyncFd<OwnedFd>>,
    inotify: Inotify,
}

impl DirectoryWatch {
    /// Of no directory yet. Fails where the user has too many (fs.inotify.max_user_instances).
    pub fn open() -> io::Result<Self> {
        let flags = InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC;
        Ok(Self {
            readiness: None,
            inotify: Inotify::init(flags)?,
        })
    }

    /// Adds a directory. One that is watched already stays so; one that was removed and made again is another.
    pub fn add(&self, directory: &Path) -> io::Result<()> {
        let changes = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_DELETE_SELF;
        self.inotify.add_watch(directory, changes)?;
        Ok(())
    }

    /// Waits until something has changed, which is then forgotten. Must be called within a tokio runtime that has I/O
    /// enabled, and always within the same.
    pub async fn changed(&mut self) -> io::Result<()> {
        let readiness = match self.readiness.take() {
            Some(readiness) => self.readiness.insert(readiness),
            None => {
                let descriptor = self.inotify.as_fd().try_clone_to_owned()?;
                self.readiness.insert(register(descriptor)?)
            }
        };
        loop {
            let mut guard = readiness.readable().await?;
            let mut changed = false;
            while self.inotify.read_events().is_ok() {
                changed = true;
            }
            guard.clear_ready();
            if changed {
                return Ok(());
            }
        }
    }
}
