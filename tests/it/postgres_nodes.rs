//! Incarnations of one node id on PostgreSQL: which one lives is known before its lease has run out.
//!
//! Owns: the session lock by which an incarnation lives. Never: waits for a lease; those here outlive every test. Invariant: none of its
//! own.

use crate::cluster::{self, Cluster};
use crate::conformance::fixture::*;
use rustix::process::{Pid, Signal, kill_process};
use std::sync::Arc;
use std::time::Duration;
use tallykeeper::store::postgres::{Postgres, Settings};
use tallykeeper::store::{NodeIdentity, StoreError};

async fn open(url: &str) -> AnyStore {
    Arc::new(Postgres::connect(url, Settings::default()).await.unwrap())
}

/// Registers without force; repeats only while the store does not answer.
async fn register(store: &AnyStore, node: &NodeIdentity) -> Result<(), StoreError> {
    loop {
        match store.register_node(node, false).await {
            Err(StoreError::Unavailable(_)) => tokio::task::yield_now().await,
            answer => return answer,
        }
    }
}

/// An incarnation that is registered and one that comes later, each with a store of its own.
async fn two_incarnations(url: &str) -> [(AnyStore, NodeIdentity); 2] {
    let older = (open(url).await, node("n", "1", ALIVE_S));
    register(&older.0, &older.1).await.unwrap();
    [older, (open(url).await, node("n", "2", ALIVE_S))]
}

/// Registers as soon as the server has noticed that the one before is gone.
async fn register_in_the_end(store: &AnyStore, node: &NodeIdentity) {
    while let Err(why) = register(store, node).await {
        assert!(matches!(why, StoreError::Conflict(_)), "{why}");
        tokio::task::yield_now().await;
    }
}

async fn heartbeat(store: &AnyStore, node: &NodeIdentity) {
    loop {
        match store.heartbeat(node).await {
            Ok(()) => return,
            Err(StoreError::Unavailable(_)) => tokio::task::yield_now().await,
            Err(other) => panic!("{other}"),
        }
    }
}

async fn assert_refused(store: &AnyStore, node: &NodeIdentity) {
    let answer = register(store, node).await;
    assert!(matches!(answer, Err(StoreError::Conflict(_))), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_incarnation_whose_process_is_gone_is_replaced_at_once_and_its_queues_are_taken() {
    let url = cluster::fresh_database().await;
    let [(first, older), (second, newer)] = two_incarnations(&url).await;
    let before = first.take_queues(&older, Some("q")).await.unwrap();
    assert_refused(&second, &newer).await;
    heartbeat(&first, &older).await;
    assert_refused(&second, &newer).await;
    // The end of a process is the end of its connections; the server frees the lock as soon as it has noticed.
    drop(first);
    register_in_the_end(&second, &newer).await;
    let after = second.take_queues(&newer, None).await.unwrap();
    let (before, after) = (fence_of(&before, "q").unwrap(), fence_of(&after, "q").unwrap());
    assert_eq!(after.epoch.0, before.epoch.0 + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_heartbeat_on_a_new_connection_takes_the_lock_again() {
    let url = cluster::fresh_database().await;
    let [(first, older), (second, newer)] = two_incarnations(&url).await;
    let db = cluster::connect(&url).await;
    let lost = "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity \
                WHERE datname = current_database() AND pid <> pg_backend_pid()";
    assert!(db.query_one(lost, &[]).await.unwrap().get::<_, i64>(0) > 0);
    heartbeat(&first, &older).await;
    assert_refused(&second, &newer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_broken_connection_makes_no_incarnation_look_dead() {
    let url = cluster::fresh_database().await;
    let [(first, older), (second, newer)] = two_incarnations(&url).await;
    let db = cluster::connect(&url).await;
    // A session that holds a lock of an incarnation; the newcomer below holds its own, so it is asked before that comes.
    let held = "SELECT l.pid FROM pg_locks l JOIN pg_stat_activity a USING (pid) \
                WHERE l.locktype = 'advisory' AND a.datname = current_database() ORDER BY l.pid";
    let holders = db.query(held, &[]).await.unwrap();
    assert_eq!(holders.len(), 2);
    for holder in holders {
        let ended = "SELECT pg_terminate_backend($1, 10000)";
        assert!(
            db.query_one(ended, &[&holder.get::<_, i32>(0)])
                .await
                .unwrap()
                .get::<_, bool>(0)
        );
        assert_refused(&second, &newer).await;
        heartbeat(&first, &older).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_the_server_makes_nobody_look_dead() {
    let cluster = Cluster::start();
    let url = cluster.fresh_database().await;
    let [(first, older), (second, newer)] = two_incarnations(&url).await;
    cluster.kill();
    cluster.restart();
    // Its lock went with the server; that says nothing about its process.
    assert_refused(&second, &newer).await;
    heartbeat(&first, &older).await;
    assert_refused(&second, &newer).await;
    drop(first);
    register_in_the_end(&second, &newer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm55_of_two_that_find_the_same_dead_incarnation_one_wins() {
    let url = cluster::fresh_database().await;
    for round in 0..10 {
        let dead = node(&format!("n{round}"), "0", ALIVE_S);
        let first = open(&url).await;
        register(&first, &dead).await.unwrap();
        drop(first);
        let mut rivals = Vec::new();
        for incarnation in ["1", "2"] {
            let (url, rival) = (url.clone(), node(&dead.node, incarnation, ALIVE_S));
            rivals.push(tokio::spawn(async move {
                let store = open(&url).await;
                // Either the dead one still looks alive, or the rival is; the row says which.
                loop {
                    match register(&store, &rival).await {
                        Ok(()) => return (store, rival, true),
                        Err(_)
                            if store
                                .list_nodes()
                                .await
                                .unwrap()
                                .iter()
                                .any(|n| n.node == rival.node && n.incarnation != "0") =>
                        {
                            return (store, rival, false);
                        }
                        Err(_) => tokio::task::yield_now().await,
                    }
                }
            }));
        }
        let (first, second) = (
            rivals.pop().unwrap().await.unwrap(),
            rivals.pop().unwrap().await.unwrap(),
        );
        assert!(first.2 ^ second.2, "both or neither registered");
        let (store, winner, _) = if first.2 { first } else { second };
        heartbeat(&store, &winner).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_witness_that_hangs_holds_up_no_heartbeat() {
    let url = cluster::fresh_database().await;
    let patient = Settings {
        statement_timeout: Duration::from_secs(120),
        ..Settings::default()
    };
    let store: AnyStore = Arc::new(Postgres::connect(&url, patient).await.unwrap());
    let node = node("n", "1", ALIVE_S);
    register(&store, &node).await.unwrap();
    heartbeat(&store, &node).await;
    let db = cluster::connect(&url).await;
    // Both sessions hold the lock; the heartbeat's own has said something else since.
    let witness = "SELECT l.pid FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory' \
                   AND a.datname = current_database() AND a.query NOT LIKE 'UPDATE%'";
    let witness = db.query_one(witness, &[]).await.unwrap().get::<_, i32>(0);
    let witness = Pid::from_raw(witness).expect("a process has an id");
    kill_process(witness, Signal::STOP).unwrap();
    // Far less than the statement may take, far more than a heartbeat does.
    let beat = tokio::time::timeout(Duration::from_secs(30), store.heartbeat(&node)).await;
    kill_process(witness, Signal::CONT).unwrap();
    beat.expect("it does not wait for the witness").unwrap();
    // And the next one has a new witness.
    heartbeat(&store, &node).await;
}
