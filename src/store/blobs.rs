//! The contract for results too large for a row.
//!
//! Owns: the trait and its crash windows. Never: knows what a result says. Invariant: a blob that a committed row refers to is whole, and
//! stays as long as its job.

use super::Result;
use crate::domain::ids::{BlobId, JobId, UnixMs};
use async_trait::async_trait;

/// A result that was stored apart, and how long it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobRef {
    pub id: BlobId,
    pub bytes: u64,
}

/// Results too large for a row, in pieces. Exempt from the fence: nothing counts them until an outcome refers to them, and that is fenced.
///
/// The crash windows, in the order of a large result:
/// - before or between its pieces: nobody refers to the blob, so it is swept;
/// - after its last piece, before its outcome: the same; the worker was told nothing and repeats;
/// - the outcome commits: `commit` marks the blob as referred to in the same transaction, and from then on no sweep takes it;
/// - the outcome's commit hangs until the blob is old enough to be swept (an outage, say): either the mark comes first and the sweep
///   passes over it, or the sweep comes first and the commit finds the blob gone, writes nothing and answers `Fenced`.
#[async_trait]
pub trait BlobStore: Send + Sync {
    /// Begins a blob of so many bytes for a job. Ids are never given out twice.
    async fn open_blob(&self, job: JobId, bytes: u64, now: UnixMs) -> Result<BlobId>;

    /// Writes a piece in a transaction of its own, on a connection where no commit waits for it; writing it again changes nothing.
    /// `NotFound` if the blob is gone.
    async fn write_piece(&self, blob: BlobId, piece: u32, text: &str) -> Result<()>;

    /// A piece, from 0; none after the last one.
    async fn blob_piece(&self, blob: BlobId, piece: u32) -> Result<Option<String>>;

    /// Gives up those of these blobs that nobody refers to.
    async fn discard_blobs(&self, blobs: &[BlobId]) -> Result<()>;

    /// Gives up blobs that nobody refers to and that were begun before `before`, and removes at most `limit` pieces of such, and of the
    /// blobs of deleted jobs; answers false once there is nothing left to remove.
    async fn sweep_blobs(&self, before: UnixMs, limit: u32) -> Result<bool>;
}
