//! The bare group committer: what one writer task and one transaction per group reach without HTTP, leases or a ledger.
//!
//! Owns: the yardstick that tallykeeper's own overhead is measured against. Never: skips durability. Invariant: a writer goes on only after
//! the commit that holds its results.

use super::Shape;
use super::open_loop::Pace;
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

/// Latencies, in microseconds, while so many results come one by one at this rate.
pub(super) async fn paced(client: Client, shape: &Shape, tasks: u32, per_s: f64) -> Result<Vec<u32>> {
    let (posts, inbox) = mpsc::channel(shape.workers * 2);
    let committer = tokio::spawn(commit_all(client, inbox, shape.result.as_str().into()));
    let pace = Pace::new(per_s);
    let mut writers = Vec::new();
    for writer in 0..shape.workers {
        let (posts, step) = (posts.clone(), shape.workers);
        writers.push(tokio::spawn(async move {
            let mut latencies_us = Vec::new();
            for number in (writer as u32..tasks).step_by(step) {
                let since = pace.turn(number).await;
                let (done, is_done) = oneshot::channel();
                let post = Post {
                    tasks: vec![i64::from(number)],
                    done,
                };
                posts.send(post).await.ok().context("the committer runs")?;
                is_done.await.context("the committer answers")?;
                latencies_us.push(since.elapsed().as_micros().min(u128::from(u32::MAX)) as u32);
            }
            anyhow::Ok(latencies_us)
        }));
    }
    drop(posts);
    let mut latencies_us = Vec::new();
    for writer in writers {
        latencies_us.extend(writer.await??);
    }
    committer.await??;
    Ok(latencies_us)
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
