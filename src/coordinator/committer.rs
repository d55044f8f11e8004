//! Group commit: what has gathered, from all jobs, goes into one transaction.
//!
//! Owns: the order of commits, what goes into which, replaying an unknown one, isolating a poison row. Never: judges a result or drops a
//! batch. Invariant: a batch is answered exactly once, and only when the store's answer to all of it is definite. There is no timer: an
//! idle committer commits at once, a busy one gathers larger groups.

mod share;

use super::shared::Shared;
use crate::domain::ids::TaskNo;
use crate::domain::ledger::Settlement;
use crate::domain::rows::JobBatch;
use crate::store::{BatchAnswer, StoreError};
use actix::prelude::*;
use share::Share;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Rows after which no further job joins a group.
const GROUP_ROWS: usize = 20_000;
/// Rows that are worth a lane of their own: the store spends longer on them than on a transaction.
const LANE_ROWS: usize = 500;
/// Jobs in one group; each may add an UPDATE of its own.
const GROUP_JOBS: usize = 1_000;
const FIRST_RETRY: Duration = Duration::from_millis(20);
const LAST_RETRY: Duration = Duration::from_secs(1);
/// When to try a job again whose row or queue somebody else holds.
const BLOCKED_RETRY: Duration = Duration::from_millis(200);
/// When to try a job again that the store cannot commit as it is: a table that is missing, a permission, a damaged page. An operator mends it.
const BROKEN_RETRY: Duration = Duration::from_secs(1);

/// Commit this batch, then tell its job.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct CommitBatch {
    pub(super) batch: JobBatch,
    pub(super) answer_to: Recipient<BatchCommitted>,
}

/// The definite fate of a batch.
#[derive(Message, Debug, Clone, PartialEq, Eq)]
#[rtype(result = "()")]
pub(super) enum BatchCommitted {
    Settled(Settlement),
    /// Nothing of it was written: the job's actor is no longer its only writer.
    Fenced,
}

/// A lane is free again; these could not be committed now, and are to be tried again that much later.
#[derive(Message)]
#[rtype(result = "()")]
struct GroupDone(BTreeMap<Duration, Vec<Share>>);

/// What became of a batch in the store.
enum Fate {
    Known(BatchCommitted),
    /// Nothing definite: it is tried again as it is, without a lane meanwhile.
    Later(Duration),
}

pub(super) struct Committer {
    shared: Arc<Shared>,
    gathered: VecDeque<Share>,
    busy_lanes: usize,
    lanes: usize,
}

impl Committer {
    pub(super) fn new(shared: Arc<Shared>) -> Committer {
        let lanes = shared.store.capabilities().commit_lanes.max(1);
        Committer {
            shared,
            gathered: VecDeque::new(),
            busy_lanes: 0,
            lanes,
        }
    }

    fn pump(&mut self, ctx: &mut Context<Self>) {
        while self.busy_lanes < self.lanes && !self.gathered.is_empty() {
            let group = self.next_group();
            self.busy_lanes += 1;
            let committing = commit_group(self.shared.clone(), group);
            ctx.spawn(
                committing
                    .into_actor(self)
                    .map(|later, _, ctx| ctx.notify(GroupDone(later))),
            );
        }
    }

    /// What has gathered is spread over the idle lanes, the rows of one job too: a lane is one backend of the store, and one processor.
    fn next_group(&mut self) -> Vec<Share> {
        let gathered: usize = self.gathered.iter().map(Share::len).sum();
        let most = gathered
            .div_ceil(self.lanes - self.busy_lanes)
            .clamp(LANE_ROWS, GROUP_ROWS);
        let mut rows = 0;
        let mut group = Vec::new();
        while rows < most && group.len() < GROUP_JOBS {
            let Some(mut next) = self.gathered.pop_front() else {
                break;
            };
            if next.len() >= most - rows + LANE_ROWS
                && let Some(rest) = next.split_off(most - rows)
            {
                self.gathered.push_front(rest);
            }
            rows += next.len();
            group.push(next);
        }
        group
    }
}

impl Actor for Committer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // One batch per active job can wait here, so the bound is the number of jobs; senders do not wait.
        ctx.set_mailbox_capacity(1 << 16);
    }
}

impl Handler<CommitBatch> for Committer {
    type Result = ();

    fn handle(&mut self, message: CommitBatch, ctx: &mut Self::Context) {
        self.gathered.push_back(Share::whole(message));
        self.pump(ctx);
    }
}

impl Handler<GroupDone> for Committer {
    type Result = ();

    fn handle(&mut self, GroupDone(later): GroupDone, ctx: &mut Self::Context) {
        self.busy_lanes -= 1;
        for (wait, shares) in later {
            // They wait without a lane: a stuck job holds no other up.
            ctx.run_later(wait, |committer, ctx| {
                committer.gathered.extend(shares);
                committer.pump(ctx);
            });
        }
        self.pump(ctx);
    }
}

/// Commits a group and tells its jobs; answers what is to be tried again, and when.
async fn commit_group(shared: Arc<Shared>, group: Vec<Share>) -> BTreeMap<Duration, Vec<Share>> {
    let started = Instant::now();
    let (batches, answers_to): (Vec<_>, Vec<_>) = group.into_iter().map(Share::into_parts).unzip();
    let rows: usize = batches.iter().map(JobBatch::len).sum();
    let _passage = shared.commits.enter();
    let fates = commit_isolating(&shared, &batches).await;
    metrics::histogram!("tallykeeper_commit_duration_seconds").record(started.elapsed());
    metrics::histogram!("tallykeeper_commit_rows").record(rows as f64);
    if batches.iter().any(JobBatch::calls_somebody) {
        shared.outbox.look_now();
    }
    let mut later: BTreeMap<Duration, Vec<Share>> = BTreeMap::new();
    for ((batch, answer_to), fate) in batches.into_iter().zip(answers_to).zip(fates) {
        match fate {
            Fate::Known(answer) => answer_to.settle(answer),
            Fate::Later(wait) => {
                tracing::debug!(job = %batch.job, ?wait, "not committed now; trying again");
                later.entry(wait).or_default().push(Share::from_parts(batch, answer_to));
            }
        }
    }
    later
}

