//! Many active jobs at once, beside one hot job with as many tasks.
//!
//! Owns: making the jobs, the workers that take whatever is next, the check of every job. Never: reports a run in which a job did not end
//! with all its tasks. Invariant: a round runs the hot job and the many jobs one after the other, with batches of the same size.

use super::connection::Connection;
use super::load::{JSON, Load, results_body};
use super::memory::{forget_peak, peak_bytes};
use super::report::median;
use super::{BenchArgs, Case};
use crate::cli::node::Node;
use crate::cli::output::{note, print};
use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Instant;

#[derive(Deserialize)]
struct Granted {
    job: Option<GrantedJob>,
    tasks: Vec<GrantedTask>,
}

#[derive(Deserialize)]
struct GrantedJob {
    id: i64,
}

#[derive(Deserialize)]
struct GrantedTask {
    lease: String,
}

#[derive(Deserialize)]
struct Listed {
    items: Vec<Value>,
    next_cursor: Option<String>,
}

/// What one round came to.
struct Round {
    hot_per_s: f64,
    many_per_s: f64,
    created_per_s: f64,
    peak_bytes: Option<u64>,
}

/// What the callers of one round share.
struct Target {
    url: String,
    token: Option<String>,
    /// A queue of its own: what an earlier round left is nobody's business.
    queue: String,
    jobs: u32,
    tasks_of_job: u32,
    batch: u32,
    result: String,
}

pub(super) async fn run(args: &BenchArgs, node: &Node, store: &str) -> Result<()> {
    let tasks = args.tasks.unwrap_or(Case::Batch.default_tasks());
    let tasks_of_job = tasks.div_ceil(args.jobs);
    let mut rounds = Vec::new();
    for round in 1..=args.rounds {
        note(&format!("many jobs, round {round}/{}", args.rounds));
        let hot = Load {
            case: Case::Batch,
            workers: args.workers,
            batch: args.batch.min(tasks_of_job),
            tasks: tasks_of_job * args.jobs,
            result_bytes: args.result_bytes as usize,
            subscribers: 0,
            stalled: 0,
        };
        let hot_per_s = hot.run(node).await.context("one hot job")?.tasks_per_s();
        forget_peak();
        let target = Arc::new(Target {
            url: node.url(),
            token: node.token().map(str::to_owned),
            queue: format!("bench-{:016x}", rand::random::<u64>()),
            jobs: args.jobs,
            tasks_of_job,
            batch: hot.batch,
            result: format!("\"{}\"", "x".repeat(hot.result_bytes.saturating_sub(2))),
        });
        let created_per_s = target.create(args.workers).await.context("making the jobs")?;
        let many_per_s = target.work(args.workers).await.context("many jobs")?;
        target.check().await?;
        rounds.push(Round {
            hot_per_s,
            many_per_s,
            created_per_s,
            peak_bytes: peak_bytes(),
        });
    }
    report(args, store, tasks_of_job, &rounds)
}

impl Target {
    async fn connect(&self) -> Result<Connection> {
        Connection::open(&self.url, self.token.as_deref()).await
    }

    /// Makes all jobs; answers how many in a second.
    async fn create(self: &Arc<Target>, callers: u32) -> Result<f64> {
        let tasks: Vec<Value> = (0..self.tasks_of_job)
            .map(|i| json!({"payload": {"image": i}}))
            .collect();
        let body = json!({"name": "bench", "queue": self.queue, "tasks": tasks, "policy": {"lease_timeout_s": 3600}});
        let body: Arc<str> = body.to_string().into();
        let started = Instant::now();
        let creating = (0..callers).map(|caller| {
            let (target, body) = (self.clone(), body.clone());
            tokio::spawn(async move {
                let mut connection = target.connect().await?;
                for _ in (caller..target.jobs).step_by(callers as usize) {
                    connection.post("/v1/jobs", JSON, String::from(&*body).into()).await?;
                }
                anyhow::Ok(())
            })
        });
        for created in try_join_all(creating).await? {
            created?;
        }
        Ok(f64::from(self.jobs) / started.elapsed().as_secs_f64())
    }

