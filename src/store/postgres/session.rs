//! One borrowed connection: statements with bounded waits, and transactions that never leak into the pool.
//!
//! Owns: whether a connection may go back to its pool. Never: knows a table. Invariant: a session dropped with an answer outstanding or
//! inside a transaction takes its connection with it, so that the server rolls back and the next borrower starts clean.

use super::{Settings, sqlstate};
use crate::store::{Result, StoreError};
use deadpool_postgres::{Object, Pool};
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row, Statement};

/// What the client waits beyond the server's statement timeout before it gives a connection up.
const MARGIN: Duration = Duration::from_secs(2);

pub(super) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

pub(super) struct Session {
    object: Option<Object>,
    answer_timeout: Duration,
    outstanding: AtomicU32,
    in_transaction: AtomicBool,
}

impl Session {
    pub(super) async fn from_pool(pool: &Pool, settings: &Settings) -> Result<Session> {
        let object = pool.get().await.map_err(|why| sqlstate::pool_error(&why))?;
        Ok(Session {
            object: Some(object),
            answer_timeout: settings.statement_timeout + MARGIN,
            outstanding: AtomicU32::new(0),
            in_transaction: AtomicBool::new(false),
        })
    }

    fn object(&self) -> &Object {
        self.object.as_ref().expect("taken only when the session is dropped")
    }

    /// A cached statement. Prepare everything before a pipeline starts: preparing waits for an answer, and what was to be sent first
    /// would be sent later.
    pub(super) async fn prepare(&self, sql: &'static str) -> Result<Statement> {
        self.answer(self.object().prepare_cached(sql)).await
    }

    /// Sends a prepared statement on first poll, so futures polled together are pipelined in their order.
    pub(super) async fn rows(&self, statement: &Statement, params: Params<'_>) -> Result<Vec<Row>> {
        self.answer(self.object().query(statement, params)).await
    }

    /// As [`rows`](Self::rows), for a statement that returns none; answers how many it changed.
    pub(super) async fn count(&self, statement: &Statement, params: Params<'_>) -> Result<u64> {
        self.answer(self.object().execute(statement, params)).await
    }

    /// Prepares and runs one statement.
    pub(super) async fn query(&self, sql: &'static str, params: Params<'_>) -> Result<Vec<Row>> {
        let statement = self.prepare(sql).await?;
        self.rows(&statement, params).await
    }

    /// Prepares and runs one statement that returns at most one row of interest.
    pub(super) async fn first(&self, sql: &'static str, params: Params<'_>) -> Result<Option<Row>> {
        Ok(self.query(sql, params).await?.into_iter().next())
    }

    /// Prepares and runs one statement that returns no rows.
    pub(super) async fn execute(&self, sql: &'static str, params: Params<'_>) -> Result<u64> {
        let statement = self.prepare(sql).await?;
        self.count(&statement, params).await
    }

    /// READ COMMITTED by name: the fence needs a new snapshot for each statement, whatever the database's default is.
    pub(super) async fn begin(&self) -> Result<()> {
        self.in_transaction.store(true, Ordering::Relaxed);
        self.answer(self.object().batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED"))
            .await
    }

    /// Ends the transaction. Pipelined behind a statement that fails it rolls back and still answers `Ok`: look at the others first.
    pub(super) async fn commit(&self) -> Result<()> {
        self.answer(self.object().batch_execute("COMMIT")).await?;
        self.in_transaction.store(false, Ordering::Relaxed);
        Ok(())
    }

    pub(super) async fn rollback(&self) -> Result<()> {
        self.answer(self.object().batch_execute("ROLLBACK")).await?;
        self.in_transaction.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Rolls back if a transaction is open, so that the connection can be used again; the caller's own error is what counts.
    pub(super) async fn settle<T>(&self, answer: Result<T>) -> Result<T> {
        let keeps_connection = !matches!(answer, Ok(_) | Err(StoreError::Unavailable(_)));
        if keeps_connection && self.in_transaction.load(Ordering::Relaxed) {
            // A failure leaves the transaction open, and dropping the session then closes the connection.
            let _ = self.rollback().await;
        }
        answer
    }

    async fn answer<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T> {
        // Given back only once the answer is here: a caller that goes away half-way leaves the count up.
        self.outstanding.fetch_add(1, Ordering::Relaxed);
        match tokio::time::timeout(self.answer_timeout, call).await {
            Ok(answer) => {
                self.outstanding.fetch_sub(1, Ordering::Relaxed);
                answer.map_err(|why| sqlstate::store_error(&why))
            }
            Err(_) => Err(StoreError::Unavailable(format!(
                "no answer within {} s",
                self.answer_timeout.as_secs()
            ))),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let clean = self.outstanding.load(Ordering::Relaxed) == 0 && !self.in_transaction.load(Ordering::Relaxed);
        if !clean && let Some(object) = self.object.take() {
            drop(Object::take(object));
        }
    }
}
