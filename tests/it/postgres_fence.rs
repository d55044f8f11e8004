//! The fence on real transactions, where only PostgreSQL has several at once.
//!
//! Owns: the proof that a take-over and old writers serialise. Never: waits for time to pass; it watches the locks. Invariant: none of
//! its own.

use crate::cluster;
use crate::conformance::fixture::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tallykeeper::domain::ids::{Seq, TaskNo};
use tallykeeper::domain::job::{Fence, JobRecord};
use tallykeeper::domain::state::State;
use tallykeeper::store::BatchAnswer::{Blocked, Committed, Fenced};
use tallykeeper::store::postgres::{LOCK_NAMESPACE, Postgres, Settings};
use tallykeeper::store::{SnapshotRow, StoreError};
use tokio_postgres::Client;

/// The store's own statement, so that the test cannot drift from it.
const TRY_LOCK: &str = include_str!("../../src/store/postgres/queries/queues/try_lock.sql");
const WRITERS: usize = 4;

async fn open(url: &str, settings: Settings) -> AnyStore {
    Arc::new(Postgres::connect(url, settings).await.unwrap())
}

/// A database and its store, with a running job and the fence of the owner that is about to lose it.
async fn old_and_new() -> (String, AnyStore, JobRecord, Fence) {
    let url = cluster::fresh_database().await;
    let store = open(&url, Settings::default()).await;
    let (record, fence) = running(&store, "q", 1000).await;
    (url, store, record, fence)
}

/// Begins a transaction of the old owner that has proven ownership and written, but not ended.
async fn hold(db: &Client, fence: Fence, job: i64) {
    db.batch_execute("BEGIN").await.unwrap();
    let row = db
        .query_one(TRY_LOCK, &[&LOCK_NAMESPACE, &vec![fence.queue.0]])
        .await
        .unwrap();
    assert!(row.get::<_, bool>("locked"));
    db.execute(
        "INSERT INTO outcomes (job, run, task, succeeded, attempt, seq, worker, at) VALUES ($1, 1, 0, true, 1, 1, 'old', 0)",
        &[&job],
    )
    .await
    .unwrap();
}

