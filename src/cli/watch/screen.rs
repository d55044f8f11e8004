//! What a person sees while jobs are watched: bars on a terminal, a line now and then elsewhere.
//!
//! Owns: standard error while jobs are watched. Never: counts. Invariant: elsewhere than on a terminal, numbers alone make at most one line
//! per job in [`LINE_EVERY`].

use super::standing::{News, counts, line, pace};
use crate::cli::output::{self, clean, shortened};
use crate::domain::progress::StageProgress;
use crate::http::wire::Job;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{self, IsTerminal};
use std::time::Duration;
use tokio::time::Instant;

/// Between two lines about one job where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(2);
const JOB_TEMPLATE: &str = "{prefix} {bar:30.cyan/blue} {pos}/{len} {wide_msg}";
/// A line of its own, since beside the bar it would not fit into 80 columns.
const COUNTS_TEMPLATE: &str = "  {wide_msg}";
const STAGE_TEMPLATE: &str = "  {prefix} {bar:30.green/blue} {pos}/{len}";
const BAR: &str = "█▉▊▋▌▍▎▏ ";

/// Shows some jobs.
pub(super) enum Screen {
    /// Somebody else speaks: nothing is shown but notes.
    Silent,
    Bars(MultiProgress, Vec<Option<Bars>>),
    Lines(Vec<Pace>),
}

/// A job's bar, its counts below it, and a bar per stage.
pub(super) struct Bars {
    job: ProgressBar,
    counts: ProgressBar,
    stages: Vec<ProgressBar>,
}

impl Screen {
    /// For so many jobs.
    pub(super) fn new(jobs: usize, is_silent: bool) -> Screen {
        if is_silent {
            Screen::Silent
        } else if io::stderr().is_terminal() {
            let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
            Screen::Bars(bars, (0..jobs).map(|_| None).collect())
        } else {
            Screen::Lines(vec![Pace::default(); jobs])
        }
    }

    /// Shows where a job stands after a message. What ended is left to the tally.
    pub(super) fn show(&mut self, index: usize, job: &Job, news: News, now: Instant) {
        match self {
            Screen::Silent => {}
            Screen::Bars(all, shown) => {
                // Bars stand in the order in which the jobs answered first.
                let bars = shown[index].get_or_insert_with(|| Bars::new(all, job));
                bars.show(all, job);
            }
            Screen::Lines(paces) => {
                if paces[index].is_due(news, now) && !job.state.is_final() {
                    output::note(&line(job));
                }
            }
        }
    }

    /// When a line about one of these jobs is due that waits for its turn.
    pub(super) fn due(&self) -> Option<Instant> {
        match self {
            Screen::Lines(paces) => paces.iter().filter_map(|pace| pace.due).min(),
            _ => None,
        }
    }

    /// Says something in between.
    pub(super) fn note(&self, text: &str) {
        let text = clean(text);
        match self {
            Screen::Bars(all, _) => all.suspend(|| output::note(&text)),
            _ => output::note(&text),
        }
    }

    /// Takes the bars away.
    pub(super) fn clear(&mut self) {
        if let Screen::Bars(all, shown) = self {
            for bars in shown.drain(..).flatten() {
                bars.stages.iter().for_each(ProgressBar::finish_and_clear);
                bars.counts.finish_and_clear();
                bars.job.finish_and_clear();
            }
            // The terminal may be gone, and with it what there was to clear.
            let _ = all.clear();
        }
    }
}

impl Bars {
    fn new(all: &MultiProgress, job: &Job) -> Bars {
        let bar = all.add(bar(JOB_TEMPLATE));
        bar.set_prefix(clean(&format!("job {} {}", job.id, shortened(&job.name, 24))));
        Bars {
            job: bar,
            counts: all.add(self::bar(COUNTS_TEMPLATE)),
            stages: Vec::new(),
        }
    }

    fn show(&mut self, all: &MultiProgress, job: &Job) {
        let progress = &job.progress;
        self.job.set_length(progress.total.into());
        self.job.set_position((progress.succeeded + progress.failed).into());
        self.job.set_message(format!("{}{}", job.state, pace(progress)));
        self.counts.set_message(counts(progress));
        for (at, stage) in progress.stages.iter().enumerate() {
            if at == self.stages.len() {
                let before = self.stages.last().unwrap_or(&self.counts);
                self.stages.push(all.insert_after(before, stage_bar(stage)));
            }
            self.stages[at].set_length(stage.total.into());
            self.stages[at].set_position(stage.reached.into());
        }
    }
}

fn bar(template: &str) -> ProgressBar {
    // Hidden until it has its place among the others, which draw for it.
    let bar = ProgressBar::hidden();
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars(BAR));
    }
    bar
}

fn stage_bar(stage: &StageProgress) -> ProgressBar {
    let bar = bar(STAGE_TEMPLATE);
    bar.set_prefix(clean(&shortened(&stage.name, 24)));
    bar
}

/// When to say something about one job.
#[derive(Debug, Clone, Default)]
pub(super) struct Pace {
    said: Option<Instant>,
    /// There is something to say, and from then on it may be said.
    due: Option<Instant>,
}

impl Pace {
    /// Is it time, with this news, for a line?
    fn is_due(&mut self, news: News, now: Instant) -> bool {
        let earliest = self.said.map_or(now, |said| said + LINE_EVERY);
        match news {
            News::State => self.due = Some(now),
            News::Numbers => self.due = self.due.or(Some(earliest)),
            News::Nothing | News::Stale => {}
        }
        let is_due = self.due.is_some_and(|due| due <= now);
        if is_due {
            *self = Pace {
                said: Some(now),
                due: None,
            };
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_wait_for_their_turn_and_states_do_not() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut pace = Pace::default();
        assert!(pace.is_due(News::State, at(0)));
        assert!(!pace.is_due(News::Nothing, at(5000)) && pace.due.is_none());
        assert!(pace.is_due(News::Numbers, at(6000)));
        assert!(!pace.is_due(News::Numbers, at(6100)));
        assert_eq!(pace.due, Some(at(8000)));
        assert!(!pace.is_due(News::Numbers, at(7900)));
        assert!(pace.is_due(News::Nothing, at(8000)));
        assert!(!pace.is_due(News::Numbers, at(8100)));
        assert!(pace.is_due(News::State, at(8200)) && pace.due.is_none());
    }
}
