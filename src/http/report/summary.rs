//! What a report tells of a job's results, gathered row by row.
//!
//! Owns: the sums and their bounds. Never: keeps a result. Invariant: memory is bounded whatever the job holds; what does not fit
//! is counted as "others", never dropped.

use super::durations::Durations;
use crate::domain::ids::{Run, TaskNo, UnixMs};
use crate::domain::rows::Verdict;
use crate::store::ResultRow;
use std::collections::{BTreeMap, HashMap};

/// Most bars of the throughput chart; when more would be needed, their width doubles.
const MAX_BUCKETS: i64 = 160;
const FIRST_WIDTH_MS: i64 = 1_000;
const MAX_ERRORS: usize = 200;
const MAX_WORKERS: usize = 1_000;
/// Bytes of an error that tell it from others.
const ERROR_KEY_BYTES: usize = 500;
/// Example tasks shown of each error.
const EXAMPLES: usize = 5;

/// Tasks decided in one stretch of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Bucket {
    pub(super) succeeded: u32,
    pub(super) failed: u32,
}

impl Bucket {
    pub(super) fn count(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Succeeded => self.succeeded += 1,
            Verdict::Failed => self.failed += 1,
        }
    }

    pub(super) fn sum(self) -> u32 {
        self.succeeded + self.failed
    }
}

impl<'a> std::iter::Sum<&'a Bucket> for Bucket {
    fn sum<I: Iterator<Item = &'a Bucket>>(buckets: I) -> Bucket {
        buckets.fold(Bucket::default(), |sum, bucket| Bucket {
            succeeded: sum.succeeded + bucket.succeeded,
            failed: sum.failed + bucket.failed,
        })
    }
}

/// Tasks decided over time, in equal stretches aligned to their width.
#[derive(Debug, Clone)]
pub(super) struct Timeline {
    width_ms: i64,
    buckets: BTreeMap<i64, Bucket>,
}

impl Default for Timeline {
    fn default() -> Self {
        Timeline {
            width_ms: FIRST_WIDTH_MS,
            buckets: BTreeMap::new(),
        }
    }
}

impl Timeline {
    fn add(&mut self, at: UnixMs, verdict: Verdict) {
        let index = at.0.div_euclid(self.width_ms);
        self.buckets.entry(index).or_default().count(verdict);
        while self.span() > MAX_BUCKETS {
            self.widen();
        }
    }

    fn span(&self) -> i64 {
        match (self.buckets.first_key_value(), self.buckets.last_key_value()) {
            (Some((first, _)), Some((last, _))) => last - first + 1,
            _ => 0,
        }
    }

    fn widen(&mut self) {
        self.width_ms *= 2;
        let mut wide: BTreeMap<i64, Bucket> = BTreeMap::new();
        for (index, narrow) in &self.buckets {
            let bucket = wide.entry(index.div_euclid(2)).or_default();
            bucket.succeeded += narrow.succeeded;
            bucket.failed += narrow.failed;
        }
        self.buckets = wide;
    }

    pub(super) fn width_ms(&self) -> i64 {
        self.width_ms
    }

    /// Where the first stretch begins and where the last ends.
    pub(super) fn range(&self) -> Option<(UnixMs, UnixMs)> {
        let (first, _) = self.buckets.first_key_value()?;
        let (last, _) = self.buckets.last_key_value()?;
        Some((UnixMs(first * self.width_ms), UnixMs((last + 1) * self.width_ms)))
    }

    /// Every stretch from the first to the last, the empty ones too.
    pub(super) fn stretches(&self) -> impl Iterator<Item = Bucket> + '_ {
        let first = self.buckets.keys().next().copied().unwrap_or(0);
        (first..first + self.span()).map(|index| self.buckets.get(&index).copied().unwrap_or_default())
    }
}

/// Failed tasks that share an error.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ErrorGroup {
    pub(super) tasks: u32,
    pub(super) examples: Vec<TaskNo>,
}

/// What one worker decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WorkerShare {
    pub(super) decided: Bucket,
    pub(super) first: UnixMs,
    pub(super) last: UnixMs,
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Summary {
    pub(super) decided: Bucket,
    /// Successes of earlier runs that still stand.
    pub(super) from_earlier_runs: u32,
    /// Came after the end: kept, uncounted.
    pub(super) late: u32,
    pub(super) timeline: Timeline,
    pub(super) durations: Durations,
    /// Decided tasks by the attempt that decided them.
    pub(super) attempts: BTreeMap<u32, u32>,
    errors: HashMap<String, ErrorGroup>,
    pub(super) other_errors: u32,
    workers: HashMap<String, WorkerShare>,
    pub(super) other_workers: Bucket,
}

impl Summary {
    /// Counts one row of the current view of a job that is in `run`.
    pub(super) fn add(&mut self, row: &ResultRow, run: Run) {
        if row.late {
            self.late += 1;
            return;
        }
        self.decided.count(row.verdict);
        self.from_earlier_runs += u32::from(row.run < run);
        self.timeline.add(row.at, row.verdict);
        self.durations.add(row.took_ms, row.verdict);
        *self.attempts.entry(row.attempt).or_default() += 1;
        if row.verdict == Verdict::Failed {
            self.add_error(row.error.as_deref().unwrap_or(""), row.task);
        }
        self.add_worker(row);
    }

