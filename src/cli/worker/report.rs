//! What a worker reports of a command.
//!
//! Owns: the result's form, `{exit, stdout, stderr}`. Never: posts it. Invariant: a failure always says why.

use crate::cli::client::ClientError;
use crate::http::wire::{LeasedTask, ResultIn, ResultStatus};
use serde::Serialize;

/// What a command that ran to its end returns to the job.
#[derive(Serialize)]
struct CommandResult<'a> {
    exit: i32,
    stdout: &'a str,
    stderr: &'a str,
}

/// A command that exited with 0.
pub(super) fn succeeded(task: &LeasedTask, stdout: &str, stderr: &str) -> ResultIn {
    let result = CommandResult {
        exit: 0,
        stdout,
        stderr,
    };
    ResultIn {
        lease: task.lease.clone(),
        status: ResultStatus::Succeeded,
        result: serde_json::value::to_raw_value(&result).ok(),
        error: None,
        retryable: true,
        counters: None,
    }
}

/// A command that did not.
pub(super) fn failed(task: &LeasedTask, error: String) -> ResultIn {
    ResultIn {
        lease: task.lease.clone(),
        status: ResultStatus::Failed,
        result: None,
        error: Some(error),
        retryable: true,
        counters: None,
    }
}

/// A result the server refuses for what it holds would be refused for ever: the task failed, and says why.
pub(super) fn refused_value(error: &ClientError, report: &ResultIn) -> Option<ResultIn> {
    let problem = error.problem()?;
    let about_the_value = matches!(problem.status, 400 | 413 | 422);
    (about_the_value && report.status == ResultStatus::Succeeded).then(|| ResultIn {
        status: ResultStatus::Failed,
        result: None,
        error: Some(format!("the result was refused: {error}")),
        retryable: false,
        ..report.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::wire::Problem;

    fn task() -> LeasedTask {
        serde_json::from_value(serde_json::json!({
            "task": 0, "key": null, "payload": 1, "attempt": 1, "lease": "l", "expires_at": "2026-03-01T12:00:00Z",
        }))
        .unwrap()
    }

    #[test]
    fn a_success_carries_exit_and_output() {
        let report = succeeded(&task(), "a\n", "\u{1}");
        assert_eq!(
            report.result.unwrap().get(),
            r#"{"exit":0,"stdout":"a\n","stderr":"\u0001"}"#
        );
    }

    #[test]
    fn only_a_refused_success_becomes_a_failure() {
        let refused = |status, code: &str| {
            ClientError::Refused(Box::new(Problem {
                kind: String::new(),
                title: String::new(),
                status,
                detail: "too large".into(),
                code: code.into(),
                field: None,
                limit: None,
                next_task: None,
                run: None,
                state: None,
            }))
        };
        let success = succeeded(&task(), "", "");
        let failure = refused_value(&refused(413, "body_too_large"), &success).unwrap();
        assert_eq!(failure.status, ResultStatus::Failed);
        assert_eq!(
            failure.error.as_deref(),
            Some("the result was refused: too large [body_too_large]")
        );
        assert!(refused_value(&refused(413, "body_too_large"), &failure).is_none());
        assert!(refused_value(&refused(401, "unauthenticated"), &success).is_none());
    }
}
