//! The lease token: which handing-out of which task a worker speaks of.
//!
//! Owns: its text form. Never: decides whether a lease is current (the ledger does). Invariant: `decode(encode(x)) == x`, and no
//! text decodes to two leases. Workers treat it as opaque; it carries no secret, since every call is authenticated by itself.

use super::ids::{Attempt, Epoch, JobId, LeaseSeq, Run, TaskNo};
use std::fmt;

/// Longest accepted token text, in bytes; a real one has at most 80.
pub const MAX_TOKEN_BYTES: usize = 128;

/// A lease as its token names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease {
    pub job: JobId,
    pub run: Run,
    pub task: TaskNo,
    pub attempt: Attempt,
    pub epoch: Epoch,
    pub seq: LeaseSeq,
}

/// The text is no lease token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a lease token")]
pub struct NotALease;

impl Lease {
    /// Token text, such as `l1-2a-1-1f-1-3-9`: a version, then six hexadecimal numbers.
    pub fn encode(&self) -> String {
        self.to_string()
    }

    /// Reads a token back. Sources of failure: another version, a missing or extra part, a number out of range.
    pub fn decode(text: &str) -> Result<Lease, NotALease> {
        if text.len() > MAX_TOKEN_BYTES {
            return Err(NotALease);
        }
        let mut parts = text.strip_prefix("l1-").ok_or(NotALease)?.split('-');
        let mut number = || -> Result<u64, NotALease> {
            let digits = parts.next().ok_or(NotALease)?;
            // One text per lease: lower case, no sign, no leading zero.
            let canonical = !digits.is_empty()
                && (digits == "0" || !digits.starts_with('0'))
                && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            if !canonical {
                return Err(NotALease);
            }
            u64::from_str_radix(digits, 16).map_err(|_| NotALease)
        };
        let narrow = |n: u64| u32::try_from(n).map_err(|_| NotALease);
        let signed = |n: u64| i64::try_from(n).map_err(|_| NotALease);
        let lease = Lease {
            job: JobId(signed(number()?)?),
            run: Run(narrow(number()?)?),
            task: TaskNo(narrow(number()?)?),
            attempt: Attempt(narrow(number()?)?),
            epoch: Epoch(signed(number()?)?),
            seq: LeaseSeq(number()?),
        };
        match parts.next() {
            None => Ok(lease),
            Some(_) => Err(NotALease),
        }
    }
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "l1-{:x}-{:x}-{:x}-{:x}-{:x}-{:x}",
            self.job.0, self.run.0, self.task.0, self.attempt.0, self.epoch.0, self.seq.0
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_lease_round_trips(job in 1i64..(1 << 53), run: u32, task: u32, attempt: u32, epoch in 0i64.., seq: u64) {
            let lease = Lease {
                job: JobId(job), run: Run(run), task: TaskNo(task),
                attempt: Attempt(attempt), epoch: Epoch(epoch), seq: LeaseSeq(seq),
            };
            prop_assert!(lease.encode().len() <= MAX_TOKEN_BYTES);
            prop_assert_eq!(Lease::decode(&lease.encode()), Ok(lease));
        }

        #[test]
        fn arbitrary_text_never_decodes_to_a_lease_that_prints_differently(text in "(l1-)?[0-9a-f+-]{0,60}") {
            if let Ok(lease) = Lease::decode(&text) {
                prop_assert_eq!(lease.encode(), text);
            }
        }
    }
}
