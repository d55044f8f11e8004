//! The contract for completion events that wait to be sent.
//!
//! Owns: the trait, its shapes and crash windows. Never: knows what a call is, or judges one. Invariant: an event that has somebody to call
//! waits until it is delivered or given up, whatever dies meanwhile.

use super::Result;
use crate::domain::callback::Fate;
use crate::domain::ids::{JobId, Run, UnixMs};
use async_trait::async_trait;

/// Which events a caller can take on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claiming {
    pub now: UnixMs,
    /// When a claim ends whose event was not settled.
    pub until: UnixMs,
    pub limit: u32,
    /// Calls to one receiver at a time.
    pub per_receiver: u32,
    /// Calls of this caller that are under way, by receiver.
    pub under_way: Vec<(String, u32)>,
}

/// An event to be sent now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueEvent {
    pub id: String,
    pub job: JobId,
    pub run: Run,
    pub payload: String,
    pub url: String,
    pub receiver: String,
    /// Which claim this is; grows with every one.
    pub claim: i64,
    /// This attempt included.
    pub attempts: u32,
    /// When the first of these attempts began.
    pub since: UnixMs,
}

/// An event of a job, with what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRow {
    pub id: String,
    pub run: Run,
    pub url: String,
    pub created_at: UnixMs,
    /// None: settled.
    pub due_at: Option<UnixMs>,
    pub attempts: u32,
    pub last_error: Option<String>,
    pub delivered_at: Option<UnixMs>,
    pub given_up_at: Option<UnixMs>,
}

/// Events that wait. They are written by `commit` and `create_job`, in the transaction that ends their job. Exempt from the fence: any node
/// sends them, and sending one twice is allowed.
///
/// The crash windows:
/// - after the end of the job committed, before a claim: the event is due, whoever looks next finds it;
/// - after a claim, before, during or after the call: it is due again when the claim ends, and is sent again under the same id;
/// - after the call was settled: nothing is left to do.
#[async_trait]
pub trait EventStore: Send + Sync {
    /// Hands out events that are due: at most `limit`, and with what is under way no more than `per_receiver` to one receiver. Receivers
    /// with fewer calls go first, and of those alike the event that has been due for longest. Each counts one more attempt and is due
    /// again at `until`. Of callers that race one gets an event.
    async fn claim_events(&self, claiming: &Claiming) -> Result<Vec<DueEvent>>;

    /// Notes what became of a claimed event. Answers false, and changes nothing, if it was claimed or asked for again since. The event of
    /// a deleted job is removed once nothing is left to do.
    async fn settle_event(&self, id: &str, claim: i64, fate: &Fate) -> Result<bool>;

    /// When the first event is due that is not due by `now`.
    async fn next_event(&self, now: UnixMs) -> Result<Option<UnixMs>>;

    /// How many events wait; at most 100 000 are counted.
    async fn waiting_events(&self) -> Result<u64>;

    /// The events of a job that have somebody to call, from the last run to the first, at most `limit`.
    async fn events(&self, job: JobId, limit: u32) -> Result<Vec<EventRow>>;

    /// Makes an event due at once, as if it had never been sent; a claim under way settles nothing any more. `NotFound` if the job has no
    /// such event, or it has nobody to call.
    async fn resend_event(&self, job: JobId, id: &str, now: UnixMs) -> Result<EventRow>;
}
