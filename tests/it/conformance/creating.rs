//! Creating jobs.
//!
//! Owns: the tests of `create_job`. Never: owns a queue; creation is exempt from the fence. Invariant: none of its own.

use super::fixture::*;
use futures_util::future::join_all;
use tallykeeper::domain::ids::TaskNo;
use tallykeeper::domain::job::Stage;
use tallykeeper::domain::policy::FailureThreshold;
use tallykeeper::domain::state::State;
use tallykeeper::store::{Created, Idempotency, JobFilter, StoreError};

fn key(scope: &str, key: &str, body: u8) -> Idempotency {
    Idempotency {
        scope: scope.into(),
        key: key.into(),
        body_sha256: [body; 32],
    }
}

async fn job_count(store: &AnyStore) -> usize {
    let filter = JobFilter {
        limit: 1000,
        ..JobFilter::default()
    };
    store.list_jobs(&filter).await.unwrap().len()
}

pub(super) async fn a_created_job_reads_back_as_answered(store: AnyStore) {
    let mut new = job("images");
    new.name = "café ☕ 日本".into();
    new.priority = -7;
    new.expected_total = Some(u32::MAX);
    new.stages = vec![Stage {
        key: "detect".into(),
        name: "Detect".into(),
    }];
    new.tasks = vec![task(Some("k"), r#"{"a": 1}"#), task(None, "null")];
    new.start_at = Some(THEN.plus_s(5));
    new.policy.failure_threshold = FailureThreshold::Count(3);
    new.policy.max_in_flight = Some(9);
    new.labels = [
        ("team".to_owned(), "bugs".to_owned()),
        ("empty".to_owned(), String::new()),
    ]
    .into();
    new.callback_url = Some("https://example.org/hook".into());
    let record = create(&store, &new).await;
    assert_eq!(reread(&store, record.id).await, record);
    assert!(record.id.0 > 0);
    assert_eq!((record.name, record.queue, record.priority), (new.name, new.queue, -7));
    assert_eq!(
        (record.stages, record.policy, record.labels),
        (new.stages, new.policy, new.labels)
    );
    assert_eq!((record.tally.total, record.run.0, record.base_run.0), (2, 1, 1));
    let rows = store
        .tasks(record.id, &[TaskNo(0), TaskNo(1)], usize::MAX)
        .await
        .unwrap();
    assert_eq!((rows[0].key.as_deref(), &*rows[0].payload), (Some("k"), r#"{"a": 1}"#));
    assert_eq!((rows[1].key.as_deref(), &*rows[1].payload), (None, "null"));
}

pub(super) async fn a_job_is_created_pending_running_or_ended(store: AnyStore) {
    for (state, started, finished) in [
        (State::Pending, None, None),
        (State::Running, Some(THEN), None),
        (State::Succeeded, Some(THEN), Some(THEN)),
    ] {
        let mut new = job("q");
        new.state = state;
        let record = create(&store, &new).await;
        assert_eq!(record.state, state);
        assert_eq!((record.started_at, record.finished_at), (started, finished), "{state}");
        assert_eq!((record.created_at, record.updated_at), (THEN, THEN));
    }
}

pub(super) async fn duplicate_keys_are_rejected_and_nothing_is_written(store: AnyStore) {
    let mut new = job("q");
    new.tasks = vec![task(Some("a"), "1"), task(Some("b"), "2"), task(Some("a"), "3")];
    let used = key("", "k", 1);
    let refused = store.create_job(&new, Some(&used)).await;
    assert!(matches!(refused, Err(StoreError::Rejected(_))), "{refused:?}");
    assert_eq!(job_count(&store).await, 0);
    new.tasks.pop();
    let created = store.create_job(&new, Some(&used)).await.unwrap();
    assert!(
        matches!(created, Created::New(_)),
        "the key was not used up: {created:?}"
    );
}

pub(super) async fn many_inline_tasks_are_numbered_densely(store: AnyStore) {
    let mut new = job("q");
    new.tasks = tasks(5_001);
    let record = create(&store, &new).await;
    assert_eq!(record.tally.total, 5_001);
    let numbers: Vec<TaskNo> = (0..5_002).map(TaskNo).collect();
    let rows = store.tasks(record.id, &numbers, usize::MAX).await.unwrap();
    assert_eq!(rows.len(), 5_001);
    assert!(rows.iter().all(|row| *row.payload == *row.task.0.to_string()));
}

pub(super) async fn an_idempotency_key_names_one_job(store: AnyStore) {
    let used = key("token", "k", 1);
    let Created::New(first) = store.create_job(&job("q"), Some(&used)).await.unwrap() else {
        panic!("the first use is new");
    };
    let again = store.create_job(&job("q"), Some(&used)).await.unwrap();
    assert_eq!(again, Created::Existing(first));
    assert_eq!(job_count(&store).await, 1);
}

pub(super) async fn an_idempotency_key_with_another_body_is_a_mismatch(store: AnyStore) {
    store.create_job(&job("q"), Some(&key("", "k", 1))).await.unwrap();
    let other = store.create_job(&job("q"), Some(&key("", "k", 2))).await.unwrap();
    assert_eq!(other, Created::Mismatch);
    assert_eq!(job_count(&store).await, 1);
}

pub(super) async fn a_key_belongs_to_its_scope(store: AnyStore) {
    for scope in ["", "a", "b"] {
        let created = store.create_job(&job("q"), Some(&key(scope, "k", 1))).await.unwrap();
        assert!(matches!(created, Created::New(_)), "{scope}: {created:?}");
    }
}

pub(super) async fn concurrent_creators_with_one_key_make_one_job(store: AnyStore) {
    let used = key("", "k", 1);
    let new = job("q");
    let answers = join_all((0..6).map(|_| store.create_job(&new, Some(&used)))).await;
    let answers: Vec<Created> = answers.into_iter().map(Result::unwrap).collect();
    let fresh = answers
        .iter()
        .filter(|answer| matches!(answer, Created::New(_)))
        .count();
    assert_eq!(fresh, 1, "{answers:?}");
    assert!(!answers.contains(&Created::Mismatch));
    assert_eq!(job_count(&store).await, 1);
}

pub(super) async fn jobs_of_one_queue_share_its_id(store: AnyStore) {
    let one = job("one");
    let answers = join_all((0..4).map(|_| store.create_job(&one, None))).await;
    let other = create(&store, &job("other")).await;
    for answer in answers {
        let Created::New(record) = answer.unwrap() else {
            panic!("no key was given");
        };
        assert_eq!(record.queue_id, own(&store, "one").await.queue);
        assert_ne!(record.queue_id, other.queue_id);
    }
}
