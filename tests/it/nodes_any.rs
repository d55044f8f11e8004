//! Any node answers: jobs, leases, results, controls and lists, whoever owns the queue.
//!
//! Owns: what a client sees that always asks the wrong node. Never: kills a node. Invariant: the same question has the same answer through
//! every node.

use crate::app::assert_sums;
use crate::http_call::{raw_at, until_closed};
use crate::nodes_cluster::{Nodes, lease, report};
use crate::process::{Body, Heard, until};
use crate::stream_client::Socket;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_spread_over_the_nodes_and_any_node_answers_for_every_job() {
    let nodes = Nodes::start(&["a", "b", "c"]).await;
    let queues = ["q0", "q1", "q2", "q3", "q4", "q5"];
    let mut jobs = Vec::new();
    for (i, queue) in queues.iter().enumerate() {
        jobs.push(nodes.job(i % 3, queue, 6).await);
    }
    until("each node owns two queues", async || {
        let shares = nodes.shares(0).await;
        (shares.len() == 3 && shares.values().all(|count| *count == 2)).then_some(())
    })
    .await;
    for (queue, job) in queues.iter().zip(&jobs) {
        let path = format!("/v1/jobs/{job}");
        // Each step through another node; at most one of them is the owner.
        let granted = nodes
            .client(0)
            .post(&format!("{path}/leases"), json!({"worker": "w", "max_tasks": 2}))
            .await;
        assert_eq!(granted["tasks"].as_array().map(Vec::len), Some(2), "{granted}");
        let extend = json!({"worker": "w", "leases": [granted["tasks"][0]["lease"]]});
        let extended = nodes.client(1).post(&format!("{path}/leases/extend"), extend).await;
        assert_eq!(extended["extended"].as_array().map(Vec::len), Some(1), "{extended}");
        assert_eq!(
            report(&nodes.client(2), *job, "w", &granted["tasks"]).await,
            ["counted"; 2]
        );
        assert_eq!(
            report(&nodes.client(0), *job, "w", &granted["tasks"]).await,
            ["duplicate"; 2]
        );
        let mut views = Vec::new();
        for node in 0..3 {
            let client = nodes.client(node);
            let view = client.get(&path).await;
            assert_sums(&view["progress"]);
            let tasks = client.get(&format!("{path}/tasks")).await;
            let explained = client.get(&format!("{path}/explain")).await;
            let results = client.get(&format!("{path}/results")).await;
            views.push((
                view["progress"]["succeeded"].clone(),
                view["node"].clone(),
                view["epoch"].clone(),
                tasks,
                explained["undecided_total"].clone(),
                results,
            ));
        }
        assert!(views.iter().all(|view| *view == views[0]), "{queue}: {views:?}");
        assert_eq!((&views[0].0, &views[0].4), (&json!(2), &json!(4)));
        nodes.client(1).post(&format!("{path}/pause"), json!({})).await;
        assert_eq!(nodes.client(2).get(&path).await["state"], "paused");
        nodes.client(0).post(&format!("{path}/resume"), json!({})).await;
        let canceled = nodes.client(1).post(&format!("{path}/cancel"), json!({})).await;
        assert_eq!(canceled["state"], "canceled");
    }
    nodes.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appended_lines_pass_through_any_node_and_errors_come_back_as_they_are() {
    let nodes = Nodes::start(&["a", "b"]).await;
    for (i, queue) in ["x", "y"].into_iter().enumerate() {
        let body = json!({"name": "open", "queue": queue, "open": true});
        let job = nodes.client(i).post("/v1/jobs", body).await["id"].as_i64().unwrap();
        for node in 0..2 {
            let client = nodes.client(node);
            // More than is held back to be sent again: it passes through in pieces.
            let lines: String = (0..3_000).map(|n| format!("{{\"payload\":\"{n:0>600}\"}}\n")).collect();
            let path = format!("/v1/jobs/{job}/tasks");
            let (status, said) = client.insist("POST", &path, &Body::Lines(lines)).await;
            assert_eq!(
                (status, said["next_task"].as_i64()),
                (200, Some(3_000 * (node as i64 + 1))),
                "{said}"
            );
            let (wrong, line) = (format!("{path}?first_task=7"), Body::Lines("{\"payload\":1}\n".into()));
            let Heard::Answer(409, problem) = client.call("POST", &wrong, &line).await else {
                panic!("a conflict")
            };
            assert_eq!(problem["code"], "wrong_first_task");
            let Heard::Answer(400, problem) = client.call("GET", &format!("{path}?limit=x"), &Body::None).await else {
                panic!("a bad request")
            };
            assert_eq!(problem["field"], "limit");
            let Heard::Answer(404, _) = client.call("GET", "/v1/jobs/999999", &Body::None).await else {
                panic!("not found")
            };
        }
    }
    nodes.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_call_finds_work_of_several_owners_whoever_it_asks() {
    let nodes = Nodes::start(&["a", "b", "c"]).await;
    let queues = ["q0", "q1", "q2"];
    let mut jobs = Vec::new();
    for queue in queues {
        jobs.push(nodes.job(0, queue, 4).await);
    }
    until("each node owns a queue", async || {
        (nodes.shares(0).await.len() == 3).then_some(())
    })
    .await;
    for node in 0..3 {
        let client = nodes.client(node);
        let mut seen = Vec::new();
        for _ in 0..3 {
            let granted = lease(&client, &format!("w{node}"), &queues, 1, 0.0).await;
            let job = granted["job"]["id"]
                .as_i64()
                .unwrap_or_else(|| panic!("no work: {granted}"));
            assert_eq!(
                report(
                    &nodes.client((node + 1) % 3),
                    job,
                    &format!("w{node}"),
                    &granted["tasks"]
                )
                .await,
                ["counted"]
            );
            seen.push(job);
        }
        assert!(seen.iter().all(|job| jobs.contains(job)));
    }
    // What is left, all through one node: every owner is found.
    let mut left = 0;
    loop {
        let granted = lease(&nodes.client(0), "last", &queues, 100, 0.0).await;
        let Some(job) = granted["job"]["id"].as_i64() else {
            break;
        };
        left += report(&nodes.client(1), job, "last", &granted["tasks"]).await.len();
    }
    assert_eq!(left, 12 - 9);
    for job in &jobs {
        assert_eq!(
            nodes.client(2).get(&format!("/v1/jobs/{job}")).await["state"],
            "succeeded"
        );
    }
    // Nobody has work: the call waits at all owners, and whichever gets some answers it, once.
    let waiting = {
        let client = nodes.client(2);
        tokio::spawn(async move { lease(&client, "waiter", &queues, 10, 30.0).await })
    };
    until("the call waits at every owner", async || {
        let listed = nodes.client(0).get("/v1/queues").await;
        let parked = |item: &Value| item["parked"].as_u64().unwrap_or(0);
        listed["items"]
            .as_array()
            .unwrap()
            .iter()
            .all(|item| parked(item) > 0)
            .then_some(())
    })
    .await;
    let late = nodes.job(1, "q1", 3).await;
    let granted = waiting.await.unwrap();
    assert_eq!(
        (granted["job"]["id"].as_i64(), granted["tasks"].as_array().map(Vec::len)),
        (Some(late), Some(3))
    );
    assert_eq!(
        report(&nodes.client(0), late, "waiter", &granted["tasks"]).await,
        ["counted"; 3]
    );
    nodes.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_lease_call_gets_its_grant_again_through_another_node() {
    let nodes = Nodes::start(&["a", "b"]).await;
    let queues = ["q0", "q1"];
    for queue in queues {
        nodes.job(0, queue, 4).await;
    }
    until("each node owns a queue", async || {
        (nodes.shares(0).await.len() == 2).then_some(())
    })
    .await;
    for call in 0..4 {
        let body = json!({"worker": "w", "queues": queues, "max_tasks": 1, "request_id": format!("r{call}")});
        let first = nodes.client(0).post("/v1/leases", body.clone()).await;
        assert_eq!(first["tasks"].as_array().map(Vec::len), Some(1), "{first}");
        for node in [1, 0] {
            let again = nodes.client(node).post("/v1/leases", body.clone()).await;
            assert_eq!(again["tasks"], first["tasks"], "call {call} through node {node}");
        }
    }
    nodes.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_create_is_repeated_through_any_node_and_makes_one_job() {
    let nodes = Nodes::start(&["a", "b"]).await;
    let http = reqwest::Client::new();
    let body = json!({"name": "once", "queue": "q", "tasks": [{"payload": 1}]});
    let mut heard = Vec::new();
    for node in [0, 1, 0, 1] {
        let request = http.post(format!("{}/v1/jobs", nodes.launches[node].url()));
        let response = request.header("idempotency-key", "k").json(&body).send().await;
        let response = response.expect("an answer");
        let status = response.status().as_u16();
        let job: Value = response.json().await.expect("a job");
        heard.push((status, job["id"].clone(), job["progress"]["total"].clone()));
    }
    let id = heard[0].1.clone();
    let again = (200, id.clone(), json!(1));
    assert_eq!(heard, [(201, id, json!(1)), again.clone(), again.clone(), again]);
    nodes.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_has_every_owners_part_whatever_its_query_holds() {
    let nodes = Nodes::start(&["a", "b"]).await;
    for queue in ["q0", "q1"] {
        let body = json!({"name": "it's", "queue": queue, "tasks": [{"payload": 1}, {"payload": 2}]});
        nodes.client(0).post("/v1/jobs", body).await;
    }
    until("each node owns a queue", async || {
        (nodes.shares(0).await.len() == 2).then_some(())
    })
    .await;
    for queue in ["q0", "q1"] {
        let granted = lease(&nodes.client(0), "w", &[queue], 1, 30.0).await;
        assert_eq!(granted["tasks"].as_array().map(Vec::len), Some(1), "{granted}");
    }
    for launch in &nodes.launches {
        // Sent as it is, which a URL would spell with %27.
        let text = "GET /v1/jobs?q=it's HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        until("only an owner knows of its leases", async || {
            let answer = until_closed(raw_at(&launch.url(), text).await).await;
            let list: Value = serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()?;
            let items = list["items"].as_array()?;
            let leased = items.iter().filter(|item| item["progress"]["leased"] == 1);
            (items.len() == 2 && leased.count() == 2).then_some(())
        })
        .await;
    }
    nodes.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_is_deleted_through_one_node_is_gone_at_every_other() {
    let nodes = Nodes::start(&["a", "b"]).await;
    let jobs = [nodes.job(0, "q0", 1).await, nodes.job(1, "q1", 1).await];
    until("each node owns a queue", async || {
        (nodes.shares(0).await.len() == 2).then_some(())
    })
    .await;
    let urls = [0, 1].map(|node| nodes.launches[node].url());
    for (job, queue) in jobs.into_iter().zip(["q0", "q1"]) {
        let granted = lease(&nodes.client(0), "w", &[queue], 1, 0.0).await;
        assert_eq!(report(&nodes.client(1), job, "w", &granted["tasks"]).await, ["counted"]);
        let owner = nodes.owner(0, queue).await.expect("somebody owns it");
        let mut watching = Vec::new();
        for url in &urls {
            let mut socket = until("the stream opens", async || Socket::open_at(url, "/v1/progress").await).await;
            // What each job is comes before the line that says how many there are.
            socket.until(|message| message["type"] == "listed").await;
            watching.push(socket);
        }
        let path = format!("/v1/jobs/{job}");
        // Through the node that does not own it.
        let deleted = nodes.client(1 - owner).call("DELETE", &path, &Body::None).await;
        assert!(matches!(deleted, Heard::Answer(204, _)), "{deleted:?}");
        for (node, socket) in watching.iter_mut().enumerate() {
            let gone = socket.until(|message| message["type"] == "gone").await;
            assert_eq!(gone["id"], job, "{gone}");
            for path in [path.clone(), format!("/api/v2/jobs/{job}/")] {
                let shown = nodes.client(node).call("GET", &path, &Body::None).await;
                assert!(matches!(shown, Heard::Answer(404, _)), "{path}: {shown:?}");
            }
        }
    }
    nodes.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm10_work_of_the_node_that_is_asked_keeps_nobody_from_what_others_own() {
    let nodes = Nodes::start(&["a", "b"]).await;
    let (q0, q1) = (nodes.job(0, "q0", 20).await, nodes.job(0, "q1", 20).await);
    until("each node owns a queue", async || {
        (nodes.shares(0).await.len() == 2).then_some(())
    })
    .await;
    for node in 0..2 {
        let client = nodes.client(node);
        let mut served = std::collections::BTreeSet::new();
        for _ in 0..6 {
            let granted = lease(&client, "w", &["q0", "q1"], 1, 0.0).await;
            served.extend(granted["job"]["id"].as_i64());
        }
        assert!(served.contains(&q0) && served.contains(&q1), "node {node}: {served:?}");
    }
    nodes.stop().await;
}
