//! Nodes that die, freeze and come back, while others go on.
//!
//! Owns: take-over within the lease, and what a zombie can do. Never: asserts how long anything takes but against the lease, with room.
//! Invariant: what was acknowledged is there, once, whoever serves it.
#![allow(clippy::print_stderr, reason = "the figures of a run are worth reading")]

use crate::app::{Place, TempDir};
use crate::chaos_proxy::Proxy;
use crate::cluster::{self, Cluster};
use crate::crash_load::seed;
use crate::nodes_cluster::{LEASE_S, Nodes, lease, report};
use crate::process::{Body, GLANCE, Heard, Launch, until};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Spreads one queue with a job to each node; answers (owner, queue, job).
async fn one_queue_each(nodes: &Nodes, tasks: usize) -> Vec<(usize, String, i64)> {
    let mut found = Vec::new();
    for n in 0..nodes.launches.len() {
        let queue = format!("q{n}");
        let job = nodes.job(n, &queue, tasks).await;
        found.push((0, queue, job));
    }
    until("each node owns a queue", async || {
        let shares = nodes.shares(0).await;
        (shares.len() == nodes.launches.len() && !shares.contains_key("")).then_some(())
    })
    .await;
    for (owner, queue, _) in &mut found {
        *owner = nodes.owner(0, queue).await.expect("somebody owns it");
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm15_fm45_a_killed_owner_is_replaced_within_its_lease_and_nothing_is_lost() {
    let mut nodes = Nodes::start(&["a", "b"]).await;
    let placed = one_queue_each(&nodes, 20).await;
    let (_, queue, job) = placed.iter().find(|(owner, ..)| *owner == 1).expect("one each").clone();
    let client = nodes.client(0);
    let granted = lease(&client, "w", &[&queue], 8, 0.0).await;
    let tasks = granted["tasks"].as_array().expect("work").clone();
    assert_eq!(tasks.len(), 8);
    assert_eq!(report(&client, job, "w", &json!(tasks[..4])).await, ["counted"; 4]);
    nodes.processes[1].kill().await;
    let killed = Instant::now();
    let path = format!("/v1/jobs/{job}");
    // Until the lease has run out the survivor says "not now", and nothing else.
    let view = loop {
        match client.call("GET", &path, &Body::None).await {
            Heard::Answer(status, view) => {
                assert_eq!(status, 200, "{view}");
                break view;
            }
            Heard::NotNow(code) => assert!(["not_owner", "busy"].contains(&code.as_str()), "{code}"),
            Heard::Nothing(why) => panic!("the survivor answers: {why}"),
        }
        tokio::time::sleep(GLANCE).await;
    };
    let took = killed.elapsed();
    eprintln!("taken over {took:?} after kill -9 with a lease of {LEASE_S} s");
    assert!(took.as_secs() < 3 * LEASE_S, "{took:?}");
    assert_eq!(
        (&view["progress"]["succeeded"], &view["node"]),
        (&json!(4), &json!("a"))
    );
    // What was leased and not reported is taken when it comes, and what was reported is known.
    assert_eq!(report(&client, job, "w", &json!(tasks[..4])).await, ["duplicate"; 4]);
    assert_eq!(report(&client, job, "w", &json!(tasks[4..])).await, ["counted"; 4]);
    let rest = lease(&client, "w", &[&queue], 100, 0.0).await;
    assert_eq!(report(&client, job, "w", &rest["tasks"]).await, ["counted"; 12]);
    assert_eq!(client.get(&path).await["state"], "succeeded");
    // It comes back under its name, and gets its share again.
    nodes.processes[1] = nodes.launches[1].start().await;
    nodes.job(0, "later", 1).await;
    nodes.job(0, "later still", 1).await;
    until("the returned node owns queues again", async || {
        nodes.shares(0).await.contains_key("b").then_some(())
    })
    .await;
    nodes.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm55_fm42_a_node_that_was_frozen_beyond_its_lease_writes_nothing_and_recovers() {
    let nodes = Nodes::start(&["a", "b"]).await;
    let placed = one_queue_each(&nodes, 20).await;
    let (_, queue, job) = placed.iter().find(|(owner, ..)| *owner == 1).expect("one each").clone();
    let (living, zombie) = (nodes.client(0), nodes.client(1));
    let path = format!("/v1/jobs/{job}");
    let before = zombie.get(&path).await;
    let granted = lease(&zombie, "w", &[&queue], 8, 0.0).await;
    let tasks = granted["tasks"].as_array().expect("work").clone();
    nodes.processes[1].signal(Signal::STOP);
    // Its clients wait in its sockets; it will answer them when it wakes up.
    let late: Vec<_> = [(0, 4), (4, 6)]
        .into_iter()
        .map(|(from, to)| {
            let (zombie, path, tasks) = (zombie.clone(), format!("{path}/results"), tasks[from..to].to_vec());
            tokio::spawn(async move {
                let results: Vec<Value> = tasks.iter().map(crate::app::success).collect();
                let body = json!({"worker": "w", "results": results});
                zombie.call("POST", &path, &Body::Json(body)).await
            })
        })
        .collect();
    let reading = {
        let (zombie, path) = (zombie.clone(), path.clone());
        tokio::spawn(async move { zombie.call("GET", &path, &Body::None).await })
    };
    // The other node takes over, and takes the same results in.
    let taken = until("the queue is taken over", async || {
        match living.call("GET", &path, &Body::None).await {
            Heard::Answer(200, view) if view["node"] == "a" => Some(view),
            _ => None,
        }
    })
    .await;
    assert!(taken["epoch"].as_i64() > before["epoch"].as_i64(), "{taken}");
    assert_eq!(report(&living, job, "w", &json!(tasks[..2])).await, ["counted"; 2]);
    nodes.processes[1].signal(Signal::CONT);
    let mut said = Vec::new();
    for call in late {
        said.push(call.await.expect("the call ends"));
    }
    let read = reading.await.expect("the call ends");
    for heard in said.iter().chain([&read]) {
        match heard {
            // It may have learned who owns the job before it answered, and asked there.
            Heard::Answer(200, json) => {
                if let Some(results) = json["results"].as_array() {
                    let known =
                        |item: &Value| ["counted", "duplicate"].contains(&item["disposition"].as_str().unwrap());
                    assert!(results.iter().all(known), "{json}");
                } else {
                    assert_eq!(json["node"], "a", "answered from what it knew before: {json}");
                }
            }
            Heard::NotNow(_) | Heard::Nothing(_) => {}
            Heard::Answer(status, json) => panic!("{status} {json}"),
        }
    }
    // Whoever is asked, and however often: each task is counted once.
    let again = report(&zombie, job, "w", &json!(tasks)).await;
    assert!(
        again
            .iter()
            .all(|said| ["counted", "duplicate"].contains(&said.as_str())),
        "{again:?}"
    );
    until("the woken node is fit again", async || {
        matches!(zombie.call("GET", "/readyz", &Body::None).await, Heard::Answer(200, _)).then_some(())
    })
    .await;
    for client in [&living, &zombie] {
        let view = client.get(&path).await;
        assert_eq!(
            (&view["progress"]["succeeded"], &view["progress"]["leased"]),
            (&json!(8), &json!(0)),
            "{view}"
        );
    }
    let count = |sql: String| async move { nodes.launches[0].count(&sql).await };
    assert_eq!(
        count(format!("SELECT count(*) FROM outcomes WHERE job = {job}")).await,
        8
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm37_killed_nodes_under_load_lose_and_double_nothing() {
    let seed = seed();
    let mut nodes = Nodes::start(&["a", "b", "c"]).await;
    let running = nodes.under_load(&["q0", "q1", "q2"], seed).await;
    for round in 0..3 {
        for load in &running {
            load.progress(150).await;
        }
        let victim = (seed as usize + round) % 3;
        nodes.processes[victim].kill().await;
        nodes.processes[victim] = nodes.launches[victim].start().await;
    }
    for load in &running {
        load.progress(100).await;
    }
    for load in running {
        let load = load.finish().await;
        let line = load.check().await;
        let pause = load.record.lock().unwrap().longest_pause;
        eprintln!("seed={seed} kills=3 longest pause {pause:?} {line}");
        load.check_rows(&nodes.launches[0]).await;
    }
    nodes.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_longer_than_every_lease_costs_no_lease_and_no_attempt() {
    let cluster = Cluster::start();
    let place = Place::Postgres(cluster.fresh_database().await);
    let nodes = Nodes::start_on(place, &["a", "b"]).await;
    let placed = one_queue_each(&nodes, 20).await;
    let mut held = Vec::new();
    for (owner, queue, job) in &placed {
        let granted = lease(&nodes.client(1 - owner), "w", &[queue], 8, 0.0).await;
        held.push((*job, queue, granted["tasks"].clone()));
    }
    // It answers nothing, and closes nothing: nobody can renew.
    cluster.freeze();
    for node in 0..2 {
        let client = nodes.client(node);
        until("the lease lapses", async || {
            // Not by `call`, which asks for JSON that says why.
            match client.call("GET", "/readyz", &Body::None).await {
                Heard::NotNow(_) => Some(()),
                _ => None,
            }
        })
        .await;
        let path = format!("/v1/jobs/{}", held[0].0);
        // From memory it could be answered; but another node may be the owner by now.
        let lapsed = until("reads are refused", async || {
            match client.call("GET", &path, &Body::None).await {
                Heard::NotNow(code) => Some(code),
                Heard::Answer(200, _) => None,
                other => panic!("{other:?}"),
            }
        })
        .await;
        assert!(
            ["store_unavailable", "not_owner"].contains(&lapsed.as_str()),
            "{lapsed}"
        );
    }
    cluster.thaw();
    for (job, queue, tasks) in &held {
        let client = nodes.client(0);
        let rest = lease(&client, "w2", &[queue], 100, 20.0).await;
        assert_eq!(
            rest["tasks"].as_array().map(Vec::len),
            Some(12),
            "what is leased stays leased: {rest}"
        );
        assert_eq!(report(&client, *job, "w", tasks).await, ["counted"; 8]);
        assert_eq!(report(&client, *job, "w2", &rest["tasks"]).await, ["counted"; 12]);
        let attempts = format!("SELECT count(*) FROM attempts WHERE job = {job}");
        assert_eq!(nodes.launches[0].count(&attempts).await, 0);
    }
    nodes.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_that_comes_after_a_take_over_brings_no_stale_answer() {
    let direct = cluster::fresh_database().await;
    let (base, socket_dir) = direct.split_once("host=").expect("tests speak over a socket");
    let (sockets, socket) = (TempDir::new(), ".s.PGSQL.5432");
    let line = Proxy::unix(&sockets.0.join(socket), &PathBuf::from(socket_dir).join(socket));
    let first = Launch::new(Place::Postgres(direct.clone()))
        .set("NODE_LEASE_S", LEASE_S)
        .sibling("a");
    let mut second = first.sibling("b");
    second.place = Place::Postgres(format!("{base}host={}", sockets.0.display()));
    let nodes = Nodes::launch(vec![first, second]).await;
    let placed = one_queue_each(&nodes, 20).await;
    let (_, _, job) = placed.iter().find(|(owner, ..)| *owner == 1).expect("one each").clone();
    let (living, late) = (nodes.client(0), nodes.client(1));
    let path = format!("/v1/jobs/{job}");
    assert_eq!(late.get(&path).await["node"], "b");
    // What it sends from now on, its next renewal first, arrives only when the other node has the queue.
    line.hold(true);
    until("the queue is taken over", async || {
        match living.call("GET", &path, &Body::None).await {
            Heard::Answer(200, view) if view["node"] == "a" => Some(()),
            _ => None,
        }
    })
    .await;
    // Each answer of the database takes a while, so there is time between the renewal's and that which says who owns what.
    line.delay(Duration::from_millis(50));
    line.hold(false);
    until("the late node knows who owns the queue", async || {
        match late.call("GET", &path, &Body::None).await {
            Heard::Answer(200, view) => {
                assert_eq!(view["node"], "a", "answered from what it knew before: {view}");
                Some(())
            }
            Heard::Answer(status, json) => panic!("{status} {json}"),
            Heard::NotNow(_) | Heard::Nothing(_) => None,
        }
    })
    .await;
    line.delay(Duration::ZERO);
    nodes.stop().await;
}
