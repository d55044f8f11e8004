//! Restarts: polite ones under load, and who may start beside whom.
//!
//! Owns: what a restart costs its clients. Never: asserts how long one takes; a wait that must not happen is made endless. Invariant: none
//! of its own.
#![allow(clippy::print_stderr, reason = "the figures of a run are worth reading")]

use crate::app::Place;
use crate::crash_load::{Running, seed};
use crate::process::Launch;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;

const RESTARTS: u32 = 4;

async fn restarted_under_load(place: Place) {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let launch = Launch::new(place);
    let mut node = launch.start().await;
    let policy = json!({"max_attempts": 5, "backoff": {"initial_s": 0.05}});
    let running = Running::start(launch.client(), seed, 6, policy).await;
    for _ in 0..RESTARTS {
        running.progress(random.random_range(100..800)).await;
        let status = node.terminate().await;
        assert!(status.success(), "{status}: {}", node.log());
        node = launch.start().await;
    }
    running.progress(200).await;
    let load = running.finish().await;
    let line = load.check().await;
    eprintln!("seed={seed} restarts={RESTARTS} {line}");
    load.check_leases();
    assert!(node.terminate().await.success());
    load.check_rows(&launch).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_a_graceful_restart_under_load_hands_no_leased_task_out_twice() {
    restarted_under_load(Place::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_a_graceful_restart_under_load_hands_no_leased_task_out_twice() {
    restarted_under_load(Place::postgres().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_killed_with_9_takes_its_queues_back_although_its_lease_has_not_run_out() {
    let launch = Launch::new(Place::postgres().await).set("NODE_LEASE_S", 86_400);
    let mut node = launch.start().await;
    let client = launch.client();
    let job = json!({"name": "mine", "queue": "q", "tasks": [{"payload": 1}]});
    let job = client.post("/v1/jobs", job).await;
    let path = format!("/v1/jobs/{}", job["id"]);
    let epoch = client.get(&path).await["epoch"].as_i64().expect("it is active");
    for round in 1..=3 {
        node.kill().await;
        node = launch.start().await;
        assert_eq!(client.get("/readyz").await["ready"], true);
        assert_eq!(client.get(&path).await["epoch"], epoch + round);
    }
    let granted = client
        .post("/v1/leases", json!({"worker": "w", "queues": ["q"], "max_tasks": 1}))
        .await;
    assert_eq!(granted["tasks"].as_array().map(Vec::len), Some(1), "{granted}");
    assert!(node.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_twin_of_a_living_node_on_the_same_postgres_is_refused() {
    let launch = Launch::new(Place::postgres().await).set("NODE_LEASE_S", 4);
    let mut node = launch.start().await;
    let client = launch.client();
    let job = json!({"name": "mine", "queue": "q", "tasks": [{"payload": 1}]});
    client.post("/v1/jobs", job).await;
    let twin = launch.sibling(&launch.node_id).try_start().await;
    let (status, log) = twin.err().expect("it does not start");
    assert!(!status.success(), "{status}");
    assert!(
        log.lines().last().is_some_and(|line| line.contains("alive elsewhere")),
        "{log}"
    );
    assert_eq!(client.get("/readyz").await["ready"], true);
    assert!(node.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_node_on_the_same_sqlite_file_is_refused() {
    let launch = Launch::new(Place::sqlite());
    let mut node = launch.start().await;
    let (status, log) = launch
        .sibling("another")
        .try_start()
        .await
        .err()
        .expect("it does not start");
    assert!(
        !status.success() && log.contains("in use by another process"),
        "{status}: {log}"
    );
    assert!(node.terminate().await.success());
}
