//! PostgreSQL killed, or frozen, under a node that serves.
//!
//! Owns: what clients see meanwhile, and that nothing is lost or spent. Never: touches the node; it has to go on by itself. Invariant: none
//! of its own.
#![allow(clippy::print_stderr, reason = "the figures of a run are worth reading")]

use crate::app::Place;
use crate::cluster::Cluster;
use crate::crash_load::{Running, seed};
use crate::process::{Body, Client, Heard, Launch, until};
use serde_json::{Value, json};
use std::sync::Arc;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const HELD: usize = 5;

/// A job whose leases are all out, and the leases.
async fn held_job(client: &Client, lease_timeout_s: u32) -> (i64, Vec<Value>) {
    let tasks: Vec<Value> = (0..HELD).map(|n| json!({"payload": n})).collect();
    let policy = json!({"lease_timeout_s": lease_timeout_s, "max_attempts": 1});
    let job = json!({"name": "held", "queue": "held", "tasks": tasks, "policy": policy});
    let id = client.post("/v1/jobs", job).await["id"].as_i64().unwrap();
    let path = format!("/v1/jobs/{id}/leases");
    let granted = client.post(&path, json!({"worker": "holder", "max_tasks": HELD})).await;
    let tasks = granted["tasks"].as_array().unwrap().clone();
    assert_eq!(tasks.len(), HELD);
    (id, tasks)
}

fn expired(leases: &[Value]) -> bool {
    leases.iter().all(|lease| {
        let until = lease["expires_at"].as_str().expect("text");
        OffsetDateTime::parse(until, &Rfc3339).expect("a time") < OffsetDateTime::now_utc()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm17_fm42_postgres_killed_under_load_spends_no_attempt_and_loses_nothing() {
    let (seed, cluster) = (seed(), Arc::new(Cluster::start()));
    let launch = Launch::new(Place::Postgres(cluster.fresh_database().await)).set("COORDINATOR__STORE_WAIT_MS", 300);
    let mut node = launch.start().await;
    let client = launch.client();
    // Shorter than the outage: what did not survive it for another reason would have expired.
    let policy = json!({"max_attempts": 5, "lease_timeout_s": 3, "backoff": {"initial_s": 0.05}});
    let running = Running::start(client.clone(), seed, 4, policy).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        running.progress(500).await;
        let (id, leases) = held_job(&client, 3).await;
        cluster.kill();
        until("the leases would have expired", async || expired(&leases).then_some(())).await;
        let path = format!("/v1/jobs/{id}/results");
        let items: Vec<Value> = leases
            .iter()
            .map(|task| json!({"lease": task["lease"], "status": "succeeded", "result": task["task"]}))
            .collect();
        let report = Body::Json(json!({"worker": "holder", "results": items}));
        let down = client.call("POST", &path, &report).await;
        assert!(
            matches!(&down, Heard::NotNow(code) if code == "store_unavailable"),
            "{down:?}"
        );
        let ready = client.call("GET", "/readyz", &Body::None).await;
        assert!(matches!(ready, Heard::NotNow(_)), "{ready:?}");
        cluster.restart();
        // The first call in vain was kept and may be what is counted; whichever it was, it counts once.
        let (status, posted) = client.insist("POST", &path, &report).await;
        let dispositions: Vec<_> = posted["results"]
            .as_array()
            .unwrap()
            .iter()
            .map(|r| &r["disposition"])
            .collect();
        assert!(
            status == 200 && dispositions.iter().all(|d| *d == "counted" || *d == "duplicate"),
            "{posted}"
        );
        held.push(id);
        running.progress(500).await;
    }
    let load = running.finish().await;
    let line = load.check().await;
    eprintln!("seed={seed} outages=2 {line}");
    assert!(
        load.record.lock().unwrap().unheard.contains_key("store_unavailable"),
        "nobody met the outage"
    );
    for id in held {
        let job = client.get(&format!("/v1/jobs/{id}")).await;
        assert_eq!(
            (&job["state"], &job["progress"]["succeeded"]),
            (&json!("succeeded"), &json!(HELD)),
            "{job}"
        );
        assert_eq!(
            launch
                .count(&format!("SELECT count(*) FROM attempts WHERE job = {id}"))
                .await,
            0
        );
    }
    assert!(node.terminate().await.success());
    load.check_rows(&launch).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm47_a_stalled_health_check_turns_readiness_false_and_leases_are_reaped_again_afterwards() {
    let cluster = Arc::new(Cluster::start());
    let launch = Launch::new(Place::Postgres(cluster.fresh_database().await)).set("NODE_LEASE_S", 2);
    let mut node = launch.start().await;
    let client = launch.client();
    assert_eq!(client.get("/readyz").await["ready"], true);
    // The server takes what is sent and answers nothing: the heartbeat hangs.
    cluster.freeze();
    until("the node says that it is not ready", async || {
        matches!(client.call("GET", "/readyz", &Body::None).await, Heard::NotNow(_)).then_some(())
    })
    .await;
    assert_eq!(client.get("/healthz").await["status"], "ok");
    cluster.thaw();
    until("the node is ready again", async || {
        matches!(client.call("GET", "/readyz", &Body::None).await, Heard::Answer(200, _)).then_some(())
    })
    .await;
    let (_, leases) = held_job(&client, 1).await;
    assert_eq!(leases.len(), HELD);
    let job = until("the leases expire", async || {
        let jobs = client.get("/v1/jobs?queue=held").await;
        Some(jobs["items"][0].clone()).filter(|job| !job["finished_at"].is_null())
    });
    assert_eq!(job.await["progress"]["failed"], HELD);
    assert!(node.terminate().await.success());
}
