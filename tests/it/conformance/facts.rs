//! Logs, failures, last attempts, queues counted.
//!
//! Owns: the tests of `LogStore` and of what people ask of failures and queues. Never: names a backend. Invariant: none of its own.

use super::fixture::*;
use tallykeeper::domain::ids::{JobId, Run, TaskNo};
use tallykeeper::domain::logs::{Entry, Level, Source};
use tallykeeper::domain::rows::{Cause, JobBatch, Verdict};
use tallykeeper::domain::state::State;
use tallykeeper::store::{LogFilter, LogRow};

fn entry(job: JobId, level: Level, message: &str) -> Entry {
    Entry::own(job, THEN, level, message.into())
}

fn every(job: JobId) -> LogFilter {
    LogFilter {
        job,
        after: Some(0),
        level: Level::Debug,
        limit: 100,
    }
}

fn messages(rows: &[LogRow]) -> Vec<&str> {
    rows.iter().map(|row| row.entry.message.as_str()).collect()
}

async fn log(store: &AnyStore, job: JobId, count: usize) {
    let entries: Vec<_> = (0..count).map(|n| entry(job, Level::Info, &n.to_string())).collect();
    store.append_logs(&entries).await.expect("appending");
}

pub(super) async fn fm38_logs_are_appended_in_order_and_touch_no_job(store: AnyStore) {
    let (record, _) = running(&store, "q", 1).await;
    let other = create(&store, &job("q")).await;
    let whole = Entry {
        source: Source::Posted,
        worker: Some("w \u{1b}[31m".into()),
        task: Some(TaskNo(7)),
        ..entry(record.id, Level::Error, "line\nbreak\t\u{7}")
    };
    store
        .append_logs(&[
            whole.clone(),
            entry(other.id, Level::Info, "theirs"),
            entry(record.id, Level::Debug, "2"),
        ])
        .await
        .unwrap();
    store.append_logs(&[]).await.unwrap();
    let rows = store.logs(&every(record.id)).await.unwrap();
    assert_eq!(messages(&rows), ["line\nbreak\t\u{7}", "2"]);
    assert!(rows[0].id < rows[1].id);
    assert_eq!(rows[0].entry, whole);
    assert_eq!(rows[1].entry, entry(record.id, Level::Debug, "2"));
    assert_eq!(reread(&store, record.id).await, record, "the job's row is as it was");
}

pub(super) async fn logs_come_in_pages_by_level_and_from_the_end(store: AnyStore) {
    let (record, _) = running(&store, "q", 1).await;
    let levels = [Level::Info, Level::Error, Level::Debug, Level::Warn, Level::Info];
    let entries: Vec<_> = (0..)
        .zip(levels)
        .map(|(n, level)| entry(record.id, level, &format!("{n}")))
        .collect();
    store.append_logs(&entries).await.unwrap();
    let page = |after, level, limit| LogFilter {
        after,
        level,
        limit,
        job: record.id,
    };
    let first = store.logs(&page(Some(0), Level::Debug, 2)).await.unwrap();
    assert_eq!(messages(&first), ["0", "1"]);
    let rest = store.logs(&page(Some(first[1].id), Level::Debug, 9)).await.unwrap();
    assert_eq!(messages(&rest), ["2", "3", "4"]);
    let grave = store.logs(&page(Some(0), Level::Warn, 9)).await.unwrap();
    assert_eq!(messages(&grave), ["1", "3"]);
    let newest = store.logs(&page(None, Level::Info, 2)).await.unwrap();
    assert_eq!(messages(&newest), ["3", "4"], "the newest, in order");
}

pub(super) async fn entries_of_no_job_are_left_out(store: AnyStore) {
    let (record, _) = running(&store, "q", 1).await;
    let entries = [
        entry(JobId(4242), Level::Info, "lost"),
        entry(record.id, Level::Info, "kept"),
    ];
    store.append_logs(&entries).await.unwrap();
    assert_eq!(store.logs(&every(JobId(4242))).await.unwrap(), []);
    assert_eq!(messages(&store.logs(&every(record.id)).await.unwrap()), ["kept"]);
}

