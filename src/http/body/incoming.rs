//! A body as it arrives.
//!
//! Owns: its bounds in size and time, and inflating it. Never: reserves what it yields; its reader does. Invariant: what it yields is never longer than
//! allowed, and every wait for more of it ends.

use super::budget::Reservation;
use super::inflate::{self, Coding, Inflater, Step};
use super::share::Share;
use super::{Allowance, content_length};
use crate::http::error::{ApiError, ApiResult};
use actix_web::{HttpRequest, web};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Added to the deadline of bodies that have none.
const ENDLESS_S: u64 = 365 * 24 * 3600;

pub(super) enum Gathered {
    Whole(Bytes),
    /// More than was asked for.
    Begun(Bytes),
}

/// A body as it arrives: inflated, bounded in size and time.
pub struct Incoming<'a> {
    payload: &'a mut web::Payload,
    pub(super) limit: usize,
    idle: Duration,
    pub(super) deadline: Instant,
    pub(super) last_arrival: Instant,
    /// Length of a plain body, if it was said.
    pub(super) announced: Option<usize>,
    pub(super) seen: usize,
    inflater: Option<Inflater>,
    inline_max_bytes: usize,
    /// What inflating it holds besides what it yields.
    pub(super) window_bytes: usize,
    /// The same, reserved, where its reader does not reserve it.
    _window: Option<Reservation>,
}

impl<'a> Incoming<'a> {
    /// Reads nothing yet.
    pub(super) fn open(
        req: &HttpRequest,
        payload: &'a mut web::Payload,
        allowance: Allowance<'_>,
    ) -> ApiResult<Incoming<'a>> {
        let Allowance { limit, settings, .. } = allowance;
        let announced = content_length(req);
        if announced.is_some_and(|length| length > limit as u64) {
            return Err(ApiError::too_large(limit));
        }
        let coding = inflate::coding(req)?;
        let window_bytes = match coding {
            Some(Coding::Zstd) => inflate::WINDOW_BYTES,
            _ => 0,
        };
        let inflater = coding.map(Inflater::new).transpose();
        Ok(Incoming {
            payload,
            limit,
            idle: Duration::from_secs(settings.body_idle_timeout_s),
            deadline: Instant::now() + Duration::from_secs(settings.body_total_timeout_s),
            last_arrival: Instant::now(),
            announced: announced.filter(|_| coding.is_none()).map(|length| length as usize),
            seen: 0,
            inflater: inflater.map_err(|error| not_inflated(&error))?,
            inline_max_bytes: settings.parse_inline_max_bytes,
            window_bytes,
            _window: None,
        })
    }

    /// A stream of lines, which may take however long.
    pub fn endless(
        req: &HttpRequest,
        payload: &'a mut web::Payload,
        allowance: Allowance<'_>,
    ) -> ApiResult<Incoming<'a>> {
        let mut incoming = Incoming::open(req, payload, allowance)?;
        incoming.deadline += Duration::from_secs(ENDLESS_S);
        incoming._window = Some(allowance.budget.reserve(incoming.window_bytes)?);
        Ok(incoming)
    }

    /// The next piece, inflated, or none at the end.
    pub async fn next(&mut self) -> ApiResult<Option<Bytes>> {
        let piece = if self.inflater.is_none() {
            self.arrived().await?
        } else {
            self.inflated().await?
        };
        self.seen += piece.as_ref().map_or(0, Bytes::len);
        if self.seen > self.limit {
            return Err(ApiError::too_large(self.limit));
        }
        Ok(piece)
    }

    /// The next piece as it comes over the wire.
    async fn arrived(&mut self) -> ApiResult<Option<Bytes>> {
        let until = self.deadline.min(Instant::now() + self.idle);
        match timeout_at(until, self.payload.next()).await {
            Err(_) => Err(ApiError::body_timeout()),
            Ok(None) => Ok(None),
            Ok(Some(Ok(chunk))) => {
                self.last_arrival = Instant::now();
                Ok(Some(chunk))
            }
            // What the server's library says of it is for those who know the library.
            Ok(Some(Err(error))) => {
                tracing::debug!(%error, "a body could not be read");
                Err(ApiError::malformed(
                    "the body ends early, or is not framed as HTTP asks for",
                ))
            }
        }
    }

    async fn inflated(&mut self) -> ApiResult<Option<Bytes>> {
        loop {
            let Some(mut inflater) = self.inflater.take() else {
                return Ok(None);
            };
            // A short body is inflated here; of a long one nobody else on this thread should notice.
            let (inflater, step) = if self.seen < self.inline_max_bytes {
                let step = inflater.step();
                (inflater, step)
            } else {
                let stepped = web::block(move || {
                    let step = inflater.step();
                    (inflater, step)
                });
                stepped.await.map_err(|_| ApiError::busy("inflating"))?
            };
            self.inflater = Some(inflater);
            match step.map_err(|error| not_inflated(&error))? {
                Step::Piece(piece) => return Ok(Some(piece)),
                Step::End => return Ok(None),
                Step::Hungry => {
                    let piece = self.arrived().await?;
                    if let Some(inflater) = &mut self.inflater {
                        inflater.feed(piece);
                    }
                }
            }
        }
    }

    /// The whole body, or its beginning once that is longer than `most`.
    pub(super) async fn gather(&mut self, share: &mut Share, most: usize) -> ApiResult<Gathered> {
        let Some(first) = self.next().await? else {
            return Ok(Gathered::Whole(Bytes::new()));
        };
        // Most requests come in one piece: no copy.
        if self.announced == Some(first.len()) {
            return Ok(Gathered::Whole(first));
        }
        let mut whole = BytesMut::with_capacity(self.announced.unwrap_or(0).max(first.len()));
        whole.extend_from_slice(&first);
        while whole.len() <= most {
            share.make_room(self.seen).await?;
            match self.next().await? {
                Some(piece) => whole.extend_from_slice(&piece),
                None => return Ok(Gathered::Whole(whole.freeze())),
            }
        }
        Ok(Gathered::Begun(whole.freeze()))
    }
}

fn not_inflated(error: &std::io::Error) -> ApiError {
    ApiError::malformed(format!("the body could not be inflated: {error}"))
}
