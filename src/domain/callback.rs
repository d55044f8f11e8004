//! Completion callbacks: what is said of a job that ended, when it is said again, and when it counts as heard.
//!
//! Owns: the event and its text, the schedule of attempts, which answers count. Never: makes a call, signs, or judges an address. Invariant:
//! an event has one id and one text for ever, however often it is sent; every call comes to delivered, to a later attempt, or to giving up.

use super::ids::{JobId, Run, UnixMs};
use super::job::JobRecord;
use serde_json::json;

/// What an event is about: the only type there is.
pub const COMPLETED: &str = "job.completed";
/// By which part a wait may be longer or shorter than the schedule says, so that what failed together does not come back together.
const SPREAD: f64 = 0.2;
/// The receiver is gone and says so: it is not asked again.
const GONE: u16 = 410;

/// A completion event, as it is kept: one per run of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Names it to its receiver too, so it is different in every database a job of this number ever was in.
    pub id: String,
    pub job: JobId,
    pub run: Run,
    pub kind: &'static str,
    /// JSON text, sent verbatim.
    pub payload: String,
    pub at: UnixMs,
    /// None: nobody wants to be told.
    pub call: Option<Call>,
}

/// Whom an event goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub url: String,
    /// Host and port: calls to one receiver share a bound.
    pub receiver: String,
}

impl Event {
    /// The completion event of a job, from its row as it is once it ended.
    pub fn of(ended: &JobRecord) -> Event {
        let id = format!("job-{}-run-{}-{:x}", ended.id, ended.run, ended.created_at.0);
        let at = ended.finished_at.unwrap_or(ended.updated_at);
        let call = ended.callback_url.as_ref().map(|url| Call {
            url: url.clone(),
            receiver: receiver(url),
        });
        Event {
            payload: payload(&id, at, ended),
            id,
            job: ended.id,
            run: ended.run,
            kind: COMPLETED,
            at,
            call,
        }
    }
}

fn payload(id: &str, at: UnixMs, ended: &JobRecord) -> String {
    let tally = &ended.tally;
    let reached = tally.reached.iter().copied().chain(std::iter::repeat(0));
    let stages = ended.stages.iter().zip(reached);
    let stages = stages.map(|(stage, reached)| json!({"key": stage.key, "name": stage.name, "reached": reached}));
    let moment = |at: Option<UnixMs>| at.and_then(UnixMs::to_rfc3339);
    json!({
        "type": COMPLETED,
        "id": id,
        "timestamp": moment(Some(at)),
        "data": {
            "id": ended.id,
            "name": ended.name,
            "queue": ended.queue,
            "state": ended.state,
            "run": ended.run,
            "total": tally.total,
            "succeeded": tally.succeeded,
            "failed": tally.failed,
            "undecided": tally.total.saturating_sub(tally.succeeded).saturating_sub(tally.failed),
            "counters": tally.counters,
            "stages": stages.collect::<Vec<_>>(),
            "error": ended.error,
            "labels": ended.labels,
            "created_at": moment(Some(ended.created_at)),
            "started_at": moment(ended.started_at),
            "finished_at": moment(ended.finished_at),
        },
    })
    .to_string()
}

/// Host and port of a URL, in one spelling; enough to tell receivers apart, not to connect.
fn receiver(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let end = rest.find(['/', '\\', '?', '#']).unwrap_or(rest.len());
    rest[..end].to_ascii_lowercase()
}

/// What came of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    Status {
        status: u16,
        /// The receiver wants to be left alone for so long, in seconds.
        retry_after_s: Option<u32>,
    },
    /// No answer, or no call was made; why, in words.
    Nothing(String),
}

/// What becomes of an event after a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    Delivered { at: UnixMs },
    Again { at: UnixMs, error: String },
    GivenUp { at: UnixMs, error: String },
}

/// When attempts follow each other, and when there are no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// The wait after the first attempt; each later one is twice as long.
    pub first_ms: u32,
    /// No wait is longer.
    pub longest_ms: u32,
    /// Counted from the first attempt; there is a last one when it is over.
    pub give_up_after_ms: u64,
}

impl Default for Schedule {
    fn default() -> Self {
        Schedule {
            first_ms: 5_000,
            longest_ms: 3_600_000,
            give_up_after_ms: 24 * 3_600_000,
        }
    }
}

impl Schedule {
    /// Judges one call. `tries` counts it; the first one was made at `since`; `chance` is drawn from 0 to 1.
    pub fn judge(&self, heard: &Heard, tries: u32, since: UnixMs, now: UnixMs, chance: f64) -> Fate {
        let (error, ask_again_after_ms) = match heard {
            Heard::Status { status, .. } if (200..300).contains(status) => return Fate::Delivered { at: now },
            Heard::Status {
                status: status @ GONE, ..
            } => {
                let error = format!("the receiver answered {status}: it is gone for good");
                return Fate::GivenUp { at: now, error };
            }
            Heard::Status { status, retry_after_s } => {
                let redirects = (300..400).contains(status);
                let note = if redirects { "; redirects are not followed" } else { "" };
                let after_ms = i64::from(retry_after_s.unwrap_or(0)) * 1000;
                (format!("the receiver answered {status}{note}"), after_ms)
            }
            Heard::Nothing(why) => (why.clone(), 0),
        };
        let give_up_ms = i64::try_from(self.give_up_after_ms).unwrap_or(i64::MAX);
        let last = since.plus_ms(give_up_ms);
        if now >= last {
            return Fate::GivenUp { at: now, error };
        }
        let wait_ms = self.wait_ms(tries, chance).max(ask_again_after_ms);
        let at = now.plus_ms(wait_ms.min(i64::from(self.longest_ms))).min(last);
        Fate::Again { at, error }
    }

    /// The wait after so many attempts.
    fn wait_ms(&self, tries: u32, chance: f64) -> i64 {
        let doubled = tries.saturating_sub(1).min(31);
        let plain = (u64::from(self.first_ms) << doubled).min(u64::from(self.longest_ms));
        let spread = 1.0 + SPREAD * (2.0 * chance.clamp(0.0, 1.0) - 1.0);
        // At least one: an attempt that is due at once would be made in a circle.
        ((plain as f64 * spread) as i64).max(1)
    }
}

#[cfg(test)]
mod tests;
