//! Large results: pieces, references, and what nobody refers to.
//!
//! Owns: the tests of `BlobStore` and of references to blobs. Never: depends on how large a piece is. Invariant: none of its own.

use super::fixture::*;
use tallykeeper::domain::ids::{BlobId, JobId, TaskNo, UnixMs};
use tallykeeper::domain::job::Fence;
use tallykeeper::domain::rows::{Kept, OutcomeRow};
use tallykeeper::domain::state::State;
use tallykeeper::store::{BatchAnswer, BlobRef, ResultFilter, StoreError};

/// A blob of these pieces.
async fn blob(store: &AnyStore, job: JobId, pieces: &[&str]) -> BlobId {
    let bytes = pieces.iter().map(|piece| piece.len() as u64).sum();
    let blob = store.open_blob(job, bytes, THEN).await.expect("opening a blob");
    for (place, piece) in (0..).zip(pieces) {
        store.write_piece(blob, place, piece).await.expect("writing a piece");
    }
    blob
}

fn refers(row: OutcomeRow, blob: BlobId) -> OutcomeRow {
    OutcomeRow {
        result: Some(Kept::Blob(blob)),
        ..row
    }
}

async fn text(store: &AnyStore, blob: BlobId) -> Option<String> {
    let mut text = String::new();
    for place in 0.. {
        match store.blob_piece(blob, place).await.expect("reading a piece") {
            Some(piece) => text += &piece,
            None => break,
        }
    }
    (!text.is_empty()).then_some(text)
}

/// Sweeps until there is nothing left of what was begun before `before`.
async fn sweep(store: &AnyStore, before: UnixMs) {
    while store.sweep_blobs(before, 1).await.expect("a sweep") {}
}

const LATER: UnixMs = UnixMs(THEN.0 + 1);

pub(super) async fn a_blob_reads_back_piece_by_piece(store: AnyStore) {
    let (record, _) = running(&store, "q", 1).await;
    let id = blob(&store, record.id, &["[\"ä\",", "\t1 ", "]"]).await;
    store.write_piece(id, 1, "another text").await.unwrap();
    assert_eq!(text(&store, id).await.as_deref(), Some("[\"ä\",\t1 ]"));
    assert_eq!(store.blob_piece(id, 3).await.unwrap(), None);
    let other = blob(&store, record.id, &["2"]).await;
    assert!(other > id);
}

