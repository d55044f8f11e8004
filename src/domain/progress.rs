//! A job's progress as anyone may see it: one complete message, derived from sets.
//!
//! Owns: the numbers' meaning and the throughput estimate. Never: counts anything itself. Invariant:
//! `pending + leased + retrying + succeeded + failed == total` in every value that leaves this file.

use super::ids::{Seq, UnixMs};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Complete progress of one job at one committed position.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Position in the job's committed history; never falls.
    pub seq: Seq,
    pub total: u32,
    pub pending: u32,
    pub leased: u32,
    pub retrying: u32,
    pub succeeded: u32,
    pub failed: u32,
    /// Decided share, 0 to 1; never falls inside a run. Absent while an open job has no `expected_total`.
    pub fraction: Option<f64>,
    /// Tasks decided per second over the last minute or so.
    pub rate_per_s: Option<f64>,
    /// Seconds until every known task is decided, at that rate.
    pub eta_s: Option<f64>,
    /// Sums of the counters of succeeded tasks, each task once.
    pub counters: BTreeMap<String, i64>,
    pub stages: Vec<StageProgress>,
}

/// How far the tasks of a job have come along one named mark.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageProgress {
    pub key: String,
    pub name: String,
    pub reached: u32,
    pub total: u32,
    pub fraction: Option<f64>,
}

/// The decided share: of the total once sealed; while open below 1 and only against an expectation.
pub fn fraction(decided: u32, total: u32, open: bool, expected_total: Option<u32>) -> Option<f64> {
    if !open {
        return Some(if total == 0 {
            1.0
        } else {
            f64::from(decided) / f64::from(total)
        });
    }
    // More may be appended, so an open job never reads complete, whatever its total.
    let of = total.max(expected_total?).max(1);
    Some((f64::from(decided) / f64::from(of)).min(1.0 - f64::EPSILON))
}

/// Decided tasks per second, as an exponentially weighted mean over about half a minute.
#[derive(Debug, Clone, Default)]
pub struct Throughput {
    per_s: f64,
    /// Decided since `since`, not yet folded into the mean.
    fresh: u32,
    since: Option<UnixMs>,
    folds: u32,
}

impl Throughput {
    const WINDOW_S: f64 = 30.0;
    const FOLD_MS: i64 = 1_000;

    /// Counts tasks decided at `now`.
    pub fn record(&mut self, decided: u32, now: UnixMs) {
        self.since.get_or_insert(now);
        self.fold(now);
        self.fresh += decided;
    }

    /// The mean at `now`; none before a second of history.
    pub fn per_s(&mut self, now: UnixMs) -> Option<f64> {
        self.fold(now);
        (self.folds > 0).then_some(self.per_s)
    }

    fn fold(&mut self, now: UnixMs) {
        let Some(since) = self.since else { return };
        let elapsed_ms = now.0 - since.0;
        if elapsed_ms < Self::FOLD_MS {
            return;
        }
        let elapsed_s = elapsed_ms as f64 / 1000.0;
        let seen = f64::from(self.fresh) / elapsed_s;
        // The first folds weigh as a plain mean, so that the estimate does not start from zero.
        let weight = (1.0 - (-elapsed_s / Self::WINDOW_S).exp()).max(1.0 / f64::from(self.folds + 1));
        self.per_s += weight * (seen - self.per_s);
        self.folds += 1;
        self.fresh = 0;
        self.since = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fm51_an_open_job_never_reads_complete() {
        assert_eq!(fraction(5, 5, true, None), None);
        assert!(fraction(5, 5, true, Some(5)).unwrap() < 1.0);
        assert_eq!(fraction(5, 10, true, Some(20)), Some(0.25));
        assert_eq!(fraction(5, 5, false, None), Some(1.0));
        assert_eq!(fraction(0, 0, false, None), Some(1.0));
        assert_eq!(fraction(0, 0, true, Some(0)), Some(0.0));
    }

    #[test]
    fn throughput_settles_on_a_steady_rate_and_decays_when_work_stops() {
        let mut throughput = Throughput::default();
        assert_eq!(throughput.per_s(UnixMs(0)), None);
        for second in 0..60 {
            throughput.record(100, UnixMs(second * 1000));
        }
        let steady = throughput.per_s(UnixMs(60_000)).unwrap();
        assert!((steady - 100.0).abs() < 1.0, "{steady}");
        let later = throughput.per_s(UnixMs(180_000)).unwrap();
        assert!(later < 5.0, "{later}");
    }
}