    /// Works until nothing is left; answers tasks in a second.
    async fn work(self: &Arc<Target>, workers: u32) -> Result<f64> {
        let started = Instant::now();
        let working = (0..workers).map(|i| tokio::spawn(self.clone().worker(format!("w{i}"))));
        let mut counted = 0;
        for done in try_join_all(working).await? {
            counted += done?;
        }
        let elapsed = started.elapsed();
        let tasks = u64::from(self.jobs) * u64::from(self.tasks_of_job);
        ensure!(
            counted == tasks,
            "workers were told of {counted} counted results, not {tasks}"
        );
        Ok(tasks as f64 / elapsed.as_secs_f64())
    }

    /// Takes what is next, of whichever job.
    async fn worker(self: Arc<Target>, name: String) -> Result<u64> {
        let mut connection = self.connect().await?;
        let ask = json!({"worker": name, "queues": [self.queue], "max_tasks": self.batch}).to_string();
        let mut counted = 0;
        loop {
            let granted = connection.post("/v1/leases", JSON, ask.clone().into()).await?;
            let granted: Granted = serde_json::from_slice(&granted)?;
            let Some(job) = granted.job else { return Ok(counted) };
            let leases = granted.tasks.iter().map(|task| task.lease.as_str());
            let body = results_body(&name, leases, &self.result, None)?;
            let posted = connection
                .post(&format!("/v1/jobs/{}/results", job.id), JSON, body)
                .await?;
            let posted: Value = serde_json::from_slice(&posted)?;
            let told = posted["results"].as_array().context("results are a list")?;
            counted += told.iter().filter(|item| item["disposition"] == "counted").count() as u64;
        }
    }

    /// Every job has ended with all its tasks, each counted once.
    async fn check(&self) -> Result<()> {
        let mut connection = self.connect().await?;
        let (mut jobs, mut cursor) = (0, String::new());
        loop {
            let path = format!("/v1/jobs?queue={}&limit=500{cursor}", self.queue);
            let listed: Listed = serde_json::from_slice(&connection.get(&path).await?)?;
            for job in &listed.items {
                let progress = &job["progress"];
                let exact = job["state"] == "succeeded"
                    && progress["succeeded"] == self.tasks_of_job
                    && progress["counters"]["n"] == self.tasks_of_job;
                ensure!(exact, "a job did not end with all its tasks: {job}");
            }
            jobs += listed.items.len();
            match listed.next_cursor {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        ensure!(jobs == self.jobs as usize, "{jobs} of {} jobs are listed", self.jobs);
        Ok(())
    }
}

fn report(args: &BenchArgs, store: &str, tasks_of_job: u32, rounds: &[Round]) -> Result<()> {
    let of = |pick: fn(&Round) -> f64| median(rounds.iter().map(pick)).unwrap_or_default();
    let (hot, many, created) = (of(|r| r.hot_per_s), of(|r| r.many_per_s), of(|r| r.created_per_s));
    let ratio = of(|r| r.many_per_s / r.hot_per_s);
    let peak_mib = rounds
        .iter()
        .filter_map(|r| r.peak_bytes)
        .max()
        .map(|bytes| bytes >> 20);
    if args.json {
        let value = json!({
            "store": store, "workers": args.workers, "rounds": args.rounds, "exact": true, "jobs": args.jobs,
            "tasks_of_job": tasks_of_job, "hot_tasks_per_s": hot.round(), "many_tasks_per_s": many.round(),
            "ratio_median": (ratio * 100.0).round() / 100.0, "jobs_created_per_s": created.round(),
            "peak_resident_mib": peak_mib,
        });
        return print(&format!("{value:#}\n"));
    }
    let mut table = format!(
        "{store} · {} workers · {} jobs of {tasks_of_job} tasks · medians of {} rounds · every run exact\n\n",
        args.workers, args.jobs, args.rounds
    );
    table += &format!("{:<26} {:>10}\n", "", "tasks/s");
    table += &format!("{:<26} {hot:>10.0}\n", "one hot job");
    table += &format!("{:<26} {many:>10.0}\n", "many jobs");
    table += &format!("\nmany jobs reach {ratio:.2} × of one · {created:.0} jobs/s were made\n");
    if let Some(peak) = peak_mib {
        table += &format!("peak resident memory of node and load together: {peak} MiB\n");
    }
    print(&table)
}
