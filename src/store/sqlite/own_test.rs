//! What holds of this store beyond the contract: the lock, the closing, the threads, the query plans.
//!
//! Owns: the checks that need to see inside. Never: repeats the conformance suite. Invariant: each test has a file of its own.

use super::scratch::Scratch;
use super::{Sqlite, open_reader};
use crate::domain::ids::{Attempt, Epoch, JobId, QueueId, Run, Seq, TaskNo, UnixMs};
use crate::domain::job::{Fence, JobRecord, NewJob, NewTask, Tally};
use crate::domain::policy::Policy;
use crate::domain::rows::{JobBatch, JobUpdate, OutcomeRow, Verdict};
use crate::domain::state::State;
use crate::store::{BatchAnswer, Created, JobFilter, JobStore, NodeStore, ReadStore, StoreError};
use std::collections::BTreeMap;
use std::sync::mpsc;

const AT: UnixMs = UnixMs(1_700_000_000_000);

async fn running_job(store: &Sqlite, tasks: Vec<NewTask>) -> (JobRecord, Fence) {
    let job = NewJob {
        name: "Größe".into(),
        queue: "q".into(),
        priority: 0,
        stages: vec![],
        tasks,
        open: true,
        expected_total: None,
        state: State::Running,
        start_at: None,
        policy: Policy::default(),
        labels: BTreeMap::from([(r#"a."b"[0]é"#.to_owned(), "x".to_owned())]),
        callback_url: None,
        created_at: AT,
    };
    match store.create_job(&job, None).await.unwrap() {
        Created::New(record) => {
            let fence = Fence {
                queue: record.queue_id,
                epoch: Epoch(0),
            };
            (record, fence)
        }
        other => panic!("{other:?}"),
    }
}

fn success(task: u32, seq: i64) -> OutcomeRow {
    OutcomeRow {
        run: Run(1),
        task: TaskNo(task),
        verdict: Verdict::Succeeded,
        attempt: Attempt(1),
        seq: Seq(seq),
        result: Some("{\"a\":1}".into()),
        error: None,
        counters: None,
        worker: "w".into(),
        at: AT,
        took_ms: None,
    }
}

fn batch(job: JobId, fence: Fence, outcomes: Vec<OutcomeRow>) -> JobBatch {
    JobBatch {
        job,
        fence,
        outcomes,
        attempts: vec![],
        late: vec![],
        update: None,
    }
}

fn move_to(state: State, from: &'static [State], total: u32, seq: i64) -> JobUpdate {
    JobUpdate {
        from,
        from_run: Run(1),
        state,
        run: Run(1),
        base_run: Run(1),
        priority: 0,
        policy: Policy::default(),
        open: true,
        tally: Tally {
            total,
            ..Tally::default()
        },
        error: None,
        start_at: None,
        cancel_at: None,
        started_at: Some(AT),
        finished_at: state.is_final().then_some(AT),
        updated_at: AT,
        changed_seq: Seq(seq),
        promote_late: false,
        event: None,
    }
}

fn task(payload: &str) -> NewTask {
    NewTask {
        key: None,
        payload: payload.into(),
    }
}

#[tokio::test]
async fn a_second_opening_is_refused_until_the_first_is_dropped() {
    let scratch = Scratch::empty();
    let first = scratch.open();
    match Sqlite::open(&scratch.path()).map(drop) {
        Err(StoreError::Conflict(why)) => assert!(why.contains("store.db.lock"), "{why}"),
        other => panic!("{other:?}"),
    }
    first.migrate().await.unwrap();
    drop(first);
    assert_eq!(scratch.open().migrate().await.unwrap(), 0);
}

#[cfg(unix)]
#[tokio::test]
async fn a_second_name_of_the_file_does_not_get_around_the_lock() {
    let (scratch, _store) = Scratch::migrated().await;
    let alias = scratch.path().with_file_name("alias.db");
    std::os::unix::fs::symlink(scratch.path(), &alias).unwrap();
    assert!(matches!(Sqlite::open(&alias).map(drop), Err(StoreError::Conflict(_))));
}

#[tokio::test]
async fn closing_folds_the_log_into_the_file() {
    let (scratch, store) = Scratch::migrated().await;
    running_job(&store, vec![task("1")]).await;
    drop(store);
    let log = scratch.path().with_file_name("store.db-wal");
    assert!(!log.exists(), "the last connection to close must be one that may write");
}

#[tokio::test]
async fn an_open_read_does_not_hold_up_a_write() {
    let (_scratch, store) = Scratch::migrated().await;
    let (job, fence) = running_job(&store, vec![task("1"), task("2")]).await;
    let (opened, is_open) = tokio::sync::oneshot::channel();
    let (close, may_close) = mpsc::channel::<()>();
    let held = store.readers.run(move |db| {
        let tx = db.unchecked_transaction()?;
        let count =
            |tx: &rusqlite::Transaction<'_>| tx.query_row("SELECT count(*) FROM outcomes", [], |row| row.get(0));
        let before: i64 = count(&tx)?;
        let _ = opened.send(());
        let _ = may_close.recv();
        Ok((before, count(&tx)?))
    });
    let writing = async {
        is_open.await.unwrap();
        let answers = store
            .commit(&[batch(job.id, fence, vec![success(0, 1)])])
            .await
            .unwrap();
        let seen = store.facts(job.id, Seq(0), 10).await.unwrap().len();
        close.send(()).unwrap();
        (answers, seen)
    };
    let (held, (answers, seen)) = tokio::join!(held, writing);
    assert_eq!(answers, [BatchAnswer::Committed]);
    assert_eq!(seen, 1);
    assert_eq!(held.unwrap(), (0, 0), "a read sees one moment");
}

#[tokio::test]
async fn a_panic_loses_its_call_and_its_transaction_but_not_the_store() {
    let (_scratch, store) = Scratch::migrated().await;
    let lost = store
        .writer
        .transact(|tx| -> crate::store::Result<()> {
            tx.execute("INSERT INTO queue_owner (queue) VALUES ('half')", [])?;
            panic!("expected by the test")
        })
        .await;
    assert!(matches!(lost, Err(StoreError::Unavailable(_))), "{lost:?}");
    let queues = store
        .writer
        .run(|db| Ok(db.query_row("SELECT count(*) FROM queue_owner", [], |row| row.get::<_, i64>(0))?))
        .await;
    assert_eq!(queues.unwrap(), 0);
}

#[tokio::test]
async fn readers_cannot_write() {
    let (scratch, _store) = Scratch::migrated().await;
    let reader = open_reader(&scratch.path()).unwrap();
    assert!(reader.execute("DELETE FROM jobs", []).is_err());
}

#[tokio::test]
async fn a_file_that_is_no_database_is_corrupt() {
    let scratch = Scratch::empty();
    std::fs::write(
        scratch.path(),
        "this is not a database, and long enough to show it".repeat(100),
    )
    .unwrap();
    match Sqlite::open(&scratch.path()).map(drop) {
        Err(StoreError::Corrupt(_)) => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_full_disk_is_unavailable_and_the_same_commit_succeeds_once_there_is_room() {
    let (_scratch, store) = Scratch::migrated().await;
    let (job, fence) = running_job(&store, vec![task("1")]).await;
    let limit_pages = |pages: i64| {
        store.writer.run(move |db| {
            // SQLite raises a limit below the present size to that size.
            db.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
            Ok(())
        })
    };
    let mut large = success(0, 1);
    large.result = Some(format!("\"{}\"", "x".repeat(1 << 20)).into());
    let batches = [batch(job.id, fence, vec![success(1, 2), large])];
    limit_pages(1).await.unwrap();
    let answer = store.commit(&batches).await;
    assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
    assert_eq!(store.facts(job.id, Seq(0), 10).await.unwrap(), []);
    limit_pages(1 << 30).await.unwrap();
    assert_eq!(store.commit(&batches).await.unwrap(), [BatchAnswer::Committed]);
    assert_eq!(store.facts(job.id, Seq(0), 10).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_refused_value_undoes_the_whole_commit() {
    let (_scratch, store) = Scratch::migrated().await;
    let (job, fence) = running_job(&store, vec![task("1")]).await;
    let mut poison = batch(job.id, fence, vec![]);
    // A base after the run: a row the schema refuses.
    poison.update = Some(JobUpdate {
        base_run: Run(2),
        ..move_to(State::Paused, &[State::Running], 1, 2)
    });
    let answer = store.commit(&[batch(job.id, fence, vec![success(0, 1)]), poison]).await;
    assert!(matches!(answer, Err(StoreError::Rejected(_))), "{answer:?}");
    assert_eq!(store.facts(job.id, Seq(0), 10).await.unwrap(), []);
}

#[tokio::test]
async fn a_job_left_out_leaves_its_neighbours_and_nothing_of_itself() {
    let (_scratch, store) = Scratch::migrated().await;
    let (elsewhere, fence) = running_job(&store, vec![task("1")]).await;
    let (neighbour, _) = running_job(&store, vec![task("1")]).await;
    let mut lost = batch(elsewhere.id, fence, vec![success(0, 1)]);
    lost.update = Some(move_to(State::Succeeded, &[State::Paused], 1, 2));
    let foreign = batch(
        neighbour.id,
        Fence {
            queue: QueueId(99),
            epoch: Epoch(0),
        },
        vec![success(0, 5)],
    );
    let answers = store
        .commit(&[lost, batch(neighbour.id, fence, vec![success(0, 1)]), foreign])
        .await
        .unwrap();
    assert_eq!(
        answers,
        [BatchAnswer::Fenced, BatchAnswer::Committed, BatchAnswer::Fenced]
    );
    assert_eq!(store.facts(elsewhere.id, Seq(0), 10).await.unwrap(), []);
    assert_eq!(store.facts(neighbour.id, Seq(0), 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn names_are_found_in_any_case_and_labels_by_their_exact_key() {
    let (_scratch, store) = Scratch::migrated().await;
    let (job, _) = running_job(&store, vec![]).await;
    let found = |filter: JobFilter| {
        let store = &store;
        async move { store.list_jobs(&JobFilter { limit: 10, ..filter }).await.unwrap().len() }
    };
    for (q, hits) in [("GRÖ", 1), ("öß", 1), ("%", 0), ("_", 0), ("", 1)] {
        let filter = JobFilter {
            q: Some(q.into()),
            ..JobFilter::default()
        };
        assert_eq!(found(filter).await, hits, "{q:?}");
    }
    for (key, value, hits) in [(r#"a."b"[0]é"#, "x", 1), (r#"a."b"[0]é"#, "y", 0), ("a", "x", 0)] {
        let filter = JobFilter {
            label: Some((key.into(), value.into())),
            ..JobFilter::default()
        };
        assert_eq!(found(filter).await, hits, "{key}={value}");
    }
    assert_eq!(store.job(job.id).await.unwrap().unwrap(), job);
}

/// How SQLite goes about a query, one step per line.
async fn plan(store: &Sqlite, sql: &'static str) -> String {
    store
        .readers
        .run(move |db| {
            let mut statement = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
            let steps = statement
                .raw_query()
                .mapped(|row| row.get(3))
                .collect::<Result<Vec<String>, _>>()?;
            Ok(steps.join("\n"))
        })
        .await
        .unwrap()
}

#[tokio::test]
async fn hot_reads_go_by_their_indexes_and_sort_nothing() {
    let (_scratch, store) = Scratch::migrated().await;
    let facts = plan(&store, include_str!("queries/facts/page.sql")).await;
    for index in ["outcomes_by_seq", "attempts_by_seq", "late_by_seq"] {
        assert!(facts.contains(index), "{facts}");
    }
    assert!(!facts.contains("TEMP B-TREE"), "{facts}");
    let results = plan(&store, include_str!("queries/results/page.sql")).await;
    assert!(
        !results.contains("TEMP B-TREE") && !results.contains("SCAN "),
        "{results}"
    );
    let unfinished = plan(&store, include_str!("queries/jobs/list_unfinished.sql")).await;
    assert!(
        unfinished.contains("jobs_unfinished (queue_id=? AND id>?)"),
        "{unfinished}"
    );
    assert!(!unfinished.contains("TEMP B-TREE"), "{unfinished}");
    let claim = plan(&store, include_str!("queries/events/claim.sql")).await;
    assert!(
        claim.contains("events_by_receiver (receiver=? AND due_at<?)"),
        "{claim}"
    );
    // The one scan of the table ends at its first row.
    let scans = claim.lines().filter(|step| {
        ["SCAN events", "SCAN e", "SCAN d"]
            .iter()
            .any(|scan| step.starts_with(scan))
    });
    let scans: Vec<&str> = scans.collect();
    assert_eq!(
        scans,
        ["SCAN events USING COVERING INDEX events_by_receiver"],
        "{claim}"
    );
    let next = plan(&store, include_str!("queries/events/next.sql")).await;
    assert!(next.contains("events_due (due_at>?)"), "{next}");
    let listed = plan(&store, include_str!("queries/events/list.sql")).await;
    assert!(
        listed.contains("events_by_job (job=?)") && !listed.contains("TEMP B-TREE"),
        "{listed}"
    );
}
