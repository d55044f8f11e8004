//! One worker: leases a task, runs the command for it, reports, and goes on.
//!
//! Owns: what the exit of a command means for its task. Never: counts for itself, or gives a result up while an answer may still come.
//! Invariant: a lease it took is reported, released, or known to be of no use to anyone; only a crash leaves one to expire.

use super::child::{self, Ended};
use super::client::retry::{Backoff, until_answered};
use super::client::{Answer, Client};
use super::meter::Meter;
use super::stop::{LAST_WORDS, Phase, Stop};
use super::template::{Template, item_of};
use crate::domain::ledger::Disposition;
use crate::domain::state::State;
use crate::http::wire::{
    Extend, Granted, GrantedJob, LeaseAny, LeaseJob, LeasedTask, PostResults, Release, ResultIn, ResultStatus,
    ResultsPosted, ThenLease,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

mod hindrance;
mod report;

pub(crate) use hindrance::Trouble;
use hindrance::{Hindrance, Shortage};
use report::{failed, refused_value, succeeded};

/// How long one lease call of `work` waits for a task, in seconds.
const POLL_S: f64 = 30.0;
/// How long a worker goes on with the same job before it lets the server choose again, so that small jobs get their turn.
const STAY: Duration = Duration::from_secs(1);
/// Waits of a worker that asks one job only.
const LOOK_AGAIN_FIRST: Duration = Duration::from_millis(20);
const LOOK_AGAIN_LAST: Duration = Duration::from_millis(500);

/// Where tasks come from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    Job(i64),
    Queues(Vec<String>),
}

/// What all workers of a process share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) client: Client,
    pub(crate) source: Source,
    pub(crate) template: Arc<Template>,
    pub(crate) stop: Stop,
    /// What a person watches, if anybody does.
    pub(crate) meter: Option<Arc<Meter>>,
    /// Show the commands' output there.
    pub(crate) forwards: bool,
    /// Leave after so long without a task.
    pub(crate) idle_exit: Option<Duration>,
    pub(crate) done: Arc<Done>,
    pub(crate) shortage: Arc<Shortage>,
}

/// How many tasks the workers of a process decided, as the server answered them.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) succeeded: AtomicU64,
    pub(crate) failed: AtomicU64,
    /// Failed attempts after which the task is tried again; it is not decided.
    pub(crate) retrying: AtomicU64,
}

/// Why a worker left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    Stopped,
    Idle,
    /// The only job it works for is over.
    JobEnded,
}

/// One worker; it holds at most one task.
pub(crate) struct Worker {
    shared: Shared,
    name: String,
    /// Begins the ids of its lease calls; random, since a worker of the same name may have run before.
    nonce: u32,
    /// Numbers its lease calls, so that a repeated call gets the same grant.
    calls: u64,
    /// How long to wait when this machine cannot start another command; grows until one starts.
    short: Backoff,
}

/// What became of a task here.
enum Performed {
    Report(ResultIn),
    /// Given up, because the worker stops.
    GivenUp,
    /// The job ended meanwhile: nobody waits for a report.
    Unwanted,
    /// It could not be tried here, which says nothing about it.
    Hindered(Hindrance),
}

impl Worker {
    pub(crate) fn new(shared: Shared, name: String) -> Self {
        Worker {
            shared,
            name,
            nonce: rand::random(),
            calls: 0,
            short: Backoff::default(),
        }
    }

    /// Works until told to stop, or there is nothing to do for long enough, or the job is over.
    pub(crate) async fn work(mut self) -> Result<Left, Trouble> {
        let mut idle_since = Instant::now();
        let mut wait = LOOK_AGAIN_FIRST;
        while !self.shared.stop.is_finishing() {
            let Some((job, task)) = self.lease().await? else {
                if self.shared.idle_exit.is_some_and(|limit| idle_since.elapsed() >= limit) {
                    return Ok(Left::Idle);
                }
                self.look_again_after(&mut wait).await;
                continue;
            };
            if self.stay(&job, task).await? == Left::JobEnded {
                return Ok(Left::JobEnded);
            }
            idle_since = Instant::now();
            wait = LOOK_AGAIN_FIRST;
        }
        Ok(Left::Stopped)
    }

    /// The call on queues has waited at the server already; the one on a job answers at once.
    async fn look_again_after(&self, wait: &mut Duration) {
        if let Source::Queues(_) = self.shared.source {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(*wait) => {}
            () = self.shared.stop.reached(Phase::Finish) => {}
        }
        *wait = (*wait * 2).min(LOOK_AGAIN_LAST);
    }

    /// One lease call, repeated until it is answered.
    async fn lease(&mut self) -> Answer<Option<(GrantedJob, LeasedTask)>> {
        self.calls += 1;
        let request_id = format!("{:08x}-{}", self.nonce, self.calls);
        let granted = tokio::select! {
            granted = until_answered(|| self.ask(&request_id, self.poll_s())) => granted?,
            () = self.shared.stop.reached(Phase::Finish) => {
                self.undo_lease(&request_id).await;
                return Ok(None);
            }
        };
        Ok(granted.job.zip(granted.tasks.into_iter().next()))
    }

