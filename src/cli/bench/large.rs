//! Large results beside the small flow: what they do to its latency and to the node's memory.
//!
//! Owns: the posters of large results, the rounds with and without them. Never: counts a large result that was not acknowledged, or one
//! that does not come back as it was sent. Invariant: a round runs the small flow without and with them, one after the other, and only
//! ratios within a round are compared.

use super::load::Load;
use super::memory::{forget_peak, peak_bytes};
use super::report::median;
use super::{BenchArgs, Case};
use crate::cli::node::Node;
use crate::cli::output::{note, print};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Tasks of a job of large results: more than are ever posted.
const TASKS: usize = 20_000;
/// Results of a round that are read back and compared.
const COMPARED: usize = 3;
/// A poster that was told to come back does so after this.
const BUSY_WAIT: Duration = Duration::from_millis(200);

/// What one round came to. Latencies in microseconds.
struct Round {
    without: (u32, u32),
    with: (u32, u32),
    stored: usize,
    busy: usize,
    elapsed: Duration,
    peak_bytes: Option<u64>,
}

/// What the posters share.
struct Target {
    host: String,
    token: Option<String>,
    job: i64,
    /// Sent by all of them from one place: the load must not hold what the node is measured for.
    text: String,
    stop: AtomicBool,
}

/// What one poster saw: tasks that were counted, and how often it was told to come back.
#[derive(Default)]
struct Seen {
    counted: Vec<u64>,
    busy: usize,
}

pub(super) async fn run(args: &BenchArgs, node: &Node, store: &str) -> Result<()> {
    let mut rounds = Vec::new();
    for round in 1..=args.rounds {
        note(&format!("large results, round {round}/{}", args.rounds));
        rounds.push(one_round(args, node).await?);
    }
    report(args, store, &rounds)
}

async fn one_round(args: &BenchArgs, node: &Node) -> Result<Round> {
    let small = Load {
        case: Case::Single,
        workers: args.workers,
        batch: 1,
        tasks: args.tasks.unwrap_or(Case::Single.default_tasks()),
        result_bytes: args.result_bytes as usize,
        subscribers: 0,
        stalled: 0,
    };
    let latency = |figure: super::report::Figure| figure.latency_us().context("the small flow has latencies");
    let without = latency(small.run(node).await.context("the small flow alone")?)?;
    forget_peak();
    let target = Arc::new(Target::prepare(node, args.large_bytes as usize).await?);
    let started = Instant::now();
    let posters: Vec<_> = (0..args.large)
        .map(|i| tokio::spawn(poster(target.clone(), format!("large-{i}"))))
        .collect();
    let with = small.run(node).await.context("the small flow beside large results");
    target.stop.store(true, Ordering::Relaxed);
    let mut seen = Seen::default();
    for poster in posters {
        let one = poster.await?.context("posting large results")?;
        seen.counted.extend(one.counted);
        seen.busy += one.busy;
    }
    let elapsed = started.elapsed();
    let peak_bytes = peak_bytes();
    target.check(&seen).await?;
    Ok(Round {
        without,
        with: latency(with?)?,
        stored: seen.counted.len(),
        busy: seen.busy,
        elapsed,
        peak_bytes,
    })
}

impl Target {
    async fn prepare(node: &Node, bytes: usize) -> Result<Target> {
        let url = node.url();
        let mut target = Target {
            host: url
                .strip_prefix("http://")
                .context("the address begins with http://")?
                .to_owned(),
            token: node.token().map(str::to_owned),
            job: 0,
            text: format!("\"{}\"", "x".repeat(bytes.saturating_sub(2))),
            stop: AtomicBool::new(false),
        };
        let tasks = vec![json!({"payload": 0}); TASKS];
        let body = json!({"name": "large", "queue": "large", "tasks": tasks, "policy": {"lease_timeout_s": 3600}});
        let (status, created) = target.call("POST", "/v1/jobs", &[&body.to_string()]).await?;
        ensure!(status == 201, "the job of large results was not made: {status}");
        let created: Value = serde_json::from_slice(&created)?;
        target.job = created["id"].as_i64().context("a job has an id")?;
        Ok(target)
    }

