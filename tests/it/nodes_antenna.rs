//! The API of existing workers through any of several nodes.
//!
//! Owns: a worker behind a load balancer that knows nothing. Never: repeats a POST. Invariant: which node it meets makes no difference to it.

use crate::antenna_client::{Worker, failure, param, success};
use crate::app::Place;
use crate::http_call::{raw_at, until_closed};
use crate::nodes_cluster::{LEASE_S, Nodes};
use crate::process::{Body, Heard, Launch, until};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Two nodes that own a pipeline each; answers the jobs in them.
pub(crate) async fn spread(nodes: &Nodes) -> [i64; 2] {
    let [one, other] = [0, 1].map(|node| Worker::at(&nodes.launches[node].url()));
    let jobs = [
        one.create("moths", 0..6, json!({})).await,
        other.create("birds", 0..6, json!({})).await,
    ];
    until("each node owns a pipeline", async || {
        let shares = nodes.shares(0).await;
        (shares.len() == 2 && shares.values().all(|count| *count == 1)).then_some(())
    })
    .await;
    jobs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm08_fm10_antenna_workers_find_and_do_the_work_of_any_node_through_any_node() {
    let nodes = Nodes::start(&["a", "b"]).await;
    let jobs = spread(&nodes).await;
    let workers = [0, 1].map(|node| Worker::at(&nodes.launches[node].url()).from("192.0.2.7"));
    for worker in &workers {
        // A queue that has just moved loads its jobs first.
        until("the work of both nodes is listed", async || {
            let listed = worker
                .listed("pipeline__slug__in=moths,birds&ids_only=1&limit=10")
                .await;
            (BTreeSet::from_iter(listed) == BTreeSet::from(jobs)).then_some(())
        })
        .await;
        let mut first = BTreeSet::new();
        while first.len() < 2 {
            let found = worker.jobs("moths,birds").await;
            assert_eq!(found.len(), 1);
            first.extend(found);
        }
        let registered = json!({"processing_service_name": "s", "pipelines": [{"name": "M", "slug": "moths", "version": 1}, {"name": "B", "slug": "birds", "version": 1}]});
        let (status, answer) = worker.call("POST", "/projects/1/pipelines/", registered).await;
        assert_eq!(
            (status, &answer["pipelines_updated"]),
            (201, &json!(["moths", "birds"])),
            "{answer}"
        );
    }
    for job in jobs {
        // Fetched through one node, reported through the other.
        let tasks = workers[0].tasks(job, 6).await;
        assert_eq!(tasks.len(), 6);
        let results = tasks[..4].iter().map(success).collect();
        assert_eq!(workers[1].report(job, results).await, ["counted"; 4]);
        let results = tasks[..4].iter().map(success).collect();
        assert_eq!(workers[0].report(job, results).await, ["duplicate"; 4]);
        let results = tasks[4..].iter().map(|task| failure(task, None)).collect();
        assert_eq!(workers[1].report(job, results).await, ["retrying"; 2]);
        for worker in &workers {
            assert_eq!(worker.param(job, "results", "captures").await, 4);
            assert!(worker.detail(job).await["status"] == "STARTED");
        }
        let (status, canceled) = workers[1]
            .call("POST", &format!("/jobs/{job}/cancel/"), json!({}))
            .await;
        assert_eq!((status, &canceled["status"]), (200, &json!("REVOKED")));
        assert!(workers[0].tasks(job, 6).await.is_empty());
    }
    // One worker, not one for each node it has met.
    let seen = nodes.client(0).get("/v1/workers").await;
    assert_eq!(seen["items"].as_array().map(Vec::len), Some(1), "{seen}");
    nodes.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm41_the_list_of_whole_jobs_shows_each_as_its_owner_does_whoever_is_asked() {
    let nodes = Nodes::start(&["a", "b"]).await;
    let jobs = spread(&nodes).await;
    let workers = [0, 1].map(|node| Worker::at(&nodes.launches[node].url()));
    let mut older = None;
    for job in jobs {
        // Known to the job's actor; its row says so only when the job moves on.
        let tasks = workers[0].tasks(job, 3).await;
        assert_eq!(
            workers[0].report(job, tasks[..2].iter().map(success).collect()).await,
            ["counted"; 2]
        );
        for worker in &workers {
            let (status, mut list) = worker.get("/jobs/?incomplete_only=1&limit=10").await;
            assert_eq!((status, &list["count"]), (200, &json!(2)), "{list}");
            let ids: Vec<&Value> = list["results"]
                .as_array()
                .unwrap()
                .iter()
                .map(|job| &job["id"])
                .collect();
            assert_eq!(ids, [&json!(jobs[1]), &json!(jobs[0])], "newest first, each once");
            let mut detail = worker.detail(job).await;
            let listed = list["results"].as_array_mut().unwrap();
            let listed = listed.iter_mut().find(|listed| listed["id"] == job).unwrap();
            assert_eq!(
                (param(listed, "process", "processed"), &listed["status"]),
                (2, &json!("STARTED"))
            );
            // Its log is not told of in a list.
            for told in [&mut detail, listed] {
                told["logs"] = Value::Null;
            }
            assert_eq!(*listed, detail);
        }
        // Page by page, too: the newest is alone on the first.
        let (_, page) = workers[0].get("/jobs/?limit=1").await;
        assert_eq!(
            (page["results"][0]["id"].as_i64(), page["next"].is_string()),
            (Some(jobs[1]), true),
            "{page}"
        );
        older = page["next"].as_str().map(str::to_owned);
    }
    let (_, query) = older
        .as_deref()
        .and_then(|next| next.split_once('?'))
        .expect("there is a next page");
    for worker in &workers {
        let (_, page) = worker.get(&format!("/jobs/?{query}")).await;
        let listed = &page["results"][0];
        assert_eq!(
            (listed["id"].as_i64(), param(listed, "process", "processed")),
            (Some(jobs[0]), 2),
            "{page}"
        );
    }
    nodes.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm37_an_antenna_post_waits_while_its_job_changes_nodes() {
    let mut nodes = Nodes::start(&["a", "b"]).await;
    let jobs = spread(&nodes).await;
    for (queue, job) in ["moths", "birds"].into_iter().zip(jobs) {
        if nodes.owner(0, queue).await != Some(1) {
            continue;
        }
        let worker = Worker::at(&nodes.launches[0].url());
        let tasks = worker.tasks(job, 6).await;
        nodes.processes[1].kill().await;
        // Once, and never again; the lease of the dead owner has yet to run out.
        assert!(Duration::from_secs(LEASE_S) < Duration::from_secs(15));
        assert_eq!(
            worker.report(job, tasks.iter().map(success).collect()).await,
            ["counted"; 6]
        );
        assert_eq!(worker.detail(job).await["status"], "SUCCESS");
        nodes.processes.truncate(1);
        nodes.stop().await;
        return;
    }
    panic!("node b owns neither pipeline");
}

/// A POST whose head a node has read; its handler is about to run, and has no body yet.
async fn begun(url: &str, path: &str, length: usize) -> TcpStream {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\
         Expect: 100-continue\r\n\r\n"
    );
    let mut stream = raw_at(url, &head).await;
    let asked = stream.read_exact(&mut [0; 25]).await;
    asked.expect("the body is asked for");
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm36_an_antenna_post_for_another_node_waits_for_room_in_memory() {
    // Room for one body.
    let first = Launch::new(Place::postgres().await)
        .set("NODE_LEASE_S", LEASE_S)
        .set("HTTP__BODY_BUDGET_BYTES", 1 << 20)
        .set("HTTP__BODY_MAX_BYTES", 1 << 20)
        .set("HTTP__APPEND_CHUNK_BYTES", 1 << 16)
        .set("HTTP__LINE_MAX_BYTES", 1 << 16)
        .set("HTTP__ANTENNA_POST_WAIT_MS", 5_000);
    let nodes = Nodes::launch(vec![first.sibling("a"), first.sibling("b")]).await;
    let jobs = spread(&nodes).await;
    let owner = nodes.owner(0, "moths").await.expect("somebody owns it");
    let (ingress, job) = (1 - owner, jobs[0]);
    let (url, client) = (nodes.launches[ingress].url(), nodes.client(ingress));
    let worker = Worker::at(&url);
    let tasks = worker.tasks(job, 2).await;
    for (task, is_freed) in tasks.iter().zip([true, false]) {
        let mut hog = begun(&url, "/v1/jobs", 1 << 20).await;
        let results = Body::Json(json!({"worker": "w", "results": []}));
        until("the room is taken; a client that repeats is told at once", async || {
            if hog.try_read(&mut [0; 1]).is_ok() {
                // Refused: some of the room was taken at that moment.
                hog = begun(&url, "/v1/jobs", 1 << 20).await;
            }
            let answer = client.call("POST", &format!("/v1/jobs/{job}/results"), &results).await;
            matches!(answer, Heard::NotNow(code) if code == "busy").then_some(())
        })
        .await;
        let body = json!({"results": [success(task)]}).to_string();
        let mut posting = begun(&url, &format!("/api/v2/jobs/{job}/result/"), body.len()).await;
        posting.write_all(body.as_bytes()).await.expect("the node reads");
        for _ in 0..5 {
            client.call("GET", "/healthz", &Body::None).await;
        }
        assert!(posting.try_read(&mut [0; 1]).is_err(), "it waits");
        if is_freed {
            drop(hog);
            let answer = until_closed(posting).await;
            assert!(
                answer.starts_with("HTTP/1.1 200 ") && answer.contains("accepted"),
                "{answer}"
            );
        } else {
            let answer = until_closed(posting).await;
            assert!(
                answer.starts_with("HTTP/1.1 503 ") && answer.contains("job_id"),
                "{answer}"
            );
            assert!(hog.try_read(&mut [0; 1]).is_err(), "there was no room all the time");
        }
    }
    assert_eq!(
        worker.param(job, "results", "captures").await,
        1,
        "what was refused did nothing"
    );
    nodes.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm10_a_node_that_says_nothing_is_no_node_without_work() {
    // Long enough that nobody takes over from the dead.
    let first = Launch::new(Place::postgres().await).set("NODE_LEASE_S", 60);
    let mut nodes = Nodes::launch(vec![first.sibling("a"), first.sibling("b")]).await;
    // The second has seen the first when it started.
    let worker = Worker::at(&nodes.launches[1].url());
    let next = "/jobs/next/?pipeline__slug__in=moths";
    until("both say that they have none", async || {
        (worker.get(next).await.0 == 204).then_some(())
    })
    .await;
    nodes.processes[0].kill().await;
    let list = "/jobs/?ids_only=1&pipeline__slug__in=moths";
    assert_eq!((worker.get(next).await.0, worker.get(list).await.0), (503, 503));
    nodes.processes[1].kill().await;
}
