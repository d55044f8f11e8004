//! How a command is asked to end: first to finish what it has, then to give up at once.
//!
//! Owns: the signals and the three phases. Never: kills anything itself. Invariant: phases only move forward.

use std::future::pending;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// After an abort, how long the last reports and releases, and each thing that comes after them, may still take.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(5);

/// How far the end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Not asked to end.
    Go,
    /// Take nothing new, finish what is under way.
    Finish,
    /// Give up what is under way.
    Abort,
}

/// Who asked for the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interrupt {
    /// SIGINT, SIGQUIT: a person at the keyboard.
    Keyboard,
    /// SIGTERM: whoever supervises the process. SIGHUP: the terminal is gone.
    Terminate,
}

/// The side that is told.
#[derive(Debug, Clone)]
pub(crate) struct Stop(watch::Receiver<Phase>);

/// The side that tells.
#[derive(Debug, Clone)]
pub(crate) struct Stopper(watch::Sender<Phase>);

/// Both sides of a new stop.
pub(crate) fn channel() -> (Stopper, Stop) {
    let (sender, receiver) = watch::channel(Phase::Go);
    (Stopper(sender), Stop(receiver))
}

impl Stopper {
    /// Moves on to a phase; never back.
    pub(crate) fn reach(&self, phase: Phase) {
        self.0.send_if_modified(|now| {
            let later = phase > *now;
            *now = phase.max(*now);
            later
        });
    }

    /// Follows SIGINT, SIGTERM, SIGHUP and SIGQUIT, any of which would else end this process and leave its children, each in a group of its
    /// own: the first asks to finish and `grace` later to give up; the second asks to give up at once.
    /// `on_first` runs when the first one arrives, which is kept in what is returned.
    pub(crate) fn follow_signals(
        &self,
        grace: Duration,
        on_first: impl FnOnce() + Send + 'static,
    ) -> io::Result<Arc<OnceLock<Interrupt>>> {
        let mut keyboard = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = unless_ignored(SignalKind::hangup())?;
        let mut quit = unless_ignored(SignalKind::quit())?;
        let first = Arc::new(OnceLock::new());
        let (stopper, kept) = (self.clone(), first.clone());
        tokio::spawn(async move {
            let mut next = async || {
                tokio::select! {
                    _ = keyboard.recv() => Interrupt::Keyboard,
                    _ = terminate.recv() => Interrupt::Terminate,
                    () = received(&mut hangup) => Interrupt::Terminate,
                    () = received(&mut quit) => Interrupt::Keyboard,
                }
            };
            let _ = kept.set(next().await);
            stopper.reach(Phase::Finish);
            on_first();
            let _ = tokio::time::timeout(grace, next()).await;
            stopper.reach(Phase::Abort);
        });
        Ok(first)
    }
}

/// A signal that whoever started us had us ignore (nohup) stays ignored; following it would undo that.
fn unless_ignored(kind: SignalKind) -> io::Result<Option<Signal>> {
    // Where there is no /proc, nobody can be asked without unsafe code.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if ignores(&status, kind.as_raw_value()) {
        return Ok(None);
    }
    signal(kind).map(Some)
}

/// Does a process of this status ignore the signal?
fn ignores(status: &str, number: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.unwrap_or(0) >> (number - 1) & 1 == 1
}

/// Resolves when the signal arrives; never, if it is not followed.
async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => pending().await,
    }
}

impl Stop {
    fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Should nothing new be taken?
    pub(crate) fn is_finishing(&self) -> bool {
        self.phase() >= Phase::Finish
    }

    /// Resolves [`LAST_WORDS`] after [`Phase::Abort`].
    pub(crate) async fn patience_ends(&self) {
        self.reached(Phase::Abort).await;
        tokio::time::sleep(LAST_WORDS).await;
    }

    /// Resolves once `phase` is reached; never, if nobody can tell any more.
    pub(crate) async fn reached(&self, phase: Phase) {
        let mut receiver = self.0.clone();
        if receiver.wait_for(|now| *now >= phase).await.is_err() {
            pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_mask() {
        let status = "Name:\tx\nSigIgn:\t0000000000001005\nSigCgt:\tffffffffffffffff\n";
        let ignored: Vec<i32> = (1..=31).filter(|number| ignores(status, *number)).collect();
        assert_eq!(ignored, [1, 3, 13]);
        assert!(!ignores("", 1));
    }

    #[tokio::test]
    async fn phases_only_move_forward() {
        let (stopper, stop) = channel();
        assert_eq!(stop.phase(), Phase::Go);
        stopper.reach(Phase::Abort);
        stopper.reach(Phase::Finish);
        stop.reached(Phase::Finish).await;
        stop.reached(Phase::Abort).await;
        assert_eq!(stop.phase(), Phase::Abort);
        assert!(stop.is_finishing());
    }
}
