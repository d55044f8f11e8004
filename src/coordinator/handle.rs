//! The calls of the [`Coordinator`] handle.
//!
//! Owns: finding the actor, taking permits, bounding waits. Never: decides anything about a job. Invariant: every wait here ends, and an
//! answer that did not come in time is `StoreUnavailable`, never an empty success.

use super::api::*;
use super::awaited::Awaited;
use super::directory::{JobHandle, Lane, Permit};
use super::job_actor::{Answer, Ask, JobDeleted, Request, Undelivered, needs_actor};
use super::{Coordinator, Readiness, Result};
use crate::domain::ids::{JobId, TaskNo, UnixMs};
use crate::domain::job::{JobRecord, NewTask};
use crate::domain::lease::Lease;
use crate::domain::ledger::Item;
use crate::domain::logs::Entry;
use crate::domain::progress::{Progress, StageProgress, fraction};
use crate::domain::state::State;
use crate::store::{ClusterSecret, JobFilter, LogFilter, LogRow, Store, StoreError};
use futures_util::future::join_all;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Payload bytes read at once to find the keys of tasks.
const KEY_PAGE_BYTES: usize = 1 << 20;
/// Longest sleep of a reader that follows a log.
const LOG_NAP: Duration = Duration::from_secs(1);

impl Coordinator {
    /// What nodes of this store prove themselves with to each other.
    pub fn cluster_secret(&self) -> Option<&ClusterSecret> {
        self.shared.secret.get()
    }

    pub fn is_draining(&self) -> bool {
        self.shared.is_draining()
    }

    /// This process of the node.
    pub fn incarnation(&self) -> &str {
        &self.shared.identity.incarnation
    }

