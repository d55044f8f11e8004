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
/// When to try a job again whose row somebody else holds.
const BLOCKED_RETRY: Duration = Duration::from_millis(200);

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

/// A lane is free again; these batches could not be committed because their job's row is held by somebody else.
#[derive(Message)]
#[rtype(result = "()")]
struct GroupDone(Vec<Share>);

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
                    .map(|blocked, _, ctx| ctx.notify(GroupDone(blocked))),
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

    fn handle(&mut self, GroupDone(blocked): GroupDone, ctx: &mut Self::Context) {
        self.busy_lanes -= 1;
        if !blocked.is_empty() {
            // They wait without a lane: a stuck job holds no other up.
            ctx.run_later(BLOCKED_RETRY, |committer, ctx| {
                committer.gathered.extend(blocked);
                committer.pump(ctx);
            });
        }
        self.pump(ctx);
    }
}

/// Commits a group and tells its jobs; answers the batches that are blocked.
async fn commit_group(shared: Arc<Shared>, group: Vec<Share>) -> Vec<Share> {
    let started = Instant::now();
    let (batches, answers_to): (Vec<_>, Vec<_>) = group.into_iter().map(Share::into_parts).unzip();
    let rows: usize = batches.iter().map(JobBatch::len).sum();
    let _passage = shared.commits.enter();
    let answers = commit_isolating(&shared, &batches).await;
    metrics::histogram!("tallykeeper_commit_duration_seconds").record(started.elapsed());
    metrics::histogram!("tallykeeper_commit_rows").record(rows as f64);
    if batches.iter().any(JobBatch::calls_somebody) {
        shared.outbox.look_now();
    }
    let mut blocked = Vec::new();
    for ((batch, answer_to), answer) in batches.into_iter().zip(answers_to).zip(answers) {
        match answer {
            Some(answer) => answer_to.settle(answer),
            None => blocked.push(Share::from_parts(batch, answer_to)),
        }
    }
    if !blocked.is_empty() {
        tracing::debug!(
            jobs = blocked.len(),
            "rows of jobs are locked by another session; trying again"
        );
    }
    blocked
}

/// Commits a group; if the store refuses a value, job by job; if a lone job is refused, task by task. None: blocked.
async fn commit_isolating(shared: &Shared, batches: &[JobBatch]) -> Vec<Option<BatchCommitted>> {
    match commit_until_known(shared, batches).await {
        Ok(answers) => answers.into_iter().map(settled).collect(),
        Err(error) if batches.len() == 1 => vec![commit_by_task(shared, batches[0].clone(), &error).await],
        Err(_) => {
            let mut answers = Vec::with_capacity(batches.len());
            for batch in batches {
                answers.push(match commit_until_known(shared, std::slice::from_ref(batch)).await {
                    Ok(answer) => settled(answer[0]),
                    Err(error) => commit_by_task(shared, batch.clone(), &error).await,
                });
            }
            answers
        }
    }
}

fn settled(answer: BatchAnswer) -> Option<BatchCommitted> {
    match answer {
        BatchAnswer::Committed => Some(BatchCommitted::Settled(Settlement::default())),
        BatchAnswer::Fenced => Some(BatchCommitted::Fenced),
        BatchAnswer::Blocked => None,
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
async fn commit_by_task(shared: &Shared, mut batch: JobBatch, error: &StoreError) -> Option<BatchCommitted> {
    tracing::warn!(job = %batch.job, %error, "the store refused a value; committing task by task");
    let update = batch.update.take();
    let mut settlement = Settlement::default();
    for (task, rows) in split_by_task(batch.clone()) {
        match commit_until_known(shared, std::slice::from_ref(&rows)).await {
            Ok(answers) if answers[0] == BatchAnswer::Fenced => return Some(BatchCommitted::Fenced),
            // What was committed so far is recognised when the whole batch is tried again.
            Ok(answers) if answers[0] == BatchAnswer::Blocked => return None,
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(job = %batch.job, %task, %error, "result refused for good");
                settlement.refused.push(task);
            }
        }
    }
    if let Some(update) = update {
        if !settlement.refused.is_empty() {
            settlement.update_dropped = true;
            return Some(BatchCommitted::Settled(settlement));
        }
        let alone = JobBatch {
            outcomes: Vec::new(),
            attempts: Vec::new(),
            late: Vec::new(),
            update: Some(update),
            ..batch
        };
        match commit_until_known(shared, &[alone]).await {
            Ok(answers) => return settled(answers[0]),
            // The update itself cannot be stored: the actor has to start over from what is.
            Err(_) => return Some(BatchCommitted::Fenced),
        }
    }
    Some(BatchCommitted::Settled(settlement))
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
