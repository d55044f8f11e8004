//! The group commit: batches of many jobs in one transaction.
//!
//! Owns: the order of its statements and what a guarded UPDATE that found nothing means. Never: merges or judges rows. Invariant: a
//! batch is written whole or not at all, and only under a proven epoch.
//!
//! Two round trips without a change of state: begin, locks and epochs; then rows and COMMIT. With one there is a third, because COMMIT
//! must wait for the answer of the guard.

use super::Postgres;
use super::fence::{self, Standing};
use super::gather::{AttemptColumns, EventColumns, OutcomeColumns, PromoteColumns, UpdateColumns};
use super::session::{Params, Session};
use crate::domain::rows::{JobBatch, JobUpdate};
use crate::store::{BatchAnswer, Result};
use futures_util::future::{join, join4};
use std::collections::{HashMap, HashSet};
use tokio_postgres::{Row, Statement};

const OUTCOMES: &str = include_str!("queries/outcomes/insert.sql");
const ATTEMPTS: &str = include_str!("queries/attempts/insert.sql");
const SHARE: &str = include_str!("queries/jobs/share.sql");
const LATE: &str = include_str!("queries/late/insert.sql");
const UPDATE: &str = include_str!("queries/jobs/update.sql");
const PROMOTE: &str = include_str!("queries/late/promote.sql");
const EVENTS: &str = include_str!("queries/events/insert.sql");
const CLAIM: &str = include_str!("queries/blobs/claim.sql");
const GUARD: &str = include_str!("queries/jobs/guard.sql");

/// Position of a batch in the call, and the batch.
type Member<'a> = (usize, &'a JobBatch);

pub(super) async fn commit(store: &Postgres, batches: &[JobBatch]) -> Result<Vec<BatchAnswer>> {
    let mut answers = vec![BatchAnswer::Committed; batches.len()];
    let mut members: Vec<Member<'_>> = batches.iter().enumerate().collect();
    // Each round that does not commit leaves out at least one batch.
    while !members.is_empty() {
        let session = store.writer().await?;
        let fenced = attempt(&session, &members).await;
        let Refused { batches, committed } = session.settle(fenced).await?;
        for (index, answer) in &batches {
            answers[*index] = *answer;
        }
        if committed {
            break;
        }
        members.retain(|(index, _)| !batches.contains_key(index));
    }
    Ok(answers)
}

/// Batches that were left out and why, and whether the rest is committed.
struct Refused {
    batches: HashMap<usize, BatchAnswer>,
    committed: bool,
}

async fn attempt(session: &Session, members: &[Member<'_>]) -> Result<Refused> {
    let statements = Statements::prepare(session).await?;
    let proof = fence::open(session, members.iter().map(|(_, batch)| batch.fence)).await?;
    let mut refused = HashMap::new();
    let mut owned = Vec::with_capacity(members.len());
    for member in members {
        match proof.standing(member.1.fence) {
            Standing::Proven => owned.push(*member),
            Standing::Undecided => drop(refused.insert(member.0, BatchAnswer::Blocked)),
            Standing::Lost => drop(refused.insert(member.0, BatchAnswer::Fenced)),
        }
    }
    let rows = Rows::gather(&owned)?;
    if rows.updates.is_empty() && rows.late.is_empty() && rows.blobs.is_empty() {
        let (written, ended) = join(rows.write(session, &statements), session.commit()).await;
        written?;
        ended?;
        return Ok(Refused {
            batches: refused,
            committed: true,
        });
    }
    let touched = rows.write(session, &statements).await?;
    let lost = lost(session, &owned, &touched).await?;
    let committed = lost.is_empty();
    refused.extend(lost);
    if committed {
        session.commit().await?;
    } else {
        session.rollback().await?;
    }
    Ok(Refused {
        batches: refused,
        committed,
    })
}

/// Jobs whose row the statements got hold of, and blobs they marked.
struct Touched {
    updated: HashSet<i64>,
    shared: HashSet<i64>,
    claimed: HashSet<i64>,
}

impl Touched {
    fn misses(&self, batch: &JobBatch) -> bool {
        let job = batch.job.0;
        (batch.update.is_some() && !self.updated.contains(&job))
            || (!batch.late.is_empty() && !self.shared.contains(&job))
            || self.misses_blob(batch)
    }

    /// A blob that was swept cannot be had any more: the result has to come again.
    fn misses_blob(&self, batch: &JobBatch) -> bool {
        batch.blobs().any(|blob| !self.claimed.contains(&blob.0))
    }
}

/// Batches whose guarded UPDATE found the row elsewhere, or whose row is locked. A row that shows our own `changed_seq` is no loss: it is
/// the replay of a commit whose answer got lost.
async fn lost(session: &Session, owned: &[Member<'_>], touched: &Touched) -> Result<HashMap<usize, BatchAnswer>> {
    let missing: Vec<&Member<'_>> = owned.iter().filter(|(_, batch)| touched.misses(batch)).collect();
    if missing.is_empty() {
        return Ok(HashMap::new());
    }
    let ids: Vec<i64> = missing.iter().map(|(_, batch)| batch.job.0).collect();
    let rows = session.query(GUARD, &[&ids]).await?;
    let found: HashMap<i64, &Row> = rows.iter().map(|row| (row.get("id"), row)).collect();
    let fate = |(index, batch): &&Member<'_>| {
        if touched.misses_blob(batch) {
            return Some((*index, BatchAnswer::Fenced));
        }
        Some((*index, refusal(found.get(&batch.job.0).copied(), batch)?))
    };
    Ok(missing.iter().filter_map(fate).collect())
}

/// Why a batch that missed its row is left out; none if it is committed already.
fn refusal(row: Option<&Row>, batch: &JobBatch) -> Option<BatchAnswer> {
    let Some(row) = row.filter(|row| row.get::<_, i32>("queue_id") == batch.fence.queue.0) else {
        return Some(BatchAnswer::Fenced);
    };
    match &batch.update {
        Some(update) if is_ours(row, update) => None,
        Some(update) if !is_expected(row, update) => Some(BatchAnswer::Fenced),
        _ => Some(BatchAnswer::Blocked),
    }
}

/// Is the row where the UPDATE should have found it? Then it could only not get hold of it.
fn is_expected(row: &Row, update: &JobUpdate) -> bool {
    let state = row.get::<_, &str>("state");
    update.from.iter().any(|from| from.as_str() == state)
        && i64::from(row.get::<_, i32>("run")) == i64::from(update.from_run.0)
        && row.get::<_, i64>("total") == i64::from(update.tally.total)
}

fn is_ours(row: &Row, update: &JobUpdate) -> bool {
    row.get::<_, &str>("state") == update.state.as_str()
        && i64::from(row.get::<_, i32>("run")) == i64::from(update.run.0)
        && row.get::<_, i64>("changed_seq") == update.changed_seq.0
}

struct Statements {
    claim: Statement,
    outcomes: Statement,
    attempts: Statement,
    share: Statement,
    late: Statement,
    update: Statement,
    promote: Statement,
    events: Statement,
}

impl Statements {
    async fn prepare(session: &Session) -> Result<Statements> {
        Ok(Statements {
            claim: session.prepare(CLAIM).await?,
            outcomes: session.prepare(OUTCOMES).await?,
            attempts: session.prepare(ATTEMPTS).await?,
            share: session.prepare(SHARE).await?,
            late: session.prepare(LATE).await?,
            update: session.prepare(UPDATE).await?,
            promote: session.prepare(PROMOTE).await?,
            events: session.prepare(EVENTS).await?,
        })
    }
}

struct Rows<'a> {
    blobs: Vec<i64>,
    outcomes: OutcomeColumns<'a>,
    attempts: AttemptColumns<'a>,
    late: OutcomeColumns<'a>,
    updates: UpdateColumns<'a>,
    promotions: PromoteColumns,
    events: EventColumns,
}