    fn poll_s(&self) -> f64 {
        let patience = self.shared.idle_exit.map_or(POLL_S, |limit| limit.as_secs_f64());
        patience.min(POLL_S)
    }

    async fn ask(&self, request_id: &str, wait_s: f64) -> Answer<Granted> {
        let (worker, request_id) = (self.name.clone(), Some(request_id.to_owned()));
        match &self.shared.source {
            Source::Job(id) => {
                let body = LeaseJob {
                    worker,
                    max_tasks: 1,
                    wait_s: None,
                    request_id,
                };
                self.shared.client.lease_job(*id, &body).await
            }
            Source::Queues(queues) => {
                let body = LeaseAny {
                    worker,
                    queues: queues.clone(),
                    max_tasks: 1,
                    wait_s: Some(wait_s),
                    request_id,
                };
                self.shared.client.lease_any(&body).await
            }
        }
    }

    /// A call we stopped listening to may have been granted. Asked again under the same id, the server repeats its grant, and we can
    /// give it back instead of letting it expire.
    async fn undo_lease(&self, request_id: &str) {
        let undo = async {
            if let Ok(granted) = self.ask(request_id, 0.0).await
                && let Some(job) = granted.job
            {
                self.release(job.id, granted.tasks.into_iter().map(|task| task.lease).collect())
                    .await;
            }
        };
        let _ = tokio::time::timeout(LAST_WORDS, undo).await;
    }

    /// Performs a task and, for a while, the next ones of the same job.
    async fn stay(&mut self, job: &GrantedJob, first: LeasedTask) -> Result<Left, Trouble> {
        let since = Instant::now();
        let mut next = Some(first);
        while let Some(task) = next.take() {
            let report = match self.perform(job, &task).await {
                Performed::Report(report) => report,
                Performed::GivenUp => {
                    self.release(job.id, vec![task.lease]).await;
                    return Ok(Left::Stopped);
                }
                Performed::Unwanted => return Ok(self.left_by_job()),
                Performed::Hindered(hindrance) => {
                    self.release(job.id, vec![task.lease]).await;
                    self.get_over(hindrance).await?;
                    return Ok(Left::Idle);
                }
            };
            self.short = Backoff::default();
            let goes_on = matches!(self.shared.source, Source::Job(_)) || since.elapsed() < STAY;
            let then_lease = goes_on && !self.shared.stop.is_finishing();
            let Some(posted) = self.report(job.id, &task, report, then_lease).await? else {
                return Ok(Left::Stopped);
            };
            next = posted.tasks.and_then(|tasks| tasks.into_iter().next());
            if posted.job.state.is_final() {
                return Ok(self.left_by_job());
            }
        }
        Ok(Left::Idle)
    }

    /// Waits until this machine may have room for one more command; fails if the program cannot be started at all.
    async fn get_over(&mut self, hindrance: Hindrance) -> Result<(), Trouble> {
        let what = match hindrance {
            Hindrance::Program(trouble) => return Err(trouble),
            Hindrance::Shortage(what) => what,
        };
        self.shared.shortage.tell(&what, self.shared.meter.as_deref());
        tokio::select! {
            () = tokio::time::sleep(self.short.pause_again()) => {}
            () = self.shared.stop.reached(Phase::Finish) => {}
        }
        Ok(())
    }

    /// The end of a job ends a worker that works for nothing else.
    fn left_by_job(&self) -> Left {
        match self.shared.source {
            Source::Job(_) => Left::JobEnded,
            Source::Queues(_) => Left::Idle,
        }
    }

    /// Runs the command for one task while its lease is kept alive.
    async fn perform(&self, job: &GrantedJob, task: &LeasedTask) -> Performed {
        tokio::select! {
            performed = self.execute(task) => performed,
            state = self.keep(job.id, task) => {
                tracing::info!(job = job.id, task = task.task, %state, "the job ended, its command is stopped");
                Performed::Unwanted
            }
        }
    }

    async fn execute(&self, task: &LeasedTask) -> Performed {
        let argv = self.shared.template.fill(&item_of(task.payload.get()));
        let ended = child::run(&argv, self.shared.forwards, &self.shared.stop).await;
        let mut finished = match ended {
            Ended::Killed => return Performed::GivenUp,
            Ended::NotStarted(error) => {
                return match Hindrance::of(&argv[0], error) {
                    Ok(hindrance) => Performed::Hindered(hindrance),
                    Err(error) => Performed::Report(failed(task, format!("cannot start {}: {error}", argv[0]))),
                };
            }
            Ended::Unknown(error) => {
                return Performed::Report(failed(task, format!("cannot learn how {} ended: {error}", argv[0])));
            }
            Ended::Exited(finished) => finished,
        };
        // Shown before it is reported: a crash in between shows it twice, the other order could lose it.
        if let (Some(meter), Some((stdout, stderr))) = (self.shared.meter.clone(), finished.whole.take()) {
            let _ = tokio::task::spawn_blocking(move || meter.forward(stdout, stderr)).await;
        }
        Performed::Report(match finished.failure() {
            Some(error) => failed(task, error),
            None => succeeded(task, &finished.stdout, &finished.stderr),
        })
    }

