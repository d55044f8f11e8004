//! Leases that a killed node has forgotten, or remembers although they were given back, on both stores.
//!
//! Owns: what their workers are told after it. Never: lets a snapshot be written but by a polite stop. Invariant: no lease runs out here.

use crate::app::{Place, success};
use crate::process::{Client, Launch};
use serde_json::{Value, json};

/// Only the last snapshot of a node that is stopped politely is ever written.
fn launch(place: Place) -> Launch {
    Launch::new(place).set("COORDINATOR__SNAPSHOT_INTERVAL_MS", 3_600_000)
}

/// A running job of so many tasks, each of which has one attempt.
async fn make(client: &Client, tasks: usize) -> String {
    let tasks: Vec<Value> = (0..tasks).map(|n| json!({"payload": n})).collect();
    let job = json!({"name": "n", "queue": "q", "tasks": tasks, "policy": {"max_attempts": 1}});
    format!("/v1/jobs/{}", client.post("/v1/jobs", job).await["id"])
}

/// One task of the job.
async fn lease(client: &Client, job: &str, worker: &str) -> Value {
    let body = json!({"worker": worker, "max_tasks": 1});
    let granted = client.post(&format!("{job}/leases"), body).await;
    granted["tasks"][0].clone()
}

async fn report(client: &Client, job: &str, worker: &str, result: Value) -> Value {
    let body = json!({"worker": worker, "results": [result]});
    let answer = client.post(&format!("{job}/results"), body).await;
    answer["results"][0]["disposition"].clone()
}

async fn cancel(client: &Client, job: &str) -> Value {
    client.post(&format!("{job}/cancel"), json!({"grace_s": 600})).await["state"].clone()
}

async fn a_cancel_waits_for_what_was_forgotten(place: Place) {
    let launch = launch(place);
    let mut node = launch.start().await;
    let client = launch.client();
    let job = make(&client, 2).await;
    let task = lease(&client, &job, "w").await;
    node.kill().await;
    let mut node = launch.start().await;
    assert_eq!(
        cancel(&client, &job).await,
        "canceling",
        "nothing shows that it has begun"
    );
    assert!(node.terminate().await.success());
    let mut node = launch.start().await;
    assert_eq!(
        client.get(&job).await["state"],
        "canceling",
        "the snapshot knows no lease"
    );
    assert_eq!(report(&client, &job, "w", success(&task)).await, "counted");

    let idle = make(&client, 1).await;
    assert_eq!(
        cancel(&client, &idle).await,
        "canceled",
        "it started since: there is none to wait for"
    );
    assert!(node.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_a_cancel_waits_for_leases_that_two_restarts_have_forgotten() {
    a_cancel_waits_for_what_was_forgotten(Place::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_a_cancel_waits_for_leases_that_two_restarts_have_forgotten() {
    a_cancel_waits_for_what_was_forgotten(Place::postgres().await).await;
}

async fn the_later_holder_stays(place: Place) {
    let launch = launch(place);
    let mut node = launch.start().await;
    let client = launch.client();
    let job = make(&client, 1).await;
    let first = lease(&client, &job, "first").await;
    assert!(node.terminate().await.success());
    let mut node = launch.start().await;
    let given_back = json!({"worker": "first", "leases": [first["lease"]]});
    let released = client.post(&format!("{job}/leases/release"), given_back.clone()).await;
    assert_eq!(released["released"], json!([first["lease"]]));
    let second = lease(&client, &job, "second").await;
    assert_eq!(
        (&second["task"], &second["attempt"]),
        (&first["task"], &first["attempt"])
    );
    node.kill().await;
    let mut node = launch.start().await;
    let extend = format!("{job}/leases/extend");
    let held = json!({"worker": "second", "leases": [second["lease"]]});
    let extended = client.post(&extend, held).await;
    assert_eq!(
        (&extended["lost"], &extended["extended"][0]["lease"]),
        (&json!([]), &second["lease"])
    );
    let extended = client.post(&extend, given_back).await;
    assert_eq!(extended["lost"], json!([first["lease"]]));
    let failed = |task: &Value| json!({"lease": task["lease"], "status": "failed", "error": "no"});
    assert_eq!(report(&client, &job, "first", failed(&first)).await, "superseded");
    assert_eq!(report(&client, &job, "second", success(&second)).await, "counted");
    assert_eq!(client.get(&job).await["state"], "succeeded");
    assert!(node.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_a_killed_node_remembers_a_lease_that_was_given_back_and_its_next_holder_stays() {
    the_later_holder_stays(Place::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_a_killed_node_remembers_a_lease_that_was_given_back_and_its_next_holder_stays() {
    the_later_holder_stays(Place::postgres().await).await;
}
