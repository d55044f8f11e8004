//! Domain values as the wire shows them.
//!
//! Owns: the conversion, one function per shape. Never: asks the coordinator. Invariant: JSON text passes through verbatim.

use super::wire::{self, Timestamp};
use crate::coordinator::api::{self, GrantedTask, JobView, TaskView};
use crate::domain::rows::Verdict;
use crate::store::ResultRow;
use serde::Serialize;
use serde::ser::{Error, Serializer};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// A job as everyone sees it.
pub fn job(view: JobView) -> wire::Job {
    let JobView {
        record,
        progress,
        node,
        epoch,
        ..
    } = view;
    wire::Job {
        id: record.id.0,
        name: record.name,
        queue: record.queue,
        state: record.state,
        run: record.run.0,
        priority: record.priority,
        open: record.open,
        expected_total: record.expected_total,
        start_at: record.start_at.map(Timestamp),
        labels: record.labels,
        policy: record.policy,
        node,
        epoch: epoch.map(|epoch| epoch.0),
        created_at: record.created_at.into(),
        started_at: record.started_at.map(Timestamp),
        finished_at: record.finished_at.map(Timestamp),
        updated_at: record.updated_at.into(),
        progress,
        error: record.error,
    }
}

/// A row of `/tasks`.
pub fn task(view: TaskView) -> wire::Task {
    wire::Task {
        task: view.task.0,
        key: view.key,
        state: task_state(view.state),
        attempt: view.attempt.map(|attempt| attempt.0),
        worker: view.worker.map(|worker| worker.to_string()),
        expires_at: view.expires_at.map(Timestamp),
    }
}

pub fn task_state(state: api::TaskState) -> wire::TaskState {
    match state {
        api::TaskState::Pending => wire::TaskState::Pending,
        api::TaskState::Leased => wire::TaskState::Leased,
        api::TaskState::Retrying => wire::TaskState::Retrying,
        api::TaskState::Succeeded => wire::TaskState::Succeeded,
        api::TaskState::Failed => wire::TaskState::Failed,
    }
}

/// Prints JSON text as it is; an error, not broken output, if it is no JSON.
fn verbatim<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serde_json::from_str::<&RawValue>(text)
        .map_err(S::Error::custom)?
        .serialize(serializer)
}

fn verbatim_if_any<S: Serializer>(text: &Option<&str>, serializer: S) -> Result<S::Ok, S::Error> {
    verbatim(text.unwrap_or("null"), serializer)
}

/// [`wire::LeasedTask`], borrowed: a payload is copied once, into the answer.
#[derive(Serialize)]
pub struct LeasedTaskView<'a> {
    task: u32,
    key: Option<&'a str>,
    #[serde(serialize_with = "verbatim")]
    payload: &'a str,
    attempt: u32,
    lease: &'a str,
    expires_at: Timestamp,
}

pub fn leased_tasks(tasks: &[GrantedTask]) -> Vec<LeasedTaskView<'_>> {
    tasks.iter().map(leased_task).collect()
}

fn leased_task(task: &GrantedTask) -> LeasedTaskView<'_> {
    LeasedTaskView {
        task: task.task.0,
        key: task.key.as_deref(),
        payload: &task.payload,
        attempt: task.attempt.0,
        lease: &task.lease,
        expires_at: task.expires_at.into(),
    }
}

/// [`wire::Granted`], borrowed.
#[derive(Serialize)]
pub struct GrantedView<'a> {
    job: Option<wire::GrantedJob>,
    tasks: Vec<LeasedTaskView<'a>>,
}

pub fn granted(granted: &api::Granted) -> GrantedView<'_> {
    GrantedView {
        job: granted.job.as_ref().map(|job| wire::GrantedJob {
            id: job.id.0,
            name: job.name.to_string(),
            queue: job.queue.to_string(),
            run: job.run.0,
        }),
        tasks: leased_tasks(&granted.tasks),
    }
}

/// [`wire::ResultsPosted`], borrowed.
#[derive(Serialize)]
pub struct PostedView<'a> {
    job: wire::JobStanding,
    results: Vec<ItemView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tasks: Option<Vec<LeasedTaskView<'a>>>,
}

#[derive(Serialize)]
struct ItemView<'a> {
    lease: &'a str,
    disposition: api::Disposition,
}