impl<'a> Rows<'a> {
    fn gather(members: &[Member<'a>]) -> Result<Rows<'a>> {
        let batches = || members.iter().map(|(_, batch)| *batch);
        let updates = || batches().filter_map(|batch| batch.update.as_ref().map(|update| (batch, update)));
        // In one order everywhere: of two that want the same rows none then waits for the other in a circle.
        let mut blobs: Vec<i64> = batches().flat_map(JobBatch::blobs).map(|blob| blob.0).collect();
        blobs.sort_unstable();
        Ok(Rows {
            blobs,
            outcomes: OutcomeColumns::gather(batches().flat_map(|b| b.outcomes.iter().map(|row| (b.job, row))))?,
            attempts: AttemptColumns::gather(batches().flat_map(|b| b.attempts.iter().map(|row| (b.job, row))))?,
            late: OutcomeColumns::gather(batches().flat_map(|b| b.late.iter().map(|row| (b.job, row))))?,
            updates: UpdateColumns::gather(updates())?,
            promotions: PromoteColumns::gather(updates())?,
            events: EventColumns::gather(updates())?,
        })
    }

    /// Sends everything in one pipeline; answers which jobs' rows it got hold of. The first error is the cause: those behind it only say
    /// that the transaction is aborted.
    async fn write(&self, session: &Session, statements: &Statements) -> Result<Touched> {
        // Before the pipeline, and only where there are any: what it misses is not written.
        let claimed = unless(self.blobs.is_empty(), session, &statements.claim, &[&self.blobs]).await?;
        let (facts, changes) = join(
            join4(
                unless(
                    self.outcomes.is_empty(),
                    session,
                    &statements.outcomes,
                    &self.outcomes.params(),
                ),
                unless(
                    self.attempts.is_empty(),
                    session,
                    &statements.attempts,
                    &self.attempts.params(),
                ),
                unless(self.late.is_empty(), session, &statements.share, &[self.late.jobs()]),
                unless(self.late.is_empty(), session, &statements.late, &self.late.params()),
            ),
            join(
                unless(
                    self.updates.is_empty(),
                    session,
                    &statements.update,
                    &self.updates.params(),
                ),
                join(
                    unless(
                        self.promotions.is_empty(),
                        session,
                        &statements.promote,
                        &self.promotions.params(),
                    ),
                    unless(
                        self.events.is_empty(),
                        session,
                        &statements.events,
                        &self.events.params(),
                    ),
                ),
            ),
        )
        .await;
        facts.0?;
        facts.1?;
        let shared = facts.2?;
        facts.3?;
        let (updated, (promoted, announced)) = changes;
        let updated = updated?;
        promoted?;
        announced?;
        let ids = |rows: Vec<Row>| rows.iter().map(|row| row.get("id")).collect();
        Ok(Touched {
            claimed: ids(claimed),
            updated: ids(updated),
            shared: ids(shared),
        })
    }
}

/// A statement without rows is not sent.
async fn unless(empty: bool, session: &Session, statement: &Statement, params: Params<'_>) -> Result<Vec<Row>> {
    if empty {
        return Ok(Vec::new());
    }
    session.rows(statement, params).await
}
