//! Callbacks while nodes die: kill -9 before the call, during it, and between the answer and its record; and two nodes on one store.
//!
//! Owns: the moments of the kills. Never: expects a call once where it may come twice. Invariant: every event arrives, and however often it
//! does, under one id with one body.

use crate::app::Place;
use crate::callbacks_receiver::{Answer, Receiver, SECRET};
use crate::nodes_cluster::{LEASE_S, Nodes, lease, report};
use crate::process::{Body, Client, Heard, Launch, until};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A node whose claims end soon after it died.
fn launch(place: Place) -> Launch {
    Launch::new(place)
        .set("CALLBACKS__SECRETS", SECRET)
        .set("CALLBACKS__ALLOW", "127.0.0.1")
        .set("CALLBACKS__TIMEOUT_S", 6)
        .set("CALLBACKS__RETRY_FIRST_S", 1)
        .set("CALLBACKS__CALLS_AT_ONCE", 1)
        .set("COORDINATOR__STORE_WAIT_MS", 1_000)
        // Nobody is there: a call that went by a proxy would never arrive.
        .env("http_proxy", "http://127.0.0.1:1")
        .env("ALL_PROXY", "http://127.0.0.1:1")
}

/// A job that ends as it is made.
async fn ended(client: &Client, url: String) -> i64 {
    let job = json!({"name": "n", "queue": "q", "callback_url": url});
    let job = client.post("/v1/jobs", job).await;
    assert_eq!(job["state"], "succeeded");
    job["id"].as_i64().expect("a number")
}

async fn settled(client: &Client, job: i64, state: &str) -> Value {
    until(state, async || {
        let list = client.get(&format!("/v1/jobs/{job}/callbacks")).await;
        Some(list["items"][0].clone()).filter(|last| last["state"] == state)
    })
    .await
}

