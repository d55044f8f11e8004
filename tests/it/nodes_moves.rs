//! Workers that never repeat a POST, while the owner of their job restarts, drains or stands still.
//!
//! Owns: what such a worker is told through another node. Never: lets a node take over sooner than it would. Invariant: a POST waits for
//! the next owner as long as it may wait at all, at however many nodes, and what it is told at last is in its own form.

use crate::antenna_client::{Worker, success};
use crate::app::Place;
use crate::cluster;
use crate::nodes_antenna::spread;
use crate::nodes_cluster::{LEASE_S, Nodes};
use crate::process::{Body, GLANCE, Heard, Launch, until};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Two nodes whose leases nobody outlives, and the job that each owns.
async fn two(place: &Place, lease_s: u64, wait_ms: u64) -> (Nodes, [i64; 2]) {
    let first = Launch::new(place.clone())
        .set("NODE_LEASE_S", lease_s)
        .set("HTTP__ANTENNA_POST_WAIT_MS", wait_ms);
    let nodes = Nodes::launch(vec![first.sibling("a"), first.sibling("b")]).await;
    let jobs = spread(&nodes).await;
    let mut owned = jobs;
    if nodes.owner(0, "moths").await == Some(1) {
        owned.reverse();
    }
    (nodes, owned)
}

