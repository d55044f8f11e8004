//! The proof of ownership at the head of every write of an owned job's state.
//!
//! Owns: the comparison of epochs. Never: outlives its transaction. Invariant: a fence is proven inside the transaction it protects;
//! the writer is alone, so an epoch read there cannot move before the commit.

use crate::domain::ids::{Epoch, QueueId};
use crate::domain::job::Fence;
use crate::store::Result;
use rusqlite::{CachedStatement, OptionalExtension, Transaction};
use std::collections::HashMap;

/// Epochs as this transaction sees them, each read once.
pub(super) struct Fences<'tx> {
    statement: CachedStatement<'tx>,
    seen: HashMap<QueueId, Option<Epoch>>,
}

impl<'tx> Fences<'tx> {
    pub(super) fn new(tx: &'tx Transaction<'_>) -> Result<Self> {
        Ok(Fences {
            statement: tx.prepare_cached(include_str!("queries/queues/fence.sql"))?,
            seen: HashMap::new(),
        })
    }

    /// Does the queue still have this epoch?
    pub(super) fn holds(&mut self, fence: Fence) -> Result<bool> {
        if let Some(epoch) = self.seen.get(&fence.queue) {
            return Ok(*epoch == Some(fence.epoch));
        }
        let epoch = self
            .statement
            .query_row([fence.queue.0], |row| row.get(0).map(Epoch))
            .optional()?;
        self.seen.insert(fence.queue, epoch);
        Ok(epoch == Some(fence.epoch))
    }
}
