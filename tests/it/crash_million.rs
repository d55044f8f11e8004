//! One very large job through a real node on PostgreSQL, and the memory the node needs for it.
//!
//! Owns: the bound on memory. Never: asserts a speed. Invariant: none of its own.
#![allow(clippy::print_stderr, reason = "the figures of a run are worth reading")]

use crate::app::Place;
use crate::process::{Body, Client, Launch};
use serde_json::{Value, json};
use std::time::Instant;

/// A build without optimisation would need minutes for the whole million.
const TASKS: u32 = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };
const UPLOAD: u32 = 50_000;
const BATCH: u32 = 1_000;
const WORKERS: u32 = 4;
const MOST_BYTES: u64 = 150 << 20;

async fn upload(client: &Client, job: i64) {
    // About 100 bytes of payload each.
    let pad = "x".repeat(80);
    for first in (0..TASKS).step_by(UPLOAD as usize) {
        let line = |task: u32| format!("{{\"payload\":{{\"n\":{task},\"pad\":\"{pad}\"}}}}\n");
        let lines = Body::Lines((first..first + UPLOAD).map(line).collect());
        let (status, done) = client
            .insist("POST", &format!("/v1/jobs/{job}/tasks?first_task={first}"), &lines)
            .await;
        assert_eq!((status, done["added"].as_u64()), (200, Some(UPLOAD.into())), "{done}");
    }
    client.post(&format!("/v1/jobs/{job}/seal"), json!({})).await;
}

/// Answers how many of its results were counted.
async fn work(client: Client, job: i64, worker: String) -> u64 {
    let granted = client
        .post(
            &format!("/v1/jobs/{job}/leases"),
            json!({"worker": worker, "max_tasks": BATCH}),
        )
        .await;
    let mut tasks = granted["tasks"].as_array().cloned().unwrap_or_default();
    let mut counted = 0;
    while !tasks.is_empty() {
        let item = |task: &Value| json!({"lease": task["lease"], "status": "succeeded", "result": {"label": "cat", "of": task["task"]}});
        let items: Vec<Value> = tasks.iter().map(item).collect();
        let body = json!({"worker": worker, "results": items, "then_lease": {"max_tasks": BATCH}});
        let posted = client.post(&format!("/v1/jobs/{job}/results"), body).await;
        let results = posted["results"].as_array().expect("a list");
        counted += results
            .iter()
            .filter(|result| result["disposition"] == "counted")
            .count() as u64;
        tasks = posted["tasks"].as_array().cloned().unwrap_or_default();
    }
    counted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_very_large_job_is_ingested_leased_and_finished_in_little_memory() {
    let launch = Launch::new(Place::postgres().await);
    let mut node = launch.start().await;
    let client = launch.client();
    let idle = node.peak_bytes();
    let job = client
        .post("/v1/jobs", json!({"name": "large", "queue": "q", "open": true}))
        .await;
    let job = job["id"].as_i64().expect("an id");
    let started = Instant::now();
    upload(&client, job).await;
    let (ingested, peak_of_ingest) = (started.elapsed(), node.peak_bytes());
    let started = Instant::now();
    let workers: Vec<_> = (0..WORKERS)
        .map(|number| tokio::spawn(work(client.clone(), job, format!("w{number}"))))
        .collect();
    let mut counted = 0;
    for worker in workers {
        counted += worker.await.expect("the worker ends well");
    }
    let (finished, peak) = (started.elapsed(), node.peak_bytes());
    let view = client.get(&format!("/v1/jobs/{job}")).await;
    assert_eq!(view["state"], "succeeded", "{view}");
    assert_eq!(
        (counted, view["progress"]["succeeded"].as_u64()),
        (TASKS.into(), Some(TASKS.into()))
    );
    let mib = |bytes: u64| bytes >> 20;
    eprintln!(
        "tasks={TASKS} ingest={:.0}/s cycle={:.0}/s peak rss: idle {} MiB, after ingest {} MiB, at the end {} MiB",
        f64::from(TASKS) / ingested.as_secs_f64(),
        f64::from(TASKS) / finished.as_secs_f64(),
        mib(idle),
        mib(peak_of_ingest),
        mib(peak),
    );
    assert!(peak < MOST_BYTES, "{} MiB", mib(peak));
    assert!(node.terminate().await.success());
    let outcomes = format!("SELECT count(*) FROM outcomes WHERE job = {job}");
    assert_eq!(launch.count(&outcomes).await, i64::from(TASKS));
    let events = format!("SELECT count(*) FROM events WHERE job = {job}");
    assert_eq!(launch.count(&events).await, 1);
}
