//! Access tokens.
//!
//! Owns: their rows. Never: sees a secret. Invariant: a revoked token stays for the record and is never listed.

use super::{Postgres, row};
use crate::store::{Result, StoreError, TokenRow, TokenStore};
use async_trait::async_trait;

const INSERT: &str = include_str!("queries/tokens/insert.sql");
const LIST: &str = include_str!("queries/tokens/list.sql");
const REVOKE: &str = include_str!("queries/tokens/revoke.sql");

#[async_trait]
impl TokenStore for Postgres {
    async fn create_token(&self, token: &TokenRow) -> Result<()> {
        self.writer()
            .await?
            .execute(
                INSERT,
                &[
                    &token.id,
                    &token.name,
                    &token.hash.as_slice(),
                    &token.scopes,
                    &token.queues,
                    &token.created_at.0,
                    &token.expires_at.map(|at| at.0),
                ],
            )
            .await
            .map(drop)
    }

    async fn list_tokens(&self) -> Result<Vec<TokenRow>> {
        let rows = self.reader().await?.query(LIST, &[]).await?;
        rows.iter().map(row::token).collect()
    }

    async fn revoke_token(&self, id: &str) -> Result<()> {
        match self.writer().await?.execute(REVOKE, &[&id]).await? {
            0 => Err(StoreError::NotFound("token")),
            _ => Ok(()),
        }
    }
}
