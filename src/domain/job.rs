//! What a job is: as it is submitted, and as it is kept.
//!
//! Owns: the shape of a submission and of a job's row, and the limits both obey. Never: knows how it is stored or transmitted.
//! Invariant: a `NewJob` that passed [`NewJob::check`] can be stored without truncation.

use super::ids::{Epoch, JobId, QueueId, Run, Seq, TaskNo, UnixMs};
use super::policy::{Policy, PolicyError};
use super::state::State;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Bounds on what is accepted; every one is a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    pub name_bytes: usize,
    pub key_bytes: usize,
    pub payload_bytes: usize,
    pub stages: usize,
    pub labels: usize,
    pub counters: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            name_bytes: 256,
            key_bytes: 256,
            payload_bytes: 256 * 1024,
            stages: 64,
            labels: 64,
            counters: 64,
        }
    }
}

/// A named mark that tasks pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    pub key: String,
    pub name: String,
}

/// A task as submitted. `payload` is JSON text, kept verbatim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTask {
    pub key: Option<String>,
    pub payload: String,
}

/// A job as submitted.
#[derive(Debug, Clone, PartialEq)]
pub struct NewJob {
    pub name: String,
    pub queue: String,
    pub priority: i32,
    pub stages: Vec<Stage>,
    pub tasks: Vec<NewTask>,
    /// More tasks may be appended until the job is sealed.
    pub open: bool,
    pub expected_total: Option<u32>,
    /// [`State::Pending`], or [`State::Running`] when it starts at once, or [`State::Succeeded`] when it starts sealed without tasks.
    pub state: State,
    pub start_at: Option<UnixMs>,
    pub policy: Policy,
    pub labels: BTreeMap<String, String>,
    pub callback_url: Option<String>,
    pub created_at: UnixMs,
}

/// Counts of decided tasks and summed counters, as the last transition wrote them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    pub total: u32,
    pub succeeded: u32,
    pub failed: u32,
    pub counters: BTreeMap<String, i64>,
    /// Tasks that have come to each stage, in the order of the job's stages; shorter or empty if nothing was counted. Never falls
    /// inside a run.
    #[serde(default)]
    pub reached: Vec<u32>,
}

/// Why a job ended the way it did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobError {
    /// Stable word, such as `threshold_exceeded`.
    pub code: String,
    pub message: String,
}

/// A job's row: everything about it but its tasks and their outcomes.
#[derive(Debug, Clone, PartialEq)]
pub struct JobRecord {
    pub id: JobId,
    pub name: String,
    pub queue: String,
    pub queue_id: QueueId,
    pub state: State,
    pub run: Run,
    /// Successes of runs from this one on still stand.
    pub base_run: Run,
    pub priority: i32,
    pub open: bool,
    pub expected_total: Option<u32>,
    pub stages: Vec<Stage>,
    pub policy: Policy,
    pub labels: BTreeMap<String, String>,
    pub callback_url: Option<String>,
    /// For a job that is not final only `total` is current here; the ledger knows the rest.
    pub tally: Tally,
    pub error: Option<JobError>,
    pub start_at: Option<UnixMs>,
    /// When a canceling job's grace ends.
    pub cancel_at: Option<UnixMs>,
    pub created_at: UnixMs,
    pub started_at: Option<UnixMs>,
    pub finished_at: Option<UnixMs>,
    pub updated_at: UnixMs,
    /// `seq` of the last change of this row; tells a replayed UPDATE from a lost race.
    pub changed_seq: Seq,
}

/// Proof of ownership that every write of an owned job's state carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fence {
    pub queue: QueueId,
    pub epoch: Epoch,
}

/// A submission is outside the limits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} must be {limit}")]
pub struct InvalidJob {
    /// Path of the offending member, such as `tasks[3].key`.
    pub field: String,
    pub limit: String,
}

impl InvalidJob {
    fn new(field: impl Into<String>, limit: impl Into<String>) -> Self {
        InvalidJob {
            field: field.into(),
            limit: limit.into(),
        }
    }
}

impl From<PolicyError> for InvalidJob {
    fn from(error: PolicyError) -> Self {
        InvalidJob::new(error.field, error.limit)
    }
}

/// Checks one name-like text: not empty, bounded, no control characters.
pub fn check_name(field: &str, text: &str, max_bytes: usize) -> Result<(), InvalidJob> {
    let good = !text.is_empty() && text.len() <= max_bytes && !text.chars().any(|c| c.is_control());
    if good {
        Ok(())
    } else {
        Err(InvalidJob::new(
            field,
            format!("1 to {max_bytes} bytes of text without control characters"),
        ))
    }
}

impl NewTask {
    /// Checks key and payload size; `index` is the task's place in its request.
    pub fn check(&self, index: usize, limits: &Limits) -> Result<(), InvalidJob> {
        if let Some(key) = &self.key {
            check_name(&format!("tasks[{index}].key"), key, limits.key_bytes)?;
        }
        if self.payload.len() > limits.payload_bytes {
            return Err(InvalidJob::new(
                format!("tasks[{index}].payload"),
                format!("at most {} bytes", limits.payload_bytes),
            ));
        }
        super::json_text::check(&self.payload)
            .map_err(|why| InvalidJob::new(format!("tasks[{index}].payload"), why.to_string()))
    }
}

impl NewJob {
    /// Checks the whole submission and names the first member outside its limit.
    pub fn check(&self, limits: &Limits) -> Result<(), InvalidJob> {
        check_name("name", &self.name, limits.name_bytes)?;
        check_name("queue", &self.queue, limits.name_bytes)?;
        if self.stages.len() > limits.stages {
            return Err(InvalidJob::new("stages", format!("at most {} stages", limits.stages)));
        }
        for (i, stage) in self.stages.iter().enumerate() {
            check_name(&format!("stages[{i}].key"), &stage.key, limits.name_bytes)?;
            check_name(&format!("stages[{i}].name"), &stage.name, limits.name_bytes)?;
            if self.stages[..i].iter().any(|other| other.key == stage.key) {
                return Err(InvalidJob::new(
                    format!("stages[{i}].key"),
                    "different from every other stage's key",
                ));
            }
        }
        if self.labels.len() > limits.labels {
            return Err(InvalidJob::new("labels", format!("at most {} labels", limits.labels)));
        }
        for (key, value) in &self.labels {
            check_name("labels", key, limits.name_bytes)?;
            if !value.is_empty() {
                check_name("labels", value, limits.name_bytes)?;
            }
        }
        self.policy.check()?;
        for (i, task) in self.tasks.iter().enumerate() {
            task.check(i, limits)?;
        }
        Ok(())
    }

    /// The state a submission is created in: one rule for `start`, `start_at`, `open` and the empty job.
    pub fn initial_state(start: bool, start_at: Option<UnixMs>, now: UnixMs, open: bool, tasks: usize) -> State {
        let starts_now = start && start_at.is_none_or(|at| at <= now);
        match (starts_now, !open && tasks == 0) {
            (false, _) => State::Pending,
            (true, true) => State::Succeeded,
            (true, false) => State::Running,
        }
    }
}

/// The first task number after `total` tasks.
pub fn next_task(total: u32) -> TaskNo {
    TaskNo(total)
}
