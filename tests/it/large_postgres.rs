//! Large results in PostgreSQL: the sweep beside open transactions, and the view.
//!
//! Owns: what only a second session can do. Never: repeats the contract. Invariant: none of its own.

use crate::cluster;
use crate::conformance::fixture::*;
use std::sync::Arc;
use tallykeeper::domain::ids::{BlobId, JobId, UnixMs};
use tallykeeper::domain::rows::{Kept, OutcomeRow};
use tallykeeper::store::StoreError;
use tallykeeper::store::postgres::{Postgres, Settings};

async fn fresh() -> (String, AnyStore) {
    let url = cluster::fresh_database().await;
    let store = Postgres::connect(&url, Settings::default()).await.unwrap();
    (url, Arc::new(store))
}

async fn blob(store: &AnyStore, job: JobId, pieces: &[&str]) -> BlobId {
    let blob = store.open_blob(job, 9, THEN).await.unwrap();
    for (place, piece) in (0..).zip(pieces) {
        store.write_piece(blob, place, piece).await.unwrap();
    }
    blob
}

fn refers(row: OutcomeRow, blob: BlobId) -> OutcomeRow {
    OutcomeRow {
        result: Some(Kept::Blob(blob)),
        ..row
    }
}

/// Returns when so many sessions wait for a lock. Asks on a connection of its own: within a transaction the answer never changes.
async fn sessions_wait(url: &str, wanted: i64) {
    let db = cluster::connect(url).await;
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while db.query_one(waits, &[]).await.unwrap().get::<_, i64>(0) < wanted {
        tokio::task::yield_now().await;
    }
}

const LATER: UnixMs = UnixMs(THEN.0 + 1);

#[tokio::test]
async fn fm36_a_sweep_passes_over_a_blob_that_a_commit_under_way_refers_to() {
    let (url, store) = fresh().await;
    let (record, _) = running(&store, "q", 1).await;
    let id = blob(&store, record.id, &["1"]).await;
    let db = cluster::connect(&url).await;
    let claim = "UPDATE blobs SET referenced = true WHERE id = $1 AND NOT given_up";
    db.batch_execute("BEGIN").await.unwrap();
    assert_eq!(db.execute(claim, &[&id.0]).await.unwrap(), 1);
    assert!(
        !store.sweep_blobs(LATER, 10).await.unwrap(),
        "it neither waits nor takes it"
    );
    db.batch_execute("COMMIT").await.unwrap();
    assert!(!store.sweep_blobs(LATER, 10).await.unwrap());
    assert!(store.blob_piece(id, 0).await.unwrap().is_some());
}

#[tokio::test]
async fn a_piece_is_not_written_into_a_blob_that_is_being_given_up() {
    let (url, store) = fresh().await;
    let (record, _) = running(&store, "q", 1).await;
    let id = blob(&store, record.id, &["1"]).await;
    let db = cluster::connect(&url).await;
    db.batch_execute("BEGIN").await.unwrap();
    db.execute("UPDATE blobs SET given_up = true WHERE id = $1", &[&id.0])
        .await
        .unwrap();
    let writing = {
        let store = store.clone();
        tokio::spawn(async move { store.write_piece(id, 1, "2").await })
    };
    // It waits for the row before it looks at it.
    sessions_wait(&url, 1).await;
    db.batch_execute("COMMIT").await.unwrap();
    let written = writing.await.unwrap();
    assert!(matches!(written, Err(StoreError::NotFound(_))), "{written:?}");
    while store.sweep_blobs(LATER, 10).await.unwrap() {}
    let left = db.query_one("SELECT count(*) FROM blob_pieces", &[]).await.unwrap();
    assert_eq!(left.get::<_, i64>(0), 0);
}

#[tokio::test]
async fn the_view_offers_large_results_as_jsonb_like_any_other() {
    let (url, store) = fresh().await;
    let (record, fence) = running(&store, "q", 3).await;
    let id = blob(&store, record.id, &["{\"a\" :", " [1, 2]", "}"]).await;
    let rows = vec![refers(success(0, 1), id), success(1, 2), failure(2, 3)];
    commit(&store, with_outcomes(record.id, fence, rows)).await;
    let db = cluster::connect(&url).await;
    let sql = "SELECT task, (result -> 'a' ->> 1), result IS NULL FROM results WHERE job = $1 ORDER BY task";
    let rows = db.query(sql, &[&record.id.0]).await.unwrap();
    let seen: Vec<(i32, Option<String>, bool)> = rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    assert_eq!(seen, [(0, Some("2".into()), false), (1, None, false), (2, None, true)]);
}

/// Small commits have connections of their own: large results that hang hold none of them up.
#[tokio::test]
async fn commits_do_not_wait_for_large_results() {
    let (url, store) = fresh().await;
    let (record, fence) = running(&store, "q", 1).await;
    let db = cluster::connect(&url).await;
    db.batch_execute("BEGIN; LOCK TABLE blob_pieces IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let hanging: Vec<_> = (0..4)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let blob = store.open_blob(record.id, 1, THEN).await?;
                store.write_piece(blob, 0, "1").await
            })
        })
        .collect();
    sessions_wait(&url, 2).await;
    commit(&store, with_outcomes(record.id, fence, vec![success(0, 1)])).await;
    db.batch_execute("COMMIT").await.unwrap();
    for write in hanging {
        write.await.unwrap().unwrap();
    }
}
