//! What people write first on PostgreSQL, measured beside tallykeeper.
//!
//! Owns: the naive writers, each on a connection of its own. Never: touches a table outside its own schema. Invariant: each records exactly
//! what it counts; speed bought with lost counts is not measured here.

use super::report::Figure;
use super::{Shape, group_committer};
use anyhow::Result;
use std::time::Instant;
use tokio_postgres::Client;

const SCHEMA: &str = "
DROP SCHEMA IF EXISTS tallykeeper_bench CASCADE;
CREATE SCHEMA tallykeeper_bench;
CREATE TABLE tallykeeper_bench.results (task bigint PRIMARY KEY, result text NOT NULL);
CREATE TABLE tallykeeper_bench.progress (job int PRIMARY KEY, done bigint NOT NULL, blob jsonb NOT NULL);
INSERT INTO tallykeeper_bench.progress VALUES (1, 0, '{\"done\": 0}');
CREATE TABLE tallykeeper_bench.tasks (task bigint PRIMARY KEY, state int NOT NULL);
CREATE INDEX ON tallykeeper_bench.tasks (task) WHERE state = 0;
";
const INSERT: &str =
    "INSERT INTO tallykeeper_bench.results SELECT t, $2 FROM unnest($1::bigint[]) t ON CONFLICT DO NOTHING";
const ADD: &str = "UPDATE tallykeeper_bench.progress SET done = done + $1 WHERE job = 1";
const LOCK: &str = "SELECT (blob->>'done')::bigint FROM tallykeeper_bench.progress WHERE job = 1 FOR UPDATE";
const WRITE_BACK: &str =
    "UPDATE tallykeeper_bench.progress SET blob = jsonb_build_object('done', $1::bigint) WHERE job = 1";
const FILL: &str = "INSERT INTO tallykeeper_bench.tasks SELECT t, 0 FROM generate_series(1, $1::bigint) t";
const LEASE: &str = "UPDATE tallykeeper_bench.tasks SET state = 1 WHERE task IN
    (SELECT task FROM tallykeeper_bench.tasks WHERE state = 0 ORDER BY task LIMIT $1 FOR UPDATE SKIP LOCKED) RETURNING task";

/// More tasks than any writer can lease in its time.
const LEASABLE_PER_S: i64 = 60_000;

/// A naive way of recording results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mechanism {
    /// Read the progress blob under a row lock, change it, write it back.
    RowLock,
    /// A result row and an atomic counter column.
    Counter,
    /// The same, leasing each batch by SKIP LOCKED first.
    SkipLocked,
}

pub(super) async fn run_all(url: &str, shape: &Shape) -> Result<Vec<(&'static str, Figure)>> {
    let mut figures = Vec::new();
    for (name, mechanism) in [
        ("row lock, read-modify-write", Mechanism::RowLock),
        ("counter column + row", Mechanism::Counter),
        ("SKIP LOCKED lease + counter + row", Mechanism::SkipLocked),
    ] {
        figures.push((name, run(url, shape, mechanism).await?));
    }
    figures.push((
        "bare group committer, no HTTP",
        group_committer::run(prepared(url).await?, shape).await?,
    ));
    clear(url).await?;
    Ok(figures)
}

/// A connection to fresh tables.
pub(super) async fn prepared(url: &str) -> Result<Client> {
    let client = connect(url).await?;
    client.batch_execute(SCHEMA).await?;
    Ok(client)
}

pub(super) async fn clear(url: &str) -> Result<()> {
    let drop = "DROP SCHEMA tallykeeper_bench CASCADE";
    Ok(connect(url).await?.batch_execute(drop).await?)
}

async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn run(url: &str, shape: &Shape, mechanism: Mechanism) -> Result<Figure> {
    let control = connect(url).await?;
    control.batch_execute(SCHEMA).await?;
    if mechanism == Mechanism::SkipLocked {
        let tasks = LEASABLE_PER_S * shape.duration.as_secs() as i64;
        control.execute(FILL, &[&tasks]).await?;
        control.batch_execute("ANALYZE tallykeeper_bench.tasks").await?;
    }
    let mut clients = Vec::new();
    for _ in 0..shape.workers {
        clients.push(connect(url).await?);
    }
    let started = Instant::now();
    let deadline = started + shape.duration;
    let mut writers = Vec::new();
    for (writer, client) in clients.into_iter().enumerate() {
        let (result, batch) = (shape.result.clone(), shape.batch as i64);
        writers.push(tokio::spawn(write(
            client,
            mechanism,
            writer as i64,
            batch,
            result,
            deadline,
        )));
    }
    let mut recorded = 0;
    for writer in writers {
        recorded += writer.await??;
    }
    let elapsed = started.elapsed();
    let row = control
        .query_one(
            "SELECT (SELECT count(*) FROM tallykeeper_bench.results), done, (blob->>'done')::bigint FROM tallykeeper_bench.progress",
            &[],
        )
        .await?;
    let counted: i64 = if mechanism == Mechanism::RowLock {
        row.get(2)
    } else {
        row.get(1)
    };
    anyhow::ensure!(
        counted as u64 == recorded,
        "a baseline counted {counted} of {recorded} results"
    );
    shape.figure(recorded, row.get::<_, i64>(0) as u64, elapsed)
}

async fn write(
    mut client: Client,
    mechanism: Mechanism,
    writer: i64,
    batch: i64,
    result: String,
    deadline: Instant,
) -> Result<u64> {
    let insert = client.prepare(INSERT).await?;
    let add = client.prepare(ADD).await?;
    let lock = client.prepare(LOCK).await?;
    let write_back = client.prepare(WRITE_BACK).await?;
    let lease = client.prepare(LEASE).await?;
    let mut next = writer << 32;
    let mut recorded = 0;
    while Instant::now() < deadline {
        let tasks: Vec<i64> = match mechanism {
            Mechanism::SkipLocked => client
                .query(&lease, &[&batch])
                .await?
                .iter()
                .map(|row| row.get(0))
                .collect(),
            _ => {
                next += batch;
                (next - batch..next).collect()
            }
        };
        if tasks.is_empty() {
            break;
        }
        let count = tasks.len() as i64;
        let transaction = client.transaction().await?;
        if mechanism == Mechanism::RowLock {
            let done: i64 = transaction.query_one(&lock, &[]).await?.get(0);
            transaction.execute(&insert, &[&tasks, &result]).await?;
            transaction.execute(&write_back, &[&(done + count)]).await?;
        } else {
            transaction.execute(&insert, &[&tasks, &result]).await?;
            transaction.execute(&add, &[&count]).await?;
        }
        transaction.commit().await?;
        recorded += count as u64;
    }
    Ok(recorded)
}
