//! Figures of a benchmark, as JSON and as a table.
//!
//! Owns: medians and ratios. Never: compares figures of different rounds. Invariant: a ratio is tallykeeper's rate over a baseline's in
//! the same round.

use crate::cli::output::print;
use anyhow::Result;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// One contender in one round.
#[derive(Debug, Clone)]
pub(super) struct Figure {
    tasks: u64,
    tasks_per_s: f64,
    /// Median and 99th percentile of a report call, in microseconds.
    latency_us: Option<(u32, u32)>,
    ingest_per_s: Option<f64>,
}

impl Figure {
    pub(super) fn tasks_per_s(&self) -> f64 {
        self.tasks_per_s
    }

    pub(super) fn latency_us(&self) -> Option<(u32, u32)> {
        self.latency_us
    }

    pub(super) fn plain(tasks: u64, elapsed: Duration) -> Figure {
        Figure {
            tasks,
            tasks_per_s: tasks as f64 / elapsed.as_secs_f64(),
            latency_us: None,
            ingest_per_s: None,
        }
    }

    pub(super) fn of_run(tasks: u64, elapsed: Duration, latencies_us: Vec<u32>, ingest_per_s: f64) -> Figure {
        Figure {
            latency_us: percentiles(latencies_us),
            ingest_per_s: Some(ingest_per_s),
            ..Figure::plain(tasks, elapsed)
        }
    }
}

/// Case and contender.
type Row = (&'static str, &'static str);

/// Everything that was measured.
pub(super) struct Report {
    store: &'static str,
    workers: u32,
    rounds: u32,
    result_bytes: u32,
    /// Case and contender, in order of appearance, with a figure per round.
    rows: Vec<(Row, BTreeMap<u32, Figure>)>,
}

impl Report {
    pub(super) fn new(store: &'static str, workers: u32, rounds: u32, result_bytes: u32) -> Report {
        Report {
            store,
            workers,
            rounds,
            result_bytes,
            rows: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, case: &'static str, round: u32, contender: &'static str, figure: Figure) {
        let key = (case, contender);
        let at = self
            .rows
            .iter()
            .position(|(other, _)| *other == key)
            .unwrap_or_else(|| {
                self.rows.push((key, BTreeMap::new()));
                self.rows.len() - 1
            });
        self.rows[at].1.insert(round, figure);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn ours(&self, case: &str) -> Option<&BTreeMap<u32, Figure>> {
        self.rows
            .iter()
            .find(|((other, contender), _)| *other == case && *contender == "tallykeeper")
            .map(|(_, f)| f)
    }

    /// Median over the rounds of tallykeeper's rate divided by this contender's.
    fn ratio(&self, case: &str, figures: &BTreeMap<u32, Figure>) -> Option<f64> {
        let ours = self.ours(case)?;
        let ratios = figures
            .iter()
            .filter_map(|(round, theirs)| Some(ours.get(round)?.tasks_per_s / theirs.tasks_per_s));
        median(ratios)
    }

    fn to_json(&self) -> Value {
        let rows = self.rows.iter().map(|((case, contender), figures)| {
            json!({
                "case": case,
                "contender": contender,
                "tasks_per_s": figures.values().map(|figure| figure.tasks_per_s.round()).collect::<Vec<_>>(),
                "tasks_per_s_median": median(figures.values().map(|figure| figure.tasks_per_s)).map(f64::round),
                "tallykeeper_ratio_median": self.ratio(case, figures).map(|ratio| (ratio * 100.0).round() / 100.0),
                "tasks": figures.values().map(|figure| figure.tasks).collect::<Vec<_>>(),
                "report_us_p50": median(figures.values().filter_map(|f| Some(f64::from(f.latency_us?.0)))),
                "report_us_p99": median(figures.values().filter_map(|f| Some(f64::from(f.latency_us?.1)))),
                "ingest_per_s_median": median(figures.values().filter_map(|figure| figure.ingest_per_s)).map(f64::round),
            })
        });
        json!({
            "store": self.store, "workers": self.workers, "rounds": self.rounds, "result_bytes": self.result_bytes,
            "exact": true, "rows": rows.collect::<Vec<_>>(),
        })
    }

    fn to_table(&self) -> String {
        let mut table = format!(
            "{} · {} workers · {} B results · medians of {} rounds · every run exact\n\n",
            self.store, self.workers, self.result_bytes, self.rounds
        );
        let _ = writeln!(
            table,
            "{:<9} {:<34} {:>10} {:>9} {:>9} {:>9}",
            "case", "contender", "tasks/s", "ours is", "p50 ms", "p99 ms"
        );
        for ((case, contender), figures) in &self.rows {
            let rate = median(figures.values().map(|figure| figure.tasks_per_s)).unwrap_or_default();
            let ratio = match self.ratio(case, figures) {
                Some(ratio) if *contender != "tallykeeper" => format!("{ratio:.2} ×"),
                _ => String::new(),
            };
            let ms = |pick: fn(&(u32, u32)) -> u32| {
                median(
                    figures
                        .values()
                        .filter_map(|f| f.latency_us.as_ref().map(|pair| f64::from(pick(pair)))),
                )
                .map_or(String::new(), |us| format!("{:.1}", us / 1000.0))
            };
            let (p50, p99) = (ms(|pair| pair.0), ms(|pair| pair.1));
            let _ = writeln!(
                table,
                "{case:<9} {contender:<34} {rate:>10.0} {ratio:>9} {p50:>9} {p99:>9}"
            );
        }
        table
    }

    pub(super) fn print(&self, as_json: bool) -> Result<()> {
        let text = if as_json {
            format!("{:#}\n", self.to_json())
        } else {
            self.to_table()
        };
        print(&text)
    }
}

/// Median and 99th percentile.
pub(super) fn percentiles(mut values: Vec<u32>) -> Option<(u32, u32)> {
    values.sort_unstable();
    let at = |share: f64| values.get((values.len() as f64 * share) as usize).copied();
    at(0.5).zip(at(0.99))
}

pub(super) fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_pair_the_rounds_and_take_the_median() {
        let mut report = Report::new("test", 1, 3, 1);
        for (round, ours, theirs) in [(1, 100, 50), (2, 1_000, 100), (3, 90, 30)] {
            report.add(
                "batch",
                round,
                "tallykeeper",
                Figure::plain(ours, Duration::from_secs(1)),
            );
            report.add("batch", round, "naive", Figure::plain(theirs, Duration::from_secs(1)));
        }
        assert_eq!(report.ratio("batch", &report.rows[1].1), Some(3.0));
        assert!(report.to_table().contains("3.00 ×"));
        assert_eq!(report.to_json()["rows"][1]["tallykeeper_ratio_median"], 3.0);
    }

    #[test]
    fn medians_of_even_counts_lie_between() {
        assert_eq!(median([1.0, 9.0, 2.0, 4.0].into_iter()), Some(3.0));
        assert_eq!(median(std::iter::empty()), None);
    }
}
