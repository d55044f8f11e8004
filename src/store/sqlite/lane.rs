//! Threads that own connections, and the bounded queue of calls in front of them.
//!
//! Owns: where SQLite's blocking calls run. Never: runs one on the caller's thread. Invariant: a call that was accepted runs to its
//! end even if its caller stops waiting, and dropping a lane waits until every accepted call has ended and the connections are closed.

use crate::store::StoreError;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot};

type Call = Box<dyn FnOnce(&mut Connection) + Send>;

/// One thread per connection, all fed from one queue.
pub(super) struct Lane {
    calls: Option<mpsc::Sender<Call>>,
    threads: Vec<JoinHandle<()>>,
}

impl Lane {
    pub(super) fn start(name: &str, connections: Vec<Connection>, queue: usize) -> Result<Self, StoreError> {
        let (calls, waiting) = mpsc::channel(queue);
        let waiting = Arc::new(Mutex::new(waiting));
        let mut lane = Lane {
            calls: Some(calls),
            threads: Vec::new(),
        };
        for connection in connections {
            let waiting = waiting.clone();
            let thread = std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || serve(&waiting, connection))
                .map_err(|error| StoreError::Unavailable(format!("cannot start a thread: {error}")))?;
            lane.threads.push(thread);
        }
        Ok(lane)
    }

    /// Runs `work` on a connection of this lane.
    pub(super) async fn run<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let call: Call = Box::new(move |connection| {
            // A caller that went away does not want the answer.
            let _ = reply.send(work(connection));
        });
        let calls = self.calls.as_ref().ok_or_else(stopped)?;
        calls.send(call).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    /// Runs `work` in one transaction, which is rolled back if `work` fails.
    pub(super) async fn transact<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        self.run(move |connection| {
            let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = work(&tx)?;
            tx.commit()?;
            Ok(value)
        })
        .await
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.calls = None;
        for thread in self.threads.drain(..) {
            // A thread that panicked has ended too.
            let _ = thread.join();
        }
    }
}

fn stopped() -> StoreError {
    StoreError::Unavailable("the store's thread stopped before it answered".into())
}

fn serve(waiting: &Mutex<mpsc::Receiver<Call>>, mut connection: Connection) {
    while let Some(call) = next(waiting) {
        // A panic loses the call (its caller sees the reply channel close, its transaction rolls back), not the store.
        let _ = catch_unwind(AssertUnwindSafe(|| call(&mut connection)));
    }
}

/// The next call; none once the lane is dropped and its queue empty.
fn next(waiting: &Mutex<mpsc::Receiver<Call>>) -> Option<Call> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv()
}
