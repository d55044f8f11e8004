//! Sends the completion events that wait.
//!
//! Owns: who looks when, how many calls are under way, and that each comes to be settled. Never: judges an answer or times an attempt (the
//! domain does), names HTTP, or sends what it has not claimed. Invariant: nothing here is remembered: whatever dies, the store still knows
//! what waits, and a claim that was not settled ends by itself.

use super::courier::Courier;
use super::shared::Shared;
use super::{Coordinator, Result};
use crate::domain::callback::{Fate, Heard, Schedule};
use crate::domain::ids::{JobId, UnixMs};
use crate::domain::logs::{Entry, Level};
use crate::store::{Claiming, DueEvent, EventRow, StoreError};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// How often the store is asked though nobody said that there is something: another node's event, or one it did not live to send.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// After a look that failed, and between two tries to settle.
const RETRY: Duration = Duration::from_secs(1);
/// A claim outlives the call by so much and the wait for the store: it must not end while the call is being settled.
const CLAIM_SLACK: Duration = Duration::from_secs(5);
/// A call that has not ended by itself is given up so long after it should have.
const CALL_SLACK: Duration = Duration::from_secs(1);
/// Characters of an error that are kept.
const ERROR_CHARS: usize = 500;

/// Bounds and intervals of callbacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallbackSettings {
    /// Longest call, from looking up its address to the end of the answer.
    pub call_timeout: Duration,
    /// Calls of this node under way at once.
    pub calls_at_once: u32,
    /// Of these, calls to one host and port.
    pub calls_per_receiver: u32,
    pub schedule: Schedule,
}

impl Default for CallbackSettings {
    fn default() -> Self {
        CallbackSettings {
            call_timeout: Duration::from_secs(10),
            calls_at_once: 16,
            calls_per_receiver: 4,
            schedule: Schedule::default(),
        }
    }
}

pub(super) struct Outbox {
    courier: OnceLock<Arc<dyn Courier>>,
    /// There may be something to send, or room to send it.
    look: Notify,
    room: Arc<Semaphore>,
    calls_at_once: u32,
    under_way: Mutex<HashMap<String, u32>>,
}

impl Outbox {
    pub(super) fn new(settings: &CallbackSettings) -> Outbox {
        let calls_at_once = settings.calls_at_once.max(1);
        Outbox {
            courier: OnceLock::new(),
            look: Notify::new(),
            room: Arc::new(Semaphore::new(calls_at_once as usize)),
            calls_at_once,
            under_way: Mutex::default(),
        }
    }

    /// Says that an event was committed.
    pub(super) fn look_now(&self) {
        self.look.notify_one();
    }

    /// As many permits as are free; none without any.
    fn take_room(&self) -> Option<OwnedSemaphorePermit> {
        // Only a drain, which wants them all, comes between the two.
        let free = u32::try_from(self.room.available_permits()).unwrap_or(u32::MAX);
        let room = self.room.clone().try_acquire_many_owned(free).ok();
        room.filter(|_| free > 0)
    }

    fn under_way(&self) -> Vec<(String, u32)> {
        let under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        under_way
            .iter()
            .map(|(receiver, calls)| (receiver.clone(), *calls))
            .collect()
    }

    /// Waits until no call is under way, and lets none begin any more. False if that did not come by the deadline.
    pub(super) async fn finish(&self, deadline: Instant) -> bool {
        let all = self.room.acquire_many(self.calls_at_once);
        match tokio::time::timeout_at(deadline.into(), all).await {
            Ok(Ok(_)) => {
                self.room.close();
                true
            }
            // A second drain finds it closed.
            Ok(Err(_)) => true,
            Err(_) => false,
        }
    }
}

/// A call under way: its receiver counts it, and its permit is held, until this is dropped.
struct Line {
    shared: Arc<Shared>,
    receiver: String,
    _room: OwnedSemaphorePermit,
}

impl Line {
    fn open(shared: &Arc<Shared>, receiver: &str, room: OwnedSemaphorePermit) -> Line {
        let mut under_way = shared.outbox.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        *under_way.entry(receiver.to_owned()).or_default() += 1;
        Line {
            shared: shared.clone(),
            receiver: receiver.to_owned(),
            _room: room,
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let mut under_way = self
            .shared
            .outbox
            .under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(calls) = under_way.get_mut(&self.receiver) {
            *calls -= 1;
            if *calls == 0 {
                under_way.remove(&self.receiver);
            }
        }
        // What was left because there was no room may go now. The permit is given back right after this, before the look comes to run: both
        // are on one thread.
        self.shared.outbox.look.notify_one();
    }
}

impl Coordinator {
    /// Sets how events leave the node; once. Without, they wait for a node that has one.
    pub fn call_through(&self, courier: Arc<dyn Courier>) {
        // Set twice only by a test that mounts the API twice.
        let _ = self.shared.outbox.courier.set(courier);
        self.shared.outbox.look_now();
    }

    /// The completion events of a job that have somebody to call, from the last run to the first, at most `limit`.
    pub async fn callbacks(&self, job: JobId, limit: u32) -> Result<Vec<EventRow>> {
        self.record(job).await?;
        Ok(self.within_store_wait(self.shared.store.events(job, limit)).await??)
    }

