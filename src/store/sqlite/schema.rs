//! The schema and its versions.
//!
//! Owns: the embedded migrations. Never: goes backwards. Invariant: a file written by a newer version is refused untouched, unless it says
//! that programs of this age do it no harm.

use crate::store::StoreError;
use refinery::error::Kind;
use rusqlite::{Connection, OptionalExtension};
use std::error::Error as _;

/// The table in which migrations are noted.
const HISTORY: &str = "refinery_schema_history";

mod embedded {
    refinery::embed_migrations!("src/store/sqlite/migrations");
}

/// Applies what is missing; returns how many migrations ran.
pub(super) fn migrate(connection: &mut Connection) -> Result<u32, StoreError> {
    if fits_though_newer(connection)? {
        return Ok(0);
    }
    let report = embedded::migrations::runner().run(connection).map_err(from_refinery)?;
    Ok(report.applied_migrations().len() as u32)
}

/// Has a newer program been here whose schema we may use all the same?
fn fits_though_newer(connection: &Connection) -> Result<bool, StoreError> {
    if !connection.table_exists(None, "cluster")? || !connection.table_exists(None, HISTORY)? {
        return Ok(false);
    }
    let known = embedded::migrations::runner()
        .get_migrations()
        .iter()
        .map(|m| m.version())
        .max()
        .unwrap_or(0);
    let applied: Option<i64> =
        connection.query_row(include_str!("queries/schema/applied.sql"), [], |row| row.get(0))?;
    let oldest: Option<String> = connection
        .query_row(include_str!("queries/schema/oldest.sql"), [], |row| row.get(0))
        .optional()?;
    let oldest = oldest.and_then(|text| text.parse::<i64>().ok());
    let known = i64::from(known);
    let fits = applied.is_some_and(|applied| applied > known) && oldest.is_some_and(|oldest| oldest <= known);
    if fits {
        tracing::info!(
            applied,
            known,
            "the database's schema is newer than this program, and fits it"
        );
    }
    Ok(fits)
}

fn from_refinery(error: refinery::Error) -> StoreError {
    if let Kind::MissingVersion(step) = error.kind() {
        return StoreError::Corrupt(format!(
            "the schema has version {}, which this program does not know: use the newer program",
            step.version()
        ));
    }
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(rusqlite::Error::SqliteFailure(failure, text)) = inner.downcast_ref() {
            return rusqlite::Error::SqliteFailure(*failure, text.clone()).into();
        }
        source = inner.source();
    }
    StoreError::Corrupt(format!("migrations do not fit the database: {error}"))
}

#[cfg(test)]
mod tests {
    use super::super::scratch::Scratch;
    use crate::store::{NodeStore, StoreError};

    #[tokio::test]
    async fn migrations_run_once_and_a_newer_schema_is_refused_only_if_it_says_so() {
        let scratch = Scratch::empty();
        let store = scratch.open();
        assert!(store.migrate().await.unwrap() >= 1);
        assert_eq!(store.migrate().await.unwrap(), 0);
        store
            .writer
            .run(|connection| {
                connection.execute(
                    "INSERT INTO refinery_schema_history SELECT 999, 'later', applied_on, checksum FROM refinery_schema_history LIMIT 1",
                    [],
                )?;
                Ok(())
            })
            .await
            .unwrap();
        assert_eq!(
            store.migrate().await.unwrap(),
            0,
            "a newer program has been here, and did no harm"
        );
        store
            .writer
            .run(|connection| {
                connection.execute(
                    "UPDATE cluster SET value = '999' WHERE name = 'oldest_schema_known'",
                    [],
                )?;
                Ok(())
            })
            .await
            .unwrap();
        match store.migrate().await {
            Err(StoreError::Corrupt(why)) => assert!(why.contains("999"), "{why}"),
            other => panic!("{other:?}"),
        }
    }
}
