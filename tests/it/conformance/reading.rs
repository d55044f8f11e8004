//! Reading jobs, facts and tasks.
//!
//! Owns: the tests of `ReadStore`, but for results. Never: changes what it reads. Invariant: none of its own.

use super::fixture::*;
use tallykeeper::domain::ids::{JobId, Seq, TaskNo};
use tallykeeper::domain::job::JobRecord;
use tallykeeper::domain::rows::{FactKind, JobBatch, Verdict};
use tallykeeper::domain::state::{self, State};
use tallykeeper::store::JobFilter;

fn all() -> JobFilter {
    JobFilter {
        limit: 1000,
        ..JobFilter::default()
    }
}

async fn found(store: &AnyStore, filter: JobFilter) -> Vec<JobId> {
    let rows = store.list_jobs(&filter).await.unwrap();
    rows.iter().map(|row| row.id).collect()
}

/// One job in each state, in the order of [`state::ALL`].
async fn one_in_each_state(store: &AnyStore) -> Vec<JobRecord> {
    let fence = own(store, "q").await;
    let mut rows = Vec::new();
    for state in state::ALL {
        let mut new = job("q");
        new.tasks = tasks(1);
        if state == State::Pending {
            new.state = state;
        }
        let record = create(store, &new).await;
        if record.state != state {
            commit(store, with_update(record.id, fence, update(&record, state, 1))).await;
        }
        rows.push(reread(store, record.id).await);
    }
    rows
}

pub(super) async fn an_absent_job_is_none(store: AnyStore) {
    assert_eq!(store.job(JobId(404)).await.unwrap(), None);
    assert_eq!(store.list_jobs(&all()).await.unwrap(), []);
}

pub(super) async fn fm09_each_state_is_found_by_its_filter_and_by_no_other(store: AnyStore) {
    let rows = one_in_each_state(&store).await;
    let by = |states: &[State]| {
        let filter = JobFilter {
            states: states.to_vec(),
            ..all()
        };
        found(&store, filter)
    };
    for row in &rows {
        assert_eq!(by(&[row.state]).await, [row.id], "{}", row.state);
    }
    let newest_first = |states: &[State]| -> Vec<JobId> {
        rows.iter()
            .rev()
            .filter(|row| states.contains(&row.state))
            .map(|row| row.id)
            .collect()
    };
    for states in [&state::ACTIVE[..], &state::FINAL, &state::ALL] {
        assert_eq!(by(states).await, newest_first(states));
    }
    assert_eq!(by(&[]).await.len(), state::ALL.len(), "no state given means any");
}

pub(super) async fn jobs_are_listed_newest_first_in_pages(store: AnyStore) {
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(create(&store, &job("q")).await.id);
    }
    ids.reverse();
    let page = |before| {
        let filter = JobFilter {
            before,
            limit: 2,
            ..JobFilter::default()
        };
        found(&store, filter)
    };
    assert_eq!(page(None).await, ids[..2]);
    assert_eq!(page(Some(ids[1])).await, ids[2..4]);
    assert_eq!(page(Some(ids[3])).await, ids[4..]);
    assert_eq!(page(Some(ids[4])).await, []);
}

pub(super) async fn jobs_are_filtered_by_queue_label_and_name(store: AnyStore) {
    let mut a = job("a");
    a.name = "Detect 100% of Moths".into();
    a.labels = [("team".to_owned(), "x".to_owned()), ("tier".to_owned(), "1".to_owned())].into();
    let mut b = job("b");
    b.name = "classify_beetles".into();
    b.labels = [("team".to_owned(), "y".to_owned())].into();
    let (a, b) = (create(&store, &a).await.id, create(&store, &b).await.id);
    let c = create(&store, &job("c")).await.id;
    let queue = |queue: &str| JobFilter {
        queue: Some(queue.into()),
        ..all()
    };
    assert_eq!(found(&store, queue("a")).await, [a]);
    assert_eq!(found(&store, queue("A")).await, []);
    let queues = |queues: &[&str]| JobFilter {
        queues: Some(queues.iter().map(|queue| (*queue).to_owned()).collect()),
        ..all()
    };
    assert_eq!(found(&store, queues(&["a", "c", "none"])).await, [c, a]);
    assert_eq!(
        found(&store, queues(&[])).await,
        [],
        "a token for no queue sees nothing"
    );
    let label = |key: &str, value: &str| JobFilter {
        label: Some((key.into(), value.into())),
        ..all()
    };
    assert_eq!(found(&store, label("team", "x")).await, [a]);
    assert_eq!(found(&store, label("team", "y")).await, [b]);
    assert_eq!(found(&store, label("team", "")).await, []);
    assert_eq!(found(&store, label("x", "team")).await, []);
    let name = |q: &str| JobFilter {
        q: Some(q.into()),
        ..all()
    };
    assert_eq!(found(&store, name("moth")).await, [a]);
    assert_eq!(found(&store, name("BEETLES")).await, [b]);
    // Neither `%` nor `_` is a wildcard.
    assert_eq!(found(&store, name("100%")).await, [a]);
    assert_eq!(found(&store, name("%")).await, [a]);
    assert_eq!(found(&store, name("_")).await, [b]);
}

