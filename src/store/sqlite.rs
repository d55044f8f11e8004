//! SQLite: the embedded store of one process.
//!
//! Owns: the database file, its lock file, one writer thread and a few reader threads. Never: shares the file with a second process.
//! Invariant: while a [`Sqlite`] lives its process alone holds `PATH.lock`; dropping it ends the threads, closes the file and only
//! then gives the lock back, so the next `open` finds everything settled.

mod append;
mod blobs;
mod commit;
mod create;
mod delete;
mod errcode;
mod fence;
mod jobs;
mod lane;
mod lock_file;
mod logs;
mod nodes;
mod outbox;
mod reads;
mod record;
mod results;
mod schema;
mod tickets;
mod tokens;

#[cfg(test)]
mod own_test;
#[cfg(test)]
mod queries_test;
#[cfg(test)]
mod scratch;

use super::{Capabilities, Store, StoreError};
use lane::Lane;
use lock_file::LockFile;
use rusqlite::{Connection, OpenFlags};
use std::path::Path;
use std::time::Duration;

/// Connections that only read; more than the machine's cores would only wait for each other.
const READERS: usize = 3;
/// Calls that may wait for the writer before callers are held back.
const WRITER_QUEUE: usize = 64;
const READER_QUEUE: usize = 256;
/// Only a foreign tool (a backup, a shell) can make us wait; it gets this long.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Statements kept prepared per connection; more than there are files in `queries/`.
const STATEMENTS: usize = 96;

/// A store in one SQLite file.
pub struct Sqlite {
    // Fields drop in this order: the writer closes last of the connections, because only a connection that may write can fold the
    // write-ahead log into the file, and the lock is given back when nothing is open any more.
    readers: Lane,
    writer: Lane,
    _lock: LockFile,
}

impl Sqlite {
    /// Opens or creates the database at `path`. The schema is brought up to date by `migrate`, not here.
    ///
    /// `Conflict` if another process (or another `Sqlite` of this one) has it open.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        // Two names of one file must meet at one lock file. A file that does not exist yet has only the one name.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        // Before a lock file is made beside it.
        if path.is_dir() {
            return Err(StoreError::Unavailable(format!("{} is a directory", path.display())));
        }
        let lock = LockFile::take(&path)?;
        let writer = open_writer(&path)?;
        let readers = (0..READERS).map(|_| open_reader(&path)).collect::<Result<_, _>>()?;
        Ok(Sqlite {
            readers: Lane::start("sqlite-reader", readers, READER_QUEUE)?,
            writer: Lane::start("sqlite-writer", vec![writer], WRITER_QUEUE)?,
            _lock: lock,
        })
    }
}

impl Store for Sqlite {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            name: "sqlite",
            shared: false,
            commit_lanes: 1,
            // A commit then waits for one piece at most.
            blob_lanes: 1,
        }
    }
}

fn open_writer(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.execute_batch(include_str!("sqlite/pragmas/writer.sql"))?;
    Ok(connection)
}

fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.execute_batch(include_str!("sqlite/pragmas/reader.sql"))?;
    Ok(connection)
}
