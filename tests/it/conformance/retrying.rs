//! New runs and what they take over from the late results.
//!
//! Owns: the tests of `promote_late`. Never: tests what a retry is allowed from. Invariant: none of its own.

use super::fixture::*;
use tallykeeper::domain::ids::{JobId, Run, Seq};
use tallykeeper::domain::job::{Fence, JobRecord};
use tallykeeper::domain::rows::{FactKind, JobBatch, OutcomeRow};
use tallykeeper::domain::state::State;

/// A job of `count` tasks that was canceled at seq 10, with late results since.
async fn canceled(store: &AnyStore, count: usize, late: Vec<OutcomeRow>) -> (JobRecord, Fence) {
    let (record, fence) = running(store, "q", count).await;
    commit(
        store,
        with_update(record.id, fence, update(&record, State::Canceled, 10)),
    )
    .await;
    commit(store, with_late(record.id, fence, late)).await;
    (reread(store, record.id).await, fence)
}

/// Seq, run and task of each outcome.
async fn outcomes(store: &AnyStore, job: JobId) -> Vec<(i64, u32, u32)> {
    let facts = store.facts(job, Seq(0), 1000).await.unwrap();
    facts
        .into_iter()
        .filter(|fact| matches!(fact.kind, FactKind::Outcome { .. }))
        .map(|fact| (fact.seq.0, fact.run.0, fact.task.0))
        .collect()
}

pub(super) async fn a_retry_promotes_late_successes_of_standing_runs(store: AnyStore) {
    let late = vec![success(5, 11), failure(1, 12), success(2, 13)];
    let (record, fence) = canceled(&store, 6, late).await;
    commit(&store, with_update(record.id, fence, retry(&record, 1, 2, 20))).await;
    // Seqs of their own after the retry's, one per task in order of the tasks.
    assert_eq!(outcomes(&store, record.id).await, [(22, 2, 2), (23, 2, 5)]);
    let rows = store.results(&every_result(record.id, 1, 2)).await.unwrap();
    assert_eq!(brief(&rows), [(2, 2, "succeeded".into()), (5, 2, "succeeded".into())]);
    assert_eq!(rows[0].result.as_deref(), Some(r#"{"seq":13}"#));
    assert_eq!(rows[0].counters.as_deref(), Some(r#"{"n":13}"#));
    let row = reread(&store, record.id).await;
    assert_eq!((row.state, row.run, row.base_run), (State::Running, Run(2), Run(1)));
    assert_eq!(row.finished_at, None);
}

pub(super) async fn promoting_again_changes_nothing(store: AnyStore) {
    let (record, fence) = canceled(&store, 3, vec![success(0, 11)]).await;
    let start = with_update(record.id, fence, retry(&record, 1, 2, 20));
    commit(&store, start.clone()).await;
    let before = store.facts(record.id, Seq(0), 1000).await.unwrap();
    commit(&store, start).await;
    assert_eq!(store.facts(record.id, Seq(0), 1000).await.unwrap(), before);
}

pub(super) async fn late_results_of_runs_that_do_not_stand_stay_late(store: AnyStore) {
    let (record, fence) = canceled(&store, 3, vec![success(0, 11)]).await;
    // `only:"all"`: nothing stands, so nothing is taken over.
    commit(&store, with_update(record.id, fence, retry(&record, 2, 2, 20))).await;
    assert_eq!(outcomes(&store, record.id).await, []);
    assert_eq!(store.results(&every_result(record.id, 2, 2)).await.unwrap(), []);
    // Nor does a retry that does not ask for it.
    let (record, fence) = canceled(&store, 3, vec![success(0, 11)]).await;
    let mut plain = retry(&record, 1, 2, 20);
    plain.promote_late = false;
    commit(&store, with_update(record.id, fence, plain)).await;
    assert_eq!(outcomes(&store, record.id).await, []);
}

pub(super) async fn the_latest_late_success_is_promoted(store: AnyStore) {
    let (record, fence) = canceled(&store, 2, vec![success(0, 11)]).await;
    let mut plain = retry(&record, 1, 2, 20);
    plain.promote_late = false;
    commit(&store, with_update(record.id, fence, plain)).await;
    let second = reread(&store, record.id).await;
    commit(
        &store,
        with_update(record.id, fence, update(&second, State::Canceled, 30)),
    )
    .await;
    commit(&store, with_late(record.id, fence, vec![in_run(2, success(0, 31))])).await;
    commit(&store, with_update(record.id, fence, retry(&record, 1, 3, 40))).await;
    assert_eq!(outcomes(&store, record.id).await, [(42, 3, 0)]);
    let rows = store.results(&every_result(record.id, 1, 3)).await.unwrap();
    assert_eq!(rows[0].result.as_deref(), Some(r#"{"seq":31}"#));
}

pub(super) async fn a_standing_success_is_not_promoted_over(store: AnyStore) {
    let (record, fence) = running(&store, "q", 3).await;
    let end = JobBatch {
        outcomes: vec![success(0, 1), failure(1, 2)],
        update: Some(update(&record, State::Canceled, 10)),
        ..batch(record.id, fence)
    };
    commit(&store, end).await;
    commit(
        &store,
        with_late(record.id, fence, vec![success(0, 11), success(1, 12)]),
    )
    .await;
    commit(&store, with_update(record.id, fence, retry(&record, 1, 2, 20))).await;
    assert_eq!(outcomes(&store, record.id).await, [(1, 1, 0), (2, 1, 1), (22, 2, 1)]);
    let rows = store.results(&every_result(record.id, 1, 2)).await.unwrap();
    assert_eq!(brief(&rows), [(0, 1, "succeeded".into()), (1, 2, "succeeded".into())]);
}
