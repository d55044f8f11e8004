//! The current view of a job's results.
//!
//! Owns: the tests of `results`. Never: depends on how runs came about. Invariant: none of its own.

use super::fixture::*;
use tallykeeper::domain::ids::{Attempt, TaskNo};
use tallykeeper::domain::rows::{OutcomeRow, Verdict};
use tallykeeper::store::ResultFilter;

async fn view(store: &AnyStore, filter: ResultFilter) -> Vec<(u32, u32, String)> {
    brief(&store.results(&filter).await.unwrap())
}

pub(super) async fn the_latest_standing_success_speaks_for_a_task(store: AnyStore) {
    let (record, fence) = running(&store, "q", 3).await;
    let rows = vec![
        success(0, 1),
        in_run(2, success(0, 2)),
        success(1, 3),
        in_run(2, failure(1, 4)),
        in_run(2, success(2, 5)),
    ];
    commit(&store, with_outcomes(record.id, fence, rows)).await;
    assert_eq!(
        view(&store, every_result(record.id, 1, 2)).await,
        [
            (0, 2, "succeeded".into()),
            (1, 1, "succeeded".into()),
            (2, 2, "succeeded".into())
        ]
    );
}

pub(super) async fn only_the_current_runs_failure_counts(store: AnyStore) {
    let (record, fence) = running(&store, "q", 2).await;
    commit(
        &store,
        with_outcomes(record.id, fence, vec![failure(0, 1), in_run(2, failure(1, 2))]),
    )
    .await;
    assert_eq!(
        view(&store, every_result(record.id, 1, 2)).await,
        [(1, 2, "failed".into())]
    );
    assert_eq!(
        view(&store, every_result(record.id, 1, 1)).await,
        [(0, 1, "failed".into())]
    );
}

pub(super) async fn runs_before_the_base_do_not_count(store: AnyStore) {
    let (record, fence) = running(&store, "q", 2).await;
    commit(
        &store,
        with_outcomes(record.id, fence, vec![success(0, 1), in_run(2, success(1, 2))]),
    )
    .await;
    assert_eq!(
        view(&store, every_result(record.id, 2, 3)).await,
        [(1, 2, "succeeded".into())]
    );
    assert_eq!(view(&store, every_result(record.id, 3, 3)).await, []);
}

pub(super) async fn a_late_result_is_marked_unless_the_task_was_decided(store: AnyStore) {
    let (record, fence) = running(&store, "q", 4).await;
    commit(
        &store,
        with_outcomes(record.id, fence, vec![success(0, 1), failure(3, 5)]),
    )
    .await;
    // Task 3 was decided as failed: the tally says so, and so does its row.
    let late = vec![success(0, 2), success(1, 3), failure(2, 4), success(3, 6)];
    commit(&store, with_late(record.id, fence, late)).await;
    assert_eq!(
        first_run(&store, record.id).await,
        [
            (0, 1, "succeeded".into()),
            (1, 1, "late succeeded".into()),
            (2, 1, "late failed".into()),
            (3, 1, "failed".into())
        ]
    );
}

pub(super) async fn results_are_filtered_by_verdict(store: AnyStore) {
    let (record, fence) = running(&store, "q", 4).await;
    let rows = vec![
        success(0, 1),
        failure(1, 2),
        in_run(2, failure(2, 3)),
        success(3, 4),
        in_run(2, failure(3, 5)),
    ];
    commit(&store, with_outcomes(record.id, fence, rows)).await;
    let with = |verdict| ResultFilter {
        verdict: Some(verdict),
        ..every_result(record.id, 1, 2)
    };
    assert_eq!(
        view(&store, with(Verdict::Succeeded)).await,
        [(0, 1, "succeeded".into()), (3, 1, "succeeded".into())]
    );
    assert_eq!(view(&store, with(Verdict::Failed)).await, [(2, 2, "failed".into())]);
}

pub(super) async fn results_come_in_pages_within_a_bound_of_bytes(store: AnyStore) {
    let (record, fence) = running(&store, "q", 8).await;
    // In either run, so that a page is merged from several.
    let rows: Vec<OutcomeRow> = (0..8)
        .map(|task| OutcomeRow {
            result: Some(r#""10 bytes""#.into()),
            ..in_run(1 + task % 2, success(task, task.into()))
        })
        .collect();
    commit(&store, with_outcomes(record.id, fence, rows)).await;
    let page = |after: Option<u32>, limit, max_bytes| {
        let filter = ResultFilter {
            after: after.map(TaskNo),
            limit,
            max_bytes,
            ..every_result(record.id, 1, 2)
        };
        let store = store.clone();
        async move {
            let rows = store.results(&filter).await.unwrap();
            rows.iter().map(|row| row.task.0).collect::<Vec<_>>()
        }
    };
    assert_eq!(page(None, 3, usize::MAX).await, [0, 1, 2]);
    assert_eq!(page(Some(2), 3, usize::MAX).await, [3, 4, 5]);
    assert_eq!(page(Some(5), 3, usize::MAX).await, [6, 7]);
    assert_eq!(page(Some(7), 3, usize::MAX).await, [0; 0]);
    assert_eq!(
        page(None, 8, 25).await,
        [0, 1],
        "stops before the row that would pass the bound"
    );
    assert_eq!(
        page(Some(2), 8, 0).await,
        [3],
        "a page is never empty while there are rows"
    );
}

pub(super) async fn a_result_carries_everything_that_was_stored(store: AnyStore) {
    let fence = own(&store, "q").await;
    let mut new = job("q");
    new.tasks = vec![task(Some("key"), "1")];
    let record = create(&store, &new).await;
    let row = OutcomeRow {
        attempt: Attempt(3),
        // Verbatim: order, spaces and duplicate members stay.
        result: Some("{\"b\": 1,\t\"a\":2, \"b\":3.10}".into()),
        worker: "wörker".into(),
        ..success(0, 7)
    };
    commit(&store, with_outcomes(record.id, fence, vec![row.clone()])).await;
    let read = store.results(&every_result(record.id, 1, 1)).await.unwrap().remove(0);
    assert_eq!((read.key.as_deref(), read.attempt, read.late), (Some("key"), 3, false));
    assert_eq!(read.result.as_deref(), row.text());
    assert_eq!((read.error, read.counters.as_deref()), (None, row.counters.as_deref()));
    assert_eq!((read.worker.as_str(), read.at), ("wörker", row.at));
    assert_eq!(read.took_ms, row.took_ms);
}
