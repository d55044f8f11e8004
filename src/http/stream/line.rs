//! Keeping one connection in order beside its messages.
//!
//! Owns: signs of life, the client's frames, the caller's right to go on, the good-bye. Never: sends a message of the stream. Invariant:
//! every wait on the client ends.

use super::outlet::{Body, End, Outlet, Transport};
use super::socket::{self, Heard, Inbox};
use crate::coordinator::Seat;
use crate::http::auth::Caller;
use crate::http::state::AppState;
use actix_web::web;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

/// How often the caller's token is looked at again.
const RECHECK: Duration = Duration::from_secs(1);
/// How long a reader may take to say good-bye.
const FAREWELL: Duration = Duration::from_secs(1);
/// Signs of life after which a WebSocket that answers none of them is given up.
const SILENCES: u32 = 3;

pub(super) struct Line {
    state: web::Data<AppState>,
    caller: Caller,
    transport: Transport,
    /// Absent where a client has no way to say anything.
    inbox: Option<Inbox>,
    confirmed: watch::Sender<u64>,
}

impl Line {
    pub(super) fn new(
        state: &web::Data<AppState>,
        caller: Caller,
        transport: Transport,
        payload: web::Payload,
    ) -> Line {
        Line {
            state: state.clone(),
            caller,
            transport,
            inbox: (transport == Transport::Socket).then(|| Inbox::new(payload)),
            confirmed: watch::Sender::new(0),
        }
    }

    pub(super) fn outlet(&self, seat: Arc<Seat>) -> (Outlet, Body) {
        let patience = Duration::from_millis(self.state.settings().stream_write_timeout_ms);
        Outlet::new(self.transport, patience, self.confirmed.subscribe(), seat)
    }

    /// Lets `sending` send until it or the client ends the stream.
    pub(super) async fn run(mut self, outlet: &Outlet, sending: impl Future<Output = End>) {
        let end = tokio::select! {
            end = sending => end,
            end = self.tend(outlet) => end,
        };
        tracing::debug!(?end, "a stream ends");
        self.say_farewell(outlet, end).await;
    }

    async fn tend(&mut self, outlet: &Outlet) -> End {
        let period = Duration::from_millis(self.state.settings().stream_ping_ms);
        let (mut beats, mut rechecks) = (interval(period), interval(RECHECK));
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        rechecks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard_at = Instant::now();
        let mut closed = self.state.coordinator().streams_closed();
        let closing = async move {
            is_closed(&mut closed).await;
            sleep(FAREWELL).await;
        };
        tokio::pin!(closing);
        loop {
            tokio::select! {
                // Whoever sends ends by itself then, and with the last message, unless its reader is slow.
                () = &mut closing => return End::Moved,
                heard = next(&mut self.inbox) => {
                    heard_at = Instant::now();
                    if let Some(end) = self.answer(outlet, heard).await {
                        return end;
                    }
                }
                () = outlet.lost() => return End::Lost,
                _ = beats.tick() => {
                    if self.inbox.is_some() && heard_at.elapsed() > period * SILENCES {
                        return End::TooSlow;
                    }
                    outlet.beat();
                }
                _ = rechecks.tick() => {
                    if !self.is_still_allowed().await {
                        return End::Refused;
                    }
                }
            }
        }
    }

    async fn answer(&mut self, outlet: &Outlet, heard: Heard) -> Option<End> {
        match heard {
            Heard::Nothing => None,
            Heard::Confirmation(position) => {
                self.confirmed.send_if_modified(|known| {
                    let is_newer = position > *known;
                    *known = position.max(*known);
                    is_newer
                });
                None
            }
            // Waiting here keeps a client from asking faster than it reads.
            Heard::Question(answer) => outlet.control(answer, outlet.patience()).await.err(),
            Heard::End(end) => Some(end),
        }
    }

    /// A store that gives no answer takes nobody's rights away.
    async fn is_still_allowed(&self) -> bool {
        let (now, loopback_only) = (self.state.now(), self.state.is_loopback_only());
        let caller = self.state.tokens().caller(self.caller.token_id(), now, loopback_only);
        caller
            .await
            .map_or_else(|error| error.problem().status != 401, |_| true)
    }

    async fn say_farewell(&mut self, outlet: &Outlet, end: End) {
        let Some(inbox) = self.inbox.as_mut() else { return };
        let Some(frame) = socket::close(end) else { return };
        if outlet.control(frame, FAREWELL).await.is_err() || end == End::Closed {
            return;
        }
        // Closing while the client still sends would reset the connection, and could take the last message back.
        let answered = async { while !matches!(inbox.next().await, Heard::End(_)) {} };
        let _ = timeout(FAREWELL, answered).await;
    }
}

async fn next(inbox: &mut Option<Inbox>) -> Heard {
    match inbox {
        Some(inbox) => inbox.next().await,
        None => std::future::pending().await,
    }
}

/// Resolves when every stream has to end.
pub(super) async fn is_closed(closed: &mut watch::Receiver<bool>) {
    // A sender that is gone is a node that is gone.
    let _ = closed.wait_for(|closed| *closed).await;
}
