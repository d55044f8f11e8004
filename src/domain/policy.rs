//! What a job promises about attempts, leases, backoff and when it counts as failed.
//!
//! Owns: defaults, limits and their checks. Never: looks at a task. Invariant: a `Policy` that passed [`Policy::check`] is safe to
//! compute with.

use super::ids::{Attempt, JobId, TaskNo};
use serde::{Deserialize, Serialize};

/// Largest accepted `max_attempts`; the ledger remembers reported attempts of a task in one 64-bit word.
pub const MAX_ATTEMPTS_LIMIT: u32 = 64;
/// Largest accepted duration of a lease or a backoff, in seconds (seven days).
pub const MAX_DURATION_S: u32 = 7 * 24 * 3600;

/// A job's policy, as given on creation; absent members take their defaults, unknown ones are refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Attempts a task gets before it is failed for good.
    pub max_attempts: u32,
    /// How long a lease lives unless extended, in seconds.
    pub lease_timeout_s: u32,
    pub backoff: Backoff,
    pub failure_threshold: FailureThreshold,
    /// End a sealed job as failed as soon as its threshold is certain to be passed.
    pub abort_early: bool,
    /// Most tasks leased at once; none means no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<u32>,
}

/// The wait before a failed task is handed out again: `initial_s * factor^(attempt-1)`, at most `max_s`, then spread by `jitter`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Backoff {
    pub initial_s: f64,
    pub factor: f64,
    pub max_s: f64,
    /// Share of the wait by which it may differ, 0 to 1.
    pub jitter: f64,
}

/// When a job whose every task is decided counts as failed: strictly more failed tasks than this.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureThreshold {
    /// Share of all tasks, 0 to 1.
    Ratio(f64),
    /// Number of tasks.
    Count(u32),
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            max_attempts: 3,
            lease_timeout_s: 300,
            backoff: Backoff::default(),
            failure_threshold: FailureThreshold::Ratio(0.5),
            abort_early: false,
            max_in_flight: None,
        }
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff {
            initial_s: 1.0,
            factor: 2.0,
            max_s: 300.0,
            jitter: 0.1,
        }
    }
}

/// A member of a policy is outside its limits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} must be {limit}")]
pub struct PolicyError {
    pub field: &'static str,
    pub limit: String,
}

impl Policy {
    /// Checks every member against its limits and names the first one outside.
    pub fn check(&self) -> Result<(), PolicyError> {
        let within = |ok: bool, field, limit: String| {
            if ok { Ok(()) } else { Err(PolicyError { field, limit }) }
        };
        let seconds = |x: f64| (0.0..=f64::from(MAX_DURATION_S)).contains(&x);
        within(
            (1..=MAX_ATTEMPTS_LIMIT).contains(&self.max_attempts),
            "policy.max_attempts",
            format!("from 1 to {MAX_ATTEMPTS_LIMIT}"),
        )?;
        within(
            (1..=MAX_DURATION_S).contains(&self.lease_timeout_s),
            "policy.lease_timeout_s",
            format!("from 1 to {MAX_DURATION_S}"),
        )?;
        within(
            seconds(self.backoff.initial_s),
            "policy.backoff.initial_s",
            format!("from 0 to {MAX_DURATION_S}"),
        )?;
        within(
            (1.0..=1000.0).contains(&self.backoff.factor),
            "policy.backoff.factor",
            "from 1 to 1000".into(),
        )?;
        within(
            seconds(self.backoff.max_s),
            "policy.backoff.max_s",
            format!("from 0 to {MAX_DURATION_S}"),
        )?;
        within(
            (0.0..=1.0).contains(&self.backoff.jitter),
            "policy.backoff.jitter",
            "from 0 to 1".into(),
        )?;
        if let FailureThreshold::Ratio(ratio) = self.failure_threshold {
            within(
                (0.0..=1.0).contains(&ratio),
                "policy.failure_threshold.ratio",
                "from 0 to 1".into(),
            )?;
        }
        within(
            self.max_in_flight != Some(0),
            "policy.max_in_flight",
            "at least 1".into(),
        )
    }

    /// Do so many failed tasks of so many in all make the job failed?
    pub fn is_failed(&self, failed: u64, total: u64) -> bool {
        match self.failure_threshold {
            // Divided, not multiplied: 29 of 100 must equal 0.29, and 0.29 * 100 is below 29.
            FailureThreshold::Ratio(ratio) => failed > 0 && failed as f64 / total as f64 > ratio,
            FailureThreshold::Count(count) => failed > u64::from(count),
        }
    }
}

impl Backoff {
    /// Milliseconds to wait after the given attempt failed. The spread comes from hashing the three numbers, so it is the same
    /// at every replay yet differs between neighbouring tasks.
    pub fn delay_ms(&self, job: JobId, task: TaskNo, attempt: Attempt) -> i64 {
        let exponent = attempt.0.saturating_sub(1).min(1_000) as i32;
        let base_s = (self.initial_s * self.factor.powi(exponent)).min(self.max_s);
        let mixed = mix((job.0 as u64) ^ (u64::from(task.0) << 32) ^ u64::from(attempt.0));
        let unit = (mixed >> 11) as f64 / (1u64 << 53) as f64; // uniform in [0, 1)
        let spread = 1.0 + self.jitter * (2.0 * unit - 1.0);
        (base_s * spread * 1000.0).max(0.0) as i64
    }
}

/// SplitMix64's finaliser: spreads neighbouring inputs over all 64 bits.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_pass_and_bad_members_are_named() {
        assert_eq!(Policy::default().check(), Ok(()));
        let bad = Policy {
            max_attempts: 0,
            ..Policy::default()
        };
        assert_eq!(bad.check().unwrap_err().field, "policy.max_attempts");
        let nan = Policy {
            failure_threshold: FailureThreshold::Ratio(f64::NAN),
            ..Policy::default()
        };
        assert_eq!(nan.check().unwrap_err().field, "policy.failure_threshold.ratio");
    }

    #[test]
    fn backoff_grows_to_its_ceiling_and_stays_within_its_jitter() {
        let backoff = Backoff::default();
        for (attempt, expected_s) in [(1, 1.0), (2, 2.0), (5, 16.0), (40, 300.0)] {
            let ms = backoff.delay_ms(JobId(7), TaskNo(3), Attempt(attempt)) as f64;
            assert!((ms / 1000.0 - expected_s).abs() <= expected_s * 0.1 + 0.001);
        }
    }

    #[test]
    fn the_ratio_is_strict() {
        let policy = Policy::default();
        assert!(!policy.is_failed(5, 10));
        assert!(policy.is_failed(6, 10));
        assert!(!policy.is_failed(0, 0));
        for percent in 0..=100 {
            let exact = Policy {
                failure_threshold: FailureThreshold::Ratio(f64::from(percent) / 100.0),
                ..Policy::default()
            };
            assert!(!exact.is_failed(u64::from(percent as u32), 100), "{percent}");
        }
    }
}
