//! Large results posted to real processes: killed with -9, and held to their memory.
//!
//! Owns: the moments of the kills, and the bound on memory. Never: stops a node politely before the last check. Invariant: what was
//! acknowledged is there afterwards, byte for byte.
#![allow(clippy::print_stderr, reason = "the figures of a run are worth reading")]

use crate::app::Place;
use crate::process::{Body, Client, Heard, Launch, Wait};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const POSTERS: usize = 6;
const TASKS: usize = 60;
const KILLS: u64 = 6;

/// The result of a task: its length depends on the task, and so does what is in it.
fn result(task: u64) -> Value {
    let length = if task.is_multiple_of(3) {
        10
    } else {
        200_000 + 40_000 * (task as usize % 7)
    };
    json!({"of": task, "text": format!("{task:06}é").repeat(length / 8)})
}

async fn lease(client: &Client, job: i64, worker: &str) -> Vec<Value> {
    let ask = json!({"worker": worker, "max_tasks": 2});
    let granted = client.post(&format!("/v1/jobs/{job}/leases"), ask).await;
    granted["tasks"].as_array().expect("a list").clone()
}

/// Leases two, posts both in one call, repeats the call until it is answered.
async fn poster(client: Client, job: i64, worker: String, acknowledged: Arc<AtomicU64>) {
    loop {
        let tasks = lease(&client, job, &worker).await;
        if tasks.is_empty() {
            let view = client.get(&format!("/v1/jobs/{job}")).await;
            if view["state"] == "succeeded" {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        }
        let success = |task: &Value| {
            let of = task["task"].as_u64().unwrap();
            json!({"lease": task["lease"], "status": "succeeded", "result": result(of), "counters": {"n": 1}})
        };
        let body = json!({"worker": worker, "results": tasks.iter().map(success).collect::<Vec<_>>()});
        let posted = client.post(&format!("/v1/jobs/{job}/results"), body).await;
        for item in posted["results"].as_array().expect("a list") {
            let known = ["counted", "duplicate"].contains(&item["disposition"].as_str().unwrap());
            assert!(known, "{posted}");
        }
        acknowledged.fetch_add(tasks.len() as u64, Ordering::Relaxed);
    }
}

async fn killed_during_large_posts(place: Place) {
    let launch = Launch::new(place).set("HTTP__STREAM_BODY_MIN_BYTES", 100_000);
    let mut node = launch.start().await;
    let client = launch.client();
    let tasks: Vec<Value> = (0..TASKS).map(|i| json!({"payload": i})).collect();
    // A lease that a kill took with it runs out soon.
    let policy = json!({"lease_timeout_s": 2, "max_attempts": 50, "backoff": {"initial_s": 0.05, "max_s": 0.05}});
    let job = client
        .post(
            "/v1/jobs",
            json!({"name": "large", "queue": "q", "tasks": tasks, "policy": policy}),
        )
        .await["id"]
        .as_i64()
        .unwrap();
    let acknowledged = Arc::new(AtomicU64::new(0));
    let posters: Vec<_> = (0..POSTERS)
        .map(|i| tokio::spawn(poster(client.clone(), job, format!("w{i}"), acknowledged.clone())))
        .collect();
    for kill in 1..=KILLS {
        let wait = Wait::begin();
        while acknowledged.load(Ordering::Relaxed) < kill * 7 {
            wait.a_moment("results are acknowledged").await;
        }
        tokio::time::sleep(Duration::from_micros(rand::random::<u64>() % 30_000)).await;
        node.kill().await;
        node = launch.start().await;
    }
    for poster in posters {
        poster.await.expect("no poster fails");
    }
    let rows = client.results(job).await;
    assert_eq!(rows.len(), TASKS);
    for (of, row) in (0..).zip(&rows) {
        assert_eq!(row["task"], of);
        assert!(row["result"] == result(of), "the result of task {of} is another");
    }
    let view = client.get(&format!("/v1/jobs/{job}")).await;
    assert_eq!(view["progress"]["counters"]["n"], TASKS);
    node.kill().await;
    let large = (0..TASKS as u64).filter(|task| !task.is_multiple_of(3)).count() as i64;
    let referred = "SELECT count(DISTINCT blob_id) FROM outcomes";
    assert_eq!(launch.count(referred).await, large);
    let marked = "SELECT count(*) FROM blobs b WHERE referenced AND id IN (SELECT blob_id FROM outcomes)";
    assert_eq!(launch.count(marked).await, large);
    let orphans = launch.count("SELECT count(*) FROM blobs WHERE NOT referenced").await;
    eprintln!("{KILLS} kills, {large} large results, {orphans} orphans left for the sweep");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm36_sqlite_killed_during_large_posts_loses_nothing_acknowledged() {
    killed_during_large_posts(Place::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm36_postgres_killed_during_large_posts_loses_nothing_acknowledged() {
    killed_during_large_posts(Place::postgres().await).await;
}

const AT_ONCE: usize = 8;
const LARGE_BYTES: usize = 20 << 20;
const BUDGET_BYTES: u64 = 128 << 20;

/// Posts until it is taken; answers how often it was told to come back.
async fn insisted(client: &Client, job: i64, body: &Body) -> u32 {
    let (mut busy, wait) = (0, Wait::begin());
    loop {
        match client.call("POST", &format!("/v1/jobs/{job}/results"), body).await {
            Heard::Answer(200, _) => return busy,
            Heard::Answer(status, problem) => panic!("{status} {problem}"),
            // Told so before it had sent everything, a client may see no more than a closed connection.
            Heard::NotNow(_) | Heard::Nothing(_) => busy += 1,
        }
        wait.a_moment("a large result is taken").await;
    }
}

/// Eight large results at once, more than the budget holds: those that are told to come back do.
async fn eight_at_once_keep_within_the_budget(place: Place) {
    let launch = Launch::new(place)
        .set("HTTP__BODY_MAX_BYTES", 64 << 20)
        .set("HTTP__BODY_BUDGET_BYTES", BUDGET_BYTES);
    let mut node = launch.start().await;
    let client = launch.client();
    let tasks: Vec<Value> = (0..=AT_ONCE).map(|i| json!({"payload": i})).collect();
    let created = client
        .post("/v1/jobs", json!({"name": "large", "queue": "q", "tasks": tasks}))
        .await;
    let job = created["id"].as_i64().unwrap();
    let ask = json!({"worker": "w", "max_tasks": AT_ONCE + 1});
    let granted = client.post(&format!("/v1/jobs/{job}/leases"), ask).await;
    let text = Arc::new("x".repeat(LARGE_BYTES));
    let mut posting = granted["tasks"].as_array().unwrap().iter().map(|task| {
        let (client, text, lease) = (client.clone(), text.clone(), task["lease"].clone());
        tokio::spawn(async move {
            let body = json!({"worker": "w", "results": [{"lease": lease, "status": "succeeded", "result": *text}]});
            insisted(&client, job, &Body::Json(body)).await
        })
    });
    // One alone, so that the store's own caches are full.
    posting.next().expect("the first").await.expect("a result is taken");
    let idle = node.resident_bytes();
    let posting: Vec<_> = posting.collect();
    let mut busy = 0;
    for posted in posting {
        busy += posted.await.expect("every result is taken");
    }
    let read = client.results(job).await;
    assert!(
        read.iter()
            .all(|row| row["result"].as_str().map(str::len) == Some(LARGE_BYTES))
    );
    let peak = node.peak_bytes();
    eprintln!(
        "idle {} MiB, peak {} MiB, budget {} MiB, {busy} times busy",
        idle >> 20,
        peak >> 20,
        BUDGET_BYTES >> 20
    );
    assert!(peak <= idle + BUDGET_BYTES, "idle {idle} peak {peak}");
    assert!(node.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm36_sqlite_eight_large_results_at_once_keep_within_the_budget() {
    eight_at_once_keep_within_the_budget(Place::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm36_postgres_eight_large_results_at_once_keep_within_the_budget() {
    eight_at_once_keep_within_the_budget(Place::postgres().await).await;
}