fn results(tasks: &[Value]) -> Vec<Value> {
    tasks.iter().map(success).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm37_an_owner_that_has_just_restarted_is_found_again_by_every_call_through_another_node() {
    let (mut nodes, [_, job]) = two(&Place::postgres().await, 60, 15_000).await;
    let worker = Worker::at(&nodes.launches[0].url());
    let tasks = worker.tasks(job, 4).await;
    for call in ["result", "tasks", "detail"] {
        // Under its name and at its address, as another process: what the other node knows of it is out of date.
        nodes.processes[1].kill().await;
        nodes.processes[1] = nodes.launches[1].start().await;
        match call {
            "result" => assert_eq!(worker.report(job, results(&tasks)).await, ["counted"; 4]),
            "tasks" => assert_eq!(worker.tasks(job, 24).await.len(), 2),
            _ => {
                // A GET is told at once, and its client repeats it; but not for want of knowing who is there now.
                nodes.all_know_each_other().await;
                let (status, shown) = worker.call("GET", &format!("/jobs/{job}/"), Value::Null).await;
                assert_eq!((status, &shown["status"]), (200, &json!("STARTED")), "{shown}");
            }
        }
    }
    // What the owner refuses is told as this API tells it, whichever node says so.
    for node in 0..2 {
        let worker = Worker::at(&nodes.launches[node].url());
        let path = format!("/jobs/{job}/tasks/");
        let (status, refused) = worker.call("POST", &path, json!({"batch_size": 0})).await;
        assert_eq!((status, refused["batch_size"].is_array()), (400, true), "{refused}");
        let (status, refused) = worker
            .call("GET", &format!("/jobs/{job}/?logs_limit=0"), Value::Null)
            .await;
        assert_eq!((status, refused["logs_limit"].is_array()), (400, true), "{refused}");
    }
    nodes.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm36_fm37_a_long_antenna_body_leaves_only_for_a_node_that_takes_it() {
    let (mut nodes, [_, job]) = two(&Place::postgres().await, LEASE_S, 15_000).await;
    let worker = Worker::at(&nodes.launches[0].url());
    let tasks = worker.tasks(job, 6).await;
    // Too long to be held, so it can be sent once.
    let long = |task: &Value| {
        let mut found = success(task);
        found["result"]["features"] = json!("x".repeat(2 << 20));
        vec![found]
    };
    assert_eq!(worker.report(job, long(&tasks[0])).await, ["counted"]);
    nodes.processes[1].kill().await;
    nodes.processes[1] = nodes.launches[1].start().await;
    assert_eq!(worker.report(job, long(&tasks[1])).await, ["counted"]);
    // Nobody is there to be asked, and in the end this node itself takes the job over: the body is still whole.
    nodes.processes[1].kill().await;
    assert_eq!(worker.report(job, long(&tasks[2])).await, ["counted"]);
    assert_eq!(worker.param(job, "results", "captures").await, 3);
    nodes.processes.truncate(1);
    nodes.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm37_antenna_posts_to_a_node_that_drains_wait_for_the_next_owner() {
    let place = Place::postgres().await;
    let (mut nodes, [_, job]) = two(&place, 60, 15_000).await;
    let [through, there] = [0, 1].map(|node| Worker::at(&nodes.launches[node].url()));
    let tasks = through.tasks(job, 4).await;
    // It drains, and has yet to tell the others: until it has, it owns its queues and takes nothing.
    let db = cluster::connect(&nodes.launches[0].store()).await;
    db.batch_execute("BEGIN; SELECT FROM nodes WHERE node = 'b' FOR UPDATE")
        .await
        .unwrap();
    nodes.processes[1].signal(Signal::TERM);
    let client = nodes.client(1);
    until("it drains", async || {
        let answer = client.call("GET", "/readyz", &Body::None).await;
        matches!(answer, Heard::NotNow(_)).then_some(())
    })
    .await;
    let posting = async {
        tokio::join!(
            through.report(job, results(&tasks[..2])),
            there.report(job, results(&tasks[2..])),
            through.fetch(job, 24),
        )
    };
    let telling = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        db.batch_execute("ROLLBACK").await.unwrap();
    };
    let ((one, other, fetched), ()) = tokio::join!(posting, telling);
    assert_eq!(
        (one, other),
        (vec!["counted".to_owned(); 2], vec!["counted".to_owned(); 2])
    );
    assert_eq!(fetched.expect("the fetch waits, too").len(), 2);
    let status = nodes.processes[1].ended_within(Duration::from_secs(60)).await;
    assert!(status.success(), "{status}: {}", nodes.processes[1].log());
    nodes.processes.truncate(1);
    nodes.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_antenna_post_is_told_at_last_through_another_node_is_in_its_own_form() {
    let place = Place::postgres().await;
    let first = Launch::new(place.clone())
        .set("NODE_LEASE_S", 60)
        .set("COORDINATOR__DRAIN_TIMEOUT_MS", 12_000)
        .set("HTTP__ANTENNA_POST_WAIT_MS", 1_000);
    let nodes = Nodes::launch(vec![first.sibling("a"), first.sibling("b")]).await;
    let jobs = spread(&nodes).await;
    let [job, stuck] = match nodes.owner(0, "moths").await {
        Some(1) => [
            jobs[0],
            Worker::at(&nodes.launches[1].url())
                .create("moths", 0..1, json!({}))
                .await,
        ],
        _ => [
            jobs[1],
            Worker::at(&nodes.launches[1].url())
                .create("birds", 0..1, json!({}))
                .await,
        ],
    };
    let (through, client) = (Worker::at(&nodes.launches[0].url()), nodes.client(1));
    let tasks = through.tasks(job, 2).await;
    let last = through.tasks(stuck, 1).await;
    // Somebody holds the row that the other job's end has to be written to, so their queue cannot be handed over.
    let db = cluster::connect(&nodes.launches[0].store()).await;
    let hold = format!("BEGIN; SELECT FROM jobs WHERE id = {stuck} FOR NO KEY UPDATE");
    db.batch_execute(&hold).await.unwrap();
    let ending = {
        let held = json!({"lease": last[0]["reply_subject"]});
        let body = json!({"worker": "w", "results": [crate::app::success(&held)]});
        let client = client.clone();
        tokio::spawn(async move {
            let path = format!("/v1/jobs/{stuck}/results");
            client.call("POST", &path, &Body::Json(body)).await
        })
    };
    until("the result waits for the store", async || {
        let explained = client.get(&format!("/v1/jobs/{stuck}/explain")).await;
        explained.to_string().contains("committing").then_some(())
    })
    .await;
    nodes.processes[1].signal(Signal::TERM);
    until("it drains", async || {
        let answer = client.call("GET", "/readyz", &Body::None).await;
        matches!(answer, Heard::NotNow(_)).then_some(())
    })
    .await;
    let (status, refused) = through.post(job, results(&tasks)).await;
    assert_eq!(
        (
            status,
            &refused["status"],
            &refused["job_id"],
            refused["detail"].is_string()
        ),
        (503, &json!("error"), &json!(job), true),
        "{refused}"
    );
    let path = format!("/jobs/{job}/tasks/");
    let (status, refused) = through.call("POST", &path, json!({"batch_size": 1})).await;
    assert_eq!((status, refused["error"].is_string()), (503, true), "{refused}");
    db.batch_execute("ROLLBACK").await.unwrap();
    assert!(
        matches!(ending.await, Ok(Heard::Answer(200, _))),
        "the other job is not hurt"
    );
    until("the job has its next owner", async || {
        let answer = through.post(job, results(&tasks)).await;
        (answer.0 == 200).then_some(())
    })
    .await;
    assert_eq!(through.param(job, "results", "captures").await, 2);
    let mut nodes = nodes;
    let status = nodes.processes[1].ended_within(Duration::from_secs(60)).await;
    assert!(status.success(), "{status}: {}", nodes.processes[1].log());
    nodes.processes.truncate(1);
    nodes.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm37_an_antenna_post_waits_no_longer_in_all_than_it_may_wait_at_one_place() {
    // Clients give up after 30 s, whatever a post waits for one after another.
    const WAIT: Duration = Duration::from_secs(10);
    let place = Place::postgres().await;
    let (mut nodes, [_, job]) = two(&place, 6, WAIT.as_millis() as u64).await;
    let worker = Worker::at(&nodes.launches[0].url());
    let tasks = worker.tasks(job, 6).await;
    // First for the lease of the dead owner to run out, then for the store: the row that the job's end has to be written to is held.
    let db = cluster::connect(&nodes.launches[0].store()).await;
    let hold = format!("BEGIN; SELECT FROM jobs WHERE id = {job} FOR NO KEY UPDATE");
    db.batch_execute(&hold).await.unwrap();
    nodes.processes[1].kill().await;
    let began = Instant::now();
    let (status, refused) = worker.post(job, results(&tasks)).await;
    let waited = began.elapsed();
    assert_eq!((status, &refused["status"]), (503, &json!("error")), "{refused}");
    // Each wait has its own length: both of them would be 15 s at least.
    assert!(waited < WAIT + Duration::from_secs(3), "{waited:?}");
    db.batch_execute("ROLLBACK").await.unwrap();
    until("its results are there all the same", async || {
        let (status, shown) = worker.call("GET", &format!("/jobs/{job}/"), Value::Null).await;
        (status == 200 && shown["status"] == "SUCCESS").then_some(())
    })
    .await;
    nodes.processes.truncate(1);
    nodes.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_stands_still_keeps_an_antenna_post_no_longer_than_it_may_wait() {
    let (nodes, [_, job]) = two(&Place::postgres().await, 60, 1_000).await;
    let worker = Worker::at(&nodes.launches[0].url());
    let tasks = worker.tasks(job, 1).await;
    nodes.processes[1].signal(Signal::STOP);
    let began = Instant::now();
    let (status, refused) = worker.post(job, results(&tasks)).await;
    let waited = began.elapsed();
    nodes.processes[1].signal(Signal::CONT);
    assert_eq!((status, &refused["status"]), (503, &json!("error")), "{refused}");
    // Not the wait for a store as well.
    assert!(waited < Duration::from_secs(6), "{waited:?}");
    nodes.stop().await;
}

/// Where workers may call, as a balancer in front of the nodes knows it.
struct Balancer {
    urls: Vec<String>,
    out: AtomicUsize,
    stops: AtomicBool,
    batches: AtomicUsize,
    /// Calls that each node has under way.
    under_way: Vec<AtomicUsize>,
    queued: Mutex<BTreeSet<String>>,
}

/// No node is out.
const NONE: usize = usize::MAX;

impl Balancer {
    fn pick(&self) -> usize {
        loop {
            let node = rand::random_range(0..self.urls.len());
            self.under_way[node].fetch_add(1, Ordering::SeqCst);
            if self.out.load(Ordering::SeqCst) != node {
                return node;
            }
            self.done(node);
        }
    }

    fn done(&self, node: usize) {
        self.under_way[node].fetch_sub(1, Ordering::SeqCst);
    }

    /// Fetches and posts until it is stopped. A fetch may fail; a post may not, for it is made once.
    async fn work(self: Arc<Balancer>, job: i64) {
        while !self.stops.load(Ordering::SeqCst) {
            tokio::time::sleep(GLANCE).await;
            let node = self.pick();
            let tasks = Worker::at(&self.urls[node]).fetch(job, 4).await.unwrap_or_default();
            self.done(node);
            if tasks.is_empty() {
                continue;
            }
            let node = self.pick();
            let done = Worker::at(&self.urls[node]).report(job, results(&tasks)).await;
            self.done(node);
            let known = |done: &String| ["counted", "duplicate"].contains(&done.as_str());
            assert!(done.iter().all(known), "{done:?}");
            let images = tasks
                .iter()
                .map(|task| format!("{job}/{}", task["image_id"].as_str().unwrap()));
            self.queued.lock().unwrap().extend(images);
            self.batches.fetch_add(1, Ordering::SeqCst);
        }
    }

    async fn more_batches(&self) {
        let before = self.batches.load(Ordering::SeqCst);
        until("batches are posted", async || {
            (self.batches.load(Ordering::SeqCst) > before + 20).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm37_antenna_workers_lose_no_batch_while_nodes_drain_and_die_one_after_another() {
    let mut nodes = Nodes::start(&["a", "b", "c"]).await;
    let urls: Vec<String> = nodes.launches.iter().map(Launch::url).collect();
    let mut jobs = Vec::new();
    for (url, pipeline) in urls.iter().zip(["moths", "birds", "bats"]) {
        jobs.push(Worker::at(url).create(pipeline, 0..8_000, json!({})).await);
    }
    until("each node owns a pipeline", async || {
        (nodes.shares(0).await.len() == 3).then_some(())
    })
    .await;
    let balancer = Arc::new(Balancer {
        under_way: urls.iter().map(|_| AtomicUsize::new(0)).collect(),
        urls,
        out: AtomicUsize::new(NONE),
        stops: AtomicBool::new(false),
        batches: AtomicUsize::new(0),
        queued: Mutex::default(),
    });
    let working: Vec<_> = jobs
        .iter()
        .map(|job| tokio::spawn(balancer.clone().work(*job)))
        .collect();
    for (node, is_killed) in [(0, false), (1, false), (2, true)] {
        balancer.more_batches().await;
        // No calls at it any more, which its sockets could lose when they are closed. What the others pass on to it goes on.
        balancer.out.store(node, Ordering::SeqCst);
        until("nobody calls it", async || {
            (balancer.under_way[node].load(Ordering::SeqCst) == 0).then_some(())
        })
        .await;
        if is_killed {
            nodes.processes[node].kill().await;
        } else {
            let status = nodes.processes[node].terminate().await;
            assert!(status.success(), "{status}: {}", nodes.processes[node].log());
        }
        nodes.processes[node] = nodes.launches[node].start().await;
        balancer.more_batches().await;
        balancer.out.store(NONE, Ordering::SeqCst);
    }
    balancer.more_batches().await;
    balancer.stops.store(true, Ordering::SeqCst);
    for worker in working {
        worker.await.expect("no worker loses a batch");
    }
    let client = nodes.client(0);
    let mut stored = BTreeSet::new();
    for job in jobs {
        let rows = client.results(job).await;
        let images: BTreeSet<String> = rows
            .iter()
            .map(|row| format!("{job}/{}", row["key"].as_str().unwrap()))
            .collect();
        assert_eq!(images.len(), rows.len(), "each image once");
        stored.extend(images);
    }
    assert_eq!(*balancer.queued.lock().unwrap(), stored);
    nodes.stop().await;
}