/// Before the call: there is room for one, and that one hangs. During the call: it is the one that hangs.
async fn killed_before_and_during_a_call(place: Place) {
    let (mut hangs, mut waits) = (Receiver::start().await, Receiver::start().await);
    let launch = launch(place);
    let mut node = launch.start().await;
    let client = launch.client();
    hangs.answer([Answer::Hang]);
    let under_way = ended(&client, hangs.url("/under_way")).await;
    let begun = hangs.call().await;
    let not_begun = ended(&client, waits.url("/not_begun")).await;
    node.kill().await;
    assert!(waits.unseen().is_empty(), "there was no room");
    let mut node = launch.start().await;
    assert_eq!(waits.call().await.json()["data"]["id"], not_begun);
    settled(&client, not_begun, "delivered").await;
    let again = hangs.call().await;
    assert_eq!((again.id(), &again.body), (begun.id(), &begun.body));
    assert_eq!(settled(&client, under_way, "delivered").await["attempts"], 2);
    assert!(node.terminate().await.success());
    assert!(waits.unseen().is_empty() && hangs.unseen().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm56_sqlite_killed_before_and_during_a_call_it_is_made_again() {
    killed_before_and_during_a_call(Place::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm56_postgres_killed_before_and_during_a_call_it_is_made_again() {
    killed_before_and_during_a_call(Place::postgres().await).await;
}

/// Keeps the store from recording anything, as a slow disk would.
enum Obstacle {
    Sqlite(rusqlite::Connection),
    Postgres(tokio_postgres::Client),
}

impl Obstacle {
    async fn stand(place: &Place) -> Obstacle {
        match place {
            Place::Sqlite(dir) => {
                let db = rusqlite::Connection::open(dir.0.join("tally.db")).expect("the file opens");
                db.busy_timeout(std::time::Duration::from_secs(10)).expect("a setting");
                db.execute_batch("BEGIN IMMEDIATE")
                    .expect("the node writes nothing for long");
                Obstacle::Sqlite(db)
            }
            Place::Postgres(url) => {
                let db = crate::cluster::connect(url).await;
                let sql = "BEGIN; LOCK TABLE events IN SHARE MODE";
                db.batch_execute(sql).await.expect("the node writes nothing for long");
                Obstacle::Postgres(db)
            }
        }
    }

    async fn leave(self) {
        match self {
            Obstacle::Sqlite(db) => db.execute_batch("ROLLBACK").expect("it is open"),
            // A statement that the dead node had sent would be carried out once it is let through.
            Obstacle::Postgres(db) => {
                let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                           WHERE datname = current_database() AND pid <> pg_backend_pid(); ROLLBACK";
                db.batch_execute(sql).await.expect("it is open");
            }
        }
    }
}

/// The receiver has answered 200, the node has heard it, and dies before that is written down.
async fn killed_between_answer_and_record(place: Place) {
    let mut receiver = Receiver::start().await;
    let launch = launch(place);
    let mut node = launch.start().await;
    let client = launch.client();
    let release = receiver.hold();
    let job = ended(&client, receiver.url("/")).await;
    let first = receiver.call().await;
    let obstacle = Obstacle::stand(&launch.place).await;
    release.send(200).expect("the call is held");
    receiver.until_closed().await;
    node.kill().await;
    obstacle.leave().await;
    let mut node = launch.start().await;
    let second = receiver.call().await;
    assert_eq!((second.id(), &second.body), (first.id(), &first.body));
    assert_eq!(settled(&client, job, "delivered").await["attempts"], 2);
    assert!(node.terminate().await.success());
    assert!(receiver.unseen().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm56_sqlite_killed_between_answer_and_record_it_is_sent_again() {
    killed_between_answer_and_record(Place::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm56_postgres_killed_between_answer_and_record_it_is_sent_again() {
    killed_between_answer_and_record(Place::postgres().await).await;
}

/// Killed as soon as it said that the last result counts: the event is as durable as that.
async fn killed_after_the_last_result(place: Place) {
    let mut receiver = Receiver::start().await;
    let launch = launch(place);
    let client = launch.client();
    let mut seen = BTreeMap::new();
    for round in 0..4 {
        let mut node = launch.start().await;
        let job = json!({
            "name": "n", "queue": "q", "callback_url": receiver.url("/"), "tasks": [{"payload": round}]
        });
        let job = client.post("/v1/jobs", job).await["id"].as_i64().expect("a number");
        let granted = lease(&client, "w", &["q"], 1, 5.0).await;
        let done = json!({"worker": "w", "results": [crate::app::success(&granted["tasks"][0])]});
        let heard = client
            .call("POST", &format!("/v1/jobs/{job}/results"), &Body::Json(done))
            .await;
        node.kill().await;
        assert!(
            matches!(&heard, Heard::Answer(200, said) if said["job"]["state"] == "succeeded"),
            "{heard:?}"
        );
        seen.insert(job, None);
    }
    let mut node = launch.start().await;
    while seen.values().any(Option::is_none) {
        let call = receiver.call().await;
        let job = call.json()["data"]["id"].as_i64().expect("a number");
        let before = seen.insert(job, Some(call.body.clone())).expect("one of ours");
        assert!(
            before.is_none_or(|body| body == call.body),
            "the same event says the same"
        );
    }
    for job in seen.keys() {
        settled(&client, *job, "delivered").await;
    }
    assert!(node.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm56_sqlite_what_ended_before_a_kill_is_told_after_it() {
    killed_after_the_last_result(Place::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm56_postgres_what_ended_before_a_kill_is_told_after_it() {
    killed_after_the_last_result(Place::postgres().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm56_two_nodes_tell_each_end_once_and_one_tells_what_the_other_left() {
    const JOBS: usize = 24;
    let mut receiver = Receiver::start().await;
    let first = Launch::new(Place::postgres().await)
        .set("NODE_LEASE_S", LEASE_S)
        .set("CALLBACKS__SECRETS", SECRET)
        .set("CALLBACKS__TIMEOUT_S", 5)
        .set("CALLBACKS__ALLOW", "127.0.0.1");
    let mut nodes = Nodes::launch(["a", "b"].iter().map(|name| first.sibling(name)).collect()).await;
    let mut told = BTreeMap::new();
    for n in 0..JOBS {
        let client = nodes.client(n % 2);
        let queue = format!("q{}", n % 3);
        let body = json!({"name": "n", "queue": queue, "callback_url": receiver.url("/"), "tasks": [{"payload": n}]});
        let job = client.post("/v1/jobs", body).await["id"].as_i64().expect("a number");
        let granted = lease(&client, "w", &[&queue], 1, 10.0).await;
        assert_eq!(granted["job"]["id"], job);
        assert_eq!(report(&client, job, "w", &granted["tasks"]).await, ["counted"]);
        told.insert(job, 0);
    }
    for _ in 0..JOBS {
        let job = receiver.call().await.json()["data"]["id"].as_i64().expect("a number");
        *told.get_mut(&job).expect("one of ours") += 1;
    }
    for (job, times) in &told {
        settled(&nodes.client(0), *job, "delivered").await;
        assert_eq!(*times, 1, "job {job}");
    }
    assert!(receiver.unseen().is_empty());
    // Counted on whichever node made the call.
    let mut delivered = 0;
    for launch in &nodes.launches {
        let url = format!("{}/metrics", launch.url());
        let text = reqwest::get(&url).await.expect("an answer").text().await.expect("text");
        let counts = text
            .lines()
            .filter(|line| line.starts_with("tallykeeper_callbacks_total{outcome=\"delivered\"}"));
        delivered += counts
            .map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap())
            .sum::<usize>();
    }
    assert_eq!(delivered, JOBS);
    // A node that dies in the middle of a call leaves it to the other.
    let _held = receiver.hold();
    let job = ended(&nodes.client(0), receiver.url("/")).await;
    let begun = receiver.call().await;
    nodes.processes[0].kill().await;
    nodes.processes.remove(0);
    let survivor = nodes.client(1);
    drop(_held);
    let shown = settled(&survivor, job, "delivered").await;
    assert!(shown["id"] == begun.id(), "{shown}");
    nodes.stop().await;
}