pub(super) async fn filters_combine(store: AnyStore) {
    let rows = one_in_each_state(&store).await;
    let filter = JobFilter {
        states: state::FINAL.to_vec(),
        queue: Some("q".into()),
        queues: Some(vec!["q".into(), "p".into()]),
        q: Some("job".into()),
        before: Some(rows[7].id),
        limit: 2,
        ..JobFilter::default()
    };
    assert_eq!(found(&store, filter.clone()).await, [rows[6].id, rows[5].id]);
    let elsewhere = JobFilter {
        queues: Some(vec!["p".into()]),
        ..filter
    };
    assert_eq!(found(&store, elsewhere).await, []);
}

pub(super) async fn unfinished_jobs_are_active_or_waiting_for_their_start(store: AnyStore) {
    let rows = one_in_each_state(&store).await;
    let mut waiting = job("q");
    waiting.state = State::Pending;
    waiting.start_at = Some(THEN.plus_s(60));
    let waiting = create(&store, &waiting).await;
    create(&store, &job("another")).await;
    let mut expected: Vec<JobId> = rows
        .iter()
        .filter(|row| row.state.is_active())
        .map(|row| row.id)
        .collect();
    expected.push(waiting.id);
    let queue = rows[0].queue_id;
    assert_eq!(store.list_unfinished(queue, JobId(0), 100).await.unwrap(), expected);
    let first = store.list_unfinished(queue, JobId(0), 2).await.unwrap();
    assert_eq!(first, expected[..2]);
    assert_eq!(
        store.list_unfinished(queue, first[1], 100).await.unwrap(),
        expected[2..]
    );
}

pub(super) async fn facts_come_in_order_of_seq_in_pages(store: AnyStore) {
    let (record, fence) = running(&store, "q", 9).await;
    let (other, _) = running(&store, "q", 9).await;
    let mixed = JobBatch {
        outcomes: vec![success(3, 5), failure(1, 2)],
        attempts: vec![attempt(1, 1, 1), attempt(7, 1, 4)],
        late: vec![success(4, 3)],
        ..batch(record.id, fence)
    };
    commit(&store, mixed).await;
    commit(&store, with_outcomes(other.id, fence, vec![success(0, 6)])).await;
    let every = store.facts(record.id, Seq(0), 100).await.unwrap();
    let brief: Vec<_> = every.iter().map(|fact| (fact.seq.0, fact.run.0, fact.task.0)).collect();
    assert_eq!(brief, [(1, 1, 1), (2, 1, 1), (3, 1, 4), (4, 1, 7), (5, 1, 3)]);
    assert_eq!(
        every[1].kind,
        FactKind::Outcome {
            verdict: Verdict::Failed,
            counters: None
        }
    );
    assert_eq!(
        every[4].kind,
        FactKind::Outcome {
            verdict: Verdict::Succeeded,
            counters: Some(r#"{"n":5}"#.into())
        }
    );
    assert_eq!(store.facts(record.id, Seq(0), 2).await.unwrap(), every[..2]);
    assert_eq!(store.facts(record.id, Seq(2), 2).await.unwrap(), every[2..4]);
    assert_eq!(store.facts(record.id, Seq(4), 2).await.unwrap(), every[4..]);
    assert_eq!(store.facts(record.id, Seq(5), 2).await.unwrap(), []);
}

pub(super) async fn tasks_come_by_number_within_a_bound_of_bytes(store: AnyStore) {
    let fence = own(&store, "q").await;
    let record = create(&store, &job("q")).await;
    let ten_bytes: Vec<_> = (0..5).map(|n| task(Some(&format!("k{n}")), r#""10 bytes""#)).collect();
    store.append_tasks(record.id, fence, 0, &ten_bytes).await.unwrap();
    let read = |numbers: &[u32], max_bytes| {
        let store = store.clone();
        let numbers: Vec<TaskNo> = numbers.iter().map(|n| TaskNo(*n)).collect();
        async move {
            let rows = store.tasks(record.id, &numbers, max_bytes).await.unwrap();
            rows.iter().map(|row| row.task.0).collect::<Vec<_>>()
        }
    };
    assert_eq!(read(&[4, 0, 2, 99], usize::MAX).await, [0, 2, 4]);
    assert_eq!(
        read(&[0, 1, 2, 3, 4], 25).await,
        [0, 1, 2],
        "ends after the row that passes the bound"
    );
    assert_eq!(read(&[1, 3], 0).await, [1], "at least one row");
    assert_eq!(read(&[99], usize::MAX).await, [0; 0]);
    assert_eq!(read(&[], usize::MAX).await, [0; 0]);
}

pub(super) async fn tasks_are_found_by_their_keys(store: AnyStore) {
    let mut new = job("q");
    new.tasks = vec![
        task(Some("b"), "0"),
        task(None, "1"),
        task(Some("a"), "2"),
        task(Some("1"), "3"),
    ];
    let (one, other) = (create(&store, &new).await, create(&store, &job("q")).await);
    let keys: Vec<String> = ["a", "1", "missing", "b", "a", "A"].map(str::to_owned).into();
    let found = store.tasks_by_key(one.id, &keys).await.unwrap();
    let expected = [("b", 0), ("a", 2), ("1", 3)].map(|(key, task)| (key.to_owned(), TaskNo(task)));
    assert_eq!(found, expected);
    assert_eq!(store.tasks_by_key(other.id, &keys).await.unwrap(), []);
    assert_eq!(store.tasks_by_key(one.id, &[]).await.unwrap(), []);
}
