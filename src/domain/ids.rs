//! Newtype identifiers and numbers of the domain, so that no two of them can be confused.
//!
//! Owns: their widths. Never: generates one. Invariant: each prints as its plain number.

use serde::{Deserialize, Serialize};
use std::fmt;
use time::OffsetDateTime;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// A job: positive, below 2^53 so that every JSON reader keeps it exact.
    JobId(i64)
);
number!(
    /// A queue's row in the store; four bytes because the fence uses it as an advisory lock key.
    QueueId(i32)
);
number!(
    /// A task's number in its job: dense, from 0.
    TaskNo(u32)
);
number!(
    /// The generation of a job, from 1; `retry` starts the next one.
    Run(u32)
);
number!(
    /// One handing-out of a task, from 1; spent only by a failure or an expired lease.
    Attempt(u32)
);
number!(
    /// Fencing token of a queue's ownership; grows by one at each take-over.
    Epoch(i64)
);
number!(
    /// Distinguishes leases of one epoch. Grows within an activation and never repeats within an epoch.
    LeaseSeq(u64)
);
number!(
    /// Position in a job's committed history: monotonic, not dense.
    Seq(i64)
);
number!(
    /// A large result that was stored apart; never given out twice.
    BlobId(i64)
);
number!(
    /// Milliseconds since 1970-01-01 UTC, by the store's clock.
    UnixMs(i64)
);

impl UnixMs {
    /// This moment plus a number of milliseconds, saturating.
    pub fn plus_ms(self, ms: i64) -> UnixMs {
        UnixMs(self.0.saturating_add(ms))
    }

    /// RFC 3339 in UTC with milliseconds, such as `2026-03-01T12:00:00.250Z`; none outside the years that form can write.
    pub fn to_rfc3339(self) -> Option<String> {
        let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000).ok()?;
        Some(format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
            at.year(),
            u8::from(at.month()),
            at.day(),
            at.hour(),
            at.minute(),
            at.second(),
            at.millisecond()
        ))
    }

    /// This moment plus a number of seconds, saturating.
    pub fn plus_s(self, s: u32) -> UnixMs {
        self.plus_ms(i64::from(s) * 1000)
    }
}

impl Run {
    /// The generation after this one.
    pub fn next(self) -> Run {
        Run(self.0 + 1)
    }
}
