//! A database in a directory of its own, for tests.
//!
//! Owns: the directory. Never: shared between tests. Invariant: the directory goes when the scratch goes.

use super::Sqlite;
use crate::store::NodeStore;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

static NEXT: AtomicU32 = AtomicU32::new(0);

pub(super) struct Scratch {
    directory: PathBuf,
}

impl Scratch {
    pub(super) fn empty() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("tallykeeper-sqlite-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        Scratch { directory }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.directory.join("store.db")
    }

    pub(super) fn open(&self) -> Sqlite {
        Sqlite::open(&self.path()).unwrap()
    }

    pub(super) async fn migrated() -> (Self, Sqlite) {
        let scratch = Scratch::empty();
        let store = scratch.open();
        store.migrate().await.unwrap();
        (scratch, store)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
