//! The load on a node: workers that lease and report over HTTP until the job ends.
//!
//! Owns: one measured run and the check after it. Never: counts what was not acknowledged. Invariant: a run is reported only if the
//! workers' own record, the job's tally, its summed counter and the stored results all say the same number.

use super::Case;
use super::connection::Connection;
use super::report::Figure;
use super::subscribers::Subscribers;
use crate::cli::node::Node;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures_util::future::try_join_all;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) const JSON: &str = "application/json";
/// Tasks in one call of the upload.
const UPLOAD_CHUNK: u32 = 50_000;
/// Tasks leased at once in the case `single`.
const LEASED_AT_ONCE: u32 = 100;

pub(super) struct Load {
    pub(super) case: Case,
    pub(super) workers: u32,
    pub(super) batch: u32,
    pub(super) tasks: u32,
    pub(super) result_bytes: usize,
    /// WebSockets that watch the job meanwhile.
    pub(super) subscribers: u32,
    /// Of these, so many never read.
    pub(super) stalled: u32,
}

#[derive(Deserialize)]
struct Leased {
    tasks: Vec<LeasedTask>,
}

#[derive(Deserialize)]
pub(super) struct LeasedTask {
    lease: String,
}

#[derive(Deserialize)]
struct Posted {
    results: Vec<PostedResult>,
    tasks: Option<Vec<LeasedTask>>,
}

#[derive(Deserialize)]
struct PostedResult {
    disposition: String,
}

#[derive(Deserialize)]
struct ResultLine {
    task: u32,
}

/// What one worker saw.
#[derive(Default)]
pub(super) struct Seen {
    counted: u64,
    pub(super) latencies_us: Vec<u32>,
}

pub(super) struct Worker {
    connection: Connection,
    name: String,
    job: i64,
    result: Arc<str>,
    pub(super) seen: Seen,
}

impl Load {
    /// Feeds a job, works on it, and checks what came of it.
    pub(super) async fn run(&self, node: &Node) -> Result<Figure> {
        let (url, token) = (node.url(), node.token());
        let mut control = Connection::open(&url, token).await?;
        let (job, ingest) = self.feed(&mut control).await?;
        let workers = self.workers(node, job).await?;
        let watching = Subscribers::connect(&url, token, job, self.subscribers, self.stalled).await?;
        let (case, batch) = (self.case, self.batch);
        let started = Instant::now();
        let tasks = workers.into_iter().map(|worker| tokio::spawn(worker.work(case, batch)));
        let seen: Vec<Seen> = try_join_all(tasks).await?.into_iter().collect::<Result<_>>()?;
        let elapsed = started.elapsed();
        watching.check().await?;
        self.check(&mut control, job, &seen).await?;
        let latencies = seen.into_iter().flat_map(|seen| seen.latencies_us).collect();
        Ok(Figure::of_run(
            u64::from(self.tasks),
            elapsed,
            latencies,
            f64::from(self.tasks) / ingest.as_secs_f64(),
        ))
    }

    /// Workers of this job, each with a connection of its own.
    pub(super) async fn workers(&self, node: &Node, job: i64) -> Result<Vec<Worker>> {
        let result: Arc<str> = format!("\"{}\"", "x".repeat(self.result_bytes.saturating_sub(2))).into();
        let mut workers = Vec::new();
        for i in 0..self.workers {
            let connection = Connection::open(&node.url(), node.token()).await?;
            let (name, result) = (format!("w{i}"), result.clone());
            workers.push(Worker {
                connection,
                name,
                job,
                result,
                seen: Seen::default(),
            });
        }
        Ok(workers)
    }

    pub(super) async fn feed(&self, control: &mut Connection) -> Result<(i64, Duration)> {
        let body = json!({"name": "bench", "queue": "bench", "open": true, "policy": {"lease_timeout_s": 3600}});
        let created: Value = serde_json::from_slice(&control.post("/v1/jobs", JSON, body.to_string().into()).await?)?;
        let job = created["id"].as_i64().context("a job has an id")?;
        let started = Instant::now();
        let mut fed = 0;
        while fed < self.tasks {
            let chunk = UPLOAD_CHUNK.min(self.tasks - fed);
            let mut lines = String::new();
            for i in fed..fed + chunk {
                writeln!(
                    lines,
                    "{{\"payload\":{{\"image\":\"https://images.example/site-0001/{i:032}.jpg\",\"width\":4096}}}}"
                )?;
            }
            control
                .post(&format!("/v1/jobs/{job}/tasks"), "application/x-ndjson", lines.into())
                .await?;
            fed += chunk;
        }
        let elapsed = started.elapsed();
        control.post(&format!("/v1/jobs/{job}/seal"), JSON, "{}".into()).await?;
        Ok((job, elapsed))
    }

