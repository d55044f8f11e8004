//! What a person sees of a run while it goes on: a bar on a terminal, a line now and then elsewhere; and the commands' own output.
//!
//! Owns: standard error while a run goes on, and the turn to write. Never: counts (it shows what the server counted). Invariant: the
//! output of one task is written in one piece.

use super::capture::Spool;
use super::output::{self, clean, shortened};
use crate::domain::progress::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Failures that are named; the tally counts them all.
const FAILURES_NAMED: u32 = 20;
const TEMPLATE: &str = "{bar:30.cyan/blue} {pos}/{len} {wide_msg}";

/// Shows one job's progress.
pub(crate) struct Meter {
    bar: ProgressBar,
    on_terminal: bool,
    lines: Mutex<Lines>,
    /// Held while one task's output is written; the flag says whether anybody still reads it.
    output: Mutex<bool>,
    /// Something of the output was lost though somebody reads it.
    has_lost: AtomicBool,
    failures: AtomicU32,
}

/// What was last said where there is no terminal.
struct Lines {
    at: Instant,
    decided: u32,
}

impl Meter {
    pub(crate) fn new(total: u64) -> Self {
        let on_terminal = io::stderr().is_terminal();
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style.progress_chars("█▉▊▋▌▍▎▏ "));
        }
        let lines = Lines {
            at: Instant::now(),
            decided: 0,
        };
        Meter {
            bar,
            on_terminal,
            lines: Mutex::new(lines),
            output: Mutex::new(true),
            has_lost: AtomicBool::new(false),
            failures: AtomicU32::new(0),
        }
    }

    /// Shows where the job stands.
    pub(crate) fn show(&self, progress: &Progress) {
        let decided = progress.succeeded + progress.failed;
        if self.on_terminal {
            self.bar.set_message(rest(progress));
            self.bar.set_position(u64::from(decided));
            return;
        }
        let mut lines = self.lines.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if lines.at.elapsed() >= LINE_EVERY && lines.decided != decided {
            *lines = Lines {
                at: Instant::now(),
                decided,
            };
            let total = self.bar.length().unwrap_or_default();
            output::note(&format!("{decided}/{total} {}", rest(progress)));
        }
    }

    /// Names an item that failed for good, and the first line of why.
    pub(crate) fn note_failure(&self, task: u32, item: &str, error: &str) {
        let before = self.failures.fetch_add(1, Ordering::Relaxed);
        let text = match before.cmp(&FAILURES_NAMED) {
            std::cmp::Ordering::Less => {
                let why = error.lines().next().unwrap_or_default();
                clean(&format!(
                    "item {} ({}) failed: {}",
                    task + 1,
                    shortened(item, 80),
                    shortened(why, 200)
                ))
            }
            std::cmp::Ordering::Equal => "further failures are only counted".to_owned(),
            std::cmp::Ordering::Greater => return,
        };
        self.bar.suspend(|| output::note(&text));
    }

    /// Says something beside the bar.
    pub(crate) fn say(&self, text: &str) {
        self.bar.suspend(|| output::note(&clean(text)));
    }

    /// Writes one task's output in one piece. Blocks while whoever reads it does not.
    pub(crate) fn forward(&self, mut stdout: Spool, mut stderr: Spool) {
        if stdout.is_cut() || stderr.is_cut() {
            self.has_lost.store(true, Ordering::Relaxed);
        }
        if stdout.is_empty() && stderr.is_empty() {
            return;
        }
        let mut has_reader = self.output.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        self.bar.suspend(|| {
            if let Err(error) = stderr.copy_to(&mut io::stderr().lock()) {
                self.note_lost(&error);
            }
            if *has_reader && let Err(error) = stdout.copy_to(&mut io::stdout().lock()) {
                // Results are kept by the node in any case; a closed pipe is how `| head` says "enough".
                *has_reader = false;
                if self.note_lost(&error) {
                    let _ = writeln!(io::stderr().lock(), "cannot write to standard output: {error}");
                }
            }
        });
    }

    /// Is it a loss to anybody?
    fn note_lost(&self, error: &io::Error) -> bool {
        let is_loss = error.kind() != io::ErrorKind::BrokenPipe;
        self.has_lost.fetch_or(is_loss, Ordering::Relaxed);
        is_loss
    }

    /// Was some output of the commands not written, though nobody had closed the pipe?
    pub(crate) fn has_lost_output(&self) -> bool {
        self.has_lost.load(Ordering::Relaxed)
    }

    /// Takes the bar away.
    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// What stands beside the count.
fn rest(progress: &Progress) -> String {
    let mut text = String::new();
    if progress.failed > 0 {
        let _ = write!(text, "{} failed  ", progress.failed);
    }
    if progress.retrying > 0 {
        let _ = write!(text, "{} to retry  ", progress.retrying);
    }
    if let Some(rate) = progress.rate_per_s {
        let _ = write!(text, "{rate:.1}/s  ");
    }
    if let Some(eta_s) = progress.eta_s.filter(|eta_s| *eta_s >= 1.0) {
        let _ = write!(text, "about {} left", duration(Duration::from_secs_f64(eta_s.min(1e9))));
    }
    text.trim_end().to_owned()
}

/// A duration for people: `4.2 s`, `3 min 5 s`, `2 h 10 min`, `3 d 4 h`.
pub(crate) fn duration(d: Duration) -> String {
    let s = d.as_secs();
    match s {
        0..=9 => format!("{:.1} s", d.as_secs_f64()),
        10..=59 => format!("{s} s"),
        60..=3599 => format!("{} min {} s", s / 60, s % 60),
        3600..=86_399 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        for (s, text) in [
            (0.25, "0.2 s"),
            (42.0, "42 s"),
            (185.0, "3 min 5 s"),
            (7800.0, "2 h 10 min"),
            (273_600.0, "3 d 4 h"),
        ] {
            assert_eq!(duration(Duration::from_secs_f64(s)), text);
        }
    }
}