pub(super) async fn a_result_refers_to_its_blob_and_knows_its_length(store: AnyStore) {
    let (record, fence) = running(&store, "q", 2).await;
    let id = blob(&store, record.id, &["[1,", "2]"]).await;
    let rows = vec![refers(success(0, 1), id), success(1, 2)];
    commit(&store, with_outcomes(record.id, fence, rows)).await;
    let read = store.results(&every_result(record.id, 1, 1)).await.unwrap();
    assert_eq!((&read[0].result, read[0].blob), (&None, Some(BlobRef { id, bytes: 5 })));
    assert!(read[1].result.is_some() && read[1].blob.is_none());
    assert_eq!(read[0].counters.as_deref(), Some(r#"{"n":1}"#));
}

pub(super) async fn an_old_blob_that_nobody_refers_to_is_swept(store: AnyStore) {
    let (record, fence) = running(&store, "q", 1).await;
    let kept = blob(&store, record.id, &["1", "2", "3"]).await;
    let orphan = blob(&store, record.id, &["4", "5", "6"]).await;
    commit(
        &store,
        with_outcomes(record.id, fence, vec![refers(success(0, 1), kept)]),
    )
    .await;
    sweep(&store, THEN).await;
    assert_eq!(text(&store, orphan).await.as_deref(), Some("456"), "not old enough");
    assert!(store.sweep_blobs(LATER, 1).await.unwrap());
    let mut left = 0;
    for piece in 0..3 {
        left += usize::from(store.blob_piece(orphan, piece).await.unwrap().is_some());
    }
    assert_eq!(left, 2, "no more at once than allowed");
    sweep(&store, LATER).await;
    assert_eq!(text(&store, orphan).await, None);
    assert_eq!(text(&store, kept).await.as_deref(), Some("123"));
    let written = store.write_piece(orphan, 3, "7").await;
    assert!(matches!(written, Err(StoreError::NotFound(_))), "{written:?}");
    assert!(!store.sweep_blobs(LATER, 10).await.unwrap(), "nothing is left");
}

pub(super) async fn fm36_a_result_whose_blob_is_gone_is_fenced_whole_and_alone(store: AnyStore) {
    let (record, fence) = running(&store, "q", 3).await;
    let mut new = job("q");
    new.tasks = tasks(1);
    let neighbour = create(&store, &new).await;
    let gone = blob(&store, record.id, &["1"]).await;
    sweep(&store, LATER).await;
    let lost = with_outcomes(record.id, fence, vec![success(1, 1), refers(success(0, 2), gone)]);
    let good = with_outcomes(neighbour.id, fence, vec![success(0, 1)]);
    let answers = store.commit(&[lost, good]).await.unwrap();
    assert_eq!(answers, [BatchAnswer::Fenced, BatchAnswer::Committed]);
    assert_eq!(first_run(&store, record.id).await, []);
    assert_eq!(first_run(&store, neighbour.id).await, [(0, 1, "succeeded".into())]);
    let late = with_late(record.id, fence, vec![refers(success(2, 3), gone)]);
    assert_eq!(store.commit(&[late]).await.unwrap(), [BatchAnswer::Fenced]);
}

pub(super) async fn a_commit_with_a_blob_replayed_is_committed(store: AnyStore) {
    let (record, fence) = running(&store, "q", 1).await;
    let id = blob(&store, record.id, &["1"]).await;
    let batch = with_outcomes(record.id, fence, vec![refers(success(0, 1), id)]);
    commit(&store, batch.clone()).await;
    sweep(&store, LATER).await;
    commit(&store, batch).await;
    assert_eq!(text(&store, id).await.as_deref(), Some("1"));
}

pub(super) async fn discarding_gives_up_only_what_nobody_refers_to(store: AnyStore) {
    let (record, fence) = running(&store, "q", 1).await;
    let kept = blob(&store, record.id, &["1"]).await;
    let orphan = blob(&store, record.id, &["2"]).await;
    commit(
        &store,
        with_outcomes(record.id, fence, vec![refers(success(0, 1), kept)]),
    )
    .await;
    store.discard_blobs(&[kept, orphan, BlobId(1 << 40)]).await.unwrap();
    store.discard_blobs(&[]).await.unwrap();
    // Not by its age.
    sweep(&store, UnixMs(0)).await;
    assert_eq!(text(&store, orphan).await, None);
    assert_eq!(text(&store, kept).await.as_deref(), Some("1"));
}

pub(super) async fn a_late_result_keeps_its_blob_and_takes_it_along_when_promoted(store: AnyStore) {
    let (record, fence) = running(&store, "q", 1).await;
    let canceled = with_update(record.id, fence, update(&record, State::Canceled, 10));
    commit(&store, canceled).await;
    let id = blob(&store, record.id, &["1"]).await;
    commit(&store, with_late(record.id, fence, vec![refers(success(0, 11), id)])).await;
    sweep(&store, LATER).await;
    let seen = |rows: Vec<tallykeeper::store::ResultRow>| (rows[0].late, rows[0].blob.map(|blob| blob.id));
    assert_eq!(
        seen(store.results(&every_result(record.id, 1, 1)).await.unwrap()),
        (true, Some(id))
    );
    commit(&store, with_update(record.id, fence, retry(&record, 1, 2, 20))).await;
    assert_eq!(
        seen(store.results(&every_result(record.id, 1, 2)).await.unwrap()),
        (false, Some(id))
    );
    assert_eq!(text(&store, id).await.as_deref(), Some("1"));
}

/// Purges until no deleted job has anything left, then sweeps.
async fn purge(store: &AnyStore) {
    while store.purge_deleted(100).await.expect("a purge") {}
    sweep(store, UnixMs(0)).await;
}

pub(super) async fn a_deleted_jobs_blobs_are_purged(store: AnyStore) {
    let (record, fence): (_, Fence) = running(&store, "q", 1).await;
    let other = running(&store, "q", 1).await.0;
    let mine = blob(&store, record.id, &["1", "2"]).await;
    let foreign = blob(&store, other.id, &["3"]).await;
    let mut batch = with_update(record.id, fence, update(&record, State::Canceled, 10));
    batch.outcomes = vec![refers(success(0, 1), mine)];
    commit(&store, batch).await;
    store.delete_job(record.id, fence, record.run).await.expect("deleting");
    purge(&store).await;
    assert_eq!(text(&store, mine).await, None);
    assert_eq!(text(&store, foreign).await.as_deref(), Some("3"));
}

pub(super) async fn a_large_result_comes_alone_in_its_page(store: AnyStore) {
    let (record, fence) = running(&store, "q", 4).await;
    let large = blob(&store, record.id, &["[1,2,3,4,5,6,7,8,9]"]).await;
    let small = |task, seq| OutcomeRow {
        result: Some("12345".into()),
        ..success(task, seq)
    };
    let rows = vec![small(0, 1), refers(success(1, 2), large), small(2, 3), small(3, 4)];
    commit(&store, with_outcomes(record.id, fence, rows)).await;
    let mut pages = Vec::new();
    let mut after = None;
    loop {
        let filter = ResultFilter {
            after,
            max_bytes: 10,
            ..every_result(record.id, 1, 1)
        };
        let page: Vec<TaskNo> = store
            .results(&filter)
            .await
            .unwrap()
            .iter()
            .map(|row| row.task)
            .collect();
        after = page.last().copied();
        if after.is_none() {
            break;
        }
        pages.push(page.into_iter().map(|task| task.0).collect::<Vec<_>>());
    }
    assert_eq!(pages, [vec![0], vec![1], vec![2, 3]]);
}
