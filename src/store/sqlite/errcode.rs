//! What SQLite's errors mean to the callers of a store: the one place that looks at result codes.
//!
//! Owns: the mapping. Never: decides what to do about an error. Invariant: only an error after which the identical call may succeed is
//! `Unavailable`, and only a value that will never be taken is `Rejected`.

use crate::store::StoreError;
use rusqlite::{Error, ErrorCode, ffi};

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::SqliteFailure(failure, _) => from_code(failure, text),
            Error::ToSqlConversionFailure(_) => StoreError::Rejected(text),
            // What is left are rows that do not have the shape this version writes.
            _ => StoreError::Corrupt(text),
        }
    }
}

fn from_code(failure: ffi::Error, text: String) -> StoreError {
    match failure.code {
        // Only the trigger that defends final states raises this one.
        ErrorCode::ConstraintViolation if failure.extended_code == ffi::SQLITE_CONSTRAINT_TRIGGER => {
            StoreError::Conflict(text)
        }
        ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch => StoreError::Rejected(text),
        ErrorCode::DiskFull
        | ErrorCode::SystemIoFailure
        | ErrorCode::DatabaseBusy
        | ErrorCode::DatabaseLocked
        | ErrorCode::CannotOpen
        | ErrorCode::OutOfMemory
        | ErrorCode::OperationInterrupted
        | ErrorCode::OperationAborted
        | ErrorCode::FileLockingProtocolFailed
        | ErrorCode::PermissionDenied
        | ErrorCode::ReadOnly => StoreError::Unavailable(text),
        _ => StoreError::Corrupt(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(code: std::os::raw::c_int) -> StoreError {
        Error::SqliteFailure(ffi::Error::new(code), None).into()
    }

    #[test]
    fn what_passes_is_retryable_and_what_stays_is_not() {
        for code in [
            ffi::SQLITE_FULL,
            ffi::SQLITE_IOERR,
            ffi::SQLITE_IOERR_FSYNC,
            ffi::SQLITE_BUSY,
            ffi::SQLITE_BUSY_SNAPSHOT,
            ffi::SQLITE_CANTOPEN,
        ] {
            assert!(matches!(mapped(code), StoreError::Unavailable(_)), "{code}");
        }
        for code in [
            ffi::SQLITE_CONSTRAINT,
            ffi::SQLITE_CONSTRAINT_CHECK,
            ffi::SQLITE_CONSTRAINT_DATATYPE,
            ffi::SQLITE_TOOBIG,
        ] {
            assert!(matches!(mapped(code), StoreError::Rejected(_)), "{code}");
        }
        for code in [ffi::SQLITE_CORRUPT, ffi::SQLITE_NOTADB, ffi::SQLITE_ERROR] {
            assert!(matches!(mapped(code), StoreError::Corrupt(_)), "{code}");
        }
        assert!(matches!(
            mapped(ffi::SQLITE_CONSTRAINT_TRIGGER),
            StoreError::Conflict(_)
        ));
    }
}
