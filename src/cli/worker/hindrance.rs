//! Why a command could not be started, where that is no fault of its item.
//!
//! Owns: which errors of the system are the machine's, the program's or the item's. Never: waits. Invariant: only what the item brought
//! about (its length, a NUL in it) is held against its task, since no item chooses the program.

use crate::cli::client::ClientError;
use crate::cli::meter::Meter;
use rustix::io::Errno;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

/// Why a worker cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    #[error(transparent)]
    Server(#[from] ClientError),
    /// It would fail for every item.
    #[error("cannot start {program}: {error}; no task was failed for it")]
    Program { program: String, error: io::Error },
}

/// What kept a command from starting, but for its item.
#[derive(Debug)]
pub(super) enum Hindrance {
    /// This machine has no room for one more process now. In words, with the program.
    Shortage(String),
    Program(Trouble),
}

impl Hindrance {
    /// Gives the error back if it is the item's.
    pub(super) fn of(program: &str, error: io::Error) -> Result<Hindrance, io::Error> {
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::TOOBIG) => Err(error),
            // It holds a NUL: the system was not even asked.
            None if error.kind() == io::ErrorKind::InvalidInput => Err(error),
            Some(
                // Each passes once other processes end, or have written their files.
                Errno::MFILE | Errno::NFILE | Errno::AGAIN | Errno::NOMEM | Errno::NOSPC | Errno::TXTBSY | Errno::INTR,
            ) => Ok(Hindrance::Shortage(format!("cannot start {program}: {error}"))),
            _ => Ok(Hindrance::Program(Trouble::Program {
                program: program.to_owned(),
                error,
            })),
        }
    }
}

/// Whether anybody was told yet that this machine is short of something: all workers of a process meet it together.
#[derive(Debug, Default)]
pub(crate) struct Shortage(AtomicBool);

impl Shortage {
    /// Says it once.
    pub(super) fn tell(&self, what: &str, meter: Option<&Meter>) {
        if self.0.swap(true, Ordering::Relaxed) {
            return;
        }
        let text = format!("{what}: its task is given back and tried again; fewer at a time (-j) may be faster");
        match meter {
            Some(meter) => meter.say(&text),
            None => tracing::warn!("{text}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(error: impl Into<io::Error>) -> Result<Hindrance, io::Error> {
        Hindrance::of("tool", error.into())
    }

    #[test]
    fn a_shortage_passes_and_is_nobodys_fault() {
        for errno in [Errno::MFILE, Errno::NFILE, Errno::AGAIN, Errno::NOMEM] {
            assert!(matches!(of(errno), Ok(Hindrance::Shortage(text)) if text.starts_with("cannot start tool: ")));
        }
    }

    #[test]
    fn a_program_that_cannot_run_is_named() {
        for errno in [Errno::NOENT, Errno::ACCESS, Errno::NOEXEC, Errno::NOTDIR] {
            let Ok(Hindrance::Program(trouble)) = of(errno) else {
                panic!("{errno} is the program's");
            };
            assert!(trouble.to_string().starts_with("cannot start tool: "), "{trouble}");
        }
    }

    #[test]
    fn only_an_item_that_is_no_argument_fails_its_task() {
        assert!(of(Errno::TOOBIG).is_err());
        let nul = std::process::Command::new("true").arg("a\0b").spawn().unwrap_err();
        assert!(of(nul).is_err());
    }
}
