//! The smallest jobs, batches and nodes a contract test needs.
//!
//! Owns: their defaults. Never: asserts anything but that setting up worked. Invariant: every value is fixed, so a failure repeats.

use std::sync::Arc;
use tallykeeper::domain::ids::{Attempt, Epoch, JobId, Run, Seq, TaskNo, UnixMs};
use tallykeeper::domain::job::{Fence, JobRecord, NewJob, NewTask, Tally};
use tallykeeper::domain::policy::Policy;
use tallykeeper::domain::rows::{AttemptRow, Cause, JobBatch, JobUpdate, OutcomeRow, Verdict};
use tallykeeper::domain::state::State;
use tallykeeper::store::{BatchAnswer, Created, NodeIdentity, Ownership, ResultFilter, ResultRow, Store};

pub(crate) type AnyStore = Arc<dyn Store>;

/// When the tests' jobs are created.
pub(crate) const THEN: UnixMs = UnixMs(1_700_000_000_000);
/// A lease that no test outlives.
pub(crate) const ALIVE_S: u32 = 3600;
/// A lease that has run out the moment it begins.
pub(crate) const DEAD_S: u32 = 0;

pub(crate) fn node(name: &str, incarnation: &str, lease_s: u32) -> NodeIdentity {
    NodeIdentity {
        node: name.into(),
        incarnation: incarnation.into(),
        lease_s,
        address: format!("http://{name}"),
    }
}

pub(crate) async fn registered(store: &AnyStore, name: &str, incarnation: &str, lease_s: u32) -> NodeIdentity {
    let node = node(name, incarnation, lease_s);
    store.register_node(&node, true).await.expect("registering by force");
    node
}

/// The fence of one queue out of what a node owns.
pub(crate) fn fence_of(ownership: &Ownership, queue: &str) -> Option<Fence> {
    let found = ownership.owned.iter().find(|owned| owned.queue == queue)?;
    Some(Fence {
        queue: found.id,
        epoch: found.epoch,
    })
}

/// Registers the node `home` and takes a queue for it.
pub(crate) async fn own(store: &AnyStore, queue: &str) -> Fence {
    let home = registered(store, "home", "home-1", ALIVE_S).await;
    let ownership = store
        .take_queues(&home, Some(queue))
        .await
        .expect("taking a free queue");
    fence_of(&ownership, queue).expect("the queue is ours")
}

/// The fence somebody had before the queue was taken over last.
pub(crate) fn stale(fence: Fence) -> Fence {
    Fence {
        epoch: Epoch(fence.epoch.0 - 1),
        ..fence
    }
}

pub(crate) fn job(queue: &str) -> NewJob {
    NewJob {
        name: "a job".into(),
        queue: queue.into(),
        priority: 0,
        stages: Vec::new(),
        tasks: Vec::new(),
        open: true,
        expected_total: None,
        state: State::Running,
        start_at: None,
        policy: Policy::default(),
        labels: Default::default(),
        callback_url: None,
        created_at: THEN,
    }
}

pub(crate) fn task(key: Option<&str>, payload: &str) -> NewTask {
    NewTask {
        key: key.map(str::to_owned),
        payload: payload.into(),
    }
}

/// Tasks without keys, with their place as payload.
pub(crate) fn tasks(count: usize) -> Vec<NewTask> {
    (0..count).map(|place| task(None, &place.to_string())).collect()
}

pub(crate) async fn create(store: &AnyStore, job: &NewJob) -> JobRecord {
    match store.create_job(job, None).await.expect("creating a job") {
        Created::New(record) => record,
        other => panic!("not new: {other:?}"),
    }
}

/// A running job with tasks in a queue this node owns.
pub(crate) async fn running(store: &AnyStore, queue: &str, count: usize) -> (JobRecord, Fence) {
    let fence = own(store, queue).await;
    let mut job = job(queue);
    job.tasks = tasks(count);
    (create(store, &job).await, fence)
}

