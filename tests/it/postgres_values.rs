//! Values PostgreSQL refuses.
//!
//! Owns: the proof that a poison row is `Rejected` and leaves nothing behind. Never: mends a value; that is done before the store.
//! Invariant: none of its own.

use crate::cluster;
use crate::conformance::fixture::*;
use std::sync::Arc;
use tallykeeper::domain::ids::{Run, TaskNo};
use tallykeeper::domain::job::{JobError, NewJob};
use tallykeeper::domain::rows::{JobBatch, JobUpdate, OutcomeRow};
use tallykeeper::domain::state::State;
use tallykeeper::store::postgres::{Postgres, Settings};
use tallykeeper::store::{JobFilter, Result, StoreError};

/// Puts the poison somewhere into a job.
type Poison = fn(&mut NewJob);

const POISON: &str = "a\0b";

async fn fresh() -> AnyStore {
    let url = cluster::fresh_database().await;
    Arc::new(Postgres::connect(&url, Settings::default()).await.unwrap())
}

fn assert_rejected<T: std::fmt::Debug>(what: &str, answer: Result<T>) {
    assert!(matches!(answer, Err(StoreError::Rejected(_))), "{what}: {answer:?}");
}

#[tokio::test]
async fn a_job_with_u0000_is_rejected_whole() {
    let store = fresh().await;
    let cases: [(&str, Poison); 6] = [
        ("name", |job| job.name = POISON.into()),
        ("queue", |job| job.queue = POISON.into()),
        ("label", |job| drop(job.labels.insert("l".into(), POISON.into()))),
        ("callback", |job| job.callback_url = Some(POISON.into())),
        ("key", |job| job.tasks = vec![task(None, "1"), task(Some(POISON), "2")]),
        ("payload", |job| job.tasks = vec![task(None, "1"), task(None, POISON)]),
    ];
    for (what, poison) in cases {
        let mut new = job("q");
        poison(&mut new);
        assert_rejected(what, store.create_job(&new, None).await);
    }
    let all = JobFilter {
        limit: 100,
        ..JobFilter::default()
    };
    assert_eq!(store.list_jobs(&all).await.unwrap(), []);
    let filter = JobFilter {
        q: Some(POISON.into()),
        ..all
    };
    assert_rejected("filter", store.list_jobs(&filter).await);
    create(&store, &job("q")).await;
}

#[tokio::test]
async fn a_chunk_with_u0000_is_rejected_whole() {
    let store = fresh().await;
    let (record, fence) = running(&store, "q", 0).await;
    for chunk in [
        [task(None, "1"), task(None, POISON)],
        [task(Some("k"), "1"), task(Some(POISON), "2")],
    ] {
        assert_rejected("chunk", store.append_tasks(record.id, fence, 0, &chunk).await);
    }
    assert_eq!(reread(&store, record.id).await.tally.total, 0);
    assert_eq!(store.tasks(record.id, &[TaskNo(0)], usize::MAX).await.unwrap(), []);
    store.append_tasks(record.id, fence, 0, &tasks(1)).await.unwrap();
}

#[tokio::test]
async fn a_commit_with_a_poison_row_is_rejected_whole() {
    let store = fresh().await;
    let (good, fence) = running(&store, "q", 2).await;
    let (bad, _) = running(&store, "q", 2).await;
    let one = |poison: fn(&mut OutcomeRow)| {
        let mut row = success(1, 2);
        poison(&mut row);
        row
    };
    let mut spent = attempt(0, 1, 3);
    spent.error = Some(POISON.into());
    let failed = JobUpdate {
        error: Some(JobError {
            code: "x".into(),
            message: POISON.into(),
        }),
        ..update(&bad, State::Failed, 4)
    };
    let whole = batch(bad.id, fence);
    let cases: Vec<(&str, JobBatch)> = vec![
        (
            "result",
            with_outcomes(bad.id, fence, vec![one(|row| row.result = Some(POISON.into()))]),
        ),
        (
            "error",
            with_outcomes(bad.id, fence, vec![one(|row| row.error = Some(POISON.into()))]),
        ),
        (
            "worker",
            with_outcomes(bad.id, fence, vec![one(|row| row.worker = POISON.into())]),
        ),
        (
            "task",
            with_outcomes(bad.id, fence, vec![one(|row| row.task = TaskNo(u32::MAX))]),
        ),
        (
            "run",
            with_outcomes(bad.id, fence, vec![one(|row| row.run = Run(u32::MAX))]),
        ),
        (
            "twice",
            with_outcomes(bad.id, fence, vec![success(1, 2), success(1, 3)]),
        ),
        (
            "late",
            with_late(bad.id, fence, vec![one(|row| row.counters = Some(POISON.into()))]),
        ),
        (
            "attempt",
            JobBatch {
                attempts: vec![spent],
                ..whole
            },
        ),
        ("update", with_update(bad.id, fence, failed)),
    ];
    for (what, poison) in cases {
        let neighbour = JobBatch {
            update: Some(update(&good, State::Paused, 2)),
            ..with_outcomes(good.id, fence, vec![success(0, 1)])
        };
        assert_rejected(what, store.commit(&[neighbour, poison]).await);
        for record in [&good, &bad] {
            assert_eq!(reread(&store, record.id).await, *record, "{what}");
            assert_eq!(seqs(&store, record.id).await, [0i64; 0], "{what}");
        }
    }
    commit(&store, with_outcomes(good.id, fence, vec![success(0, 1)])).await;
}
