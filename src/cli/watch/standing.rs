//! Where a watched job stands, as far as this command was told.
//!
//! Owns: which messages are news, and what the end means. Never: reads or prints. Invariant: `seq` never falls.

use crate::cli::jobs::tally;
use crate::cli::meter::duration;
use crate::cli::output::clean;
use crate::domain::progress::Progress;
use crate::domain::state::State;
use crate::http::wire::{Job, StreamMessage};
use std::fmt::Write as _;
use std::time::Duration;

/// What a message changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// State or run, or this is the first that is heard.
    State,
    /// Numbers only.
    Numbers,
    /// Nothing: it tells what was known.
    Nothing,
    /// It is older than what was told before, so it must not be shown.
    Stale,
}

/// A job as the messages told it.
#[derive(Debug, Default)]
pub(super) struct Standing {
    seq: i64,
    job: Option<Job>,
}

impl Standing {
    pub(super) fn take(&mut self, message: &StreamMessage) -> News {
        let (seq, job) = match message {
            StreamMessage::Snapshot { seq, job, .. }
            | StreamMessage::State { seq, job, .. }
            | StreamMessage::Final { seq, job, .. } => (*seq, Some(job)),
            StreamMessage::Progress { seq, .. } => (*seq, None),
            StreamMessage::Gone { .. } | StreamMessage::Listed { .. } => return News::Nothing,
        };
        if seq < self.seq {
            return News::Stale;
        }
        self.seq = seq;
        match (&mut self.job, message, job) {
            (Some(known), StreamMessage::Progress { progress, .. }, _) => {
                let is_new = known.progress != *progress;
                known.progress.clone_from(progress);
                if is_new { News::Numbers } else { News::Nothing }
            }
            (Some(known), _, Some(job)) => {
                let news = if (known.state, known.run) != (job.state, job.run) {
                    News::State
                } else if known.progress != job.progress {
                    News::Numbers
                } else {
                    News::Nothing
                };
                known.clone_from(job);
                news
            }
            (None, _, Some(job)) => {
                self.job = Some(job.as_ref().clone());
                News::State
            }
            // Every connection begins with a snapshot; without one there is nothing to add to.
            (_, _, None) => News::Nothing,
        }
    }

    pub(super) fn job(&self) -> Option<&Job> {
        self.job.as_ref()
    }

    /// The state the job ended in.
    pub(super) fn verdict(&self) -> Option<State> {
        self.job.as_ref().map(|job| job.state).filter(|state| state.is_final())
    }
}

/// The exit code of an ended job's state.
pub(super) fn code(verdict: State) -> u8 {
    match verdict {
        State::Succeeded => 0,
        State::Canceled => super::CANCELED,
        _ => 1,
    }
}

/// One code for several jobs: a failure outweighs a cancellation, which outweighs success.
pub(super) fn worst(codes: impl IntoIterator<Item = u8>) -> u8 {
    let rank = |code: &u8| match *code {
        0 => 0,
        super::CANCELED => 1,
        _ => 2,
    };
    codes.into_iter().max_by_key(rank).unwrap_or(0)
}

/// A job's state and numbers on one line.
pub(super) fn line(job: &Job) -> String {
    let progress = &job.progress;
    let decided = progress.succeeded + progress.failed;
    let mut text = format!(
        "job {} {}: {decided}/{} done, {}{}",
        job.id,
        job.state,
        progress.total,
        counts(progress),
        pace(progress)
    );
    for stage in &progress.stages {
        let _ = write!(text, ", {} {}/{}", stage.name, stage.reached, stage.total);
    }
    clean(&text)
}

/// Where its tasks are.
pub(super) fn counts(progress: &Progress) -> String {
    format!(
        "{} succeeded, {} failed, {} leased, {} retrying, {} pending",
        progress.succeeded, progress.failed, progress.leased, progress.retrying, progress.pending
    )
}

/// How fast it goes, and how long it will; each after a comma, and only if known.
pub(super) fn pace(progress: &Progress) -> String {
    let mut text = String::new();
    if let Some(rate) = progress.rate_per_s {
        let _ = write!(text, ", {rate:.1}/s");
    }
    if let Some(eta_s) = progress.eta_s.filter(|eta_s| *eta_s >= 1.0) {
        let left = duration(Duration::from_secs_f64(eta_s.min(1e9)));
        let _ = write!(text, ", about {left} left");
    }
    text
}