pub(crate) fn outcome(task: u32, seq: i64, verdict: Verdict) -> OutcomeRow {
    let succeeded = verdict == Verdict::Succeeded;
    OutcomeRow {
        run: Run(1),
        task: TaskNo(task),
        verdict,
        attempt: Attempt(1),
        seq: Seq(seq),
        result: succeeded.then(|| format!(r#"{{"seq":{seq}}}"#).into()),
        error: (!succeeded).then(|| format!("error at {seq}").into()),
        counters: succeeded.then(|| format!(r#"{{"n":{seq}}}"#).into()),
        worker: "worker".into(),
        at: THEN.plus_ms(seq),
        took_ms: succeeded.then_some(seq as u32 * 10),
    }
}

pub(crate) fn success(task: u32, seq: i64) -> OutcomeRow {
    outcome(task, seq, Verdict::Succeeded)
}

pub(crate) fn failure(task: u32, seq: i64) -> OutcomeRow {
    outcome(task, seq, Verdict::Failed)
}

pub(crate) fn in_run(run: u32, row: OutcomeRow) -> OutcomeRow {
    OutcomeRow { run: Run(run), ..row }
}

pub(crate) fn attempt(task: u32, attempt: u32, seq: i64) -> AttemptRow {
    AttemptRow {
        run: Run(1),
        task: TaskNo(task),
        attempt: Attempt(attempt),
        seq: Seq(seq),
        cause: Cause::Reported,
        error: Some("did not work".into()),
        worker: "worker".into(),
        at: THEN.plus_ms(seq),
    }
}

pub(crate) fn batch(job: JobId, fence: Fence) -> JobBatch {
    JobBatch {
        job,
        fence,
        outcomes: Vec::new(),
        attempts: Vec::new(),
        late: Vec::new(),
        update: None,
    }
}

pub(crate) fn with_outcomes(job: JobId, fence: Fence, outcomes: Vec<OutcomeRow>) -> JobBatch {
    JobBatch {
        outcomes,
        ..batch(job, fence)
    }
}

pub(crate) fn with_late(job: JobId, fence: Fence, late: Vec<OutcomeRow>) -> JobBatch {
    JobBatch {
        late,
        ..batch(job, fence)
    }
}

pub(crate) fn with_update(job: JobId, fence: Fence, update: JobUpdate) -> JobBatch {
    JobBatch {
        update: Some(update),
        ..batch(job, fence)
    }
}

/// Moves a job to another state within its run.
pub(crate) fn update(record: &JobRecord, state: State, seq: i64) -> JobUpdate {
    let at = THEN.plus_ms(seq);
    let mut update = JobUpdate {
        from: state.sources(),
        from_run: record.run,
        state,
        run: record.run,
        base_run: record.base_run,
        priority: record.priority,
        policy: record.policy.clone(),
        open: record.open,
        tally: Tally {
            total: record.tally.total,
            ..Tally::default()
        },
        error: None,
        start_at: record.start_at,
        cancel_at: None,
        started_at: record.started_at,
        finished_at: state.is_final().then_some(at),
        updated_at: at,
        changed_seq: Seq(seq),
        promote_late: false,
        event: None,
    };
    update.event = update.completion(record);
    update
}

/// Starts a new run from whatever final state the job is in.
pub(crate) fn retry(record: &JobRecord, base_run: u32, run: u32, seq: i64) -> JobUpdate {
    JobUpdate {
        from: tallykeeper::domain::state::retry_sources(),
        from_run: Run(run - 1),
        run: Run(run),
        base_run: Run(base_run),
        promote_late: true,
        ..update(record, State::Running, seq)
    }
}

/// Commits one batch and wants it committed.
pub(crate) async fn commit(store: &AnyStore, batch: JobBatch) {
    let answers = store.commit(&[batch]).await.expect("a commit");
    assert_eq!(answers, [BatchAnswer::Committed]);
}

pub(crate) async fn reread(store: &AnyStore, job: JobId) -> JobRecord {
    store.job(job).await.expect("reading").expect("the job exists")
}

pub(crate) fn every_result(job: JobId, base_run: u32, run: u32) -> ResultFilter {
    ResultFilter {
        job,
        base_run: Run(base_run),
        run: Run(run),
        verdict: None,
        after: None,
        limit: 1000,
        max_bytes: usize::MAX,
    }
}

/// Task, run and what stands, in short: `(0, 1, "succeeded")`, with a prefix for late ones.
pub(crate) fn brief(rows: &[ResultRow]) -> Vec<(u32, u32, String)> {
    rows.iter()
        .map(|row| {
            let late = if row.late { "late " } else { "" };
            (row.task.0, row.run.0, format!("{late}{}", row.verdict.as_str()))
        })
        .collect()
}

/// [`brief`] of every result of run 1.
pub(crate) async fn first_run(store: &AnyStore, job: JobId) -> Vec<(u32, u32, String)> {
    brief(&store.results(&every_result(job, 1, 1)).await.expect("reading results"))
}

/// Seqs of every fact of a job.
pub(crate) async fn seqs(store: &AnyStore, job: JobId) -> Vec<i64> {
    let facts = store.facts(job, Seq(0), 10_000).await.expect("reading facts");
    facts.iter().map(|fact| fact.seq.0).collect()
}