/// `leases` are those of the request, in its order.
pub fn posted<'a>(leases: &'a [String], posted: &'a api::ResultsPosted) -> PostedView<'a> {
    let item = |(lease, &disposition): (&'a String, _)| ItemView { lease, disposition };
    PostedView {
        job: standing(posted),
        results: leases.iter().zip(&posted.dispositions).map(item).collect(),
        tasks: posted.tasks.as_deref().map(leased_tasks),
    }
}

fn standing(posted: &api::ResultsPosted) -> wire::JobStanding {
    wire::JobStanding {
        id: posted.job.0,
        state: posted.state,
        run: posted.run.0,
    }
}

/// [`wire::ResultOut`], borrowed.
#[derive(Serialize)]
pub struct ResultView<'a> {
    task: u32,
    key: Option<&'a str>,
    run: u32,
    status: &'static str,
    attempt: u32,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "verbatim_if_any")]
    result: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    counters: BTreeMap<String, i64>,
    worker: &'a str,
    committed_at: Timestamp,
    took_ms: Option<u32>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    late: bool,
}

/// Without its result if that was stored apart.
pub fn result(row: &ResultRow) -> ResultView<'_> {
    let succeeded = row.verdict == Verdict::Succeeded;
    ResultView {
        task: row.task.0,
        key: row.key.as_deref(),
        run: row.run.0,
        status: row.verdict.as_str(),
        attempt: row.attempt,
        result: (succeeded && row.blob.is_none()).then(|| row.result.as_deref().unwrap_or("null")),
        error: (!succeeded).then(|| row.error.as_deref().unwrap_or("")),
        counters: row
            .counters
            .as_deref()
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default(),
        worker: &row.worker,
        committed_at: row.at.into(),
        took_ms: row.took_ms,
        late: row.late,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::{Attempt, JobId, Run, TaskNo, UnixMs};
    use crate::domain::ledger::Disposition;
    use crate::domain::state::State;

    fn granted_task(payload: &str) -> GrantedTask {
        GrantedTask {
            task: TaskNo(3),
            key: Some("k\"1".into()),
            payload: payload.into(),
            attempt: Attempt(2),
            lease: "l1-1".into(),
            expires_at: UnixMs(1_000),
        }
    }

    #[test]
    fn borrowed_views_print_what_the_wire_types_read_and_keep_json_verbatim() {
        let odd = r#"{"a" : 1.0,"a":[12345678901234567890 ]}"#;
        let grant = api::Granted {
            job: None,
            tasks: vec![granted_task(odd)],
        };
        let text = serde_json::to_string(&granted(&grant)).unwrap();
        let read: wire::Granted = serde_json::from_str(&text).unwrap();
        assert_eq!(read.tasks[0].payload.get(), odd);
        assert_eq!(read.tasks[0].key.as_deref(), Some("k\"1"));
        assert_eq!(serde_json::to_string(&read).unwrap(), text);

        let answer = api::ResultsPosted {
            job: JobId(9),
            state: State::Running,
            run: Run(1),
            dispositions: vec![Disposition::Counted],
            tasks: Some(vec![granted_task("null")]),
        };
        let leases = ["x".to_owned()];
        let text = serde_json::to_string(&posted(&leases, &answer)).unwrap();
        let read: wire::ResultsPosted = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
        assert_eq!(read.results[0].lease, "x");
    }

    #[test]
    fn a_result_row_shows_result_or_error() {
        let mut row = ResultRow {
            run: Run(1),
            task: TaskNo(0),
            key: None,
            verdict: Verdict::Succeeded,
            late: false,
            attempt: 1,
            result: Some("[1 ]".into()),
            blob: None,
            error: None,
            counters: Some(r#"{"n":2}"#.into()),
            worker: "w".into(),
            at: UnixMs(0),
            took_ms: Some(12),
        };
        let text = serde_json::to_string(&result(&row)).unwrap();
        let read: wire::ResultOut = serde_json::from_str(&text).unwrap();
        assert_eq!(read.result.as_ref().unwrap().get(), "[1 ]");
        assert_eq!((read.counters["n"], read.took_ms), (2, Some(12)));
        assert!(!text.contains("error") && !text.contains("late"));
        row.verdict = Verdict::Failed;
        row.error = Some("boom".into());
        row.late = true;
        let read: wire::ResultOut = serde_json::from_str(&serde_json::to_string(&result(&row)).unwrap()).unwrap();
        assert_eq!(read.error.as_deref(), Some("boom"));
        assert!(read.result.is_none() && read.late);
    }

    #[test]
    fn text_that_is_no_json_is_an_error_not_broken_output() {
        let grant = api::Granted {
            job: None,
            tasks: vec![granted_task("{")],
        };
        assert!(serde_json::to_string(&granted(&grant)).is_err());
    }
}