pub(super) async fn trimming_keeps_the_newest_of_its_job(store: AnyStore) {
    let (record, _) = running(&store, "q", 1).await;
    let other = create(&store, &job("q")).await;
    log(&store, record.id, 5).await;
    log(&store, other.id, 5).await;
    store.trim_logs(record.id, 5).await.unwrap();
    assert_eq!(store.logs(&every(record.id)).await.unwrap().len(), 5);
    store.trim_logs(record.id, 2).await.unwrap();
    let left = store.logs(&every(record.id)).await.unwrap();
    assert_eq!(messages(&left), ["3", "4"]);
    store.trim_logs(record.id, 0).await.unwrap();
    log(&store, record.id, 1).await;
    let after = store.logs(&every(record.id)).await.unwrap();
    assert!(after[0].id > left[1].id, "a number is never given out twice");
    assert_eq!(store.logs(&every(other.id)).await.unwrap().len(), 5);
}

pub(super) async fn failures_are_those_of_the_run_with_errors_cut(store: AnyStore) {
    let (record, fence) = running(&store, "q", 5).await;
    let mut long = failure(3, 4);
    long.error = Some("äöü!".into());
    let rows = vec![failure(1, 1), success(2, 2), long, in_run(2, failure(4, 9))];
    commit(&store, with_outcomes(record.id, fence, rows)).await;
    let found = store.failures(record.id, Run(1), 10, 3).await.unwrap();
    let brief: Vec<_> = found.iter().map(|row| (row.task.0, row.error.as_str())).collect();
    assert_eq!(brief, [(1, "err"), (3, "äöü")]);
    assert_eq!((found[0].worker.as_str(), found[0].at), ("worker", THEN.plus_ms(1)));
    assert_eq!(store.failures(record.id, Run(1), 1, 100).await.unwrap().len(), 1);
    assert_eq!(
        store.failures(record.id, Run(2), 10, 100).await.unwrap()[0].task,
        TaskNo(4)
    );
}

pub(super) async fn last_attempts_are_the_last_of_the_run(store: AnyStore) {
    let (record, fence) = running(&store, "q", 5).await;
    let mut expired = attempt(1, 2, 3);
    expired.cause = Cause::Expired;
    expired.error = None;
    let attempts = vec![attempt(1, 1, 1), attempt(2, 1, 2), expired, attempt(4, 1, 4)];
    let batch = JobBatch {
        attempts,
        ..batch(record.id, fence)
    };
    commit(&store, batch).await;
    let tasks = [TaskNo(2), TaskNo(1), TaskNo(3), TaskNo(1)];
    let found = store.last_attempts(record.id, Run(1), &tasks).await.unwrap();
    let brief: Vec<_> = found.iter().map(|row| (row.task.0, row.attempt, row.cause)).collect();
    assert_eq!(brief, [(1, 2, Cause::Expired), (2, 1, Cause::Reported)]);
    assert_eq!(
        (&found[0].error, found[1].error.as_deref()),
        (&None, Some("did not work"))
    );
    assert_eq!(store.last_attempts(record.id, Run(2), &tasks).await.unwrap(), []);
}

pub(super) async fn queues_are_listed_with_owner_and_jobs_by_state(store: AnyStore) {
    own(&store, "empty").await;
    let (record, fence) = running(&store, "q", 1).await;
    create(&store, &job("q")).await;
    commit(&store, with_update(record.id, fence, update(&record, State::Failed, 1))).await;
    create(&store, &job("unowned")).await;
    let queues = store.list_queues().await.unwrap();
    let names: Vec<_> = queues.iter().map(|queue| queue.queue.as_str()).collect();
    assert_eq!(names, ["empty", "q", "unowned"]);
    assert_eq!((queues[0].node.as_deref(), queues[0].jobs.len()), (Some("home"), 0));
    assert_eq!((queues[1].epoch, queues[2].node.as_deref()), (fence.epoch, None));
    let mut jobs = queues[1].jobs.clone();
    jobs.sort_by_key(|(state, _)| state.as_str());
    assert_eq!(jobs, [(State::Failed, 1), (State::Running, 1)]);
}

