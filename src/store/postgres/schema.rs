//! Migrations: embedded, numbered, forward-only.
//!
//! Owns: the schema's version. Never: runs beside another migration. Invariant: a database that is newer than this program, and says that
//! programs of this age would do it harm, is refused before anything is written.

use super::{connect, sqlstate};
use crate::store::{Result, StoreError};
use refinery::Error;
use tokio_postgres::{Client, Config};

mod embedded {
    refinery::embed_migrations!("src/store/postgres/migrations");
}

const LOCK: &str = include_str!("queries/schema/lock.sql");
const HAS_HISTORY: &str = include_str!("queries/schema/has_history.sql");
const HAS_FACTS: &str = include_str!("queries/schema/has_facts.sql");
const OLDEST: &str = include_str!("queries/schema/oldest.sql");

/// Beside [`super::LOCK_NAMESPACE`], whose second key is a queue's id and never negative.
const MIGRATION_LOCK: i32 = -1;

/// Runs what is missing; answers how many migrations ran.
pub(super) async fn migrate(config: &Config) -> Result<u32> {
    let mut client = connect::single(config).await?;
    // A session lock, since each migration is a transaction of its own. It ends with the connection, whatever happens here.
    client
        .execute(LOCK, &[&super::LOCK_NAMESPACE, &MIGRATION_LOCK])
        .await
        .map_err(|why| sqlstate::store_error(&why))?;
    run(&mut client).await
}

async fn run(client: &mut Client) -> Result<u32> {
    let runner = embedded::migrations::runner();
    let known = runner.get_migrations().iter().map(|m| m.version()).max().unwrap_or(0);
    // The table is there only after the first migration; without it the database is as old as can be.
    let applied = match client
        .query_one(HAS_HISTORY, &[])
        .await
        .map_err(|why| sqlstate::store_error(&why))?
        .get(0)
    {
        true => runner
            .get_last_applied_migration_async(client)
            .await
            .map_err(|why| translate(&why))?
            .map_or(0, |migration| migration.version()),
        false => 0,
    };
    if applied > known {
        // A newer node has been here. Migrations only add, so we go on beside it, unless one says that we must not.
        let oldest = oldest_known(client).await?;
        if oldest.is_none_or(|oldest| oldest > i64::from(known)) {
            return Err(StoreError::Corrupt(format!(
                "the database's schema is version {applied}, this program knows {known}, and the schema needs a program that knows {}: use a \
                 newer program",
                oldest.map_or_else(|| applied.to_string(), |oldest| oldest.to_string())
            )));
        }
        tracing::info!(
            applied,
            known,
            "the database's schema is newer than this program, and fits it"
        );
        return Ok(0);
    }
    let report = runner.run_async(client).await.map_err(|why| translate(&why))?;
    Ok(report.applied_migrations().len() as u32)
}

/// The oldest schema that a program must know to use this database; none if it does not say.
async fn oldest_known(client: &Client) -> Result<Option<i64>> {
    let failed = |why| sqlstate::store_error(&why);
    let has_facts: bool = client.query_one(HAS_FACTS, &[]).await.map_err(failed)?.get(0);
    if !has_facts {
        return Ok(None);
    }
    let row = client.query_opt(OLDEST, &[]).await.map_err(failed)?;
    Ok(row.and_then(|row| row.get::<_, String>(0).parse().ok()))
}

fn translate(error: &Error) -> StoreError {
    use std::error::Error as _;
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(inner) = inner.downcast_ref::<tokio_postgres::Error>() {
            return sqlstate::store_error(inner);
        }
        cause = inner.source();
    }
    StoreError::Corrupt(error.to_string())
}