async fn epoch(db: &Client, fence: Fence) -> i64 {
    let sql = "SELECT epoch FROM queue_owner WHERE queue_id = $1";
    db.query_one(sql, &[&fence.queue.0]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm55_a_take_over_waits_for_the_old_owners_transaction() {
    let (url, store, record, old) = old_and_new().await;
    let (zombie, watcher) = (cluster::connect(&url).await, cluster::connect(&url).await);
    hold(&zombie, old, record.id.0).await;
    let successor = registered(&store, "home", "home-2", ALIVE_S).await;
    let taking = tokio::spawn({
        let store = store.clone();
        async move { store.take_queues(&successor, None).await }
    });
    cluster::somebody_waits(&watcher).await;
    assert!(
        !taking.is_finished(),
        "the take-over overtook a transaction of the old owner"
    );
    assert_eq!(epoch(&watcher, old).await, old.epoch.0);
    // No further transaction of the old owner gets in front of the take-over, though the epoch is still the old one.
    let write = |seq| with_outcomes(record.id, old, vec![success(2, seq)]);
    // Nor is it told that it lost the queue: it would load the job again under the old epoch, without what the first one has yet to commit.
    assert_eq!(store.commit(&[write(2)]).await.unwrap(), [Blocked]);
    let snapshot = SnapshotRow {
        job: record.id,
        fence: old,
        seq: Seq(0),
        version: 1,
        bytes: Vec::new(),
    };
    assert_eq!(store.save_snapshots(&[snapshot]).await.unwrap(), [Blocked]);
    let appended = store.append_tasks(record.id, old, 1000, &tasks(1)).await;
    assert!(matches!(appended, Err(StoreError::Unavailable(_))), "{appended:?}");
    zombie.batch_execute("COMMIT").await.unwrap();
    let taken = taking.await.unwrap().unwrap();
    assert_eq!(fence_of(&taken, "q").unwrap().epoch.0, old.epoch.0 + 1);
    assert_eq!(
        seqs(&store, record.id).await,
        [1],
        "whoever loads after the take-over sees what the old owner wrote"
    );
    assert_eq!(store.commit(&[write(3)]).await.unwrap(), [Fenced]);
    assert_eq!(seqs(&store, record.id).await, [1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stuck_owner_makes_a_take_over_unavailable_and_keeps_no_other_queue_waiting() {
    let (url, store, record, old) = old_and_new().await;
    own(&store, "free").await;
    let zombie = cluster::connect(&url).await;
    hold(&zombie, old, record.id.0).await;
    let impatient = Settings {
        lock_timeout: Duration::from_millis(200),
        ..Settings::default()
    };
    let second = open(&url, impatient).await;
    let successor = registered(&second, "home", "home-2", ALIVE_S).await;
    let taken = second.take_queues(&successor, None).await.unwrap();
    assert!(
        fence_of(&taken, "free").is_some() && fence_of(&taken, "q").is_none(),
        "{taken:?}"
    );
    let named = second.take_queues(&successor, Some("q")).await;
    assert!(matches!(named, Err(StoreError::Unavailable(_))), "{named:?}");
    zombie.batch_execute("ROLLBACK").await.unwrap();
    let taken = second.take_queues(&successor, Some("q")).await.unwrap();
    assert!(fence_of(&taken, "q").is_some());
}

/// Old writers commit one row after the other until they are fenced; whoever takes over must see every row there will ever be.
async fn writers_race_a_take_over(url: &str) {
    let store = open(url, Settings::default()).await;
    let (record, old) = running(&store, "q", 1000).await;
    let written = Arc::new(AtomicI64::new(0));
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| {
            let (store, written) = (store.clone(), written.clone());
            tokio::spawn(async move {
                loop {
                    let seq = written.fetch_add(1, Ordering::Relaxed) + 1;
                    let batch = with_outcomes(record.id, old, vec![success(seq as u32, seq)]);
                    match store.commit(&[batch]).await.unwrap()[0] {
                        Committed => {}
                        Fenced => return,
                        Blocked => tokio::task::yield_now().await,
                    }
                }
            })
        })
        .collect();
    while written.load(Ordering::Relaxed) < 50 {
        tokio::task::yield_now().await;
    }
    let successor = registered(&store, "home", "home-2", ALIVE_S).await;
    store.take_queues(&successor, Some("q")).await.unwrap();
    let seen = seqs(&store, record.id).await;
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(seqs(&store, record.id).await, seen);
    assert!(!seen.is_empty(), "the writers never wrote");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fm55_nothing_is_written_under_the_old_epoch_after_a_take_over() {
    for _ in 0..5 {
        writers_race_a_take_over(&cluster::fresh_database().await).await;
    }
}

/// In any stricter isolation the guard would be a serialization failure instead of an answer, and the epoch that is read would be as old
/// as the transaction.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fm55_the_databases_default_isolation_does_not_weaken_the_fence() {
    let url = cluster::fresh_database().await;
    let admin = cluster::connect(&url).await;
    let name = admin.query_one("SELECT current_database()", &[]).await.unwrap();
    let sql = format!(
        "ALTER DATABASE {} SET default_transaction_isolation = 'serializable'",
        name.get::<_, &str>(0)
    );
    admin.batch_execute(&sql).await.unwrap();
    writers_race_a_take_over(&url).await;
    let store = open(&url, Settings::default()).await;
    let (record, fence) = running(&store, "p", 1).await;
    admin
        .batch_execute("BEGIN; UPDATE jobs SET state = 'canceled' WHERE queue = 'p'")
        .await
        .unwrap();
    let pause = [with_update(record.id, fence, update(&record, State::Paused, 1))];
    assert_eq!(store.commit(&pause).await.unwrap(), [Blocked]);
    admin.batch_execute("COMMIT").await.unwrap();
    assert_eq!(store.commit(&pause).await.unwrap(), [Fenced]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_reads_nor_heartbeats_wait_for_writers() {
    let url = cluster::fresh_database().await;
    let one_writer = Settings {
        commit_lanes: 1,
        spare_writers: 0,
        ..Settings::default()
    };
    let store = open(&url, one_writer).await;
    let (record, fence) = running(&store, "q", 1).await;
    let (blocker, watcher) = (cluster::connect(&url).await, cluster::connect(&url).await);
    blocker
        .batch_execute(
            "BEGIN; UPDATE jobs SET state = 'paused'; UPDATE tasks SET payload = 'x'; LOCK outcomes IN EXCLUSIVE MODE",
        )
        .await
        .unwrap();
    let stuck = tokio::spawn({
        let store = store.clone();
        let write = with_outcomes(record.id, fence, vec![success(0, 1)]);
        async move { store.commit(&[write]).await }
    });
    cluster::somebody_waits(&watcher).await;
    assert_eq!(reread(&store, record.id).await, record);
    assert_eq!(seqs(&store, record.id).await, [0i64; 0]);
    assert_eq!(first_run(&store, record.id).await, []);
    let rows = store.tasks(record.id, &[TaskNo(0)], usize::MAX).await.unwrap();
    assert_eq!(&*rows[0].payload, "0");
    store.heartbeat(&node("home", "home-1", ALIVE_S)).await.unwrap();
    store.clock().await.unwrap();
    assert!(!stuck.is_finished());
    blocker.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(stuck.await.unwrap().unwrap(), [Committed]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_results_are_kept_out_by_a_retry_of_their_job_that_is_under_way() {
    let (url, store, record, fence) = old_and_new().await;
    commit(
        &store,
        with_update(record.id, fence, update(&record, State::Canceled, 1)),
    )
    .await;
    let retrying = cluster::connect(&url).await;
    retrying
        .batch_execute("BEGIN; UPDATE jobs SET state = 'running', run = 2")
        .await
        .unwrap();
    let late = [with_late(record.id, fence, vec![success(0, 2)])];
    assert_eq!(store.commit(&late).await.unwrap(), [Blocked]);
    assert!(seqs(&store, record.id).await.is_empty());
    retrying.batch_execute("COMMIT").await.unwrap();
    assert_eq!(store.commit(&late).await.unwrap(), [Committed]);
    assert_eq!(seqs(&store, record.id).await, [2]);
}
