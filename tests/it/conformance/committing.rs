//! The group commit.
//!
//! Owns: the tests of `commit`, but for retries. Never: looks at rows other than through the contract. Invariant: none of its own.

use super::fixture::*;
use std::collections::BTreeMap;
use tallykeeper::domain::ids::{Attempt, JobId, Seq, UnixMs};
use tallykeeper::domain::job::{Fence, JobError, Tally};
use tallykeeper::domain::policy::{FailureThreshold, Policy};
use tallykeeper::domain::rows::{Cause, FactKind, JobBatch, JobUpdate, Verdict};
use tallykeeper::domain::state::{self, State};
use tallykeeper::store::BatchAnswer::{Blocked, Committed, Fenced};
use tallykeeper::store::{Appended, StoreError};

pub(super) async fn answers_come_in_the_order_of_the_batches(store: AnyStore) {
    let (a, fence) = running(&store, "q", 1).await;
    let (b, _) = running(&store, "q", 1).await;
    let (c, _) = running(&store, "q", 1).await;
    let batches = [
        with_outcomes(c.id, fence, vec![success(0, 1)]),
        with_outcomes(a.id, stale(fence), vec![success(0, 1)]),
        with_update(b.id, fence, update(&b, State::Paused, 1)),
    ];
    assert_eq!(store.commit(&batches).await.unwrap(), [Committed, Fenced, Committed]);
    assert_eq!(seqs(&store, c.id).await, [1]);
    assert_eq!(seqs(&store, a.id).await, [0i64; 0]);
    assert_eq!(reread(&store, b.id).await.state, State::Paused);
}

pub(super) async fn outcomes_are_inserted_once(store: AnyStore) {
    let (a, fence) = running(&store, "q", 3).await;
    let (b, _) = running(&store, "q", 3).await;
    let batches = [
        with_outcomes(a.id, fence, vec![success(2, 1), failure(0, 2)]),
        with_outcomes(b.id, fence, vec![success(1, 1)]),
    ];
    store.commit(&batches).await.unwrap();
    assert_eq!(
        first_run(&store, a.id).await,
        [(0, 1, "failed".into()), (2, 1, "succeeded".into())]
    );
    assert_eq!(first_run(&store, b.id).await, [(1, 1, "succeeded".into())]);
}

pub(super) async fn fm16_committing_again_changes_nothing(store: AnyStore) {
    let (record, fence) = running(&store, "q", 3).await;
    let whole = JobBatch {
        outcomes: vec![success(0, 1), failure(1, 2)],
        attempts: vec![attempt(1, 1, 3)],
        update: Some(update(&record, State::PartiallySucceeded, 4)),
        ..batch(record.id, fence)
    };
    commit(&store, whole.clone()).await;
    let before = (
        reread(&store, record.id).await,
        store.facts(record.id, Seq(0), 100).await.unwrap(),
        store.results(&every_result(record.id, 1, 1)).await.unwrap(),
    );
    commit(&store, whole).await;
    let after = (
        reread(&store, record.id).await,
        store.facts(record.id, Seq(0), 100).await.unwrap(),
        store.results(&every_result(record.id, 1, 1)).await.unwrap(),
    );
    assert_eq!(before, after);
}

