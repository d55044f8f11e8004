//! Nodes that stand still for a while, or whose hand-over does.
//!
//! Owns: what is left of the job, its leases and its actors afterwards. Never: kills the owner. Invariant: none of its own.

use crate::app::{Place, success};
use crate::cluster::connect;
use crate::nodes_cluster::{LEASE_S, Nodes, lease};
use crate::process::{Body, Heard as Told, Launch, until};
use crate::stream_client::{Heard, Socket};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_comes_back_whole_after_a_hand_over_that_ran_out_of_time() {
    let place = Place::postgres().await;
    let Place::Postgres(url) = place.clone() else {
        unreachable!("asked for")
    };
    let first = Launch::new(place)
        .set("NODE_LEASE_S", LEASE_S)
        .set("COORDINATOR__DRAIN_TIMEOUT_MS", 1_000);
    let mut nodes = Nodes::launch(vec![first.sibling("a")]).await;
    let mut held = Vec::new();
    for queue in ["q0", "q1", "q2", "q3"] {
        let job = nodes.job(0, queue, 2).await;
        let granted = lease(&nodes.client(0), "w", &[queue], 1, 0.0).await;
        held.push((job, granted["tasks"][0].clone()));
    }
    let holder = connect(&url).await;
    holder
        .batch_execute("BEGIN; LOCK TABLE snapshots IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    // It has a right to two of them, and no snapshot of any can be saved.
    nodes.launches.push(first.sibling("b"));
    let other = nodes.launches[1].start().await;
    nodes.processes.push(other);
    until("a hand-over ran out of time", async || {
        nodes.processes[0].log().contains("given up before").then_some(())
    })
    .await;
    nodes.processes[1].kill().await;
    nodes.processes.pop();
    nodes.launches.pop();
    holder.batch_execute("ROLLBACK").await.unwrap();
    let client = nodes.client(0);
    for (job, task) in &held {
        // Its actors belong to the queue as it is owned now: they take results, and hand out what is left.
        let posting = Body::Json(json!({"worker": "w", "results": [success(task)]}));
        until("the job takes its result", async || {
            match client.call("POST", &format!("/v1/jobs/{job}/results"), &posting).await {
                Told::Answer(200, said) => Some(said),
                _ => None,
            }
        })
        .await;
        let more = json!({"worker": "w", "max_tasks": 1});
        let granted = until("the job hands out what is left", async || {
            match client
                .call("POST", &format!("/v1/jobs/{job}/leases"), &Body::Json(more.clone()))
                .await
            {
                Told::Answer(200, said) if !said["tasks"][0].is_null() => Some(said),
                _ => None,
            }
        })
        .await;
        let posting = Body::Json(json!({"worker": "w", "results": [success(&granted["tasks"][0])]}));
        until("the job ends", async || {
            client.call("POST", &format!("/v1/jobs/{job}/results"), &posting).await;
            let view = client.get(&format!("/v1/jobs/{job}")).await;
            (view["state"] == "succeeded").then_some(())
        })
        .await;
    }
    nodes.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stood_still_gives_leases_the_time_back_that_no_timer_of_their_job_saw() {
    let nodes = Nodes::start(&["a"]).await;
    let client = nodes.client(0);
    let (lease_s, stands_s) = (LEASE_S + 4, LEASE_S + 3);
    let body = json!({"name": "n", "queue": "q", "tasks": [{"payload": 1}],
        "policy": {"lease_timeout_s": lease_s, "max_attempts": 1}});
    let job = client.post("/v1/jobs", body).await["id"].clone();
    let task = lease(&client, "w", &["q"], 1, 0.0).await["tasks"][0].clone();
    nodes.processes[0].signal(Signal::STOP);
    tokio::time::sleep(Duration::from_secs(stands_s)).await;
    nodes.processes[0].signal(Signal::CONT);
    // Past the end that the lease had, and nobody has asked for the job meanwhile.
    tokio::time::sleep(Duration::from_secs(lease_s + 1 - stands_s)).await;
    let view: Value = until("the node answers", async || {
        match client.call("GET", &format!("/v1/jobs/{job}"), &Body::None).await {
            Told::Answer(200, view) => Some(view),
            _ => None,
        }
    })
    .await;
    assert_eq!(view["progress"]["leased"], 1, "{view}");
    let posted = client
        .post(
            &format!("/v1/jobs/{job}/results"),
            json!({"worker": "w", "results": [success(&task)]}),
        )
        .await;
    assert_eq!(posted["results"][0]["disposition"], "counted", "{posted}");
    nodes.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_a_node_is_missing_in_ends_so_that_its_reader_comes_back_for_the_whole() {
    let nodes = Nodes::start(&["a", "b"]).await;
    for queue in ["q0", "q1"] {
        nodes.job(0, queue, 1).await;
    }
    until("each node owns a queue", async || {
        (nodes.shares(0).await.len() == 2).then_some(())
    })
    .await;
    nodes.processes[1].signal(Signal::STOP);
    let partial = Socket::open_at(&nodes.launches[0].url(), "/v1/progress").await;
    nodes.processes[1].signal(Signal::CONT);
    // Unless the node was found to be missing already.
    if let Some(mut partial) = partial {
        let (_, code) = partial.rest().await;
        assert_eq!(code, 1012);
    }
    until("a stream shows both jobs", async || {
        let mut whole = Socket::open_at(&nodes.launches[0].url(), "/v1/progress").await?;
        for _ in 0..4 {
            let Heard::Message(message) = whole.hear().await else {
                return None;
            };
            if message["type"] == "listed" {
                return (message["jobs"] == 2).then_some(());
            }
        }
        None
    })
    .await;
    nodes.stop().await;
}