/// What came of a job, in a line; why it failed in a second.
pub(super) fn ending(job: &Job) -> String {
    let mut text = format!("job {} {}: {}", job.id, job.state, tally(job));
    let progress = &job.progress;
    let undone = progress.pending + progress.leased + progress.retrying;
    if undone > 0 {
        let _ = write!(text, ", {undone} not done");
    }
    if let Some(took) = job.started_at.zip(job.finished_at) {
        let ms = u64::try_from(took.1.0.0 - took.0.0.0).unwrap_or(0);
        let _ = write!(text, " in {}", duration(Duration::from_millis(ms)));
    }
    if let Some(error) = &job.error {
        let _ = write!(text, "\n{}", clean(&format!("{} ({})", error.message, error.code)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::jobs::tests::job;
    use crate::domain::ids::Seq;
    use crate::domain::progress::StageProgress;

    fn at(seq: i64, state: State, succeeded: u32) -> Job {
        let mut job = job();
        job.state = state;
        job.progress.seq = Seq(seq);
        job.progress.succeeded = succeeded;
        job.progress.pending = 2 - succeeded;
        job
    }

    fn snapshot(job: Job) -> StreamMessage {
        StreamMessage::Snapshot {
            id: job.id,
            seq: job.progress.seq.0,
            job: Box::new(job),
        }
    }

    fn progress(job: Job) -> StreamMessage {
        StreamMessage::Progress {
            id: job.id,
            seq: job.progress.seq.0,
            progress: job.progress,
        }
    }

    #[test]
    fn what_is_told_never_goes_back() {
        let mut standing = Standing::default();
        assert_eq!(standing.take(&progress(at(1, State::Running, 0))), News::Nothing);
        assert_eq!(standing.take(&snapshot(at(2, State::Running, 0))), News::State);
        assert_eq!(standing.take(&progress(at(4, State::Running, 1))), News::Numbers);
        // Another connection begins with what is known, with something older, and with something newer.
        assert_eq!(standing.take(&snapshot(at(4, State::Running, 1))), News::Nothing);
        assert_eq!(standing.take(&snapshot(at(3, State::Running, 0))), News::Stale);
        assert_eq!(standing.job().unwrap().progress.succeeded, 1);
        assert_eq!(standing.take(&snapshot(at(5, State::Running, 2))), News::Numbers);
        assert_eq!(standing.verdict(), None);
        assert_eq!(standing.take(&snapshot(at(6, State::Failed, 2))), News::State);
        assert_eq!(standing.verdict(), Some(State::Failed));
    }

    #[test]
    fn the_exit_code_is_that_of_the_worst_verdict() {
        assert_eq!(code(State::Succeeded), 0);
        assert_eq!(code(State::PartiallySucceeded), 1);
        assert_eq!(code(State::Failed), 1);
        assert_eq!(code(State::Canceled), 3);
        assert_eq!(worst([]), 0);
        assert_eq!(worst([0, 0]), 0);
        assert_eq!(worst([0, 3, 0]), 3);
        assert_eq!(worst([3, 1, 0]), 1);
        assert_eq!(worst([1, 3]), 1);
    }

    #[test]
    fn a_line_holds_every_count_and_no_control_characters() {
        let mut job = at(9, State::Running, 1);
        job.progress.rate_per_s = Some(2.04);
        job.progress.eta_s = Some(185.0);
        job.progress.stages.push(StageProgress {
            key: "s".into(),
            name: "de\x1bcode".into(),
            reached: 2,
            total: 3,
            fraction: None,
        });
        assert_eq!(
            line(&job),
            "job 7 running: 2/3 done, 1 succeeded, 1 failed, 0 leased, 0 retrying, 1 pending, 2.0/s, about 3 min 5 s left, \
             decode 2/3"
        );
    }

    #[test]
    fn an_ending_tells_what_was_not_done_and_why() {
        let mut job = at(9, State::Canceled, 1);
        job.started_at = Some("2026-03-01T12:00:00Z".parse().unwrap());
        job.finished_at = Some("2026-03-01T12:00:42Z".parse().unwrap());
        assert_eq!(
            ending(&job),
            "job 7 canceled: 3 tasks: 1 succeeded, 1 failed, 1 not done in 42 s"
        );
    }
}