    pub(super) async fn check(&self, control: &mut Connection, job: i64, seen: &[Seen]) -> Result<()> {
        let tasks = u64::from(self.tasks);
        let counted: u64 = seen.iter().map(|seen| seen.counted).sum();
        ensure!(
            counted == tasks,
            "workers were told of {counted} counted results, not {tasks}"
        );
        let view: Value = serde_json::from_slice(&control.get(&format!("/v1/jobs/{job}")).await?)?;
        ensure!(view["state"] == "succeeded", "the job is {}", view["state"]);
        let progress = &view["progress"];
        ensure!(
            progress["succeeded"] == tasks,
            "the tally says {}",
            progress["succeeded"]
        );
        ensure!(
            progress["counters"]["n"] == tasks,
            "the counter says {}",
            progress["counters"]["n"]
        );
        let mut stored = HashSet::with_capacity(self.tasks as usize);
        let mut cursor = String::new();
        loop {
            let page = control
                .get(&format!("/v1/jobs/{job}/results?limit=500{cursor}"))
                .await?;
            let page: Page = serde_json::from_slice(&page)?;
            ensure!(
                page.items.iter().all(|line| stored.insert(line.task)),
                "a result is stored twice"
            );
            match page.next_cursor {
                // A full read of a large job takes longer than the run; a prefix of it is enough beside the exact sums above.
                Some(next) if stored.len() < CHECKED_RESULTS => cursor = format!("&cursor={next}"),
                Some(_) => return Ok(()),
                None => break,
            }
        }
        ensure!(stored.len() as u64 == tasks, "{} results are stored", stored.len());
        Ok(())
    }
}

/// Stored results read back and compared one by one.
const CHECKED_RESULTS: usize = 50_000;

#[derive(Deserialize)]
struct Page {
    items: Vec<ResultLine>,
    next_cursor: Option<String>,
}

impl Worker {
    async fn work(mut self, case: Case, batch: u32) -> Result<Seen> {
        match case {
            Case::Batch => while self.batch(batch).await? {},
            Case::Single => while self.one_by_one().await? {},
            Case::Chained => self.chained().await?,
        }
        Ok(self.seen)
    }

    async fn batch(&mut self, batch: u32) -> Result<bool> {
        let leased = self.lease(batch).await?;
        if leased.is_empty() {
            return Ok(false);
        }
        self.report(&leased, None, Instant::now()).await?;
        Ok(true)
    }

    async fn one_by_one(&mut self) -> Result<bool> {
        let leased = self.lease(LEASED_AT_ONCE).await?;
        for task in &leased {
            self.report(std::slice::from_ref(task), None, Instant::now()).await?;
        }
        Ok(!leased.is_empty())
    }

    async fn chained(&mut self) -> Result<()> {
        let mut leased = self.lease(1).await?;
        while !leased.is_empty() {
            leased = self.report(&leased, Some(1), Instant::now()).await?;
        }
        Ok(())
    }

    pub(super) async fn lease(&mut self, most: u32) -> Result<Vec<LeasedTask>> {
        let body = format!("{{\"worker\":\"{}\",\"max_tasks\":{most}}}", self.name);
        let path = format!("/v1/jobs/{}/leases", self.job);
        let leased: Leased = serde_json::from_slice(&self.connection.post(&path, JSON, body.into()).await?)?;
        Ok(leased.tasks)
    }

    /// Reports successes, whose latency counts since then; answers what was leased along with it.
    pub(super) async fn report(
        &mut self,
        tasks: &[LeasedTask],
        then_lease: Option<u32>,
        since: Instant,
    ) -> Result<Vec<LeasedTask>> {
        let leases = tasks.iter().map(|task| task.lease.as_str());
        let body = results_body(&self.name, leases, &self.result, then_lease)?;
        let path = format!("/v1/jobs/{}/results", self.job);
        let answer = self.connection.post(&path, JSON, body).await?;
        self.seen
            .latencies_us
            .push(since.elapsed().as_micros().min(u128::from(u32::MAX)) as u32);
        let posted: Posted = serde_json::from_slice(&answer)?;
        self.seen.counted += posted
            .results
            .iter()
            .filter(|result| result.disposition == "counted")
            .count() as u64;
        Ok(posted.tasks.unwrap_or_default())
    }
}

/// The body that reports a success for each of these leases.
pub(super) fn results_body<'a>(
    worker: &str,
    leases: impl Iterator<Item = &'a str>,
    result: &str,
    then_lease: Option<u32>,
) -> Result<Bytes> {
    let mut body = String::with_capacity(leases.size_hint().0 * (result.len() + 120) + 64);
    write!(body, "{{\"worker\":\"{worker}\",")?;
    if let Some(most) = then_lease {
        write!(body, "\"then_lease\":{{\"max_tasks\":{most}}},")?;
    }
    body.push_str("\"results\":[");
    for (i, lease) in leases.enumerate() {
        let comma = if i == 0 { "" } else { "," };
        write!(
            body,
            "{comma}{{\"lease\":\"{lease}\",\"status\":\"succeeded\",\"result\":{result},\"counters\":{{\"n\":1}}}}"
        )?;
    }
    body.push_str("]}");
    Ok(body.into())
}
