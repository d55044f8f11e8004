//! Tests of the ledger, on a bench that plays worker, operator and store.
//!
//! Owns: the job they begin with, and results in a word each. Never: asserts on a private field where a reply or a progress says the same.
//! Invariant: without an edit a job is running, sealed and has no jitter.

mod bench;
mod calls;
mod canceling;
mod durable;
mod forgotten;
mod leases;
mod lifecycle;
mod loading;
mod marks;
mod model;
mod outage;
mod property;
mod renewal;
mod restored;
mod results;
mod retrying;
mod saved;
mod tasks_added;
mod verdicts;

use super::*;
use crate::domain::ids::{Attempt, Epoch, JobId, QueueId, Run, TaskNo};
use crate::domain::lease::Lease;
use crate::domain::policy::{Backoff, FailureThreshold, Policy};
use crate::domain::progress::Progress;
use crate::domain::rows::JobBatch;
use crate::domain::state::State;
use bench::Bench;
use durable::Durable;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const START: UnixMs = UnixMs(1_700_000_000_000);
/// The lease time of the bench's jobs.
const LEASE_MS: i64 = 300_000;

/// Ends a job at once.
const CANCEL: Control = Control::Cancel { grace_s: 0 };

const RETRY_FAILED: Control = Control::Retry {
    only: RetryOnly::Failed,
    if_run: None,
};
const RETRY_ALL: Control = Control::Retry {
    only: RetryOnly::All,
    if_run: None,
};

/// A running, sealed job of so many tasks whose backoff is exactly 1 s, 2 s, 4 s, ….
fn job(total: u32) -> JobRecord {
    JobRecord {
        id: JobId(42),
        name: "job".into(),
        queue: "q".into(),
        queue_id: QueueId(1),
        state: State::Running,
        run: Run(1),
        base_run: Run(1),
        priority: 0,
        open: false,
        expected_total: None,
        stages: Vec::new(),
        policy: Policy {
            backoff: Backoff {
                jitter: 0.0,
                ..Backoff::default()
            },
            ..Policy::default()
        },
        labels: BTreeMap::new(),
        callback_url: None,
        tally: crate::domain::job::Tally {
            total,
            ..Default::default()
        },
        error: None,
        start_at: None,
        cancel_at: None,
        created_at: START,
        started_at: Some(START),
        finished_at: None,
        updated_at: START,
        changed_seq: Seq(0),
    }
}

fn stage(key: &str) -> crate::domain::job::Stage {
    crate::domain::job::Stage {
        key: key.into(),
        name: key.to_uppercase(),
    }
}

fn success(lease: &Lease) -> Item {
    counted(lease, &[])
}

fn counted(lease: &Lease, counters: &[(&str, i64)]) -> Item {
    Item {
        lease: Some(*lease),
        report: Report::Succeeded {
            result: Some("{}".into()),
            counters: counters.iter().map(|&(name, value)| (name.to_owned(), value)).collect(),
        },
    }
}

fn failure(lease: &Lease) -> Item {
    fails(lease, true)
}

fn fatal(lease: &Lease) -> Item {
    fails(lease, false)
}

fn fails(lease: &Lease, retryable: bool) -> Item {
    Item {
        lease: Some(*lease),
        report: Report::Failed {
            error: "boom".into(),
            retryable,
        },
    }
}

fn successes(leases: &[Lease]) -> Vec<Item> {
    leases.iter().map(success).collect()
}

/// A worker's name as commands carry it.
fn named(worker: &str) -> Arc<str> {
    worker.into()
}

/// The same attempt of the same task, handed out by another token.
fn other_token(lease: &Lease) -> Lease {
    Lease {
        seq: super::LeaseSeq(lease.seq.0 + 1_000_000),
        ..*lease
    }
}

fn pending(record: &mut JobRecord) {
    record.state = State::Pending;
    record.started_at = None;
}

fn impossible(state: State, verb: &'static str) -> Result<(), Refusal> {
    Err(Refusal::InvalidTransition { state, verb })
}

fn one_attempt(record: &mut JobRecord) {
    record.policy.max_attempts = 1;
}

fn attempt(lease: &Lease) -> Attempt {
    lease.attempt
}

fn task(lease: &Lease) -> TaskNo {
    lease.task
}

fn threshold_count(count: u32) -> impl FnOnce(&mut JobRecord) {
    move |record| record.policy.failure_threshold = FailureThreshold::Count(count)
}