pub(super) async fn fm31_a_success_replaces_a_failure_and_never_the_other_way(store: AnyStore) {
    let (record, fence) = running(&store, "q", 2).await;
    commit(
        &store,
        with_outcomes(record.id, fence, vec![failure(0, 1), success(1, 2)]),
    )
    .await;
    commit(
        &store,
        with_outcomes(record.id, fence, vec![success(0, 3), failure(1, 4)]),
    )
    .await;
    // A second success is a duplicate: the first one stays.
    commit(&store, with_outcomes(record.id, fence, vec![success(0, 5)])).await;
    let rows = store.results(&every_result(record.id, 1, 1)).await.unwrap();
    assert_eq!(brief(&rows), [(0, 1, "succeeded".into()), (1, 1, "succeeded".into())]);
    assert_eq!(rows[0].result.as_deref(), Some(r#"{"seq":3}"#));
    assert_eq!(rows[0].error, None);
    assert_eq!(rows[1].result.as_deref(), Some(r#"{"seq":2}"#));
    assert_eq!(seqs(&store, record.id).await, [2, 3]);
}

pub(super) async fn attempts_are_inserted_once(store: AnyStore) {
    let (record, fence) = running(&store, "q", 1).await;
    let mut expired = attempt(0, 2, 2);
    expired.cause = Cause::Expired;
    let spent = JobBatch {
        attempts: vec![attempt(0, 1, 1), expired],
        ..batch(record.id, fence)
    };
    commit(&store, spent.clone()).await;
    commit(&store, spent).await;
    let facts = store.facts(record.id, Seq(0), 100).await.unwrap();
    let kinds: Vec<FactKind> = facts.into_iter().map(|fact| fact.kind).collect();
    let spent = |attempt, cause, at: UnixMs| FactKind::Attempt {
        attempt: Attempt(attempt),
        cause,
        at,
    };
    assert_eq!(
        kinds,
        [
            spent(1, Cause::Reported, THEN.plus_ms(1)),
            spent(2, Cause::Expired, THEN.plus_ms(2))
        ]
    );
}

pub(super) async fn late_results_are_kept_and_a_success_replaces_a_failure(store: AnyStore) {
    let (record, fence) = running(&store, "q", 2).await;
    commit(
        &store,
        with_update(record.id, fence, update(&record, State::Canceled, 1)),
    )
    .await;
    let ended = reread(&store, record.id).await;
    commit(&store, with_late(record.id, fence, vec![failure(0, 2), success(1, 3)])).await;
    commit(&store, with_late(record.id, fence, vec![success(0, 4), failure(1, 5)])).await;
    let facts = store.facts(record.id, Seq(0), 100).await.unwrap();
    let kinds: Vec<_> = facts
        .iter()
        .map(|fact| (fact.seq.0, fact.task.0, fact.kind.clone()))
        .collect();
    let kept = |n: &str| FactKind::Late {
        verdict: Verdict::Succeeded,
        counters: Some(n.into()),
    };
    assert_eq!(kinds, [(3, 1, kept(r#"{"n":3}"#)), (4, 0, kept(r#"{"n":4}"#))]);
    assert_eq!(reread(&store, record.id).await, ended, "late results count nothing");
}

pub(super) async fn fm58_an_update_judged_on_too_few_tasks_changes_nothing(store: AnyStore) {
    let (record, fence) = running(&store, "q", 1).await;
    let appended = store
        .append_tasks(record.id, fence, 1, &[task(None, "2"), task(None, "3")])
        .await;
    assert_eq!(appended.expect("an append"), Appended::Done { added: 2, existing: 0 });
    let ends = with_update(record.id, fence, update(&record, State::Succeeded, 7));
    assert_eq!(store.commit(&[ends]).await.expect("a commit"), [Fenced]);
    let row = reread(&store, record.id).await;
    assert_eq!((row.state, row.tally.total), (State::Running, 3));
}

pub(super) async fn fm06_a_change_of_state_is_written_whole(store: AnyStore) {
    let (record, fence) = running(&store, "q", 5).await;
    let change = JobUpdate {
        open: false,
        tally: Tally {
            total: 5,
            succeeded: 1,
            failed: 4,
            counters: BTreeMap::from([("boxes".to_owned(), i64::MAX), ("sum".to_owned(), -3)]),
            reached: vec![3, 1],
        },
        priority: -7,
        policy: Policy {
            failure_threshold: FailureThreshold::Count(2),
            ..record.policy.clone()
        },
        error: Some(JobError {
            code: "threshold_exceeded".into(),
            message: "4 of 5 tasks failed".into(),
        }),
        start_at: Some(UnixMs(11)),
        cancel_at: Some(UnixMs(12)),
        started_at: Some(UnixMs(13)),
        ..update(&record, State::Failed, 9)
    };
    commit(&store, with_update(record.id, fence, change.clone())).await;
    let row = reread(&store, record.id).await;
    assert_eq!((row.priority, &row.policy), (-7, &change.policy));
    assert_eq!(
        (row.state, row.run, row.base_run),
        (change.state, change.run, change.base_run)
    );
    assert_eq!(
        (&row.tally, &row.error, row.open),
        (&change.tally, &change.error, false)
    );
    assert_eq!(
        (row.start_at, row.cancel_at, row.started_at, row.finished_at),
        (change.start_at, change.cancel_at, change.started_at, change.finished_at)
    );
    assert_eq!((row.updated_at, row.changed_seq), (change.updated_at, Seq(9)));
    // What an update does not name stays.
    assert_eq!(
        (row.name, row.created_at, row.stages),
        (record.name, record.created_at, record.stages)
    );
}

pub(super) async fn fm03_an_update_from_another_state_is_fenced_whole(store: AnyStore) {
    let (record, fence) = running(&store, "q", 2).await;
    commit(
        &store,
        with_update(record.id, fence, update(&record, State::Canceled, 1)),
    )
    .await;
    let before = reread(&store, record.id).await;
    let loser = JobBatch {
        outcomes: vec![success(0, 2)],
        attempts: vec![attempt(1, 1, 3)],
        update: Some(update(&record, State::Succeeded, 4)),
        ..batch(record.id, fence)
    };
    assert_eq!(store.commit(&[loser]).await.unwrap(), [Fenced]);
    assert_eq!(reread(&store, record.id).await, before);
    assert_eq!(
        seqs(&store, record.id).await,
        [0i64; 0],
        "its rows went with its update"
    );
}

pub(super) async fn an_update_from_another_run_is_fenced(store: AnyStore) {
    let (record, fence) = running(&store, "q", 1).await;
    let mut change = update(&record, State::Paused, 1);
    change.from_run = record.run.next();
    assert_eq!(
        store.commit(&[with_update(record.id, fence, change)]).await.unwrap(),
        [Fenced]
    );
    assert_eq!(reread(&store, record.id).await, record);
}

pub(super) async fn a_lost_update_leaves_the_other_jobs_alone(store: AnyStore) {
    let (a, fence) = running(&store, "q", 1).await;
    let (b, _) = running(&store, "q", 1).await;
    let (c, _) = running(&store, "q", 1).await;
    commit(&store, with_update(b.id, fence, update(&b, State::Canceled, 1))).await;
    let ending = |record, seq| JobBatch {
        outcomes: vec![success(0, seq)],
        update: Some(update(record, State::Succeeded, seq + 1)),
        ..batch(record.id, fence)
    };
    let answers = store
        .commit(&[ending(&a, 1), ending(&b, 2), ending(&c, 1)])
        .await
        .unwrap();
    assert_eq!(answers, [Committed, Fenced, Committed]);
    for record in [&a, &c] {
        assert_eq!(reread(&store, record.id).await.state, State::Succeeded);
        assert_eq!(seqs(&store, record.id).await, [1]);
    }
    assert_eq!(reread(&store, b.id).await.state, State::Canceled);
    assert_eq!(seqs(&store, b.id).await, [0i64; 0]);
}

pub(super) async fn our_own_update_replayed_is_committed(store: AnyStore) {
    let (record, fence) = running(&store, "q", 1).await;
    let end = with_update(record.id, fence, update(&record, State::Succeeded, 7));
    commit(&store, end.clone()).await;
    commit(&store, end.clone()).await;
    // The same change under another seq is somebody else's.
    let other = with_update(record.id, fence, update(&record, State::Succeeded, 8));
    assert_eq!(store.commit(&[other]).await.unwrap(), [Fenced]);
    assert_eq!(reread(&store, record.id).await.changed_seq, Seq(7));
}

pub(super) async fn two_racing_updates_let_one_through(store: AnyStore) {
    for _ in 0..8 {
        let (record, fence) = running(&store, "q", 1).await;
        let won = |state, seq| {
            let store = store.clone();
            let batch = with_update(record.id, fence, update(&record, state, seq));
            async move { store.commit(&[batch]).await.unwrap()[0] }
        };
        let answers = futures_util::future::join(won(State::Succeeded, 1), won(State::Canceled, 2)).await;
        let row = reread(&store, record.id).await;
        match answers {
            // The loser may have met the winner's lock; told "blocked", its caller comes again and is fenced then.
            (Committed, Fenced | Blocked) => assert_eq!((row.state, row.changed_seq), (State::Succeeded, Seq(1))),
            (Fenced | Blocked, Committed) => assert_eq!((row.state, row.changed_seq), (State::Canceled, Seq(2))),
            both => panic!("one wins: {both:?}"),
        }
    }
}

pub(super) async fn fm02_fm03_a_final_state_stays_within_its_run(store: AnyStore) {
    for from in state::FINAL {
        let (record, fence) = running(&store, "q", 1).await;
        commit(&store, with_update(record.id, fence, update(&record, from, 1))).await;
        let before = reread(&store, record.id).await;
        for to in state::ALL.into_iter().filter(|to| *to != from) {
            // A guard as wrong as can be: the store itself must refuse.
            let mut change = update(&record, to, 2);
            change.from = &state::ALL;
            let refused = store.commit(&[with_update(record.id, fence, change)]).await;
            assert!(
                matches!(refused, Err(StoreError::Conflict(_))),
                "{from} -> {to}: {refused:?}"
            );
            assert_eq!(reread(&store, record.id).await, before);
        }
        commit(&store, with_update(record.id, fence, retry(&record, 1, 2, 3))).await;
        assert_eq!(reread(&store, record.id).await.state, State::Running);
    }
}

pub(super) async fn fm55_another_epoch_is_refused_whole_and_others_are_not(store: AnyStore) {
    let (ours, fence) = running(&store, "ours", 1).await;
    let (theirs, foreign) = running(&store, "theirs", 1).await;
    let zombie = JobBatch {
        outcomes: vec![success(0, 1)],
        attempts: vec![attempt(0, 1, 2)],
        late: vec![success(0, 3)],
        update: Some(update(&theirs, State::Succeeded, 4)),
        ..batch(theirs.id, stale(foreign))
    };
    let nowhere = with_outcomes(
        theirs.id,
        Fence {
            queue: tallykeeper::domain::ids::QueueId(9_999),
            ..foreign
        },
        vec![success(0, 5)],
    );
    let answers = store
        .commit(&[zombie, with_outcomes(ours.id, fence, vec![success(0, 1)]), nowhere])
        .await
        .unwrap();
    assert_eq!(answers, [Fenced, Committed, Fenced]);
    assert_eq!(reread(&store, theirs.id).await, theirs);
    assert_eq!(seqs(&store, theirs.id).await, [0i64; 0]);
    assert_eq!(seqs(&store, ours.id).await, [1]);
}

pub(super) async fn fm55_a_taken_over_queue_refuses_its_old_owner(store: AnyStore) {
    let (record, old) = running(&store, "q", 2).await;
    commit(&store, with_outcomes(record.id, old, vec![success(0, 1)])).await;
    let successor = registered(&store, "home", "home-2", ALIVE_S).await;
    let taken = store.take_queues(&successor, None).await.unwrap();
    let new = fence_of(&taken, "q").unwrap();
    assert_eq!(new.epoch.0, old.epoch.0 + 1);
    let write = |fence, seq| with_outcomes(record.id, fence, vec![success(1, seq)]);
    assert_eq!(store.commit(&[write(old, 2)]).await.unwrap(), [Fenced]);
    assert_eq!(seqs(&store, record.id).await, [1]);
    assert_eq!(store.commit(&[write(new, 3)]).await.unwrap(), [Committed]);
    assert_eq!(seqs(&store, record.id).await, [1, 3]);
}

pub(super) async fn a_batch_for_another_queues_job_changes_nothing(store: AnyStore) {
    let (record, _) = running(&store, "a", 1).await;
    let fence = own(&store, "b").await;
    let change = with_update(record.id, fence, update(&record, State::Canceled, 1));
    assert_eq!(store.commit(&[change]).await.unwrap(), [Fenced]);
    assert_eq!(reread(&store, record.id).await, record);
    let absent = with_update(JobId(404), fence, update(&record, State::Canceled, 1));
    assert_eq!(store.commit(&[absent]).await.unwrap(), [Fenced]);
}

pub(super) async fn an_empty_commit_answers_nothing(store: AnyStore) {
    assert_eq!(store.commit(&[]).await.unwrap(), []);
    let (record, fence) = running(&store, "q", 1).await;
    let answers = store
        .commit(&[batch(record.id, fence), batch(record.id, stale(fence))])
        .await
        .unwrap();
    assert_eq!(
        answers,
        [Committed, Fenced],
        "a batch without rows still proves ownership"
    );
}
