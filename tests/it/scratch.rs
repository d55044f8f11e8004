//! A directory of its own for a test's files.
//!
//! Owns: the directory. Never: shared between tests. Invariant: the directory goes when the scratch goes.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

static NEXT: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Scratch {
    directory: PathBuf,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("tallykeeper-it-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("the temporary directory is writable");
        Scratch { directory }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.join("store.db")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
