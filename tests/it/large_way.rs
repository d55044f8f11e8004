//! Large results make way for small ones.
//!
//! Owns: when the writer of a large result rests. Never: measures how long (`tallykeeper bench --large` does). Invariant: none of its own.

use crate::app::Place;
use crate::http_call::send;
use crate::process::{Client, Launch, until};
use serde_json::{Value, json};

const TASKS: usize = 20_000;
const LARGE_BYTES: usize = 4 << 20;

async fn job(client: &Client, queue: &str) -> i64 {
    let tasks = vec![json!({"payload": 0}); TASKS];
    let job = json!({"name": queue, "queue": queue, "tasks": tasks});
    client.post("/v1/jobs", job).await["id"]
        .as_i64()
        .expect("an id is a number")
}

/// Takes a task and reports this result.
async fn one(client: &Client, job: i64, result: &Value) {
    let ask = json!({"worker": "w", "max_tasks": 1});
    let granted = client.post(&format!("/v1/jobs/{job}/leases"), ask).await;
    let item = json!({"lease": granted["tasks"][0]["lease"], "status": "succeeded", "result": result});
    let answer = client
        .post(
            &format!("/v1/jobs/{job}/results"),
            json!({"worker": "w", "results": [item]}),
        )
        .await;
    assert_eq!(answer["results"][0]["disposition"], "counted", "{answer}");
}

async fn rests(launch: &Launch) -> u64 {
    let text = send(&launch.url(), "GET", "/metrics", &[], "").await.text;
    let shown = text
        .lines()
        .find_map(|line| line.strip_prefix("tallykeeper_large_result_rests_total "));
    shown.map_or(0, |count| count.parse().expect("a count"))
}

async fn large_make_way_for_small(place: Place) {
    let launch = Launch::new(place);
    let mut node = launch.start().await;
    let client = launch.client();
    let (small, large) = (job(&client, "small").await, job(&client, "large").await);
    let result = json!("x".repeat(LARGE_BYTES));
    one(&client, large, &result).await;
    assert_eq!(rests(&launch).await, 0, "nothing small was under way");
    let flow = {
        let client = client.clone();
        tokio::spawn(async move {
            for _ in 0..TASKS {
                one(&client, small, &json!(1)).await;
            }
        })
    };
    until("a large result rests beside small ones", async || {
        one(&client, large, &result).await;
        (rests(&launch).await > 0).then_some(())
    })
    .await;
    flow.abort();
    node.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm36_sqlite_large_results_make_way_for_small_ones() {
    large_make_way_for_small(Place::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm36_postgres_large_results_make_way_for_small_ones() {
    large_make_way_for_small(Place::postgres().await).await;
}
