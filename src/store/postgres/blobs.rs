//! Large results, in pieces on connections of their own.
//!
//! Owns: their rows. Never: takes a connection that a commit or a heartbeat may wait for. Invariant: a blob that a commit has marked is
//! given up only with its job.

use super::Postgres;
use super::row::narrow;
use crate::domain::ids::{BlobId, JobId, UnixMs};
use crate::store::{BlobStore, Result, StoreError};
use async_trait::async_trait;

const OPEN: &str = include_str!("queries/blobs/open.sql");
const WRITE: &str = include_str!("queries/blobs/write.sql");
const PIECE: &str = include_str!("queries/blobs/piece.sql");
const DISCARD: &str = include_str!("queries/blobs/discard.sql");
const EXPIRE: &str = include_str!("queries/blobs/expire.sql");
const REMOVE_PIECES: &str = include_str!("queries/blobs/remove_pieces.sql");
const REMOVE: &str = include_str!("queries/blobs/remove.sql");

#[async_trait]
impl BlobStore for Postgres {
    async fn open_blob(&self, job: JobId, bytes: u64, now: UnixMs) -> Result<BlobId> {
        let bytes = i64::try_from(bytes).map_err(|_| StoreError::Rejected(format!("a blob of {bytes} bytes")))?;
        let rows = self.blob_writer().await?.query(OPEN, &[&job.0, &bytes, &now.0]).await?;
        let row = rows
            .first()
            .ok_or_else(|| StoreError::Corrupt("an insert without a row".into()))?;
        Ok(BlobId(row.get(0)))
    }

    async fn write_piece(&self, blob: BlobId, piece: u32, text: &str) -> Result<()> {
        let piece = narrow("piece", piece)?;
        let open = self
            .blob_writer()
            .await?
            .first(WRITE, &[&blob.0, &piece, &text])
            .await?;
        open.map(drop).ok_or(StoreError::NotFound("blob"))
    }

    async fn blob_piece(&self, blob: BlobId, piece: u32) -> Result<Option<String>> {
        let piece = narrow("piece", piece)?;
        let row = self.reader().await?.first(PIECE, &[&blob.0, &piece]).await?;
        Ok(row.map(|row| row.get(0)))
    }

    async fn discard_blobs(&self, blobs: &[BlobId]) -> Result<()> {
        let blobs: Vec<i64> = blobs.iter().map(|blob| blob.0).collect();
        self.blob_writer().await?.execute(DISCARD, &[&blobs]).await.map(drop)
    }

    async fn sweep_blobs(&self, before: UnixMs, limit: u32) -> Result<bool> {
        let session = self.blob_writer().await?;
        let limit = i64::from(limit);
        let expired = session.execute(EXPIRE, &[&before.0, &limit]).await?;
        // A statement of its own sees everything written to a blob before it was given up: whoever wrote held the blob's row.
        let pieces = session.execute(REMOVE_PIECES, &[&limit]).await?;
        let removed = session.execute(REMOVE, &[&limit]).await?;
        Ok(expired + pieces + removed > 0)
    }
}