    /// Sends an event again, delivered or not.
    pub async fn call_again(&self, job: JobId, event: &str) -> Result<EventRow> {
        self.refuse_when_draining()?;
        self.record(job).await?;
        let resending = self.shared.store.resend_event(job, event, self.now());
        let row = self.within_store_wait(resending).await??;
        self.shared.outbox.look_now();
        Ok(row)
    }
}

/// Looks for events and sends them, until the node drains.
pub(super) async fn run(shared: Arc<Shared>) {
    let (mut counts, mut counted_at) = (0_u32, Instant::now());
    while !shared.is_draining() && !shared.has_left() && !shared.is_deposed() {
        let looked = match shared.outbox.courier.get() {
            Some(courier) => send_due(&shared, courier).await,
            None => Ok(LOOK_EVERY),
        };
        let nap = looked.unwrap_or_else(|error| {
            tracing::debug!(%error, "no look at the events that wait");
            RETRY
        });
        if counts == 0 || counted_at.elapsed() >= LOOK_EVERY {
            // The first count may come before the node has been given its courier.
            count(&shared, counts == 1).await;
            (counts, counted_at) = (counts.saturating_add(1), Instant::now());
        }
        let _ = tokio::time::timeout(nap, shared.outbox.look.notified()).await;
    }
}

/// Counts what waits, for operators. If it waits because this node and maybe others have no secret, that must not stay unsaid.
async fn count(shared: &Shared, says_so: bool) {
    let Ok(waiting) = shared.store.waiting_events().await else {
        return;
    };
    metrics::gauge!("tallykeeper_callbacks_waiting").set(waiting as f64);
    if says_so && waiting > 0 && shared.outbox.courier.get().is_none() {
        tracing::warn!(
            waiting,
            "callbacks wait to be sent, and this node has no secret to sign them with"
        );
    }
}

/// Claims and calls for as long as there is room and something due; answers how long to nap.
async fn send_due(shared: &Arc<Shared>, courier: &Arc<dyn Courier>) -> std::result::Result<Duration, StoreError> {
    let settings = &shared.settings.callbacks;
    let lasts = settings.call_timeout + shared.settings.store_wait + CLAIM_SLACK;
    // Without room the next call that ends wakes us.
    while let Some(mut room) = shared.outbox.take_room() {
        let now = shared.clock.now();
        let ends = Instant::now() + lasts;
        let claiming = Claiming {
            now,
            until: now.plus_ms(i64::try_from(lasts.as_millis()).unwrap_or(i64::MAX)),
            limit: room.num_permits() as u32,
            per_receiver: settings.calls_per_receiver.max(1),
            under_way: shared.outbox.under_way(),
        };
        let due = shared.store.claim_events(&claiming).await?;
        if due.is_empty() {
            // What is due and was not handed out has no room, or is being claimed by another node.
            let next = shared.store.next_event(now).await?;
            let until_next = next.map_or(LOOK_EVERY, |next| {
                Duration::from_millis((next.0 - now.0).unsigned_abs())
            });
            return Ok(until_next.min(LOOK_EVERY));
        }
        for event in due {
            let Some(permit) = room.split(1) else { break };
            let line = Line::open(shared, &event.receiver, permit);
            actix::spawn(call(line, courier.clone(), event, ends));
        }
    }
    Ok(LOOK_EVERY)
}

async fn call(line: Line, courier: Arc<dyn Courier>, event: DueEvent, claim_ends: Instant) {
    let (shared, began) = (&line.shared, Instant::now());
    let settings = &shared.settings.callbacks;
    let calling = courier.call(&event, shared.clock.now());
    let heard = tokio::time::timeout(settings.call_timeout + CALL_SLACK, calling).await;
    let mut heard = heard.unwrap_or_else(|_| Heard::Nothing("the call did not end in time".into()));
    if let Heard::Nothing(why) = &mut heard
        && let Some((end, _)) = why.char_indices().nth(ERROR_CHARS)
    {
        why.truncate(end);
    }
    metrics::histogram!("tallykeeper_callback_duration_seconds").record(began.elapsed());
    let chance = rand::random::<f64>();
    let fate = settings
        .schedule
        .judge(&heard, event.attempts, event.since, shared.clock.now(), chance);
    // Once the claim has ended somebody else may be at it.
    while Instant::now() < claim_ends {
        match shared.store.settle_event(&event.id, event.claim, &fate).await {
            Ok(true) => return tell(shared, &event, &fate),
            // Somebody wants it sent again, or took over; what came of this call is of no matter any more.
            Ok(false) => return,
            Err(error) => {
                tracing::warn!(event = %event.id, %error, "what became of a callback cannot be stored yet");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Counts it, and writes it into the job's log.
fn tell(shared: &Shared, event: &DueEvent, fate: &Fate) {
    let (outcome, level, words) = match fate {
        Fate::Delivered { .. } => ("delivered", Level::Info, "callback delivered".to_owned()),
        Fate::Again { error, at } => {
            let wait_s = (at.0 - shared.clock.now().0).max(0) / 1000;
            let words = format!("callback not delivered: {error}; trying again in {wait_s} s");
            ("retry", Level::Warn, words)
        }
        Fate::GivenUp { error, .. } => ("given_up", Level::Error, format!("callback given up: {error}")),
    };
    metrics::counter!("tallykeeper_callbacks_total", "outcome" => outcome).increment(1);
    tracing::debug!(event = %event.id, attempts = event.attempts, outcome, "callback");
    let words = format!("{words} (run {}, attempt {})", event.run, event.attempts);
    let entry = Entry::own(event.job, shared.clock.now(), level, words);
    shared.log_book.note(vec![entry]);
}

/// What to say of a final job's callback in an explanation; none if it was heard.
pub(super) fn unheard(row: &EventRow) -> Option<(&'static str, String)> {
    let why = row.last_error.as_deref().unwrap_or("it was not sent yet");
    match (row.due_at, row.given_up_at) {
        (Some(UnixMs(_)), _) => Some((
            "callback_waiting",
            format!("the callback is not delivered after {} attempts: {why}", row.attempts),
        )),
        (None, Some(_)) => Some((
            "callback_given_up",
            format!("the callback was given up after {} attempts: {why}", row.attempts),
        )),
        (None, None) => None,
    }
}
