//! Directories for as long as a test runs.
//!
//! A process that is killed leaves its directories behind; the next one removes them. Which are left behind is told
//! by a lock on a file inside, which the kernel drops with the process.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

const PREFIX: &str = "routelet-lab-";
const LOCK: &str = ".lock";

/// A directory is made and locked in two steps; one this young may be between them.
const YOUNG: Duration = Duration::from_secs(60);

/// A directory that is removed, with all that is in it, when this is dropped.
#[derive(Debug)]
pub struct TempDir {
    directory: tempfile::TempDir,
    _lock: File,
}

impl TempDir {
    /// Makes a new directory, readable by its owner only.
    pub fn new() -> Result<Self> {
        sweep(&std::env::temp_dir(), YOUNG);
        let directory = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir()
            .context("making a temporary directory")?;
        let lock = File::create(directory.path().join(LOCK)).context("making a temporary directory")?;
        lock.lock().context("locking a temporary directory")?;
        Ok(Self {
            directory,
            _lock: lock,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Writes a file in it, and returns where.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.path().join(name);
        fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }
}

/// Removes the directories of processes that are gone. What cannot be removed is another user's, or being removed by
/// another process: either way not ours to worry about.
fn sweep(parent: &Path, young: Duration) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let age = entry
            .metadata()
            .and_then(|m| m.modified())
            .map(|time| time.elapsed().unwrap_or_default());
        let Ok(lock) = File::open(path.join(LOCK)) else {
            continue;
        };
        if age.is_ok_and(|age| age >= young) && !matches!(lock.try_lock(), Err(TryLockError::WouldBlock)) {
            let _ = fs::remove_dir_all(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_when_dropped() {
        let directory = TempDir::new().unwrap();
        let file = directory.write("config", "text").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "text");
        drop(directory);
        assert!(!file.exists());
    }

    #[test]
    fn what_a_dead_process_left_is_swept_and_what_is_in_use_is_not() {
        let parent = tempfile::tempdir().unwrap();
        let [left, used] = ["left", "used"].map(|name| parent.path().join(format!("{PREFIX}{name}")));
        for directory in [&left, &used] {
            fs::create_dir(directory).unwrap();
            File::create(directory.join(LOCK)).unwrap();
        }
        let lock = File::open(used.join(LOCK)).unwrap();
        lock.lock().unwrap();
        sweep(parent.path(), YOUNG);
        assert!(left.exists(), "young");
        sweep(parent.path(), Duration::ZERO);
        assert!(!left.exists() && used.exists());
    }
}
