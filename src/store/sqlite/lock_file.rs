//! The lock file that keeps a second process out of a database.
//!
//! Owns: `PATH.lock`. Never: deletes it, since a process that waits on the old file and one that makes a new one would both get a lock.
//! Invariant: the operating system gives the lock back when its holder ends, however it ends, so no stale lock is possible.

use crate::store::StoreError;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

/// Held as long as it lives.
#[derive(Debug)]
pub(super) struct LockFile {
    _file: File,
}

impl LockFile {
    /// Takes the lock of the database at `path`, or fails at once.
    pub(super) fn take(path: &Path) -> Result<Self, StoreError> {
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let name = Path::new(&name);
        let unavailable = |error| StoreError::Unavailable(format!("cannot lock {}: {error}", name.display()));
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(name)
            .map_err(unavailable)?;
        match file.try_lock() {
            Ok(()) => Ok(LockFile { _file: file }),
            Err(TryLockError::WouldBlock) => Err(StoreError::Conflict(format!(
                "{} is in use by another process, which holds {}",
                path.display(),
                name.display()
            ))),
            Err(TryLockError::Error(error)) => Err(unavailable(error)),
        }
    }
}
