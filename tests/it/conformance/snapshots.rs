//! Snapshots.
//!
//! Owns: the tests of `save_snapshots` and `snapshot`. Never: looks into their bytes. Invariant: none of its own.

use super::fixture::*;
use tallykeeper::domain::ids::{JobId, Seq};
use tallykeeper::domain::job::Fence;
use tallykeeper::store::BatchAnswer::{Committed, Fenced};
use tallykeeper::store::{SavedSnapshot, SnapshotRow};

fn snapshot(job: JobId, fence: Fence, version: i64, bytes: &[u8]) -> SnapshotRow {
    SnapshotRow {
        job,
        fence,
        seq: Seq(7),
        version,
        bytes: bytes.to_vec(),
    }
}

pub(super) async fn a_snapshot_reads_back(store: AnyStore) {
    let (a, fence) = running(&store, "q", 1).await;
    let (b, other) = running(&store, "p", 1).await;
    let large: Vec<u8> = (0..100_000u32).map(|n| (n * 31 % 251) as u8).collect();
    let rows = [snapshot(a.id, fence, 1, &large), snapshot(b.id, other, 1, &[])];
    assert_eq!(store.save_snapshots(&rows).await.unwrap(), [Committed, Committed]);
    let saved = |bytes| Some(SavedSnapshot { version: 1, bytes });
    assert_eq!(store.snapshot(a.id).await.unwrap(), saved(large));
    assert_eq!(store.snapshot(b.id).await.unwrap(), saved(Vec::new()));
    assert_eq!(store.save_snapshots(&[]).await.unwrap(), []);
}

pub(super) async fn only_a_larger_version_replaces(store: AnyStore) {
    let (a, fence) = running(&store, "q", 1).await;
    for (version, bytes, stays) in [
        (5, "five", "five"),
        (4, "four", "five"),
        (5, "again", "five"),
        (6, "six", "six"),
    ] {
        let row = snapshot(a.id, fence, version, bytes.as_bytes());
        assert_eq!(store.save_snapshots(&[row]).await.unwrap(), [Committed]);
        assert_eq!(
            store.snapshot(a.id).await.unwrap().unwrap().bytes,
            stays.as_bytes(),
            "{version}"
        );
    }
}

pub(super) async fn fm55_a_snapshot_of_another_epoch_is_skipped(store: AnyStore) {
    let (a, fence) = running(&store, "q", 1).await;
    let (b, other) = running(&store, "p", 1).await;
    let rows = [
        snapshot(a.id, stale(fence), 9, b"zombie"),
        snapshot(b.id, other, 1, b"ours"),
    ];
    assert_eq!(store.save_snapshots(&rows).await.unwrap(), [Fenced, Committed]);
    assert_eq!(store.snapshot(a.id).await.unwrap(), None);
    assert_eq!(store.snapshot(b.id).await.unwrap().unwrap().bytes, b"ours");
}

pub(super) async fn an_absent_snapshot_is_none(store: AnyStore) {
    assert_eq!(store.snapshot(JobId(404)).await.unwrap(), None);
}
