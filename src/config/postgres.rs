//! The `[postgres]` section: connections to a PostgreSQL store.
//!
//! Owns: its settings' names, units and defaults, and their translation into the store's own. Never: connects. Invariant: the defaults
//! are those of the store.

use super::ms;
use crate::store::postgres::Settings;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The `[postgres]` section: connections to a PostgreSQL store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PostgresConfig {
    pub commit_lanes_connections: usize,
    pub spare_writers_connections: usize,
    pub blob_writers_connections: usize,
    pub readers_connections: usize,
    pub connect_timeout_ms: u64,
    pub pool_timeout_ms: u64,
    pub statement_timeout_ms: u64,
    pub lock_timeout_ms: u64,
    pub idle_in_transaction_timeout_ms: u64,
}

impl Default for PostgresConfig {
    fn default() -> Self {
        let defaults = Settings::default();
        PostgresConfig {
            commit_lanes_connections: defaults.commit_lanes,
            spare_writers_connections: defaults.spare_writers,
            blob_writers_connections: defaults.blob_writers,
            readers_connections: defaults.readers,
            connect_timeout_ms: ms(defaults.connect_timeout),
            pool_timeout_ms: ms(defaults.pool_timeout),
            statement_timeout_ms: ms(defaults.statement_timeout),
            lock_timeout_ms: ms(defaults.lock_timeout),
            idle_in_transaction_timeout_ms: ms(defaults.idle_in_transaction_timeout),
        }
    }
}

impl PostgresConfig {
    pub(super) fn settings(&self) -> Settings {
        Settings {
            commit_lanes: self.commit_lanes_connections,
            spare_writers: self.spare_writers_connections,
            blob_writers: self.blob_writers_connections,
            readers: self.readers_connections,
            connect_timeout: Duration::from_millis(self.connect_timeout_ms),
            pool_timeout: Duration::from_millis(self.pool_timeout_ms),
            statement_timeout: Duration::from_millis(self.statement_timeout_ms),
            lock_timeout: Duration::from_millis(self.lock_timeout_ms),
            idle_in_transaction_timeout: Duration::from_millis(self.idle_in_transaction_timeout_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_gets_its_settings() {
        assert_eq!(PostgresConfig::default().settings(), Settings::default());
    }
}