    fn add_error(&mut self, error: &str, task: TaskNo) {
        let key = &error[..error.floor_char_boundary(ERROR_KEY_BYTES)];
        if !self.errors.contains_key(key) && self.errors.len() >= MAX_ERRORS {
            self.other_errors += 1;
            return;
        }
        let group = self.errors.entry(key.to_owned()).or_default();
        group.tasks += 1;
        if group.examples.len() < EXAMPLES {
            group.examples.push(task);
        }
    }

    fn add_worker(&mut self, row: &ResultRow) {
        if !self.workers.contains_key(&row.worker) && self.workers.len() >= MAX_WORKERS {
            self.other_workers.count(row.verdict);
            return;
        }
        let share = self.workers.entry(row.worker.clone()).or_insert(WorkerShare {
            decided: Bucket::default(),
            first: row.at,
            last: row.at,
        });
        share.decided.count(row.verdict);
        share.first = share.first.min(row.at);
        share.last = share.last.max(row.at);
    }

    /// The most frequent first.
    pub(super) fn errors(&self) -> Vec<(&str, &ErrorGroup)> {
        let mut all: Vec<_> = self.errors.iter().map(|(text, group)| (text.as_str(), group)).collect();
        all.sort_by(|one, two| two.1.tasks.cmp(&one.1.tasks).then(one.0.cmp(two.0)));
        all
    }

    /// The busiest first.
    pub(super) fn workers(&self) -> Vec<(&str, WorkerShare)> {
        let mut all: Vec<_> = self
            .workers
            .iter()
            .map(|(name, share)| (name.as_str(), *share))
            .collect();
        all.sort_by(|one, two| two.1.decided.sum().cmp(&one.1.decided.sum()).then(one.0.cmp(two.0)));
        all
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::http::report) fn row(task: u32, verdict: Verdict, at: i64) -> ResultRow {
        ResultRow {
            run: Run(1),
            task: TaskNo(task),
            key: None,
            verdict,
            late: false,
            attempt: 1,
            result: None,
            blob: None,
            error: (verdict == Verdict::Failed).then(|| "it broke".into()),
            counters: None,
            worker: "w".into(),
            at: UnixMs(at),
            took_ms: None,
        }
    }

    #[test]
    fn the_timeline_stays_within_its_bounds_and_loses_nothing_in_any_order() {
        let mut summary = Summary::default();
        let mut expected = 0;
        for (task, second) in [50_000, 0, 1, 99_999, 3, 700, 50_001].into_iter().enumerate() {
            summary.add(&row(task as u32, Verdict::Succeeded, 1_000 * second + 17), Run(1));
            expected += 1;
            assert!(summary.timeline.span() <= MAX_BUCKETS);
            let sum: u32 = summary.timeline.stretches().map(Bucket::sum).sum();
            assert_eq!(sum, expected);
        }
        let (from, to) = summary.timeline.range().unwrap();
        assert!(from.0 <= 17 && to.0 > 99_999_017);
        assert_eq!((to.0 - from.0) % summary.timeline.width_ms(), 0);
    }

    #[test]
    fn more_errors_and_workers_than_fit_are_still_counted() {
        let mut summary = Summary::default();
        for task in 0..1_500 {
            let mut row = row(task, Verdict::Failed, 0);
            row.error = Some(format!("é{task}"));
            row.worker = format!("w{task}");
            summary.add(&row, Run(1));
        }
        let shown: u32 = summary.errors().iter().map(|(_, group)| group.tasks).sum();
        assert_eq!(shown + summary.other_errors, 1_500);
        let shown: u32 = summary.workers().iter().map(|(_, share)| share.decided.sum()).sum();
        assert_eq!(shown + summary.other_workers.sum(), 1_500);
        assert_eq!(summary.decided.failed, 1_500);
    }

    #[test]
    fn long_errors_are_grouped_by_their_beginning_without_cutting_a_character() {
        let mut summary = Summary::default();
        for task in 0..2 {
            let mut row = row(task, Verdict::Failed, 0);
            row.error = Some(format!("x{}{task}", "é".repeat(400)));
            summary.add(&row, Run(1));
        }
        let errors = summary.errors();
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0].1.examples, [TaskNo(0), TaskNo(1)]);
    }

    #[test]
    fn late_results_count_nowhere_else_and_earlier_runs_are_told_apart() {
        let mut summary = Summary::default();
        let mut late = row(0, Verdict::Succeeded, 0);
        late.late = true;
        summary.add(&late, Run(2));
        summary.add(&row(1, Verdict::Succeeded, 0), Run(2));
        assert_eq!(
            (summary.late, summary.from_earlier_runs, summary.decided.sum()),
            (1, 1, 1)
        );
    }
}
