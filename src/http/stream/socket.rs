//! WebSocket frames, in both directions.
//!
//! Owns: the handshake and the frames. Never: acts on what a client says beyond the protocol's own frames. Invariant: no more than one
//! small frame of a client is ever held.

use super::outlet::{Body, End};
use crate::http::error::{ApiError, ApiResult};
use actix_http::ws::{
    CloseCode, CloseReason, HandshakeError, OpCode, Parser, ProtocolError, handshake, verify_handshake,
};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;

/// Clients have nothing to say, so their frames are small.
const FRAME_MAX_BYTES: usize = 4 << 10;
const HEADER_MAX_BYTES: usize = 14;

/// Refuses a request that is no proper handshake.
pub(super) fn check(req: &HttpRequest) -> ApiResult<()> {
    verify_handshake(req.head()).map_err(|error| match error {
        HandshakeError::NoVersionHeader | HandshakeError::UnsupportedVersion => ApiError::unknown_websocket(),
        other => ApiError::malformed(format!("no WebSocket handshake: {other}")),
    })
}

/// Switches protocols.
pub(super) fn accept(req: &HttpRequest, body: Body) -> ApiResult<HttpResponse> {
    let refused = |error: &dyn std::fmt::Display| ApiError::malformed(format!("no WebSocket handshake: {error}"));
    let mut response = handshake(req.head()).map_err(|error| refused(&error))?;
    let response = response.message_body(body).map_err(|error| refused(&error))?;
    Ok(HttpResponse::from(response).map_into_boxed_body())
}

pub(super) fn write(frame: &mut BytesMut, json: &[u8]) {
    Parser::write_message(frame, json, OpCode::Text, true, false);
}

/// Asks the reader to confirm that it has read up to here.
pub(super) fn ping(position: u64) -> Bytes {
    control(OpCode::Ping, &position.to_be_bytes())
}

fn control(code: OpCode, payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    Parser::write_message(&mut frame, payload, code, true, false);
    frame.freeze()
}

/// The closing frame; none where there is nobody to read it.
pub(super) fn close(end: End) -> Option<Bytes> {
    let (code, why) = match end {
        End::Final | End::Closed => (CloseCode::Normal, ""),
        End::Moved => (CloseCode::Restart, "come back"),
        End::Refused => (CloseCode::Policy, "the token is not in force any more"),
        End::TooSlow => (CloseCode::Policy, "the reader does not keep up"),
        End::Broken => (CloseCode::Protocol, "not a frame of this protocol"),
        End::TooBig => (CloseCode::Size, "the frame is too large"),
        End::Lost => return None,
    };
    let mut frame = BytesMut::new();
    let description = (!why.is_empty()).then(|| why.to_owned());
    Parser::write_close(&mut frame, Some(CloseReason { code, description }), false);
    Some(frame.freeze())
}

/// What a client says.
pub(super) enum Heard {
    /// It has read up to here.
    Confirmation(u64),
    /// It wants this frame in return.
    Question(Bytes),
    Nothing,
    End(End),
}

/// The frames that a client sends.
pub(super) struct Inbox {
    payload: web::Payload,
    unread: BytesMut,
}

impl Inbox {
    pub(super) fn new(payload: web::Payload) -> Inbox {
        Inbox {
            payload,
            unread: BytesMut::new(),
        }
    }

    /// The next frame. Loses nothing if it is dropped while waiting.
    pub(super) async fn next(&mut self) -> Heard {
        loop {
            match Parser::parse(&mut self.unread, true, FRAME_MAX_BYTES) {
                Ok(Some((_, code, payload))) => return heard(code, &payload.unwrap_or_default()),
                // The parser waits for a whole frame before it judges its size.
                Ok(None) if self.unread.len() > FRAME_MAX_BYTES + HEADER_MAX_BYTES => return Heard::End(End::TooBig),
                Ok(None) => {}
                Err(ProtocolError::Overflow) => return Heard::End(End::TooBig),
                Err(_) => return Heard::End(End::Broken),
            }
            match self.payload.next().await {
                Some(Ok(bytes)) => self.unread.extend_from_slice(&bytes),
                Some(Err(_)) | None => return Heard::End(End::Lost),
            }
        }
    }
}

fn heard(code: OpCode, payload: &[u8]) -> Heard {
    match code {
        OpCode::Ping => Heard::Question(control(OpCode::Pong, payload)),
        OpCode::Pong => payload.try_into().map_or(Heard::Nothing, |position| {
            Heard::Confirmation(u64::from_be_bytes(position))
        }),
        OpCode::Close => Heard::End(End::Closed),
        OpCode::Text | OpCode::Binary | OpCode::Continue => Heard::Nothing,
        OpCode::Bad => Heard::End(End::Broken),
    }
}
