//! Access tokens.
//!
//! Owns: their rows. Never: sees a secret, only its hash. Invariant: a revoked token is kept for the record and never listed.

use super::Sqlite;
use super::nodes::now;
use super::record::{from_json, to_json};
use crate::domain::ids::UnixMs;
use crate::store::{Result, StoreError, TokenRow, TokenStore};
use async_trait::async_trait;
use rusqlite::{Row, params};

#[async_trait]
impl TokenStore for Sqlite {
    async fn create_token(&self, token: &TokenRow) -> Result<()> {
        let token = token.clone();
        self.writer
            .transact(move |tx| {
                tx.prepare_cached(include_str!("queries/tokens/insert.sql"))?
                    .execute(params![
                        token.id,
                        token.name,
                        token.hash.as_slice(),
                        to_json(&token.scopes)?,
                        token.queues.as_ref().map(to_json).transpose()?,
                        token.created_at.0,
                        token.expires_at.map(|at| at.0),
                    ])?;
                Ok(())
            })
            .await
    }

    async fn list_tokens(&self) -> Result<Vec<TokenRow>> {
        self.readers
            .run(|db| {
                db.prepare_cached(include_str!("queries/tokens/list.sql"))?
                    .query_and_then([], from_row)?
                    .collect()
            })
            .await
    }

    async fn revoke_token(&self, id: &str) -> Result<()> {
        let id = id.to_owned();
        self.writer
            .transact(move |tx| {
                let revoked = tx
                    .prepare_cached(include_str!("queries/tokens/revoke.sql"))?
                    .execute(params![id, now().0])?;
                if revoked == 0 {
                    Err(StoreError::NotFound("token"))
                } else {
                    Ok(())
                }
            })
            .await
    }
}

fn from_row(row: &Row<'_>) -> Result<TokenRow> {
    let queues: Option<String> = row.get(4)?;
    let scopes: String = row.get(3)?;
    Ok(TokenRow {
        id: row.get(0)?,
        name: row.get(1)?,
        hash: row.get(2)?,
        scopes: from_json(&scopes)?,
        queues: queues.as_deref().map(from_json).transpose()?,
        created_at: UnixMs(row.get(5)?),
        expires_at: row.get::<_, Option<i64>>(6)?.map(UnixMs),
    })
}