    /// The store, for reads that need no actor (results, tokens).
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.shared.store
    }

    /// The node's id.
    pub fn node_id(&self) -> &str {
        &self.shared.identity.node
    }

    /// The store's time, kept up between calls by a monotonic clock.
    pub fn now(&self) -> UnixMs {
        self.shared.clock.now()
    }

    pub fn readiness(&self) -> Readiness {
        self.shared.readiness()
    }

    /// The queue of a job, from memory where possible.
    pub async fn queue_of(&self, job: JobId) -> Result<Arc<str>> {
        if let Some(queue) = self.shared.directory.queue_of(job) {
            return Ok(queue);
        }
        let record = self.record(job).await?;
        let queue: Arc<str> = Arc::from(record.queue);
        self.shared.directory.note_queue_of(job, queue.clone());
        Ok(queue)
    }

    pub(super) async fn record(&self, job: JobId) -> Result<JobRecord> {
        self.within_store_wait(self.shared.store.job(job))
            .await??
            .ok_or(CoordinatorError::NotFound)
    }

    /// A job with its live progress.
    pub async fn job(&self, job: JobId) -> Result<JobView> {
        if let Some(handle) = self.shared.directory.job(job) {
            return self.live_view(&handle).await;
        }
        let record = self.record(job).await?;
        if !needs_actor(record.state, record.start_at) {
            return Ok(self.stored_view(record));
        }
        // Its row knows the tally of its last transition only: whoever cannot ask its actor must not show that as the present.
        self.refuse_when_draining()?;
        let handle = self.handle(job).await?;
        self.live_view(&handle).await
    }

    pub(super) async fn live_view(&self, handle: &JobHandle) -> Result<JobView> {
        match self.ask(handle, Lane::Controls, Request::View).await? {
            Answer::View(view) => Ok(*view),
            _ => Err(mismatched()),
        }
    }

    /// Jobs from the newest to the oldest, active ones with their live progress.
    pub async fn list_jobs(&self, filter: &JobFilter) -> Result<Vec<JobView>> {
        let records = self.within_store_wait(self.shared.store.list_jobs(filter)).await??;
        let views = records.into_iter().map(|record| async move {
            match self.shared.directory.job(record.id) {
                // The filter was decided on committed rows; what the owner says of the same job can only be newer.
                Some(handle) => self
                    .live_view(&handle)
                    .await
                    .unwrap_or_else(|_| self.stored_view(record)),
                None => self.stored_view(record),
            }
        });
        Ok(join_all(views).await)
    }

    /// Appends one chunk of tasks; `first_task` must match the job's total if given.
    pub async fn append(&self, job: JobId, tasks: Vec<NewTask>, first_task: Option<u32>) -> Result<Ingested> {
        let request = Request::Append {
            tasks: Arc::new(tasks),
            first_task,
        };
        match self.ask_job(job, Lane::Controls, request).await? {
            Answer::Appended(ingested) => Ok(ingested),
            _ => Err(mismatched()),
        }
    }

    pub async fn control(&self, job: JobId, control: Control) -> Result<JobView> {
        match self.ask_job(job, Lane::Controls, Request::Control(control)).await? {
            Answer::View(view) => Ok(*view),
            _ => Err(mismatched()),
        }
    }

    /// Writes entries into a job's log; returns once they are durable.
    pub async fn post_logs(&self, job: JobId, entries: Vec<Entry>) -> Result<()> {
        self.refuse_when_draining()?;
        // Known, or found in the store: a log of no job is not written.
        let queue = self.queue_of(job).await?;
        for worker in entries.iter().filter_map(|entry| entry.worker.as_deref()) {
            self.shared.sightings.see(&worker.into(), &queue, self.now());
        }
        if entries.is_empty() {
            return Ok(());
        }
        let answer = self.shared.log_book.post(entries);
        let answer = answer.ok_or(CoordinatorError::Busy("too many log entries wait to be written"))?;
        let written = self.within_store_wait(answer).await?;
        written.map_err(|_| CoordinatorError::StoreUnavailable)?
    }

    /// Entries of a job's log; while there are none the call waits, at most so long.
    pub async fn logs(&self, filter: LogFilter, wait: Duration) -> Result<Vec<LogRow>> {
        let deadline = Instant::now() + wait;
        self.queue_of(filter.job).await?;
        let permit = (!wait.is_zero()).then(|| self.shared.polls.clone().try_acquire_owned());
        let _permit = permit
            .transpose()
            .map_err(|_| CoordinatorError::Busy("too many callers wait"))?;
        let follow = self.shared.log_book.follow(filter.job);
        loop {
            // Armed before the read: an entry that is written in between is not missed.
            let mut written = std::pin::pin!(follow.notified());
            written.as_mut().enable();
            let rows = self.within_store_wait(self.shared.store.logs(&filter)).await??;
            if !rows.is_empty() || Instant::now() >= deadline || self.shared.is_draining() {
                return Ok(rows);
            }
            // The bound lets a draining node answer in time.
            let nap = deadline.min(Instant::now() + LOG_NAP);
            let _ = tokio::time::timeout_at(nap.into(), written).await;
        }
    }

    /// Deletes a final job. Its row is gone when this answers; its other rows follow in pieces.
    pub async fn delete(&self, job: JobId) -> Result<()> {
        let Answer::Deletable(fence, run) = self.ask_job(job, Lane::Controls, Request::ProveDeletable).await? else {
            return Err(mismatched());
        };
        // Guarded by fence, run and state: a retry that comes in between keeps the job.
        match self
            .within_store_wait(self.shared.store.delete_job(job, fence, run))
            .await?
        {
            Ok(()) => {}
            Err(StoreError::Conflict(_)) => return Err(CoordinatorError::Busy("the job has just been changed")),
            Err(error) => return Err(error.into()),
        }
        self.shared.directory.forget_queue_of(job);
        if let Some(handle) = self.shared.directory.job(job) {
            // Waited for, so that whoever hears of the deletion and asks again finds no actor. A closed mailbox is as good.
            let _ = self.within_store_wait(handle.addr.send(JobDeleted)).await?;
        }
        // Last, so that nothing comes after it that would show the job again.
        self.shared.board.announce_deleted(job);
        self.shared.purge_now.notify_one();
        Ok(())
    }

    pub async fn lease_job(&self, job: JobId, call: LeaseJob) -> Result<Granted> {
        let LeaseJob {
            worker,
            max_tasks,
            request_id,
        } = call;
        match self
            .ask_job(
                job,
                Lane::Leases,
                Request::Grant {
                    worker,
                    max_tasks,
                    request_id,
                },
            )
            .await?
        {
            Answer::Granted(granted) => Ok(granted),
            _ => Err(mismatched()),
        }
    }

    pub async fn post_results(&self, job: JobId, mut call: PostResults) -> Result<ResultsPosted> {
        // Held until the answer is here, so that no lease expires between its upload and its turn in the inbox.
        let (_hold, blobs) = self.move_out(job, &mut call).await?;
        let decode = |item: ReportedResult| Item {
            lease: Lease::decode(&item.lease).ok(),
            report: item.report,
        };
        let items: Vec<Item> = call.items.into_iter().map(decode).collect();
        let succeeds = |item: &Item| matches!(item.report, Report::Succeeded { .. });
        let succeeded: Vec<bool> = items.iter().map(succeeds).collect();
        let worker = call.worker.clone();
        let request = Request::Results {
            worker: call.worker,
            items,
            then_lease: call.then_lease,
        };
        match self.ask_job(job, Lane::Results, request).await? {
            Answer::Results(posted) => {
                self.count_results(job, &worker, &succeeded, &posted.dispositions);
                self.discard_uncounted(&blobs, &posted.dispositions);
                Ok(posted)
            }
            _ => Err(mismatched()),
        }
    }

    fn count_results(&self, job: JobId, worker: &Arc<str>, succeeded: &[bool], dispositions: &[Disposition]) {
        let (mut done, mut failed) = (0, 0);
        for (&success, disposition) in succeeded.iter().zip(dispositions) {
            match (disposition, success) {
                (Disposition::Counted, true) => done += 1,
                (Disposition::Counted | Disposition::Retrying, false) => failed += 1,
                _ => {}
            }
        }
        if let Some(queue) = self.shared.directory.queue_of(job) {
            self.shared.sightings.count(worker, &queue, done, failed, self.now());
        }
    }

    pub async fn extend(&self, job: JobId, call: ExtendLeases) -> Result<Extended> {
        match self.ask_job(job, Lane::Leases, Request::Extend(call)).await? {
            Answer::Extended(extended) => Ok(extended),
            _ => Err(mismatched()),
        }
    }

    pub async fn release(&self, job: JobId, worker: Arc<str>, leases: Vec<String>) -> Result<Released> {
        match self
            .ask_job(job, Lane::Leases, Request::Release { worker, leases })
            .await?
        {
            Answer::Released(released) => Ok(released),
            _ => Err(mismatched()),
        }
    }

    /// Gives leases back without waiting: the answer that carried them was never delivered.
    pub fn release_undelivered(&self, job: JobId, leases: Vec<String>) {
        if let Some(handle) = self.shared.directory.job(job) {
            let leases = leases.iter().filter_map(|text| Lease::decode(text).ok()).collect();
            handle.addr.do_send(Undelivered(leases));
        } else if self.shared.is_store_shared() {
            self.give_back_elsewhere(job, leases);
        }
    }

    /// Tasks above `after` in order of their numbers, at most `limit`, only those in `state` if given.
    pub async fn tasks(
        &self,
        job: JobId,
        state: Option<TaskState>,
        after: Option<TaskNo>,
        limit: u32,
    ) -> Result<Vec<TaskView>> {
        let Answer::Tasks(found) = self
            .ask_job(job, Lane::Controls, Request::Tasks { state, after, limit })
            .await?
        else {
            return Err(mismatched());
        };
        let mut keys = self.keys_of(job, found.iter().map(|(task, _)| *task).collect()).await?;
        let view = |(task, status): (TaskNo, crate::domain::ledger::TaskStatus)| TaskView {
            task,
            key: keys.remove(&task).flatten(),
            state: status.state,
            attempt: status.attempt,
            worker: status.worker,
            expires_at: status.expires_at,
        };
        Ok(found.into_iter().map(view).collect())
    }

    /// The keys of some tasks.
    pub(super) async fn keys_of(&self, job: JobId, mut left: Vec<TaskNo>) -> Result<HashMap<TaskNo, Option<String>>> {
        left.sort_unstable();
        let mut keys = HashMap::with_capacity(left.len());
        while !left.is_empty() {
            let reading = self.shared.store.tasks(job, &left, KEY_PAGE_BYTES);
            let rows = self.within_store_wait(reading).await??;
            let Some(last) = rows.last().map(|row| row.task) else {
                break;
            };
            keys.extend(rows.into_iter().map(|row| (row.task, row.key)));
            left.retain(|task| *task > last);
        }
        Ok(keys)
    }

    /// The actor of a job, activated if it has none.
    pub(super) async fn handle(&self, job: JobId) -> Result<JobHandle> {
        if let Some(handle) = self.shared.directory.job(job) {
            return Ok(handle);
        }
        let queue = self.queue_of(job).await?;
        let queue = self.own_queue(&queue).await?;
        self.activate(&queue, job).await
    }

    pub(super) async fn ask_job(&self, job: JobId, lane: Lane, request: Request) -> Result<Answer> {
        self.refuse_when_draining()?;
        let handle = self.handle(job).await?;
        if let Some(worker) = request.worker() {
            self.shared.sightings.see(worker, &handle.queue, self.now());
            if matches!(request, Request::Grant { .. }) {
                self.shared
                    .sightings
                    .note_polled(std::slice::from_ref(&handle.queue), self.now());
            }
        }
        self.ask(&handle, lane, request).await
    }

    pub(super) async fn ask(&self, handle: &JobHandle, lane: Lane, request: Request) -> Result<Answer> {
        let permit = self.permit(handle, lane).await;
        let permit = permit.ok_or(CoordinatorError::Busy("too many requests for this job are unanswered"))?;
        self.ask_with(handle, request, permit).await
    }

    pub(super) async fn ask_with(&self, handle: &JobHandle, request: Request, permit: Permit) -> Result<Answer> {
        let (reply, answer) = oneshot::channel();
        handle.addr.do_send(Ask {
            request,
            reply,
            permit: Some(permit),
            renews: self.renews(),
        });
        match tokio::time::timeout(self.store_wait(), Awaited::new(answer, self)).await {
            Ok(Ok(answer)) => answer,
            // The actor stopped between look-up and message; the next call finds its successor.
            Ok(Err(_)) => Err(CoordinatorError::Busy("the job is being moved")),
            Err(_) => Err(CoordinatorError::StoreUnavailable),
        }
    }

    pub(super) async fn within_store_wait<T>(&self, call: impl Future<Output = T>) -> Result<T> {
        let bounded = tokio::time::timeout(self.store_wait(), call);
        bounded.await.map_err(|_| CoordinatorError::StoreUnavailable)
    }

    pub(super) fn refuse_when_draining(&self) -> Result<()> {
        if self.shared.is_draining() {
            Err(CoordinatorError::Draining)
        } else {
            Ok(())
        }
    }

    /// What the row alone says of a job without an actor: nothing is leased, and what is undecided is pending.
    pub(super) fn stored_view(&self, record: JobRecord) -> JobView {
        let tally = &record.tally;
        let decided = tally.succeeded + tally.failed;
        let share = |reached| fraction(reached, tally.total, record.open, record.expected_total);
        let reached = tally.reached.iter().copied().chain(std::iter::repeat(0));
        let stages = record.stages.iter().zip(reached).map(|(stage, reached)| StageProgress {
            key: stage.key.clone(),
            name: stage.name.clone(),
            reached: reached.max(tally.succeeded),
            total: tally.total,
            fraction: share(reached.max(tally.succeeded)),
        });
        let progress = Progress {
            seq: record.changed_seq,
            total: tally.total,
            pending: tally.total - decided,
            leased: 0,
            retrying: 0,
            succeeded: tally.succeeded,
            failed: tally.failed,
            fraction: share(decided),
            rate_per_s: None,
            eta_s: None,
            counters: tally.counters.clone(),
            stages: stages.collect(),
        };
        let begun = decided > 0 || record.state.is_final();
        let owned = record.state != State::Pending && record.state.is_active();
        let node = match owned {
            true if self.shared.is_store_shared() => self.node_of(&record.queue),
            true => Some(self.shared.identity.node.clone()),
            false => None,
        };
        JobView {
            record,
            progress,
            node,
            epoch: None,
            begun,
        }
    }
}

pub(super) fn mismatched() -> CoordinatorError {
    CoordinatorError::Internal("an actor gave an answer of another kind".into())
}
