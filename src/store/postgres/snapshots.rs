//! Saving snapshots of many jobs at once.
//!
//! Owns: nothing but the statement. Never: reads their bytes. Invariant: a stored snapshot is never replaced by an older one.

use super::fence::{self, Standing};
use super::{Postgres, session::Session};
use crate::store::{BatchAnswer, Result, SnapshotRow};
use futures_util::future::join;
use std::collections::BTreeMap;

const SAVE: &str = include_str!("queries/snapshots/save.sql");

pub(super) async fn save(store: &Postgres, snapshots: &[SnapshotRow]) -> Result<Vec<BatchAnswer>> {
    if snapshots.is_empty() {
        return Ok(Vec::new());
    }
    let session = store.writer().await?;
    let answers = write(&session, snapshots).await;
    session.settle(answers).await
}

async fn write(session: &Session, snapshots: &[SnapshotRow]) -> Result<Vec<BatchAnswer>> {
    let statement = session.prepare(SAVE).await?;
    let proof = fence::open(session, snapshots.iter().map(|row| row.fence)).await?;
    // One row per job, the newest, in the order of jobs: two nodes never lock the same rows in different orders.
    let mut newest: BTreeMap<_, &SnapshotRow> = BTreeMap::new();
    for row in snapshots
        .iter()
        .filter(|row| proof.standing(row.fence) == Standing::Proven)
    {
        let kept = newest.entry(row.job).or_insert(row);
        if kept.version < row.version {
            *kept = row;
        }
    }
    let jobs: Vec<i64> = newest.keys().map(|job| job.0).collect();
    let seqs: Vec<i64> = newest.values().map(|row| row.seq.0).collect();
    let versions: Vec<i64> = newest.values().map(|row| row.version).collect();
    let bytes: Vec<&[u8]> = newest.values().map(|row| row.bytes.as_slice()).collect();
    let (written, ended) = join(
        session.count(&statement, &[&jobs, &seqs, &versions, &bytes]),
        session.commit(),
    )
    .await;
    written?;
    ended?;
    let answer = |row: &SnapshotRow| match proof.standing(row.fence) {
        Standing::Proven => BatchAnswer::Committed,
        Standing::Undecided => BatchAnswer::Blocked,
        Standing::Lost => BatchAnswer::Fenced,
    };
    Ok(snapshots.iter().map(answer).collect())
}
