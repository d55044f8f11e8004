//! The schema and its versions.
//!
//! Owns: the embedded migrations. Never: goes backwards. Invariant: a file written by a newer version is refused untouched.

use crate::store::StoreError;
use refinery::error::Kind;
use rusqlite::Connection;
use std::error::Error as _;

mod embedded {
    refinery::embed_migrations!("src/store/sqlite/migrations");
}

/// Applies what is missing; returns how many migrations ran.
pub(super) fn migrate(connection: &mut Connection) -> Result<u32, StoreError> {
    let report = embedded::migrations::runner().run(connection).map_err(from_refinery)?;
    Ok(report.applied_migrations().len() as u32)
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
    async fn migrations_run_once_and_a_newer_schema_is_refused() {
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
        match store.migrate().await {
            Err(StoreError::Corrupt(why)) => assert!(why.contains("999"), "{why}"),
            other => panic!("{other:?}"),
        }
    }
}
