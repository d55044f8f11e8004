//! A post whose rows are committed in shares, by several backends at the same time.
//!
//! Owns: the moments at which one share is committed and another is not. Never: leaves that moment to chance: a second session holds a key
//! of one share. Invariant: none of its own.

use crate::app::Place;
use crate::cluster;
use crate::process::{Body, Client, Heard, Launch, Process, until};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

const TASKS: usize = 1_000;
/// The committer gives two idle lanes half each.
const SHARE: usize = TASKS / 2;
/// In the last share: a post's rows are divided in its order.
const HELD_TASK: i32 = TASKS as i32 - 1;

/// A post of which one share is committed, and another waits for a key that somebody else holds.
struct Halfway {
    launch: Launch,
    node: Process,
    client: Client,
    job: i64,
    path: String,
    body: Value,
    posting: JoinHandle<Heard>,
    db: tokio_postgres::Client,
    holder: tokio_postgres::Client,
}

async fn halfway() -> Halfway {
    let place = Place::postgres().await;
    let Place::Postgres(url) = &place else {
        unreachable!("asked for")
    };
    let (db, holder) = (cluster::connect(url).await, cluster::connect(url).await);
    let launch = Launch::new(place.clone());
    let node = launch.start().await;
    let client = launch.client();
    // One is left: the batch that decides the last task holds the verdict, too, and is committed whole.
    let tasks: Vec<Value> = (0..=TASKS).map(|i| json!({"payload": i})).collect();
    let job = json!({"name": "shares", "queue": "q", "tasks": tasks});
    let job = client.post("/v1/jobs", job).await["id"].as_i64().expect("an id");
    let ask = json!({"worker": "w", "max_tasks": TASKS});
    let granted = client.post(&format!("/v1/jobs/{job}/leases"), ask).await;
    let success = |task: &Value| json!({"lease": task["lease"], "status": "succeeded", "counters": {"n": 1}});
    let items: Vec<Value> = granted["tasks"]
        .as_array()
        .expect("tasks")
        .iter()
        .map(success)
        .collect();
    assert_eq!(items.len(), TASKS);
    let (path, body) = (
        format!("/v1/jobs/{job}/results"),
        json!({"worker": "w", "results": items}),
    );
    holder.batch_execute("BEGIN").await.unwrap();
    let hold = "INSERT INTO outcomes (job, seq, at, run, task, attempt, succeeded, worker) VALUES ($1, 1, 1, 1, $2, 1, true, '')";
    holder.execute(hold, &[&job, &HELD_TASK]).await.unwrap();
    let posting = {
        let (client, path, body) = (client.clone(), path.clone(), Body::Json(body.clone()));
        tokio::spawn(async move { client.call("POST", &path, &body).await })
    };
    cluster::somebody_waits(&db).await;
    until("the other share is committed", async || {
        let row = db
            .query_one("SELECT count(*) FROM outcomes WHERE job = $1", &[&job])
            .await
            .unwrap();
        (row.get::<_, i64>(0) == SHARE as i64).then_some(())
    })
    .await;
    Halfway {
        launch,
        node,
        client,
        job,
        path,
        body,
        posting,
        db,
        holder,
    }
}

fn dispositions(answer: &Value) -> Vec<&str> {
    let items = answer["results"]
        .as_array()
        .unwrap_or_else(|| panic!("no results: {answer}"));
    items
        .iter()
        .map(|item| item["disposition"].as_str().expect("a disposition"))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm15_a_post_is_answered_and_counted_only_when_every_share_of_it_is_committed() {
    let mut half = halfway().await;
    let view = half.client.get(&format!("/v1/jobs/{}", half.job)).await;
    assert_eq!(view["progress"]["succeeded"], 0, "{view}");
    assert!(!half.posting.is_finished());

    half.holder.batch_execute("ROLLBACK").await.unwrap();
    let Heard::Answer(200, answer) = half.posting.await.unwrap() else {
        panic!("the post is answered")
    };
    assert_eq!(dispositions(&answer), ["counted"; TASKS]);
    let view = half.client.get(&format!("/v1/jobs/{}", half.job)).await;
    assert_eq!(
        (&view["progress"]["succeeded"], &view["progress"]["counters"]["n"]),
        (&json!(TASKS), &json!(TASKS))
    );
    half.node.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm01_fm16_killed_between_the_shares_of_a_post_each_result_counts_once() {
    let mut half = halfway().await;
    half.node.kill().await;
    // Whoever waited for the key must not get it any more: a backend does not see at once that its client is gone.
    let stop = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                WHERE datname = current_database() AND application_name = 'tallykeeper'";
    half.db.query_one(stop, &[]).await.unwrap();
    let Heard::Nothing(_) = half.posting.await.unwrap() else {
        panic!("nobody answered")
    };
    let left =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'tallykeeper'";
    until("its sessions are gone", async || {
        (half.db.query_one(left, &[]).await.unwrap().get::<_, i64>(0) == 0).then_some(())
    })
    .await;
    half.holder.batch_execute("ROLLBACK").await.unwrap();

    let mut node = half.launch.start().await;
    let view = half.client.get(&format!("/v1/jobs/{}", half.job)).await;
    assert_eq!(view["progress"]["succeeded"], SHARE, "{view}");
    let answer = half.client.post(&half.path, half.body).await;
    let told = dispositions(&answer);
    assert_eq!(told[..SHARE], ["duplicate"; SHARE]);
    assert_eq!(told[SHARE..], ["counted"; SHARE]);
    let view = half.client.get(&format!("/v1/jobs/{}", half.job)).await;
    assert_eq!(
        (&view["progress"]["succeeded"], &view["progress"]["counters"]["n"]),
        (&json!(TASKS), &json!(TASKS))
    );
    node.kill().await;
}
