//! What people write first on SQLite, and what SQLite can do at most.
//!
//! Owns: the naive writers and the raw insert. Never: touches the measured database. Invariant: WAL and synchronous=FULL, as in the store.

use super::Shape;
use super::report::Figure;
use anyhow::{Context, Result};
use rusqlite::{Connection, TransactionBehavior, params};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

const SCHEMA: &str = "
CREATE TABLE results (job INTEGER NOT NULL, run INTEGER NOT NULL, task INTEGER NOT NULL, result TEXT NOT NULL, PRIMARY KEY (job, run, task));
CREATE TABLE progress (job INTEGER PRIMARY KEY, done INTEGER NOT NULL, blob TEXT NOT NULL);
INSERT INTO progress VALUES (1, 0, '{\"done\": 0}');
";
const INSERT: &str = "INSERT INTO results VALUES (1, 1, ?1, ?2) ON CONFLICT DO NOTHING";

/// A way of recording results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mechanism {
    RowLock,
    Counter,
    /// One writer, nothing but inserts.
    Raw,
}

pub(super) async fn run_all(scratch: &Path, shape: &Shape) -> Result<Vec<(&'static str, Figure)>> {
    let mut figures = Vec::new();
    for (name, mechanism) in [
        ("locked read-modify-write", Mechanism::RowLock),
        ("counter column + row", Mechanism::Counter),
        ("raw inserts, one writer, no HTTP", Mechanism::Raw),
    ] {
        let path = scratch.join(format!("naive-{:08x}.db", rand::random::<u32>()));
        figures.push((name, run(&path, shape, mechanism).await?));
    }
    Ok(figures)
}

fn open(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(60))?;
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")?;
    Ok(connection)
}

async fn run(path: &Path, shape: &Shape, mechanism: Mechanism) -> Result<Figure> {
    let control = open(path)?;
    control.execute_batch(SCHEMA)?;
    let started = Instant::now();
    let deadline = started + shape.duration;
    let writers = if mechanism == Mechanism::Raw { 1 } else { shape.workers };
    let mut threads = Vec::new();
    for writer in 0..writers {
        let (path, result, batch) = (path.to_owned(), shape.result.clone(), shape.batch as i64);
        threads.push(thread::spawn(move || {
            write(&path, mechanism, writer as i64, batch, &result, deadline)
        }));
    }
    let mut recorded = 0;
    for thread in threads {
        recorded += thread.join().ok().context("a writer ends by itself")??;
    }
    let elapsed = started.elapsed();
    let found: i64 = control.query_row("SELECT count(*) FROM results", [], |row| row.get(0))?;
    let (done, blob): (i64, String) = control.query_row("SELECT done, blob FROM progress", [], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })?;
    let counted = match mechanism {
        Mechanism::RowLock => done_in(&blob)?,
        Mechanism::Counter => done,
        Mechanism::Raw => found,
    };
    anyhow::ensure!(
        counted as u64 == recorded,
        "a baseline counted {counted} of {recorded} results"
    );
    drop(control);
    for suffix in ["", "-wal", "-shm"] {
        let mut file = path.as_os_str().to_owned();
        file.push(suffix);
        // The scratch directory is removed anyway; this keeps it small meanwhile.
        let _ = std::fs::remove_file(PathBuf::from(file));
    }
    shape.figure(recorded, found as u64, elapsed)
}

fn done_in(blob: &str) -> Result<i64> {
    let blob: serde_json::Value = serde_json::from_str(blob)?;
    blob["done"].as_i64().context("the blob holds a number")
}

fn write(path: &Path, mechanism: Mechanism, writer: i64, batch: i64, result: &str, deadline: Instant) -> Result<u64> {
    let mut connection = open(path)?;
    let mut next = writer << 32;
    let mut recorded = 0;
    while Instant::now() < deadline {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let blob = match mechanism {
            Mechanism::RowLock => {
                Some(transaction.query_row("SELECT blob FROM progress", [], |row| row.get::<_, String>(0))?)
            }
            _ => None,
        };
        {
            let mut insert = transaction.prepare_cached(INSERT)?;
            for task in next..next + batch {
                insert.execute(params![task, result])?;
            }
        }
        match (mechanism, blob) {
            (Mechanism::RowLock, Some(blob)) => {
                let changed = serde_json::json!({"done": done_in(&blob)? + batch}).to_string();
                transaction.execute("UPDATE progress SET blob = ?1", [changed])?;
            }
            (Mechanism::Counter, _) => {
                transaction.execute("UPDATE progress SET done = done + ?1", [batch])?;
            }
            _ => {}
        }
        transaction.commit()?;
        next += batch;
        recorded += batch as u64;
    }
    Ok(recorded)
}
