//! The way out to one reader.
//!
//! Owns: framing, and how much may be on its way. Never: holds a message back for a reader who is slow: whoever sends waits for room
//! first and picks the newest message then. Invariant: beside what the connection itself buffers one frame waits, and on a WebSocket no
//! more than [`WINDOW_BYTES`] are on their way unconfirmed.

use super::{events, socket};
use crate::coordinator::Seat;
use actix_web::body::{BodySize, MessageBody};
use bytes::{Bytes, BytesMut};
use std::cell::Cell;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

/// A reader that leaves so much unconfirmed is waited for: the kernel's buffers would hold megabytes of the past.
const WINDOW_BYTES: u64 = 64 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Socket,
    Events,
}

/// Why a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The job has ended, and its reader was told so.
    Final,
    /// What is watched is served elsewhere, or later, from now on.
    Moved,
    /// The caller's token is not in force any more.
    Refused,
    /// The reader does not keep up, or is silent.
    TooSlow,
    /// The reader closed the stream.
    Closed,
    /// The connection is gone.
    Lost,
    /// The reader broke the protocol.
    Broken,
    /// The reader sent a frame that is too large.
    TooBig,
}

/// Sends frames; clones share one way.
#[derive(Clone)]
pub(super) struct Outlet {
    frames: mpsc::Sender<Bytes>,
    transport: Transport,
    patience: Duration,
    sent: Rc<Cell<u64>>,
    asked: Rc<Cell<u64>>,
    confirmed: watch::Receiver<u64>,
}

/// The body of the answer: what the outlet sends.
pub(super) struct Body {
    frames: mpsc::Receiver<Bytes>,
    /// Taken until the connection lets go of the body, however long its reader stalls.
    _seat: Arc<Seat>,
}

/// Room for one message.
pub(super) struct Room<'a> {
    outlet: &'a Outlet,
    permit: mpsc::Permit<'a, Bytes>,
}

impl Outlet {
    pub(super) fn new(
        transport: Transport,
        patience: Duration,
        confirmed: watch::Receiver<u64>,
        seat: Arc<Seat>,
    ) -> (Outlet, Body) {
        let (frames, taken) = mpsc::channel(1);
        let outlet = Outlet {
            frames,
            transport,
            patience,
            sent: Rc::default(),
            asked: Rc::default(),
            confirmed,
        };
        let body = Body {
            frames: taken,
            _seat: seat,
        };
        (outlet, body)
    }

    /// Waits until the reader has taken enough of what it was sent before. Only now is it time to look what is newest.
    pub(super) async fn room(&self) -> Result<Room<'_>, End> {
        let waiting = async {
            if self.transport == Transport::Socket {
                let mut confirmed = self.confirmed.clone();
                let enough = |confirmed: &u64| self.sent.get().saturating_sub(*confirmed) <= WINDOW_BYTES;
                confirmed.wait_for(enough).await.map_err(|_| End::Lost)?;
            }
            self.frames.reserve().await.map_err(|_| End::Lost)
        };
        let permit = timeout(self.patience, waiting).await.map_err(|_| End::TooSlow)??;
        Ok(Room { outlet: self, permit })
    }

    /// Sends a frame of the protocol's own.
    pub(super) async fn control(&self, frame: Bytes, patience: Duration) -> Result<(), End> {
        let sent = timeout(patience, self.frames.send(frame)).await;
        sent.map_err(|_| End::TooSlow)?.map_err(|_| End::Lost)
    }

    /// Shows that this side is alive, unless something is on its way that does.
    pub(super) fn beat(&self) {
        let frame = match self.transport {
            Transport::Socket => socket::ping(self.sent.get()),
            Transport::Events => events::comment(),
        };
        let _ = self.frames.try_send(frame);
    }

    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// Resolves when the connection is gone.
    pub(super) async fn lost(&self) {
        self.frames.closed().await;
    }
}

impl Room<'_> {
    /// Sends a message; `is_last` if the stream ends with it for good.
    pub(super) fn put(self, json: &Bytes, is_last: bool) {
        let Outlet {
            transport, sent, asked, ..
        } = self.outlet;
        metrics::counter!("tallykeeper_stream_messages_total").increment(1);
        let mut frame = BytesMut::with_capacity(json.len() + 40);
        match transport {
            Transport::Events => events::write(&mut frame, json, is_last),
            Transport::Socket => {
                socket::write(&mut frame, json);
                sent.set(sent.get() + json.len() as u64);
                // Asked for half-way, so that a reader who keeps up is never waited for.
                if sent.get() - asked.get() > WINDOW_BYTES / 2 {
                    asked.set(sent.get());
                    frame.extend_from_slice(&socket::ping(sent.get()));
                }
            }
        }
        self.permit.send(frame.freeze());
    }
}

impl MessageBody for Body {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        self.frames.poll_recv(cx).map(|frame| frame.map(Ok))
    }
}
