//! Tickets.
//!
//! Owns: their rows. Never: sees a secret, only its hash. Invariant: a ticket is taken by the statement that deletes it, so at most once.

use super::Sqlite;
use crate::domain::ids::UnixMs;
use crate::store::{Result, TicketRow, TicketStore};
use async_trait::async_trait;
use rusqlite::{OptionalExtension, params};

#[async_trait]
impl TicketStore for Sqlite {
    async fn create_ticket(&self, ticket: &TicketRow, now: UnixMs) -> Result<()> {
        let ticket = ticket.clone();
        self.writer
            .transact(move |tx| {
                tx.prepare_cached(include_str!("queries/tickets/sweep.sql"))?
                    .execute([now.0])?;
                tx.prepare_cached(include_str!("queries/tickets/insert.sql"))?
                    .execute(params![
                        ticket.hash.as_slice(),
                        ticket.token_id,
                        ticket.path,
                        ticket.expires_at.0,
                    ])?;
                Ok(())
            })
            .await
    }

    async fn take_ticket(&self, hash: &[u8; 32]) -> Result<Option<TicketRow>> {
        let hash = *hash;
        self.writer
            .transact(move |tx| {
                let taken = tx
                    .prepare_cached(include_str!("queries/tickets/take.sql"))?
                    .query_row([hash.as_slice()], |row| {
                        Ok(TicketRow {
                            hash,
                            token_id: row.get(0)?,
                            path: row.get(1)?,
                            expires_at: UnixMs(row.get(2)?),
                        })
                    })
                    .optional()?;
                Ok(taken)
            })
            .await
    }
}
