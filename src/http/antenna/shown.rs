//! A job as the clients of this API know one.
//!
//! Owns: the words for its state, and the three stages that its numbers are told in. Never: computes a number: all come from the one progress.
//! Invariant: stages and summary derive from the same state, so none reads as running when the job is over, and only committed outcomes count.

use super::projects::PROJECT;
use super::wire::{AntennaJob, AntennaLogs, AntennaParam, AntennaProgress, AntennaStage, AntennaSummary};
use crate::coordinator::api::JobView;
use crate::domain::ids::Run;
use crate::domain::job::JobRecord;
use crate::domain::logs::Level;
use crate::domain::progress::Progress;
use crate::domain::state::State;
use crate::http::wire::Timestamp;
use crate::store::LogRow;

/// Label under which a job keeps the project it was created for.
pub(super) const PROJECT_LABEL: &str = "project";

/// The word for where a job is; `begun`: something of its run was handed out.
fn status(state: State, run: Run, begun: bool) -> &'static str {
    match (state, begun) {
        (State::Pending, _) => "CREATED",
        (State::Running | State::Paused, true) => "STARTED",
        (State::Running | State::Paused, false) if run > Run(1) => "RETRY",
        (State::Running | State::Paused, false) => "PENDING",
        (State::Canceling, _) => "CANCELING",
        (State::Succeeded | State::PartiallySucceeded, _) => "SUCCESS",
        (State::Failed, _) => "FAILURE",
        (State::Canceled, _) => "REVOKED",
    }
}

pub(super) fn job(view: JobView, logs: AntennaLogs) -> AntennaJob {
    let JobView { record, progress, .. } = view;
    let status = status(record.state, record.run, view.begun);
    let project = record.labels.get(PROJECT_LABEL).and_then(|id| id.parse().ok());
    AntennaJob {
        id: record.id.0,
        progress: told(&record, &progress, status),
        name: record.name,
        pipeline_slug: record.queue,
        project_id: project.unwrap_or(PROJECT),
        dispatch_mode: "async_api",
        status,
        logs,
        created_at: record.created_at.into(),
        updated_at: record.updated_at.into(),
        started_at: record.started_at.map(Timestamp),
        finished_at: record.finished_at.map(Timestamp),
    }
}

fn told(record: &JobRecord, progress: &Progress, status: &'static str) -> AntennaProgress {
    let share = progress.fraction.unwrap_or(0.0);
    let decided = progress.succeeded + progress.failed;
    let stage = |key, name, status, progress, params| AntennaStage {
        key,
        name,
        status,
        progress,
        params,
    };
    let (fed, fed_status) = collected(record, progress, status);
    let counter = |key, name| param(key, name, progress.counters.get(key).copied().unwrap_or(0));
    let collect = vec![param("total_images", "Total images", progress.total.into())];
    let process = vec![
        param("processed", "Processed", decided.into()),
        param("failed", "Failed", progress.failed.into()),
        param("remaining", "Remaining", (progress.total - decided).into()),
    ];
    let results = vec![
        counter("captures", "Captures"),
        counter("detections", "Detections"),
        counter("classifications", "Classifications"),
        param("failed", "Failed", progress.failed.into()),
    ];
    AntennaProgress {
        summary: AntennaSummary {
            status,
            progress: share,
        },
        stages: vec![
            stage("collect", "Collect", fed_status, fed, collect),
            stage("process", "Process", status, share, process),
            stage("results", "Results", status, share, results),
        ],
        errors: record.error.iter().map(|error| error.message.clone()).collect(),
    }
}

/// How far the feeding has come. A sealed job has been fed whole, but one that ended before that never was.
fn collected(record: &JobRecord, progress: &Progress, status: &'static str) -> (f64, &'static str) {
    if !record.open {
        return (1.0, "SUCCESS");
    }
    let expected = record.expected_total.unwrap_or(0).max(progress.total + 1);
    let share = f64::from(progress.total) / f64::from(expected);
    let share = if record.expected_total.is_some() { share } else { 0.0 };
    (share, if status == "PENDING" { "STARTED" } else { status })
}

fn param(key: &'static str, name: &'static str, value: i64) -> AntennaParam {
    AntennaParam { key, name, value }
}

/// Log entries as lines.
pub(super) fn logs(rows: Vec<LogRow>) -> AntennaLogs {
    let mut logs = AntennaLogs::default();
    for LogRow { entry, .. } in rows {
        let line = format!(
            "[{}] {} {}",
            Timestamp(entry.at),
            entry.level.as_str().to_uppercase(),
            entry.message
        );
        if entry.level == Level::Error {
            logs.stderr.push(line.clone());
        }
        logs.stdout.push(line);
    }
    logs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::state::ALL;

    #[test]
    fn fm07_every_state_has_its_word_and_a_final_one_never_reads_as_running() {
        let words = |begun, run| ALL.map(|state| status(state, Run(run), begun));
        let ends = ["CANCELING", "SUCCESS", "SUCCESS", "FAILURE", "REVOKED"];
        assert_eq!(
            words(true, 1),
            [&["CREATED", "STARTED", "STARTED"][..], &ends].concat()[..]
        );
        assert_eq!(words(true, 2), words(true, 1));
        assert_eq!(
            words(false, 1),
            [&["CREATED", "PENDING", "PENDING"][..], &ends].concat()[..]
        );
        assert_eq!(
            words(false, 2),
            [&["CREATED", "RETRY", "RETRY"][..], &ends].concat()[..]
        );
    }
}
