//! Server-sent events.
//!
//! Owns: their form. Never: reads anything from the client. Invariant: each message is one event without a name, so that a browser hands
//! all of them to `onmessage`.

use super::outlet::Body;
use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse};
use bytes::{BufMut, Bytes, BytesMut};

/// The id of the message after which nothing comes.
pub(super) const LAST_ID: &str = "final";
pub(super) const LAST_EVENT_ID: &str = "Last-Event-ID";
/// Milliseconds after which a browser comes back.
const COME_BACK: &[u8] = b"retry: 1000\n";

pub(super) fn answer(body: Body) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        // Proxies that gather an answer before they pass it on would hold events back.
        .insert_header(("X-Accel-Buffering", "no"))
        .body(body)
}

/// Does a browser come back that was told the end?
pub(super) fn has_seen_the_end(req: &HttpRequest) -> bool {
    req.headers()
        .get(LAST_EVENT_ID)
        .is_some_and(|id| id.as_bytes() == LAST_ID.as_bytes())
}

pub(super) fn write(frame: &mut BytesMut, json: &[u8], is_last: bool) {
    frame.put_slice(COME_BACK);
    if is_last {
        frame.put_slice(b"id: ");
        frame.put_slice(LAST_ID.as_bytes());
        frame.put_slice(b"\n");
    }
    frame.put_slice(b"data: ");
    frame.put_slice(json);
    frame.put_slice(b"\n\n");
}

/// What keeps the connection open where nothing happens.
pub(super) fn comment() -> Bytes {
    Bytes::from_static(b":\n\n")
}
