//! Appending tasks.
//!
//! Owns: the tests of `append_tasks`. Never: creates a job with tasks of its own. Invariant: none of its own.

use super::fixture::*;
use futures_util::future::join_all;
use tallykeeper::domain::ids::{JobId, TaskNo};
use tallykeeper::store::{Appended, StoreError};

/// Key and payload of every task.
async fn stored(store: &AnyStore, job: JobId) -> Vec<(Option<String>, String)> {
    let numbers: Vec<TaskNo> = (0..100).map(TaskNo).collect();
    let rows = store.tasks(job, &numbers, usize::MAX).await.unwrap();
    for (place, row) in rows.iter().enumerate() {
        assert_eq!(row.task.0 as usize, place, "numbers are dense");
    }
    rows.into_iter().map(|row| (row.key, row.payload.to_string())).collect()
}

fn payloads(rows: &[(Option<String>, String)]) -> Vec<&str> {
    rows.iter().map(|(_, payload)| payload.as_str()).collect()
}

pub(super) async fn tasks_are_numbered_densely_in_order(store: AnyStore) {
    let (record, fence) = running(&store, "q", 2).await;
    let added = store.append_tasks(record.id, fence, 2, &tasks(3)).await.unwrap();
    assert_eq!(added, Appended::Done { added: 3, existing: 0 });
    let keyed = [task(Some("x"), "10"), task(None, "11")];
    let added = store.append_tasks(record.id, fence, 5, &keyed).await.unwrap();
    assert_eq!(added, Appended::Done { added: 2, existing: 0 });
    assert_eq!(
        payloads(&stored(&store, record.id).await),
        ["0", "1", "0", "1", "2", "10", "11"]
    );
    assert_eq!(reread(&store, record.id).await.tally.total, 7);
}

pub(super) async fn duplicates_in_the_chunk_and_in_the_job_are_dropped(store: AnyStore) {
    let (record, fence) = running(&store, "q", 0).await;
    let first = [
        task(Some("a"), "1"),
        task(Some("b"), "2"),
        task(Some("a"), "3"),
        task(None, "4"),
    ];
    let added = store.append_tasks(record.id, fence, 0, &first).await.unwrap();
    assert_eq!(added, Appended::Done { added: 3, existing: 1 });
    let second = [
        task(Some("c"), "5"),
        task(Some("b"), "6"),
        task(None, "7"),
        task(Some("d"), "8"),
        task(Some("c"), "9"),
    ];
    let added = store.append_tasks(record.id, fence, 3, &second).await.unwrap();
    assert_eq!(added, Appended::Done { added: 3, existing: 2 });
    let rows = stored(&store, record.id).await;
    assert_eq!(payloads(&rows), ["1", "2", "4", "5", "7", "8"]);
    assert_eq!(rows[3].0.as_deref(), Some("c"));
}

pub(super) async fn a_chunk_of_known_keys_adds_nothing(store: AnyStore) {
    let (record, fence) = running(&store, "q", 0).await;
    let chunk = [task(Some("a"), "1"), task(Some("b"), "2")];
    store.append_tasks(record.id, fence, 0, &chunk).await.unwrap();
    let again = store.append_tasks(record.id, fence, 2, &chunk).await.unwrap();
    assert_eq!(again, Appended::Done { added: 0, existing: 2 });
    let none = store.append_tasks(record.id, fence, 2, &[]).await.unwrap();
    assert_eq!(none, Appended::Done { added: 0, existing: 0 });
    // An upload that was interrupted repeats its chunk and learns where to go on.
    let repeated = store.append_tasks(record.id, fence, 0, &chunk).await.unwrap();
    assert_eq!(repeated, Appended::WrongFirstTask { total: 2 });
}

pub(super) async fn a_wrong_first_task_writes_nothing(store: AnyStore) {
    let (record, fence) = running(&store, "q", 2).await;
    for wrong in [0, 1, 3] {
        for chunk in [vec![task(None, "x")], vec![task(Some("k"), "x")]] {
            let refused = store.append_tasks(record.id, fence, wrong, &chunk).await.unwrap();
            assert_eq!(refused, Appended::WrongFirstTask { total: 2 });
        }
    }
    assert_eq!(stored(&store, record.id).await.len(), 2);
    assert_eq!(reread(&store, record.id).await.tally.total, 2);
}

pub(super) async fn concurrent_appends_let_one_through(store: AnyStore) {
    let (record, fence) = running(&store, "q", 0).await;
    let chunks: Vec<_> = (0..4)
        .map(|n| vec![task(Some(&format!("k{n}")), "1"), task(Some("same"), "2")])
        .collect();
    let answers = join_all(
        chunks
            .iter()
            .map(|chunk| store.append_tasks(record.id, fence, 0, chunk)),
    )
    .await;
    let answers: Vec<Appended> = answers.into_iter().map(Result::unwrap).collect();
    let done = answers
        .iter()
        .filter(|a| **a == Appended::Done { added: 2, existing: 0 })
        .count();
    let wrong = answers
        .iter()
        .filter(|a| **a == Appended::WrongFirstTask { total: 2 })
        .count();
    assert_eq!((done, wrong), (1, 3), "{answers:?}");
    assert_eq!(stored(&store, record.id).await.len(), 2);
}

pub(super) async fn fm55_an_append_without_ownership_is_fenced(store: AnyStore) {
    let (record, fence) = running(&store, "q", 1).await;
    let refused = store.append_tasks(record.id, stale(fence), 1, &tasks(2)).await;
    assert!(matches!(refused, Err(StoreError::Fenced(_))), "{refused:?}");
    assert_eq!(stored(&store, record.id).await.len(), 1);
    assert_eq!(reread(&store, record.id).await.tally.total, 1);
}

pub(super) async fn appending_to_no_job_is_not_found(store: AnyStore) {
    let fence = own(&store, "q").await;
    let refused = store.append_tasks(JobId(404), fence, 0, &tasks(1)).await;
    assert!(matches!(refused, Err(StoreError::NotFound(_))), "{refused:?}");
}
