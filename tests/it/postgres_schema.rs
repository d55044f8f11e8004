//! Migrations and what the schema itself guarantees.
//!
//! Owns: the tests of versions, constraints, trigger and views. Never: goes through the store where plain SQL shows more. Invariant: none
//! of its own.

use crate::cluster;
use crate::conformance::fixture::*;
use futures_util::future::join_all;
use std::sync::Arc;
use tallykeeper::domain::state::{self, State};
use tallykeeper::store::postgres::{Postgres, Settings};
use tallykeeper::store::{NodeStore, StoreError};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_start_together_migrate_once() {
    let url = cluster::shared().empty_database().await;
    let stores = join_all((0..4).map(|_| Postgres::connect(&url, Settings::default()))).await;
    let ran = join_all(stores.iter().map(|store| store.as_ref().unwrap().migrate())).await;
    let mut ran: Vec<u32> = ran.into_iter().map(Result::unwrap).collect();
    ran.sort_unstable();
    assert!(ran[..3] == [0, 0, 0] && ran[3] > 0, "{ran:?}");
}

#[tokio::test]
async fn a_newer_schema_is_used_unless_it_says_that_it_must_not_be() {
    let url = cluster::fresh_database().await;
    let db = cluster::connect(&url).await;
    db.batch_execute(
        "INSERT INTO refinery_schema_history SELECT 999, 'later', applied_on, checksum FROM refinery_schema_history LIMIT 1",
    )
    .await
    .unwrap();
    let store = Postgres::connect(&url, Settings::default()).await.unwrap();
    assert_eq!(
        store.migrate().await.unwrap(),
        0,
        "a node of the next version has been here"
    );
    for broken in [
        "UPDATE cluster SET value = '998' WHERE name = 'oldest_schema_known'",
        "DELETE FROM cluster WHERE name = 'oldest_schema_known'",
        "DROP TABLE cluster",
    ] {
        db.batch_execute(broken).await.unwrap();
        match store.migrate().await {
            Err(StoreError::Corrupt(why)) => {
                assert!(why.contains("version 999") && why.contains("newer program"), "{why}");
            }
            other => panic!("{broken}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_url_that_cannot_work_says_why_without_its_password() {
    for (url, retryable) in [
        ("postgres://u:hunter2@/db?sslmode=perhaps", false),
        ("postgres://u:hunter2@/db?host=/nowhere/at/all", true),
    ] {
        let Err(why) = Postgres::connect(url, Settings::default()).await else {
            panic!("{url} works");
        };
        assert_eq!(why.is_retryable(), retryable, "{why}");
        assert!(!why.to_string().contains("hunter2"), "{why}");
    }
}

#[tokio::test]
async fn tls_that_is_required_is_never_done_without() {
    let url = cluster::fresh_database().await;
    let refused = Postgres::connect(&format!("{url}&sslmode=require"), Settings::default()).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))));
}

#[tokio::test]
async fn fm02_a_stale_whole_row_save_cannot_bring_a_job_back() {
    let url = cluster::fresh_database().await;
    let store: AnyStore = Arc::new(Postgres::connect(&url, Settings::default()).await.unwrap());
    let db = cluster::connect(&url).await;
    for from in state::FINAL {
        let (record, fence) = running(&store, "q", 1).await;
        commit(&store, with_update(record.id, fence, update(&record, from, 1))).await;
        let save = "UPDATE jobs SET state = $2, name = 'stale' WHERE id = $1";
        for to in state::ALL.into_iter().filter(|to| *to != from) {
            let refused = db.execute(save, &[&record.id.0, &to.as_str()]).await.unwrap_err();
            assert_eq!(refused.code().unwrap().code(), "TK001", "{from} -> {to}");
        }
        // Anything but the state may change, and a larger run may change the state.
        db.execute("UPDATE jobs SET priority = 1 WHERE id = $1", &[&record.id.0])
            .await
            .unwrap();
        let next_run = "UPDATE jobs SET state = 'running', run = run + 1 WHERE id = $1";
        assert_eq!(db.execute(next_run, &[&record.id.0]).await.unwrap(), 1);
    }
}

#[tokio::test]
async fn an_unknown_state_cannot_be_stored() {
    let url = cluster::fresh_database().await;
    let store: AnyStore = Arc::new(Postgres::connect(&url, Settings::default()).await.unwrap());
    let record = create(&store, &job("q")).await;
    let db = cluster::connect(&url).await;
    let refused = db
        .execute("UPDATE jobs SET state = 'started' WHERE id = $1", &[&record.id.0])
        .await;
    assert_eq!(refused.unwrap_err().code().unwrap().code(), "23514");
}

#[tokio::test]
async fn the_results_view_offers_jsonb() {
    let url = cluster::fresh_database().await;
    let store: AnyStore = Arc::new(Postgres::connect(&url, Settings::default()).await.unwrap());
    let (record, fence) = running(&store, "q", 2).await;
    commit(&store, with_outcomes(record.id, fence, vec![success(0, 41)])).await;
    commit(&store, with_late(record.id, fence, vec![success(1, 42)])).await;
    let db = cluster::connect(&url).await;
    let sql = "SELECT (result->'seq')::int + (counters->>'n')::int, late FROM results WHERE job = $1 ORDER BY task";
    let rows = db.query(sql, &[&record.id.0]).await.unwrap();
    let read: Vec<(i32, bool)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(read, [(82, false), (84, true)]);
}

#[tokio::test]
async fn fm56_a_job_that_ends_has_one_completion_event_per_run() {
    let url = cluster::fresh_database().await;
    let store: AnyStore = Arc::new(Postgres::connect(&url, Settings::default()).await.unwrap());
    let (record, fence) = running(&store, "q", 1).await;
    let pause = with_update(record.id, fence, update(&record, State::Paused, 1));
    commit(&store, pause).await;
    let end = with_update(record.id, fence, update(&record, State::Failed, 2));
    commit(&store, end.clone()).await;
    commit(&store, end).await;
    // One that loses writes none.
    let loser = with_update(record.id, fence, update(&record, State::Canceled, 3));
    store.commit(&[loser]).await.unwrap();
    commit(&store, with_update(record.id, fence, retry(&record, 1, 2, 4))).await;
    let second = reread(&store, record.id).await;
    commit(
        &store,
        with_update(record.id, fence, update(&second, State::Succeeded, 5)),
    )
    .await;
    let mut empty = job("q");
    empty.state = State::Succeeded;
    let empty = create(&store, &empty).await;
    let db = cluster::connect(&url).await;
    let sql = "SELECT id, job, run, kind, payload::jsonb->'data'->>'state', delivered_at FROM events ORDER BY created_at, job, run";
    let mut read: Vec<(String, i64, i32, String, String)> = Vec::new();
    for row in db.query(sql, &[]).await.unwrap() {
        assert_eq!(row.get::<_, Option<i64>>(5), None);
        read.push((row.get(0), row.get(1), row.get(2), row.get(3), row.get(4)));
    }
    let event = |job: i64, run: i32, state: &str| {
        (
            format!("job-{job}-run-{run}-{:x}", THEN.0),
            job,
            run,
            "job.completed".to_owned(),
            state.to_owned(),
        )
    };
    read.sort_by_key(|(_, job, run, ..)| (*job, *run));
    assert_eq!(
        read,
        [
            event(record.id.0, 1, "failed"),
            event(record.id.0, 2, "succeeded"),
            event(empty.id.0, 1, "succeeded")
        ]
    );
}
