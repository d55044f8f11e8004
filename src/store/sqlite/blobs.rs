//! Large results, in pieces on the writer's thread.
//!
//! Owns: their rows, and the mark that keeps a sweep away. Never: writes more than one piece in a transaction, since small commits wait
//! meanwhile. Invariant: a blob that a commit has marked is given up only with its job.

use super::Sqlite;
use crate::domain::ids::{BlobId, JobId, UnixMs};
use crate::domain::rows::JobBatch;
use crate::store::{BlobStore, Result, StoreError};
use async_trait::async_trait;
use rusqlite::{OptionalExtension, Transaction, params};

/// Pieces after which the write-ahead log is folded into the file.
const PIECES_PER_FOLD: u32 = 4;

#[async_trait]
impl BlobStore for Sqlite {
    async fn open_blob(&self, job: JobId, bytes: u64, now: UnixMs) -> Result<BlobId> {
        let bytes = i64::try_from(bytes).map_err(|_| StoreError::Rejected(format!("a blob of {bytes} bytes")))?;
        self.writer
            .transact(move |tx| {
                let id = tx
                    .prepare_cached(include_str!("queries/blobs/open.sql"))?
                    .query_row(params![job.0, bytes, now.0], |row| row.get(0))?;
                Ok(BlobId(id))
            })
            .await
    }

    async fn write_piece(&self, blob: BlobId, piece: u32, text: &str) -> Result<()> {
        let text = text.to_owned();
        self.writer
            .transact(move |tx| {
                let is_open = tx
                    .prepare_cached(include_str!("queries/blobs/is_open.sql"))?
                    .exists([blob.0])?;
                if !is_open {
                    return Err(StoreError::NotFound("blob"));
                }
                tx.prepare_cached(include_str!("queries/blobs/write.sql"))?
                    .execute(params![blob.0, piece, text])?;
                Ok(())
            })
            .await?;
        if piece % PIECES_PER_FOLD != PIECES_PER_FOLD - 1 {
            return Ok(());
        }
        // As a call of its own: left to gather, a commit would have to fold many megabytes into the file.
        self.writer
            .run(|db| Ok(db.execute_batch(include_str!("pragmas/checkpoint.sql"))?))
            .await
    }

    async fn blob_piece(&self, blob: BlobId, piece: u32) -> Result<Option<String>> {
        self.readers
            .run(move |db| {
                let text = db
                    .prepare_cached(include_str!("queries/blobs/piece.sql"))?
                    .query_row(params![blob.0, piece], |row| row.get(0))
                    .optional()?;
                Ok(text)
            })
            .await
    }

    async fn discard_blobs(&self, blobs: &[BlobId]) -> Result<()> {
        let blobs = blobs.to_vec();
        self.writer
            .transact(move |tx| {
                let mut discard = tx.prepare_cached(include_str!("queries/blobs/discard.sql"))?;
                for blob in blobs {
                    discard.execute([blob.0])?;
                }
                Ok(())
            })
            .await
    }

    async fn sweep_blobs(&self, before: UnixMs, limit: u32) -> Result<bool> {
        self.writer.transact(move |tx| sweep(tx, before, limit)).await
    }
}

fn sweep(tx: &Transaction<'_>, before: UnixMs, limit: u32) -> Result<bool> {
    let expired = tx
        .prepare_cached(include_str!("queries/blobs/expire.sql"))?
        .execute(params![before.0, limit])?;
    let pieces = tx
        .prepare_cached(include_str!("queries/blobs/remove_pieces.sql"))?
        .execute([limit])?;
    let removed = tx
        .prepare_cached(include_str!("queries/blobs/remove.sql"))?
        .execute([limit])?;
    Ok(expired + pieces + removed > 0)
}

/// Can every blob that the batch refers to still be claimed?
pub(super) fn are_there(tx: &Transaction<'_>, batch: &JobBatch) -> Result<bool> {
    for blob in batch.blobs() {
        let mut is_open = tx.prepare_cached(include_str!("queries/blobs/is_open.sql"))?;
        if !is_open.exists([blob.0])? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Marks the blobs that the batch refers to.
pub(super) fn claim(tx: &Transaction<'_>, batch: &JobBatch) -> Result<()> {
    for blob in batch.blobs() {
        tx.prepare_cached(include_str!("queries/blobs/claim.sql"))?
            .execute([blob.0])?;
    }
    Ok(())
}
