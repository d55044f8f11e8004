//! Logs of jobs: gathered from everywhere, written in batches off everybody's path.
//!
//! Owns: the bounded queue before the store, retention, waking readers that follow a log. Never: touches a job, or lets one wait for a
//! log. Invariant: a caller that posted hears "done" only once its entries are durable; a full queue is "busy", not a wait.
//!
//! A write whose answer was lost is repeated and may then be there twice: a log is for people, and counts nothing.

use super::api::CoordinatorError;
use super::shared::Shared;
use crate::domain::ids::JobId;
use crate::domain::logs::Entry;
use crate::store::StoreError;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// Entries in one transaction, but for the last request that joins it.
const ENTRIES_AT_ONCE: usize = 1_000;
/// What an entry takes in memory besides its message.
const ENTRY_BYTES: usize = 128;
/// Jobs whose entries are counted for retention.
const JOBS_COUNTED: usize = 10_000;
const FIRST_RETRY: Duration = Duration::from_millis(20);

type Reply = oneshot::Sender<Result<(), CoordinatorError>>;

struct Waiting {
    entries: Vec<Entry>,
    /// None: the coordinator's own words, for which nobody waits.
    reply: Option<Reply>,
    _room: OwnedSemaphorePermit,
}

pub(super) struct LogBook {
    queue: mpsc::UnboundedSender<Waiting>,
    incoming: Mutex<Option<mpsc::UnboundedReceiver<Waiting>>>,
    /// Bytes of entries that may wait; what bounds the queue.
    room: Arc<Semaphore>,
    bytes: u32,
    followed: Mutex<HashMap<JobId, Arc<Notify>>>,
}

impl LogBook {
    pub(super) fn new(bytes: usize) -> LogBook {
        let bytes = u32::try_from(bytes)
            .unwrap_or(u32::MAX)
            .min(Semaphore::MAX_PERMITS as u32);
        let (queue, incoming) = mpsc::unbounded_channel();
        LogBook {
            queue,
            incoming: Mutex::new(Some(incoming)),
            room: Arc::new(Semaphore::new(bytes as usize)),
            bytes,
            followed: Mutex::default(),
        }
    }

    /// Queues entries and answers where their fate will be told; none if there is no room.
    pub(super) fn post(&self, entries: Vec<Entry>) -> Option<oneshot::Receiver<Result<(), CoordinatorError>>> {
        let (reply, answer) = oneshot::channel();
        self.queue(entries, Some(reply)).then_some(answer)
    }

    /// Queues the coordinator's own words; without room they are left unsaid.
    pub(super) fn note(&self, entries: Vec<Entry>) {
        let count = entries.len() as u64;
        if !entries.is_empty() && !self.queue(entries, None) {
            metrics::counter!("tallykeeper_log_entries_dropped_total").increment(count);
        }
    }

    fn queue(&self, entries: Vec<Entry>, reply: Option<Reply>) -> bool {
        let bytes: usize = entries.iter().map(|entry| entry.message.len() + ENTRY_BYTES).sum();
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let Ok(room) = self.room.clone().try_acquire_many_owned(bytes) else {
            return false;
        };
        let waiting = Waiting {
            entries,
            reply,
            _room: room,
        };
        self.queue.send(waiting).is_ok()
    }

    /// Returns when everything queued so far has been written or given up.
    pub(super) async fn flush(&self) {
        let _ = self.room.acquire_many(self.bytes).await;
    }

    /// Signalled after every write to the job's log, for as long as somebody holds it.
    pub(super) fn follow(&self, job: JobId) -> Arc<Notify> {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        followed.retain(|_, notify| Arc::strong_count(notify) > 1);
        followed.entry(job).or_default().clone()
    }

    fn written(&self, entries: &[Entry]) {
        let followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in entries {
            if let Some(notify) = followed.get(&entry.job) {
                notify.notify_waiters();
            }
        }
    }
}

/// Writes what has gathered, for as long as the node lives.
pub(super) async fn run(shared: Arc<Shared>) {
    let incoming = shared
        .log_book
        .incoming
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    let Some(mut incoming) = incoming else { return };
    let mut since_trim: HashMap<JobId, u32> = HashMap::new();
    while let Some(first) = incoming.recv().await {
        let mut count = first.entries.len();
        let mut group = vec![first];
        while count < ENTRIES_AT_ONCE {
            let Ok(next) = incoming.try_recv() else { break };
            count += next.entries.len();
            group.push(next);
        }
        write_group(&shared, group, &mut since_trim).await;
    }
}

async fn write_group(shared: &Shared, group: Vec<Waiting>, since_trim: &mut HashMap<JobId, u32>) {
    let entries: Vec<Entry> = group.iter().flat_map(|waiting| &waiting.entries).cloned().collect();
    match write(shared, &entries).await {
        Err(error) if !error.is_retryable() && group.len() > 1 => {
            // One request holds something the store refuses; its neighbours do not pay for it.
            for waiting in group {
                let written = write(shared, &waiting.entries).await;
                answer(waiting, written);
            }
        }
        written => {
            if written.is_ok() {
                metrics::counter!("tallykeeper_log_entries_total").increment(entries.len() as u64);
                trim(shared, &entries, since_trim).await;
            }
            for waiting in group {
                answer(waiting, written.clone());
            }
        }
    }
}

fn answer(waiting: Waiting, written: Result<(), StoreError>) {
    match waiting.reply {
        // A caller that went away does not want to know.
        Some(reply) => drop(reply.send(written.map_err(CoordinatorError::from))),
        None => {
            if let Err(error) = written {
                tracing::warn!(%error, entries = waiting.entries.len(), "log entries could not be written");
            }
        }
    }
}

/// Writes, trying again for as long as a caller would wait.
async fn write(shared: &Shared, entries: &[Entry]) -> Result<(), StoreError> {
    let deadline = Instant::now() + shared.settings.store_wait;
    let mut wait = FIRST_RETRY;
    loop {
        match shared.store.append_logs(entries).await {
            Err(error) if error.is_retryable() && Instant::now() + wait < deadline => {
                tokio::time::sleep(wait).await;
                wait *= 2;
            }
            Err(error) => return Err(error),
            Ok(()) => {
                shared.log_book.written(entries);
                return Ok(());
            }
        }
    }
}

/// Cuts the log of a job that has grown by a tenth of what it may hold.
async fn trim(shared: &Shared, entries: &[Entry], since_trim: &mut HashMap<JobId, u32>) {
    let keep = shared.settings.log_entries_per_job;
    if since_trim.len() > JOBS_COUNTED {
        since_trim.clear();
    }
    for entry in entries {
        let count = since_trim.entry(entry.job).or_default();
        *count += 1;
        if *count <= keep / 10 {
            continue;
        }
        *count = 0;
        if let Err(error) = shared.store.trim_logs(entry.job, keep).await {
            tracing::warn!(job = %entry.job, %error, "the job's log could not be trimmed; it will be later");
        }
    }
}