/// Commits a group; if the store does not take it, job by job; if it refuses a value of a lone job, task by task.
async fn commit_isolating(shared: &Shared, batches: &[JobBatch]) -> Vec<Fate> {
    match commit_until_known(shared, batches).await {
        Ok(answers) => answers.into_iter().map(fate).collect(),
        Err(error) if batches.len() == 1 => vec![not_taken(shared, &batches[0], error).await],
        Err(_) => {
            let mut fates = Vec::with_capacity(batches.len());
            for batch in batches {
                fates.push(match commit_until_known(shared, std::slice::from_ref(batch)).await {
                    Ok(answer) => fate(answer[0]),
                    Err(error) => not_taken(shared, batch, error).await,
                });
            }
            fates
        }
    }
}

fn fate(answer: BatchAnswer) -> Fate {
    match answer {
        BatchAnswer::Committed => Fate::Known(BatchCommitted::Settled(Settlement::default())),
        BatchAnswer::Fenced => Fate::Known(BatchCommitted::Fenced),
        BatchAnswer::Blocked => Fate::Later(BLOCKED_RETRY),
    }
}

/// What to do about a job that the store does not take by itself either. Only a value that it refuses is a worker's affair.
async fn not_taken(shared: &Shared, batch: &JobBatch, error: StoreError) -> Fate {
    match error {
        StoreError::Rejected(_) => commit_by_task(shared, batch.clone(), &error).await,
        error => broken(batch, &error),
    }
}

/// Nothing was written, and no result is at fault: good ones must not be answered `rejected`, so they wait and their callers get 503.
fn broken(batch: &JobBatch, error: &StoreError) -> Fate {
    match error {
        StoreError::Fenced(_) | StoreError::Conflict(_) | StoreError::NotFound(_) => {
            tracing::warn!(job = %batch.job, %error, "the job's row is not as this node believes; loading it again");
            Fate::Known(BatchCommitted::Fenced)
        }
        error => {
            tracing::error!(job = %batch.job, %error, "the store cannot commit this job; trying again every second");
            metrics::counter!("tallykeeper_commit_failures_total").increment(1);
            Fate::Later(BROKEN_RETRY)
        }
    }
}

/// Repeats the identical transaction until the store says what became of it. Keys and positions make the repetition harmless.
async fn commit_until_known(shared: &Shared, batches: &[JobBatch]) -> Result<Vec<BatchAnswer>, StoreError> {
    let mut wait = FIRST_RETRY;
    loop {
        match shared.store.commit(batches).await {
            Err(error) if error.is_retryable() => {
                shared.store_failed(&error);
                metrics::counter!("tallykeeper_commit_retries_total").increment(1);
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(LAST_RETRY);
            }
            answered => {
                shared.store_answered();
                return answered;
            }
        }
    }
}

/// Commits the rows of each task by themselves and leaves out those that the store refuses. An update that was judged together with a
/// refused row is left out too.
async fn commit_by_task(shared: &Shared, mut batch: JobBatch, error: &StoreError) -> Fate {
    tracing::warn!(job = %batch.job, %error, "the store refused a value; committing task by task");
    let update = batch.update.take();
    let mut settlement = Settlement::default();
    for (task, rows) in split_by_task(batch.clone()) {
        match commit_until_known(shared, std::slice::from_ref(&rows)).await {
            Ok(answers) if answers[0] == BatchAnswer::Committed => {}
            // What was committed so far is recognised when the whole batch is tried again.
            Ok(answers) => return fate(answers[0]),
            Err(error @ StoreError::Rejected(_)) => {
                tracing::warn!(job = %batch.job, %task, %error, "result refused for good");
                settlement.refused.push(task);
            }
            Err(error) => return broken(&batch, &error),
        }
    }
    if let Some(update) = update {
        if !settlement.refused.is_empty() {
            settlement.update_dropped = true;
            return Fate::Known(BatchCommitted::Settled(settlement));
        }
        let alone = JobBatch {
            outcomes: Vec::new(),
            attempts: Vec::new(),
            late: Vec::new(),
            update: Some(update),
            ..batch
        };
        return match commit_until_known(shared, std::slice::from_ref(&alone)).await {
            Ok(answers) => fate(answers[0]),
            // A value of the update itself is refused: that is this program's fault, and no other value will be found for it.
            Err(error) => broken(&alone, &error),
        };
    }
    Fate::Known(BatchCommitted::Settled(settlement))
}

fn split_by_task(batch: JobBatch) -> BTreeMap<TaskNo, JobBatch> {
    let empty = JobBatch {
        job: batch.job,
        fence: batch.fence,
        outcomes: Vec::new(),
        attempts: Vec::new(),
        late: Vec::new(),
        update: None,
    };
    let mut split: BTreeMap<TaskNo, JobBatch> = BTreeMap::new();
    for row in batch.outcomes {
        split
            .entry(row.task)
            .or_insert_with(|| empty.clone())
            .outcomes
            .push(row);
    }
    for row in batch.attempts {
        split
            .entry(row.task)
            .or_insert_with(|| empty.clone())
            .attempts
            .push(row);
    }
    for row in batch.late {
        split.entry(row.task).or_insert_with(|| empty.clone()).late.push(row);
    }
    split
}
