//! Tickets.
//!
//! Owns: their rows. Never: sees a secret. Invariant: a ticket is taken by the statement that deletes it, so at most once.

use super::{Postgres, row};
use crate::domain::ids::UnixMs;
use crate::store::{Result, TicketRow, TicketStore};
use async_trait::async_trait;

const INSERT: &str = include_str!("queries/tickets/insert.sql");
const SWEEP: &str = include_str!("queries/tickets/sweep.sql");
const TAKE: &str = include_str!("queries/tickets/take.sql");

#[async_trait]
impl TicketStore for Postgres {
    async fn create_ticket(&self, ticket: &TicketRow, now: UnixMs) -> Result<()> {
        let session = self.writer().await?;
        session.execute(SWEEP, &[&now.0]).await?;
        let hash = ticket.hash.as_slice();
        session
            .execute(INSERT, &[&hash, &ticket.token_id, &ticket.path, &ticket.expires_at.0])
            .await
            .map(drop)
    }

    async fn take_ticket(&self, hash: &[u8; 32]) -> Result<Option<TicketRow>> {
        let taken = self.writer().await?.first(TAKE, &[&hash.as_slice()]).await?;
        taken.map(|taken| row::ticket(*hash, &taken)).transpose()
    }
}
