//! PostgreSQL: many nodes share it, and it is the only coordinator between them.
//!
//! Owns: the pools, their bounds, and everything SQL of this backend. Never: judges a job; waits without a bound. Invariant: every write
//! of an owned job's state runs in a transaction that [`fence`] opened, and no connection goes back to its pool inside a transaction.

use crate::store::{Capabilities, Result, Store};
use std::time::Duration;
use tokio_postgres::Config;

mod append;
mod blobs;
mod commit;
mod connect;
mod create;
mod delete;
mod fence;
mod gather;
mod jobs;
mod logs;
mod nodes;
mod outbox;
mod read;
mod row;
mod schema;
mod session;
mod snapshots;
mod sqlstate;
mod take;
mod tickets;
mod tokens;

pub use fence::LOCK_NAMESPACE;

use connect::Pools;
use session::Session;

/// Bounds of the connections. Every wait ends by one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Group commits that may run at the same time; also [`Capabilities::commit_lanes`].
    pub commit_lanes: usize,
    /// Connections for writes beside the lanes: appends, job creation, snapshots, tokens.
    pub spare_writers: usize,
    /// Connections on which large results are written.
    pub blob_writers: usize,
    /// Connections for reads.
    pub readers: usize,
    /// Longest wait for a connection to be made.
    pub connect_timeout: Duration,
    /// Longest wait for a connection to become free.
    pub pool_timeout: Duration,
    /// Longest run of one statement, by the server's clock. The client waits two seconds more, then gives the connection up.
    pub statement_timeout: Duration,
    /// Longest wait for one lock, that of a take-over included.
    pub lock_timeout: Duration,
    /// A transaction that idles longer is ended by the server: a node that hangs cannot hold up a take-over for ever.
    pub idle_in_transaction_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            commit_lanes: 4,
            spare_writers: 4,
            blob_writers: 2,
            readers: 6,
            connect_timeout: Duration::from_secs(3),
            pool_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(15),
            lock_timeout: Duration::from_secs(5),
            idle_in_transaction_timeout: Duration::from_secs(10),
        }
    }
}

/// A store in a PostgreSQL database (14 or newer).
pub struct Postgres {
    config: Config,
    settings: Settings,
    pools: Pools,
}

impl Postgres {
    /// Connects to `postgres://user:password@host:port/database?sslmode=…` or `postgres:///database?host=/socket/directory`. With
    /// `sslmode=require`, or if the server offers TLS, the server's certificate must be one the platform trusts; `disable` never uses
    /// TLS. Fails if the database does not answer; does not migrate.
    pub async fn connect(url: &str, settings: Settings) -> Result<Self> {
        let config = connect::config(url, &settings)?;
        let pools = Pools::new(&config, &settings)?;
        let store = Postgres {
            config,
            settings,
            pools,
        };
        store.control().await?;
        Ok(store)
    }

    /// A connection for group commits and other writes.
    async fn writer(&self) -> Result<Session> {
        Session::from_pool(&self.pools.write, &self.settings).await
    }

    /// A connection for large results, which no commit waits for.
    async fn blob_writer(&self) -> Result<Session> {
        Session::from_pool(&self.pools.blob, &self.settings).await
    }

    /// A connection for reads.
    async fn reader(&self) -> Result<Session> {
        Session::from_pool(&self.pools.read, &self.settings).await
    }

    /// A second connection that lives as long as the process: one that breaks must not make its node look dead.
    async fn witness(&self) -> Result<Session> {
        Session::from_pool(&self.pools.witness, &self.settings).await
    }

    /// The heartbeat's own connection: a store busy with commits must not make its node look dead.
    async fn control(&self) -> Result<Session> {
        Session::from_pool(&self.pools.control, &self.settings).await
    }
}

impl Store for Postgres {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            name: "postgres",
            shared: true,
            commit_lanes: self.settings.commit_lanes,
            blob_lanes: self.settings.blob_writers.max(1),
        }
    }
}
