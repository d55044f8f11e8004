//! What an error of PostgreSQL means to the caller: the only place that looks at SQLSTATEs.
//!
//! Owns: the mapping. Never: retries. Invariant: an error whose transaction may have committed is `Unavailable`, never anything else.

use crate::store::StoreError;
use deadpool_postgres::PoolError;
use std::error::Error as _;
use std::fmt::Write as _;
use tokio_postgres::Error;

/// Raised by the trigger that defends final states.
const LEAVES_FINAL_STATE: &str = "TK001";

/// Translates an error of a statement or a connection.
pub(super) fn store_error(error: &Error) -> StoreError {
    let text = describe(error);
    match error.as_db_error() {
        Some(db) => by_code(db.code().code(), text),
        None => by_kind(&error.to_string(), text),
    }
}

fn by_code(code: &str, text: String) -> StoreError {
    match code {
        LEAVES_FINAL_STATE => return StoreError::Conflict(text),
        // Serialization failure, deadlock, lock timeout, cancelled, and a transaction aborted by an earlier statement.
        "40001" | "40P01" | "55P03" | "57014" | "25P02" => return StoreError::Unavailable(text),
        _ => {}
    }
    match code.get(..2) {
        // Data, integrity, limits; and 21000: a batch that names one row twice.
        Some("21" | "22" | "23" | "54") => StoreError::Rejected(text),
        // Connection, authentication, no such database, resources, operator intervention, system: an operator's matter, may pass.
        Some("08" | "25" | "28" | "3D" | "40" | "53" | "55" | "57" | "58") => StoreError::Unavailable(text),
        // Everything else says that schema and program do not fit each other.
        _ => StoreError::Corrupt(text),
    }
}

/// The driver does not publish the kind of its errors, but each kind begins its message in its own way.
fn by_kind(message: &str, text: String) -> StoreError {
    const VALUE: [&str; 3] = ["error serializing parameter", "error encoding", "expected "];
    const ROW: [&str; 3] = ["error deserializing column", "invalid column", "query returned"];
    if VALUE.iter().any(|start| message.starts_with(start)) {
        StoreError::Rejected(text)
    } else if ROW.iter().any(|start| message.starts_with(start)) {
        StoreError::Corrupt(text)
    } else {
        StoreError::Unavailable(text)
    }
}

/// Translates an error of a pool.
pub(super) fn pool_error(error: &PoolError) -> StoreError {
    match error {
        PoolError::Backend(error) => store_error(error),
        PoolError::Timeout(what) => StoreError::Unavailable(format!("no connection in time ({what:?})")),
        other => StoreError::Unavailable(other.to_string()),
    }
}

/// The message with its causes, and the SQLSTATE where there is one.
pub(super) fn describe(error: &Error) -> String {
    if let Some(db) = error.as_db_error() {
        return format!("{} ({})", db.message(), db.code().code());
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let _ = write!(text, ": {inner}");
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_means_one_thing() {
        let kind = |code: &str| match by_code(code, String::new()) {
            StoreError::Unavailable(_) => 'u',
            StoreError::Rejected(_) => 'r',
            StoreError::Conflict(_) => 'c',
            StoreError::Corrupt(_) => 'x',
            other => panic!("{code}: {other}"),
        };
        for code in ["22021", "22P05", "23505", "23514", "54000", "21000"] {
            assert_eq!(kind(code), 'r', "{code}");
        }
        for code in [
            "08006", "57P01", "57P03", "53300", "40001", "40P01", "55P03", "57014", "25P02", "25P03", "28P01", "3D000",
        ] {
            assert_eq!(kind(code), 'u', "{code}");
        }
        for code in ["42P01", "42703", "XX001"] {
            assert_eq!(kind(code), 'x', "{code}");
        }
        assert_eq!(kind("TK001"), 'c');
    }

    #[test]
    fn an_error_without_a_code_is_unavailable_unless_the_value_or_row_is_at_fault() {
        let kind = |message: &str| by_kind(message, String::new());
        assert!(matches!(kind("connection closed"), StoreError::Unavailable(_)));
        assert!(matches!(
            kind("error communicating with the server"),
            StoreError::Unavailable(_)
        ));
        assert!(matches!(kind("error serializing parameter 3"), StoreError::Rejected(_)));
        assert!(matches!(kind("error deserializing column 3"), StoreError::Corrupt(_)));
    }
}