    /// Extends the lease each time a third of it has passed; resolves once the job is over. A lease that is lost is still worth
    /// finishing: a success counts from any lease of the run, and the server may take the lease back in.
    async fn keep(&self, job: i64, task: &LeasedTask) -> State {
        let client = &self.shared.client;
        let lifetime_ms = (task.expires_at.0.0 - client.server_now().0).clamp(1_500, 3 * 3_600_000);
        let third = Duration::from_millis(lifetime_ms as u64 / 3);
        let body = Extend {
            worker: self.name.clone(),
            leases: vec![task.lease.clone()],
            stage: None,
            note: None,
        };
        let mut wait = third;
        loop {
            tokio::time::sleep(wait).await;
            wait = third;
            match client.extend(job, &body).await {
                Ok(extended) if extended.job_state.is_final() => return extended.job_state,
                Ok(extended) if !extended.lost.is_empty() => {
                    tracing::debug!(job, task = task.task, "the lease was lost, the command goes on");
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(job, task = task.task, %error, "cannot extend the lease");
                    wait = third / 4;
                }
            }
        }
    }

    /// Posts one result until it is answered; none if the worker had to leave before.
    async fn report(
        &self,
        job: i64,
        task: &LeasedTask,
        report: ResultIn,
        then_lease: bool,
    ) -> Answer<Option<ResultsPosted>> {
        let mut body = PostResults {
            worker: self.name.clone(),
            results: vec![report],
            then_lease: then_lease.then_some(ThenLease { max_tasks: 1 }),
        };
        let mut backoff = Backoff::default();
        let mut is_repeated = false;
        // One wait for all tries: begun anew at each of them, it would never end.
        let patience = self.shared.stop.patience_ends();
        tokio::pin!(patience);
        loop {
            let error = tokio::select! {
                posted = self.shared.client.post_results(job, &body) => match posted {
                    Ok(posted) => {
                        self.note(job, task, &body.results[0], &posted, is_repeated);
                        return Ok(Some(posted));
                    }
                    Err(error) => error,
                },
                () = &mut patience => return Ok(None),
            };
            is_repeated = true;
            if let Some(refusal) = refused_value(&error, &body.results[0]) {
                body.results[0] = refusal;
                continue;
            }
            tokio::select! {
                waited = backoff.wait(error) => waited?,
                () = &mut patience => return Ok(None),
            }
        }
    }

    /// Counts and tells what the server made of a result. A repeated post that finds its first one committed is `duplicate`, and counts
    /// here, for the first answer was lost; any other duplicate is somebody else's success.
    fn note(&self, job: i64, task: &LeasedTask, report: &ResultIn, posted: &ResultsPosted, is_repeated: bool) {
        let Some(disposition) = posted.results.first().map(|item| item.disposition) else {
            return;
        };
        match (disposition, report.status) {
            (Disposition::Counted, ResultStatus::Succeeded) => {
                self.shared.done.succeeded.fetch_add(1, Ordering::Relaxed);
            }
            (Disposition::Duplicate, ResultStatus::Succeeded) => {
                self.shared
                    .done
                    .succeeded
                    .fetch_add(u64::from(is_repeated), Ordering::Relaxed);
            }
            (Disposition::Counted, ResultStatus::Failed) => {
                self.shared.done.failed.fetch_add(1, Ordering::Relaxed);
                let error = report.error.as_deref().unwrap_or_default();
                match &self.shared.meter {
                    Some(meter) => meter.note_failure(task.task, &item_of(task.payload.get()), error),
                    None => tracing::warn!(job, task = task.task, error, "failed"),
                }
            }
            (Disposition::Retrying | Disposition::Duplicate, ResultStatus::Failed) => {
                let again = u64::from(disposition == Disposition::Retrying);
                self.shared.done.retrying.fetch_add(again, Ordering::Relaxed);
                let error = report.error.as_deref().unwrap_or_default();
                tracing::info!(
                    job,
                    task = task.task,
                    attempt = task.attempt,
                    error,
                    "failed, to be tried again"
                );
            }
            (other, _) => tracing::warn!(job, task = task.task, disposition = ?other, "a result did not count"),
        }
    }

    /// Gives leases back, spending nothing. If it cannot, they expire.
    async fn release(&self, job: i64, leases: Vec<String>) {
        if leases.is_empty() {
            return;
        }
        let body = Release {
            worker: self.name.clone(),
            leases,
        };
        let released = until_answered(|| self.shared.client.release(job, &body));
        if !matches!(tokio::time::timeout(LAST_WORDS, released).await, Ok(Ok(_))) {
            tracing::warn!(job, "a lease could not be given back and will expire");
        }
    }
}
