//! Nodes that go of their own accord: drains and rolling restarts.
//!
//! Owns: what clients see of them. Never: kills one. Invariant: leases survive, no task is leased twice, and every 503 may be repeated.
#![allow(clippy::print_stderr, reason = "the figures of a run are worth reading")]

use crate::app::{Place, success};
use crate::cluster::Cluster;
use crate::crash_load::seed;
use crate::nodes_cluster::{Nodes, lease, report};
use crate::process::{Body, Heard, Launch, Process, until};
use crate::stream_client::{Heard as Said, Socket};
use serde_json::{Value, json};
use std::time::Duration;
use tallykeeper::domain::lease::Lease;

/// The longest that results of a job may stand still while one node hands over to another, on a busy machine.
const PAUSE_MAX: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_node_hands_everything_over_and_ends_well() {
    let mut nodes = Nodes::start(&["a", "b"]).await;
    let mut held = Vec::new();
    for queue in ["q0", "q1", "q2", "q3"] {
        let job = nodes.job(0, queue, 6).await;
        let granted = lease(&nodes.client(1), "w", &[queue], 3, 0.0).await;
        held.push((job, queue, granted["tasks"].clone()));
    }
    until("both own queues", async || {
        (nodes.shares(0).await.len() == 2).then_some(())
    })
    .await;
    let client = nodes.client(1);
    let listed = client.get("/v1/nodes").await;
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(2), "{listed}");
    // Through the other node, on the command line.
    let mut program = nodes.launches[1].program();
    program.args(["drain", "a", "--server", &nodes.launches[1].url()]);
    let mut drain = Process::spawn(program);
    assert!(
        drain.ended_within(Duration::from_secs(30)).await.success(),
        "{}",
        drain.log()
    );
    let status = nodes.processes[0].ended_within(Duration::from_secs(60)).await;
    assert!(status.success(), "{status}: {}", nodes.processes[0].log());
    for (job, queue, tasks) in &held {
        // Nothing leased before is leased again, and the tokens still count.
        let rest = lease(&client, "w2", &[queue], 100, 0.0).await;
        assert_eq!(rest["tasks"].as_array().map(Vec::len), Some(3), "{rest}");
        assert_eq!(report(&client, *job, "w", tasks).await, ["counted"; 3]);
        assert_eq!(report(&client, *job, "w2", &rest["tasks"]).await, ["counted"; 3]);
        let view = client.get(&format!("/v1/jobs/{job}")).await;
        assert_eq!(
            (&view["state"], &view["progress"]["retrying"]),
            (&json!("succeeded"), &json!(0))
        );
    }
    let unknown = client.call("POST", "/v1/nodes/nobody/drain", &Body::None).await;
    assert!(matches!(unknown, Heard::Answer(404, _)), "{unknown:?}");
    assert!(nodes.processes[1].terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_that_cannot_save_the_last_snapshots_does_not_end_well() {
    let cluster = Cluster::start();
    let place = Place::Postgres(cluster.fresh_database().await);
    // Only the last snapshot is ever written.
    let launch = Launch::new(place)
        .set("COORDINATOR__DRAIN_TIMEOUT_MS", 1_500)
        .set("COORDINATOR__SNAPSHOT_INTERVAL_MS", 3_600_000);
    let mut node = launch.start().await;
    let client = launch.client();
    let job = json!({"name": "n", "queue": "q", "tasks": [{"payload": 1}]});
    client.post("/v1/jobs", job).await;
    // Known to this process alone: without a last snapshot it is forgotten.
    let granted = lease(&client, "w", &["q"], 1, 0.0).await;
    assert_eq!(granted["tasks"].as_array().map(Vec::len), Some(1), "{granted}");
    cluster.freeze();
    node.signal(rustix::process::Signal::TERM);
    let ended = tokio::time::timeout(Duration::from_secs(40), node.ended_within(Duration::from_secs(60))).await;
    // Before anything can fail: a frozen server could not be stopped.
    cluster.thaw();
    let status = ended.expect("it gives up in time");
    assert!(!status.success(), "{status}");
    assert!(node.log().contains("not everything was saved"), "{}", node.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_waits_to_hear_whose_it_is_does_not_hold_a_drain_up() {
    let cluster = Cluster::start();
    let place = Place::Postgres(cluster.fresh_database().await);
    let launch = Launch::new(place).set("COORDINATOR__DRAIN_TIMEOUT_MS", 1_500);
    let mut node = launch.start().await;
    let client = launch.client();
    let job = json!({"name": "n", "queue": "q", "tasks": [{"payload": 1}]});
    let job = client.post("/v1/jobs", job).await["id"].clone();
    let mut task = lease(&client, "w", &["q"], 1, 0.0).await["tasks"][0].clone();
    let mut token = Lease::decode(task["lease"].as_str().expect("text")).expect("a lease");
    token.epoch.0 += 1;
    task["lease"] = json!(token.encode());
    cluster.freeze();
    // A token of a newer owner: the queue asks the store whose it is, and does nothing else until it knows.
    let body = Body::Json(json!({"worker": "w", "results": [success(&task)]}));
    let doubted = client.call("POST", &format!("/v1/jobs/{job}/results"), &body).await;
    node.signal(rustix::process::Signal::TERM);
    let ended = tokio::time::timeout(Duration::from_secs(40), node.ended_within(Duration::from_secs(60))).await;
    cluster.thaw();
    assert!(matches!(doubted, Heard::NotNow(_)), "{doubted:?}");
    let status = ended.expect("it gives up in time");
    assert!(!status.success(), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_of_three_nodes_under_load_goes_unnoticed() {
    let seed = seed();
    let mut nodes = Nodes::start(&["a", "b", "c"]).await;
    let running = nodes.under_load(&["q0", "q1", "q2"], seed).await;
    until("each node owns a queue", async || {
        (nodes.shares(0).await.len() == 3).then_some(())
    })
    .await;
    for node in 0..3 {
        for load in &running {
            load.progress(200).await;
        }
        let status = nodes.processes[node].terminate().await;
        assert!(status.success(), "{status}: {}", nodes.processes[node].log());
        nodes.processes[node] = nodes.launches[node].start().await;
        nodes.all_know_each_other().await;
    }
    for load in &running {
        load.progress(200).await;
    }
    for load in running {
        let load = load.finish().await;
        let line = load.check().await;
        let (pause, unheard) = {
            let record = load.record.lock().unwrap();
            (record.longest_pause, record.unheard.clone())
        };
        eprintln!("seed={seed} rolling restart: longest pause {pause:?} {line}");
        for code in unheard.keys() {
            let may_be_repeated = [
                "draining",
                "not_owner",
                "busy",
                "store_unavailable",
                "no answer",
                "no connection",
            ];
            assert!(may_be_repeated.contains(&code.as_str()), "{code}");
        }
        load.check_leases();
        load.check_rows(&nodes.launches[0]).await;
        assert!(pause < PAUSE_MAX, "{pause:?}");
    }
    nodes.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_through_any_node_misses_nothing_across_a_hand_over() {
    let mut nodes = Nodes::start(&["a", "b"]).await;
    let job = nodes.job(0, "q", 30).await;
    let owner = until("the queue has an owner", async || nodes.owner(0, "q").await).await;
    let (other, path) = (1 - owner, format!("/v1/jobs/{job}/progress?rate_hz=10"));
    let client = nodes.client(other);
    let work = async |most: usize| {
        let granted = lease(&client, "w", &["q"], most, 0.0).await;
        report(&client, job, "w", &granted["tasks"]).await
    };
    let url = nodes.launches[other].url();
    let open = async || until("the stream opens", async || Socket::open_at(&url, &path).await).await;
    let mut many = until("the stream opens", async || Socket::open_at(&url, "/v1/progress").await).await;
    many.until(|message| message["type"] == "listed" && message["jobs"] == 1)
        .await;
    let mut socket = open().await;
    let first = socket.message().await;
    assert_eq!(
        (&first["type"], &first["job"]["node"]),
        (&json!("snapshot"), &json!(nodes.name(owner)))
    );
    assert_eq!(work(10).await.len(), 10);
    let seen = socket.until(|message| message["progress"]["succeeded"] == 10).await;
    many.until(|message| message["progress"]["succeeded"] == 10).await;
    // The owner goes. The reader is told to come back, and finds the present at the new owner.
    let terminated = nodes.processes[owner].terminate();
    let closed = async {
        loop {
            match socket.hear().await {
                Said::Closed(code) => return code,
                Said::Message(_) | Said::Pong(_) => {}
                Said::Lost => panic!("the stream breaks off"),
            }
        }
    };
    let (status, code) = tokio::join!(terminated, closed);
    assert!(status.success(), "{status}");
    assert_eq!(code, 1012);
    let mut socket = open().await;
    let back = socket.message().await;
    assert_eq!(back["type"], "snapshot", "{back}");
    let number = |message: &Value| message["seq"].as_i64().expect("a number");
    assert!(number(&back) >= number(&seen), "{back}");
    assert_eq!(back["job"]["progress"]["succeeded"], 10, "{back}");
    assert_eq!(work(100).await.len(), 20);
    let last = socket.until(|message| message["type"] == "final").await;
    assert_eq!(last["job"]["progress"]["succeeded"], 30);
    let (_, code) = socket.rest().await;
    assert_eq!(code, 1000);
    assert!(nodes.processes[other].terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_cannot_settle_costs_no_other_job_its_leases() {
    let url = crate::cluster::fresh_database().await;
    // Only the last snapshot is ever written.
    let launch = Launch::new(Place::Postgres(url.clone()))
        .set("COORDINATOR__DRAIN_TIMEOUT_MS", 6_000)
        .set("COORDINATOR__SNAPSHOT_INTERVAL_MS", 3_600_000);
    let mut node = launch.start().await;
    let client = launch.client();
    let make = async |tasks: usize| {
        let tasks: Vec<Value> = (0..tasks).map(|n| json!({"payload": n})).collect();
        let job = json!({"name": "n", "queue": "q", "tasks": tasks});
        client.post("/v1/jobs", job).await["id"]
            .as_i64()
            .expect("an id is a number")
    };
    let stuck = make(1).await;
    let last = lease(&client, "w", &["q"], 1, 0.0).await;
    let other = make(6).await;
    let granted = lease(&client, "w", &["q"], 3, 0.0).await;
    assert_eq!(granted["job"]["id"], other, "{granted}");
    // Somebody holds the row that its end has to be written to.
    let db = crate::cluster::connect(&url).await;
    let hold = format!("BEGIN; SELECT FROM jobs WHERE id = {stuck} FOR NO KEY UPDATE");
    db.batch_execute(&hold).await.unwrap();
    let ending = {
        let (client, last) = (client.clone(), last["tasks"].clone());
        let body = json!({"worker": "w", "results": [crate::app::success(&last[0])]});
        tokio::spawn(async move {
            client
                .call("POST", &format!("/v1/jobs/{stuck}/results"), &Body::Json(body))
                .await
        })
    };
    until("the result waits for the store", async || {
        let explained = client.get(&format!("/v1/jobs/{stuck}/explain")).await;
        explained.to_string().contains("committing").then_some(())
    })
    .await;
    let status = node.terminate().await;
    assert!(!status.success(), "{status}: {}", node.log());
    assert!(!matches!(ending.await, Ok(Heard::Answer(..))), "nothing was committed");
    db.batch_execute("ROLLBACK").await.unwrap();
    let mut node = launch.start().await;
    let rest = lease(&client, "w2", &["q"], 100, 0.0).await;
    assert_eq!(rest["tasks"].as_array().map(Vec::len), Some(3), "{rest}");
    assert_eq!(report(&client, other, "w", &granted["tasks"]).await, ["counted"; 3]);
    // Its leases are known as well.
    assert_eq!(report(&client, stuck, "w", &last["tasks"]).await, ["counted"]);
    assert!(node.terminate().await.success());
}