/// Ends a job, with rows of every kind.
async fn ended(store: &AnyStore) -> (tallykeeper::domain::job::JobRecord, tallykeeper::domain::job::Fence) {
    let (record, fence) = running(store, "q", 5).await;
    let rows = vec![success(0, 1), failure(1, 2)];
    let batch = JobBatch {
        attempts: vec![attempt(1, 1, 3)],
        update: Some(update(&record, State::Failed, 5)),
        ..with_outcomes(record.id, fence, rows)
    };
    commit(store, batch).await;
    commit(store, with_late(record.id, fence, vec![success(2, 7)])).await;
    log(store, record.id, 3).await;
    (record, fence)
}

pub(super) async fn a_deleted_job_is_gone_and_its_rows_are_purged_in_pieces(store: AnyStore) {
    let (record, fence) = ended(&store).await;
    let kept = create(&store, &job("q")).await;
    log(&store, kept.id, 1).await;
    assert!(!store.purge_deleted(2).await.unwrap(), "nothing is deleted yet");
    store.delete_job(record.id, fence, record.run).await.unwrap();
    assert_eq!(store.job(record.id).await.unwrap(), None);
    let mut pieces = 0;
    while store.purge_deleted(2).await.unwrap() {
        pieces += 1;
    }
    assert!(pieces > 5, "only {pieces} pieces of two rows");
    assert_eq!(first_run(&store, record.id).await, []);
    assert_eq!(seqs(&store, record.id).await, [] as [i64; 0]);
    let every_task: Vec<_> = (0..5).map(TaskNo).collect();
    assert_eq!(store.tasks(record.id, &every_task, 1_000).await.unwrap(), []);
    assert_eq!(store.logs(&every(record.id)).await.unwrap(), []);
    assert_eq!(store.logs(&every(kept.id)).await.unwrap().len(), 1);
    let again = store.delete_job(record.id, fence, record.run).await;
    assert!(
        matches!(again, Err(tallykeeper::store::StoreError::NotFound(_))),
        "{again:?}"
    );
}

pub(super) async fn fm55_only_the_owner_deletes_a_job_and_only_as_it_ended(store: AnyStore) {
    use tallykeeper::store::StoreError::{Conflict, Fenced};
    let (record, fence) = ended(&store).await;
    let (live, _) = running(&store, "q", 1).await;
    let refused = store.delete_job(record.id, stale(fence), record.run).await;
    assert!(matches!(refused, Err(Fenced(_))), "{refused:?}");
    for (job, run) in [(record.id, Run(2)), (live.id, Run(1))] {
        let refused = store.delete_job(job, fence, run).await;
        assert!(matches!(refused, Err(Conflict(_))), "{refused:?}");
    }
    assert!(!store.purge_deleted(100).await.unwrap());
    let verdicts = first_run(&store, record.id).await;
    assert_eq!(verdicts[0].2, Verdict::Succeeded.as_str());
}

pub(super) async fn a_deleted_jobs_idempotency_key_is_free(store: AnyStore) {
    use tallykeeper::store::{Created, Idempotency};
    let fence = own(&store, "q").await;
    let key = Idempotency {
        scope: String::new(),
        key: "k".into(),
        body_sha256: [1; 32],
    };
    let mut new = job("q");
    (new.state, new.open) = (State::Succeeded, false);
    let Created::New(first) = store.create_job(&new, Some(&key)).await.unwrap() else {
        panic!("the first");
    };
    store.delete_job(first.id, fence, Run(1)).await.unwrap();
    match store.create_job(&new, Some(&key)).await.unwrap() {
        Created::New(second) => assert!(second.id > first.id),
        other => panic!("{other:?}"),
    }
}
