//! What this project exists against: the unlocked read-modify-write of one progress blob, on real PostgreSQL.
//!
//! Owns: the reproduction of the loss. Never: uses the store. Invariant: none; it shows what happens without one.

use crate::cluster;
use std::sync::Arc;
use tokio::sync::Barrier;

const WRITERS: i64 = 16;
const INCREMENTS: i64 = 25;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fm01_naive_read_modify_write_loses_counts() {
    let url = cluster::fresh_database().await;
    let setup = cluster::connect(&url).await;
    setup
        .batch_execute(r#"CREATE TABLE blob (progress jsonb NOT NULL); INSERT INTO blob VALUES ('{"done": 0}')"#)
        .await
        .unwrap();
    // All writers read before any writes in each round, as handlers that overlap do; only then is the loss certain.
    let round = Arc::new(Barrier::new(WRITERS as usize));
    let mut writers = Vec::new();
    for _ in 0..WRITERS {
        let (url, round) = (url.clone(), round.clone());
        writers.push(tokio::spawn(async move {
            let db = cluster::connect(&url).await;
            for _ in 0..INCREMENTS {
                let row = db.query_one("SELECT progress::text FROM blob", &[]).await.unwrap();
                let mut progress: serde_json::Value = serde_json::from_str(row.get(0)).unwrap();
                progress["done"] = (progress["done"].as_i64().unwrap() + 1).into();
                round.wait().await;
                db.execute("UPDATE blob SET progress = $1::text::jsonb", &[&progress.to_string()])
                    .await
                    .unwrap();
                round.wait().await;
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let row = setup
        .query_one("SELECT (progress->>'done')::bigint FROM blob", &[])
        .await
        .unwrap();
    let done: i64 = row.get(0);
    assert_eq!(done, INCREMENTS, "each round of {WRITERS} increments counts once");
}
