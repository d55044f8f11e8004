//! One job's whole state machine: `apply(command, now) -> effects`.
use serde::{Deserialize, Serialize};

/// What became of one reported result; the words are the wire's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Disposition {
    /// Changed the tally.
    Counted,
    /// The same attempt was reported before, or a success of a succeeded task.
    Duplicate,
    /// Failure recorded; the task will be tried again.
    Retrying,
    /// A failure with a token that is no longer current, or of a succeeded task.
    Superseded,
    /// Of an older run, for a task this run has not decided.
    StaleRun,
    /// The job had ended: kept, uncounted.
    Late,
    /// No such task.
    UnknownTask,
    /// Undecodable, another job's lease, or an unusable result.
    Rejected,
}
