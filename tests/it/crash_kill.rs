//! Nodes killed with -9 under load, on both stores.
//!
//! Owns: the moments of the kills. Never: stops a node politely before the last check. Invariant: everything that was acknowledged is
//! there afterwards, once.
#![allow(clippy::print_stderr, reason = "the figures of a run are worth reading")]

use crate::app::Place;
use crate::crash_load::{Running, seed};
use crate::process::{Body, Heard, Launch};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use std::time::{Duration, Instant};

const KILLS: u32 = 20;
/// Before the last ones the job is sealed, so that they may hit its end.
const KILLS_AFTER_SEAL: u32 = 3;
const WORKERS: u64 = 6;
/// Most results acknowledged between two kills.
const MOST_BETWEEN: u64 = 900;

/// Attempts without end to a crash: nothing is waited for.
fn policy() -> serde_json::Value {
    json!({"max_attempts": 5, "backoff": {"initial_s": 0.05}})
}

async fn killed_twenty_times(place: Place) {
    let (seed, started) = (seed(), Instant::now());
    let mut random = StdRng::seed_from_u64(seed);
    // Snapshots are as frequent as kills, so that these meet some of them half-written.
    let launch = Launch::new(place).set("COORDINATOR__SNAPSHOT_INTERVAL_MS", 150);
    let mut node = launch.start().await;
    let running = Running::start(launch.client(), seed, WORKERS, policy()).await;
    for kill in 0..KILLS {
        if kill == KILLS - KILLS_AFTER_SEAL {
            running.seal();
        }
        // Somewhere in the work, then somewhere in what the node does in a moment.
        running.progress(random.random_range(1..MOST_BETWEEN)).await;
        tokio::time::sleep(Duration::from_micros(random.random_range(0..20_000))).await;
        node.kill().await;
        node = launch.start().await;
    }
    let load = running.finish().await;
    let line = load.check().await;
    eprintln!(
        "seed={seed} kills={KILLS} {line} in {:.1} s",
        started.elapsed().as_secs_f64()
    );
    assert!(node.terminate().await.success());
    load.check_rows(&launch).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm15_sqlite_killed_twenty_times_loses_and_doubles_nothing() {
    killed_twenty_times(Place::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm15_postgres_killed_twenty_times_loses_and_doubles_nothing() {
    killed_twenty_times(Place::postgres().await).await;
}

/// Killed as soon as it said that the job is there; whoever comes next must have it and hand its tasks out unasked.
async fn killed_after_created(place: Place) {
    let launch = Launch::new(place);
    let client = launch.client();
    for round in 1..=3 {
        let mut node = launch.start().await;
        let job = json!({"name": "durable", "queue": format!("q{round}"), "tasks": [{"payload": round}]});
        let heard = client.call("POST", "/v1/jobs", &Body::Json(job)).await;
        node.kill().await;
        let Heard::Answer(201, job) = heard else {
            panic!("{heard:?}")
        };
        let mut node = launch.start().await;
        let ask = json!({"worker": "w", "queues": [format!("q{round}")], "max_tasks": 9, "wait_s": 30});
        let granted = client.post("/v1/leases", ask).await;
        assert_eq!(granted["job"]["id"], job["id"], "{granted}");
        assert_eq!(granted["tasks"][0]["payload"], round);
        node.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm45_sqlite_a_created_job_survives_kill_9_and_is_activated_on_start() {
    killed_after_created(Place::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm45_postgres_a_created_job_survives_kill_9_and_is_activated_on_start() {
    killed_after_created(Place::postgres().await).await;
}