    /// One call on a connection of its own; answers status and body.
    async fn call(&self, method: &str, path: &str, body: &[&str]) -> Result<(u16, Vec<u8>)> {
        let mut stream = TcpStream::connect(&self.host).await?;
        let length: usize = body.iter().map(|part| part.len()).sum();
        let token = self
            .token
            .as_ref()
            .map_or(String::new(), |token| format!("Authorization: Bearer {token}\r\n"));
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\n{token}Content-Type: application/json\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n",
            self.host
        );
        let sending = async {
            for part in [&head.as_str()].into_iter().chain(body) {
                stream.write_all(part.as_bytes()).await?;
            }
            std::io::Result::Ok(())
        };
        // A node that is busy may say so and close before it was sent everything; what it said is read all the same.
        let sent = sending.await;
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer).await;
        let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
            sent?;
            read?;
            bail!("{path}: the node closed the connection");
        };
        let status = std::str::from_utf8(answer.get(9..12).unwrap_or_default())?.parse()?;
        Ok((status, answer.split_off(end + 4)))
    }

    /// The job's tally and its stored results say what the posters were told.
    async fn check(&self, seen: &Seen) -> Result<()> {
        let (_, view) = self.call("GET", &format!("/v1/jobs/{}", self.job), &[]).await?;
        let view: Value = serde_json::from_slice(&view)?;
        let told = seen.counted.len();
        ensure!(
            view["progress"]["succeeded"] == told,
            "posters were told of {told} large results: {view}"
        );
        for task in seen.counted.iter().take(COMPARED) {
            let path = format!("/v1/jobs/{}/tasks/{task}/result", self.job);
            let (status, text) = self.call("GET", &path, &[]).await?;
            ensure!(
                status == 200 && text == self.text.as_bytes(),
                "the result of task {task} is another"
            );
        }
        let (status, _) = self
            .call("POST", &format!("/v1/jobs/{}/cancel", self.job), &["{}"])
            .await?;
        ensure!(status == 200, "the job of large results was not canceled: {status}");
        Ok(())
    }
}

/// Leases one task at a time and posts a large result for it, until told to stop.
async fn poster(target: Arc<Target>, worker: String) -> Result<Seen> {
    let mut seen = Seen::default();
    let leases = format!("/v1/jobs/{}/leases", target.job);
    let results = format!("/v1/jobs/{}/results", target.job);
    while !target.stop.load(Ordering::Relaxed) {
        let ask = json!({"worker": worker, "max_tasks": 1}).to_string();
        let (status, granted) = target.call("POST", &leases, &[&ask]).await?;
        ensure!(status == 200, "no lease: {status}");
        let granted: Value = serde_json::from_slice(&granted)?;
        let task = &granted["tasks"][0];
        let number = task["task"]
            .as_u64()
            .context("the job of large results has run out of tasks")?;
        let before = format!(
            "{{\"worker\":\"{worker}\",\"results\":[{{\"lease\":{},\"status\":\"succeeded\",\"result\":",
            task["lease"]
        );
        loop {
            match target.call("POST", &results, &[&before, &target.text, "}]}"]).await {
                Ok((200, _)) => break seen.counted.push(number),
                Ok((503, _)) => seen.busy += 1,
                Ok((status, problem)) => bail!("{status}: {}", String::from_utf8_lossy(&problem)),
                Err(error) if error.downcast_ref::<std::io::Error>().is_some() => seen.busy += 1,
                Err(error) => return Err(error),
            }
            tokio::time::sleep(BUSY_WAIT).await;
        }
    }
    Ok(seen)
}

fn report(args: &BenchArgs, store: &str, rounds: &[Round]) -> Result<()> {
    let of = |pick: fn(&Round) -> f64| median(rounds.iter().map(pick)).unwrap_or_default();
    let p50 = (of(|r| f64::from(r.without.0)), of(|r| f64::from(r.with.0)));
    let p99 = (of(|r| f64::from(r.without.1)), of(|r| f64::from(r.with.1)));
    let ratio = of(|r| f64::from(r.with.1) / f64::from(r.without.1));
    let per_s = of(|r| r.stored as f64 / r.elapsed.as_secs_f64());
    let mib_per_s = per_s * f64::from(args.large_bytes) / f64::from(1 << 20);
    let stored: usize = rounds.iter().map(|r| r.stored).sum();
    let busy: usize = rounds.iter().map(|r| r.busy).sum();
    let peak_mib = rounds
        .iter()
        .filter_map(|r| r.peak_bytes)
        .max()
        .map(|bytes| bytes >> 20);
    if args.json {
        let value = json!({
            "store": store, "workers": args.workers, "rounds": args.rounds, "large": args.large,
            "large_bytes": args.large_bytes, "exact": true,
            "small_us_p50_without": p50.0, "small_us_p50_with": p50.1,
            "small_us_p99_without": p99.0, "small_us_p99_with": p99.1,
            "p99_ratio_median": (ratio * 100.0).round() / 100.0,
            "large_per_s": (per_s * 100.0).round() / 100.0, "large_stored": stored, "told_busy": busy,
            "peak_resident_mib": peak_mib,
        });
        return print(&format!("{value:#}\n"));
    }
    let ms = |us: f64| format!("{:.1}", us / 1000.0);
    let mut table = format!(
        "{store} · {} workers · {} posters of {} B · medians of {} rounds · every run exact\n\n",
        args.workers, args.large, args.large_bytes, args.rounds
    );
    table += &format!("{:<26} {:>9} {:>9}\n", "small posts", "p50 ms", "p99 ms");
    table += &format!("{:<26} {:>9} {:>9}\n", "without large results", ms(p50.0), ms(p99.0));
    table += &format!("{:<26} {:>9} {:>9}\n", "beside large results", ms(p50.1), ms(p99.1));
    table += &format!(
        "\np99 is {ratio:.2} × of without · {per_s:.1} large results/s ({mib_per_s:.0} MiB/s), {stored} in all, {busy} times busy\n"
    );
    if let Some(peak) = peak_mib {
        table += &format!("peak resident memory of node and load together: {peak} MiB\n");
    }
    print(&table)
}
