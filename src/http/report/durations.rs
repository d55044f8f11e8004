//! How long tasks took, gathered one by one.
//!
//! Owns: a histogram in steps of equal ratio. Never: keeps a single duration. Invariant: its size does not depend on the job, and a
//! quantile is exact to one step.

use super::summary::Bucket;
use crate::domain::rows::Verdict;

/// Steps per doubling: one is about 9 % wide.
const PER_OCTAVE: f64 = 8.0;
/// As many as the longest storable duration needs.
const STEPS: usize = 32 * PER_OCTAVE as usize;
/// Most bars drawn; neighbours are put together until they fit.
const MAX_BARS: usize = 40;

#[derive(Debug)]
pub(super) struct Durations {
    steps: Vec<Bucket>,
    /// Decided tasks of which it is not known when work on them began.
    pub(super) unknown: u32,
}

/// Neighbouring steps put together for drawing.
#[derive(Debug, PartialEq)]
pub(super) struct Bars {
    /// Where the first bar begins and the last ends.
    pub(super) from_ms: f64,
    pub(super) to_ms: f64,
    pub(super) bars: Vec<Bucket>,
}

impl Default for Durations {
    fn default() -> Self {
        Durations {
            steps: vec![Bucket::default(); STEPS],
            unknown: 0,
        }
    }
}

/// Where a step begins.
fn edge(step: usize) -> f64 {
    (step as f64 / PER_OCTAVE).exp2()
}

impl Durations {
    pub(super) fn add(&mut self, took_ms: Option<u32>, verdict: Verdict) {
        match took_ms {
            // What took no whole millisecond counts as one: a scale of ratios has no zero.
            Some(ms) => self.steps[(f64::from(ms.max(1)).log2() * PER_OCTAVE) as usize].count(verdict),
            None => self.unknown += 1,
        }
    }

    /// The upper edge of the step in which this share of the tasks is reached; none without any.
    pub(super) fn quantile_ms(&self, share: f64) -> Option<f64> {
        let total: u32 = self.steps.iter().map(|bucket| bucket.sum()).sum();
        let wanted = (f64::from(total) * share).ceil().max(1.0);
        let mut seen = 0;
        let reached = |bucket: &Bucket| {
            seen += bucket.sum();
            f64::from(seen) >= wanted
        };
        let step = self.steps.iter().position(reached)?;
        Some(edge(step + 1))
    }

    /// From the shortest to the longest; none without any.
    pub(super) fn bars(&self) -> Option<Bars> {
        let first = self.steps.iter().position(|bucket| bucket.sum() > 0)?;
        let last = self.steps.iter().rposition(|bucket| bucket.sum() > 0)?;
        let mut width = 1;
        while (last / width) - (first / width) >= MAX_BARS {
            width *= 2;
        }
        let (from, to) = (first / width, last / width + 1);
        let bars = (from..to).map(|bar| self.steps[bar * width..STEPS.min((bar + 1) * width)].iter().sum());
        Some(Bars {
            from_ms: edge(from * width),
            to_ms: edge(to * width),
            bars: bars.collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_has_a_step_and_none_is_lost_when_steps_are_put_together() {
        let mut durations = Durations::default();
        let taken = [0, 1, 2, 3, 999, 1_000, 60_000, 3_600_000, u32::MAX];
        for ms in taken {
            durations.add(Some(ms), Verdict::Succeeded);
            durations.add(Some(ms), Verdict::Failed);
        }
        durations.add(None, Verdict::Succeeded);
        let bars = durations.bars().unwrap();
        assert!(bars.bars.len() <= MAX_BARS && bars.from_ms <= 1.0 && bars.to_ms >= f64::from(u32::MAX));
        let all: Bucket = bars.bars.iter().sum();
        assert_eq!((all.succeeded, all.failed), (taken.len() as u32, taken.len() as u32));
        assert_eq!(durations.unknown, 1);
    }

    #[test]
    fn quantiles_are_exact_to_a_step() {
        let mut durations = Durations::default();
        assert_eq!(durations.quantile_ms(0.5), None);
        for ms in 1..=1_000 {
            durations.add(Some(ms), Verdict::Succeeded);
        }
        for (share, exact) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1_000.0)] {
            let told = durations.quantile_ms(share).unwrap();
            assert!(told >= exact && told <= exact * 1.1, "{share}: {told}");
        }
    }

    #[test]
    fn one_duration_is_one_bar() {
        let mut durations = Durations::default();
        durations.add(Some(250), Verdict::Succeeded);
        let bars = durations.bars().unwrap();
        assert_eq!(bars.bars.len(), 1);
        assert!(bars.from_ms <= 250.0 && bars.to_ms >= 250.0);
    }
}
