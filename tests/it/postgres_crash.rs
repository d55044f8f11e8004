//! PostgreSQL killed, restarted, stuck; callers that go away half-way.
//!
//! Owns: what the store does about each. Never: shuts the server down politely. Invariant: none of its own.

use crate::cluster::{self, Cluster};
use crate::conformance::fixture::*;
use std::sync::Arc;
use std::time::Duration;
use tallykeeper::domain::job::JobRecord;
use tallykeeper::domain::state::State;
use tallykeeper::store::postgres::{Postgres, Settings};
use tallykeeper::store::{BatchAnswer, StoreError};

async fn open(url: &str, settings: Settings) -> AnyStore {
    Arc::new(Postgres::connect(url, settings).await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm15_what_was_acknowledged_survives_kill_9_and_the_store_recovers_by_itself() {
    let cluster = Arc::new(Cluster::start());
    let store = open(&cluster.fresh_database().await, Settings::default()).await;
    let (record, fence) = running(&store, "q", 100_000).await;
    // Commits go on until the server is gone; the last one may or may not have been written.
    let (halfway, reached) = tokio::sync::oneshot::channel();
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            let mut halfway = Some(halfway);
            for seq in 1.. {
                let batch = with_outcomes(record.id, fence, vec![success(seq as u32, seq)]);
                match store.commit(&[batch]).await {
                    Ok(answers) => assert_eq!(answers, [BatchAnswer::Committed]),
                    Err(StoreError::Unavailable(_)) => return seq,
                    Err(other) => panic!("{other}"),
                }
                if seq == 20 {
                    halfway.take().expect("reached once").send(()).expect("somebody waits");
                }
            }
            unreachable!("the server is killed")
        }
    });
    reached.await.unwrap();
    cluster.kill();
    let unknown = writer.await.unwrap();
    let down = store.clock().await;
    assert!(matches!(down, Err(StoreError::Unavailable(_))), "{down:?}");
    cluster.restart();
    // Connections that died with the server are replaced one by one as they are met.
    let seen = loop {
        match store.facts(record.id, tallykeeper::domain::ids::Seq(0), 100_000).await {
            Ok(facts) => break facts.len() as i64,
            Err(StoreError::Unavailable(_)) => tokio::task::yield_now().await,
            Err(other) => panic!("{other}"),
        }
    };
    assert!(seen == unknown - 1 || seen == unknown, "{seen} of {unknown}");
    // The batch whose fate is unknown is replayed; whichever it was, it counts once now.
    commit(
        &store,
        with_outcomes(record.id, fence, vec![success(unknown as u32, unknown)]),
    )
    .await;
    assert_eq!(seqs(&store, record.id).await, Vec::from_iter(1..=unknown));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_goes_away_leaves_no_transaction_open() {
    let url = cluster::fresh_database().await;
    let one_writer = Settings {
        commit_lanes: 1,
        spare_writers: 0,
        ..Settings::default()
    };
    let store = open(&url, one_writer).await;
    let (record, fence) = running(&store, "q", 1).await;
    let blocker = cluster::connect(&url).await;
    let watcher = cluster::connect(&url).await;
    blocker
        .batch_execute("BEGIN; LOCK TABLE jobs IN SHARE MODE")
        .await
        .unwrap();
    let stuck = tokio::spawn({
        let store = store.clone();
        let batch = with_update(record.id, fence, update(&record, State::Paused, 1));
        async move { store.commit(&[batch]).await }
    });
    cluster::somebody_waits(&watcher).await;
    stuck.abort();
    assert!(stuck.await.unwrap_err().is_cancelled());
    blocker.batch_execute("COMMIT").await.unwrap();
    // The only writer's connection went with the caller; a new one works, and nothing of the old call is left or was written.
    commit(&store, with_outcomes(record.id, fence, vec![success(0, 2)])).await;
    let open = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'";
    while watcher.query_one(open, &[]).await.unwrap().get::<_, i64>(0) > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(reread(&store, record.id).await, record);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm42_a_statement_that_waits_too_long_is_unavailable_and_the_connection_works_on() {
    let url = cluster::fresh_database().await;
    let impatient = Settings {
        commit_lanes: 1,
        spare_writers: 0,
        lock_timeout: Duration::from_millis(100),
        ..Settings::default()
    };
    let store = open(&url, impatient).await;
    let (record, fence) = running(&store, "q", 1).await;
    let blocker = cluster::connect(&url).await;
    blocker
        .batch_execute("BEGIN; LOCK TABLE jobs IN SHARE MODE")
        .await
        .unwrap();
    let pause = with_update(record.id, fence, update(&record, State::Paused, 1));
    let waited = store.commit(std::slice::from_ref(&pause)).await;
    assert!(matches!(waited, Err(StoreError::Unavailable(_))), "{waited:?}");
    blocker.batch_execute("COMMIT").await.unwrap();
    commit(&store, pause).await;
    assert_eq!(reread(&store, record.id).await.state, State::Paused);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm44_a_locked_row_holds_up_only_its_own_job() {
    let url = cluster::fresh_database().await;
    let store = open(&url, Settings::default()).await;
    let (locked, fence) = running(&store, "q", 1).await;
    let (free, _) = running(&store, "q", 1).await;
    let blocker = cluster::connect(&url).await;
    let lock = format!("BEGIN; SELECT FROM jobs WHERE id = {} FOR UPDATE", locked.id);
    blocker.batch_execute(&lock).await.unwrap();
    let pause = |record: &JobRecord| {
        let mut batch = with_update(record.id, fence, update(record, State::Paused, 2));
        batch.outcomes = vec![success(0, 1)];
        batch
    };
    let group = [pause(&locked), pause(&free)];
    let answers = store.commit(&group).await.unwrap();
    assert_eq!(answers, [BatchAnswer::Blocked, BatchAnswer::Committed]);
    assert!(
        seqs(&store, locked.id).await.is_empty(),
        "nothing of a blocked job is written"
    );
    blocker.batch_execute("COMMIT").await.unwrap();
    // The identical group: what is committed already stays so.
    assert_eq!(store.commit(&group).await.unwrap(), [BatchAnswer::Committed; 2]);
    assert_eq!(reread(&store, locked.id).await.state, State::Paused);
    assert_eq!(seqs(&store, free.id).await, [1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm42_a_server_that_hangs_is_unavailable() {
    let cluster = Cluster::start();
    let impatient = Settings {
        statement_timeout: Duration::from_millis(100),
        connect_timeout: Duration::from_millis(200),
        ..Settings::default()
    };
    let url = cluster.fresh_database().await;
    let store = open(&url, impatient).await;
    let (record, fence) = running(&store, "q", 1).await;
    // Stopped, the server takes what is sent and answers nothing: only the client's own clock can end the wait.
    cluster.freeze();
    let batches = [with_outcomes(record.id, fence, vec![success(0, 1)])];
    let hanging = tokio::time::timeout(Duration::from_secs(20), store.commit(&batches)).await;
    // Before anything can panic: a frozen server could not be stopped.
    cluster.thaw();
    let hanging = hanging.expect("every wait is bounded");
    assert!(matches!(hanging, Err(StoreError::Unavailable(_))), "{hanging:?}");
    commit(&store, with_outcomes(record.id, fence, vec![success(0, 1)])).await;
    assert_eq!(seqs(&store, record.id).await, [1]);
}
