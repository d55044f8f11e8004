//! What happened in a job, in words for people.
//!
//! Owns: the shape of an entry, and levels and their order. Never: decides anything; nobody reads a log to find out what is so. Invariant:
//! level and source read back as what was written.

use super::ids::{JobId, TaskNo, UnixMs};
use serde::{Deserialize, Serialize};

/// How grave an entry is, from the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

impl Level {
    pub const ALL: [Level; 4] = [Level::Debug, Level::Info, Level::Warn, Level::Error];

    pub fn as_str(self) -> &'static str {
        match self {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        }
    }

    /// Its stored form, which sorts as levels do.
    pub fn number(self) -> i16 {
        self as i16
    }

    pub fn from_number(number: i16) -> Option<Level> {
        Level::ALL.into_iter().find(|level| level.number() == number)
    }
}

/// Who wrote an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The coordinator itself.
    Coordinator,
    /// Somebody who posted it.
    Posted,
}

impl Source {
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Coordinator => "coordinator",
            Source::Posted => "posted",
        }
    }

    pub fn parse(text: &str) -> Option<Source> {
        [Source::Coordinator, Source::Posted]
            .into_iter()
            .find(|source| source.as_str() == text)
    }
}

/// An entry of a job's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub job: JobId,
    pub at: UnixMs,
    pub level: Level,
    pub source: Source,
    pub worker: Option<String>,
    pub task: Option<TaskNo>,
    /// Without U+0000; other control characters are kept.
    pub message: String,
}

impl Entry {
    /// What the coordinator itself has to say of a job.
    pub fn own(job: JobId, at: UnixMs, level: Level, message: String) -> Entry {
        Entry {
            job,
            at,
            level,
            source: Source::Coordinator,
            worker: None,
            task: None,
            message,
        }
    }
}
