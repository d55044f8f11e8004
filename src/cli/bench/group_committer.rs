//! The bare group committer: what one writer task and one transaction per group reach without HTTP, leases or a ledger.
//!
//! Owns: the yardstick that tallykeeper's own overhead is measured against. Never: skips durability. Invariant: a writer goes on only after
//! the commit that holds its results.

use super::Shape;
use super::report::Figure;
use anyhow::{Context, Result};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};
use tokio_postgres::Client;

/// Results in one transaction at most.
const GROUP_ROWS: usize = 20_000;

const INSERT: &str =
    "INSERT INTO tallykeeper_bench.results SELECT * FROM unnest($1::bigint[], $2::text[]) ON CONFLICT DO NOTHING";

struct Post {
    tasks: Vec<i64>,
    done: oneshot::Sender<()>,
}

pub(super) async fn run(client: Client, shape: &Shape) -> Result<Figure> {
    let (posts, inbox) = mpsc::channel(shape.workers * 2);
    let result: Arc<str> = shape.result.as_str().into();
    let committer = tokio::spawn(commit_all(client, inbox, result));
    let started = Instant::now();
    let deadline = started + shape.duration;
    let mut writers = Vec::new();
    for writer in 0..shape.workers {
        let (posts, batch) = (posts.clone(), shape.batch as i64);
        writers.push(tokio::spawn(async move {
            let mut next = (writer as i64) << 32;
            let mut recorded = 0;
            while Instant::now() < deadline {
                let tasks: Vec<i64> = (next..next + batch).collect();
                next += batch;
                let (done, is_done) = oneshot::channel();
                posts
                    .send(Post { tasks, done })
                    .await
                    .ok()
                    .context("the committer runs")?;
                is_done.await.context("the committer answers")?;
                recorded += batch as u64;
            }
            anyhow::Ok(recorded)
        }));
    }
    drop(posts);
    let mut recorded = 0;
    for writer in writers {
        recorded += writer.await??;
    }
    let elapsed = started.elapsed();
    let client = committer.await??;
    let found: i64 = client
        .query_one("SELECT count(*) FROM tallykeeper_bench.results", &[])
        .await?
        .get(0);
    shape.figure(recorded, found as u64, elapsed)
}

async fn commit_all(client: Client, mut inbox: mpsc::Receiver<Post>, result: Arc<str>) -> Result<Client> {
    let insert = client.prepare(INSERT).await?;
    while let Some(first) = inbox.recv().await {
        let mut group = vec![first];
        let mut rows = group[0].tasks.len();
        while rows < GROUP_ROWS {
            let Ok(post) = inbox.try_recv() else { break };
            rows += post.tasks.len();
            group.push(post);
        }
        let tasks: Vec<i64> = group.iter().flat_map(|post| post.tasks.iter().copied()).collect();
        let results: Vec<&str> = vec![&*result; tasks.len()];
        client.execute(&insert, &[&tasks, &results]).await?;
        for post in group {
            // A writer that failed has stopped waiting.
            let _ = post.done.send(());
        }
    }
    Ok(client)
}
