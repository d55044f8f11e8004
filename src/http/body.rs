//! Request bodies: how much of them a node holds, how long it waits for them, how they are parsed.
//!
//! Owns: size, time and memory bounds of every body, compressed or not, and the content-type rule. Never: interprets a member. Invariant: no byte is read
//! before it is reserved from the node's budget.

pub mod budget;
pub mod incoming;
pub mod inflate;
pub mod items;
pub mod ndjson;
mod objects;
pub mod parse;
mod share;

use super::error::{ApiError, ApiResult};
use super::settings::HttpSettings;
use actix_web::http::header;
use actix_web::{HttpRequest, web};
use budget::{BodyBudget, Reservation};
use bytes::Bytes;
use incoming::{Gathered, Incoming};
use share::Share;
use std::time::Duration;
use tokio::time::Instant;

/// A whole body, and its share of the budget for as long as what came of it is held.
pub struct Body {
    pub bytes: Bytes,
    /// What is left of the time for which its reader would wait for room.
    pub patience: Duration,
    _reservation: Reservation,
}

impl Body {
    fn whole(bytes: Bytes, mut share: Share) -> Body {
        share.settle(bytes.len());
        Body {
            bytes,
            patience: share.patience(),
            _reservation: share.into_reservation(),
        }
    }
}

/// What a body says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    Json,
    Ndjson,
}

/// The request's media type, if it is one this server reads.
pub fn media(req: &HttpRequest) -> Option<Media> {
    let value = req.headers().get(header::CONTENT_TYPE)?.to_str().ok()?;
    let essence = value.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        Some(Media::Json)
    } else if essence.eq_ignore_ascii_case("application/x-ndjson") {
        Some(Media::Ndjson)
    } else {
        None
    }
}

/// Refuses a body that is not JSON.
pub fn require_json(req: &HttpRequest) -> ApiResult<()> {
    match media(req) {
        Some(Media::Json) => Ok(()),
        _ => Err(ApiError::unsupported_media_type("application/json")),
    }
}

/// Does the request announce a body?
pub fn has_body(req: &HttpRequest) -> bool {
    req.headers().contains_key(header::TRANSFER_ENCODING) || content_length(req).is_some_and(|length| length > 0)
}

fn content_length(req: &HttpRequest) -> Option<u64> {
    req.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// What one body may take of the node.
#[derive(Clone, Copy)]
pub struct Allowance<'a> {
    /// Bytes, inflated.
    pub limit: usize,
    pub budget: &'a BodyBudget,
    pub settings: &'a HttpSettings,
}

/// The most that one body takes of the budget.
pub fn largest_share(settings: &HttpSettings) -> usize {
    let largest = settings
        .body_max_bytes
        .max(settings.append_chunk_bytes + 2 * settings.line_max_bytes);
    largest + inflate::WINDOW_BYTES
}

/// Reads a whole body, inflated. Waits no longer than `patience` for room in the budget.
///
/// Errors: 413 past the limit, 415 in a coding that is not understood, 503 without budget, 408 when it comes too slowly, 400 when it ends
/// early or cannot be inflated.
pub async fn read(
    req: &HttpRequest,
    payload: &mut web::Payload,
    allowance: Allowance<'_>,
    patience: Duration,
) -> ApiResult<Body> {
    let mut incoming = Incoming::open(req, payload, allowance)?;
    let mut share = Share::take(allowance, incoming.announced, incoming.window_bytes, patience).await?;
    match incoming.gather(&mut share, usize::MAX).await? {
        Gathered::Whole(bytes) => Ok(Body::whole(bytes, share)),
        Gathered::Begun(_) => unreachable!("no body is so long"),
    }
}

/// A body that is short, or the beginning of one that is not.
pub enum Arrival<'a> {
    Whole(Body),
    Long(Box<Stream<'a>>),
}

/// Reads a body: whole, if it is short, else piece by piece as its reader asks for them. Waits no longer than `patience` for room in the
/// budget, all in all. Errors as [`read`].
pub async fn begin<'a>(
    req: &HttpRequest,
    payload: &'a mut web::Payload,
    allowance: Allowance<'_>,
    patience: Duration,
) -> ApiResult<Arrival<'a>> {
    let short = allowance.settings.stream_body_min_bytes.min(allowance.limit);
    let mut incoming = Incoming::open(req, payload, allowance)?;
    let mut share = Share::take(allowance, incoming.announced, incoming.window_bytes, patience).await?;
    let first = match incoming.announced {
        Some(length) if length > short => Bytes::new(),
        _ => match incoming.gather(&mut share, short).await? {
            Gathered::Whole(bytes) => return Ok(Arrival::Whole(Body::whole(bytes, share))),
            Gathered::Begun(begun) => begun,
        },
    };
    Ok(Arrival::Long(Box::new(Stream { first, incoming, share })))
}

/// A long body, piece by piece. It has room for what has come, until parts of it are given back.
pub struct Stream<'a> {
    first: Bytes,
    incoming: Incoming<'a>,
    share: Share,
}

impl Stream<'_> {
    /// The next piece, or none at the end.
    pub async fn next(&mut self) -> ApiResult<Option<Bytes>> {
        if !self.first.is_empty() {
            return Ok(Some(std::mem::take(&mut self.first)));
        }
        let seen = self.incoming.seen;
        self.share.make_room(seen).await?;
        let piece = self.incoming.next().await?;
        if piece.is_none() {
            self.share.settle(seen);
        }
        Ok(piece)
    }

    /// So many bytes of what came are no longer held.
    pub fn give_back(&mut self, bytes: usize) {
        self.share.give_back(bytes);
    }

    /// What is left of the time for which its reader waits for room.
    pub fn patience(&self) -> Duration {
        self.share.patience()
    }

    /// How long the body can be at most.
    pub fn max_bytes(&self) -> usize {
        self.incoming.announced.unwrap_or(self.incoming.limit)
    }

    /// When the last of what has come came.
    pub fn last_arrival(&self) -> Instant {
        self.incoming.last_arrival
    }

    /// When the body must have come.
    pub fn deadline(&self) -> Instant {
        self.incoming.deadline
    }

    /// Its share of the budget, to be kept for as long as what came of it is held.
    pub fn into_reservation(self) -> Reservation {
        self.share.into_reservation()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::FromRequest;
    use actix_web::dev::Payload;
    use actix_web::error::PayloadError;
    use actix_web::test::TestRequest;
    use std::sync::LazyLock;

    async fn read_all(body: &'static [u8], announce: Option<usize>, limit: usize) -> ApiResult<Body> {
        let budget = BodyBudget::new(1 << 20, 1 << 20);
        let mut request = TestRequest::post().set_payload(body).to_srv_request();
        request.headers_mut().remove(header::CONTENT_LENGTH);
        if let Some(length) = announce {
            request.headers_mut().insert(header::CONTENT_LENGTH, length.into());
        }
        let (req, mut inner) = request.into_parts();
        let mut payload = web::Payload::from_request(&req, &mut inner).await.unwrap();
        read(&req, &mut payload, allowance(limit, &budget), Duration::ZERO).await
    }

    fn allowance(limit: usize, budget: &BodyBudget) -> Allowance<'_> {
        static SETTINGS: LazyLock<HttpSettings> = LazyLock::new(HttpSettings::default);
        Allowance {
            limit,
            budget,
            settings: &SETTINGS,
        }
    }

    #[actix_web::test]
    async fn sizes_are_checked_before_and_while_reading() {
        assert_eq!(read_all(b"12345", Some(5), 5).await.unwrap().bytes, "12345");
        assert_eq!(read_all(b"12345", None, 5).await.unwrap().bytes, "12345");
        assert_eq!(read_all(b"", None, 5).await.unwrap().bytes, "");
        for announce in [Some(6), None] {
            let error = read_all(b"123456", announce, 5).await.err().unwrap();
            assert_eq!((error.problem().status, &error.problem().limit), (413, &Some(5.into())));
        }
    }

    #[actix_web::test]
    async fn a_body_that_is_cut_off_is_refused_without_the_words_of_a_library() {
        let cut = [Ok(Bytes::from_static(b"{\"nam")), Err(PayloadError::Incomplete(None))];
        let mut inner: Payload = Payload::Stream {
            payload: Box::pin(futures_util::stream::iter(cut)),
        };
        let req = TestRequest::post().to_http_request();
        let mut payload = web::Payload::from_request(&req, &mut inner).await.unwrap();
        let budget = BodyBudget::new(1 << 20, 1 << 20);
        let error = read(&req, &mut payload, allowance(100, &budget), Duration::ZERO).await;
        let problem = error.err().unwrap().problem().clone();
        assert_eq!(problem.status, 400);
        assert_eq!(problem.detail, "the body ends early, or is not framed as HTTP asks for");
    }

    #[actix_web::test]
    async fn a_body_of_unknown_length_that_may_not_grow_reserves_the_maximum() {
        let error = read_all(b"1", None, 2 << 20).await.err().unwrap();
        assert_eq!(error.problem().code, "busy");
        assert!(read_all(b"1", Some(1), 2 << 20).await.is_ok());
    }

    #[actix_web::test]
    async fn a_compressed_body_obeys_the_limits_as_what_it_inflates_to() {
        let body = inflate::tests::gzip(b"{\"a\":1}");
        let read = |limit: usize, coding: &'static str| {
            let body = body.clone();
            async move {
                let request = TestRequest::post().insert_header((header::CONTENT_ENCODING, coding));
                let (req, mut inner) = request.set_payload(body).to_srv_request().into_parts();
                let mut payload = web::Payload::from_request(&req, &mut inner).await.unwrap();
                let budget = BodyBudget::new(1 << 20, 1 << 20);
                super::read(&req, &mut payload, allowance(limit, &budget), Duration::ZERO).await
            }
        };
        assert_eq!(read(100, "gzip").await.unwrap().bytes, "{\"a\":1}");
        assert_eq!(read(6, "gzip").await.err().unwrap().problem().status, 413);
        for other in ["br", "deflate", "gzip, gzip", "zstd, gzip"] {
            let error = read(100, other).await.err().unwrap();
            assert_eq!(error.problem().status, 415, "{other}");
            assert_eq!(error.problem().field.as_deref(), Some("content-encoding"));
        }
    }

    #[test]
    fn content_types_are_compared_without_parameters_and_case() {
        let of = |text: &str| {
            media(
                &TestRequest::post()
                    .insert_header((header::CONTENT_TYPE, text))
                    .to_http_request(),
            )
        };
        assert_eq!(of("application/json"), Some(Media::Json));
        assert_eq!(of("Application/JSON; charset=utf-8"), Some(Media::Json));
        assert_eq!(of("application/x-ndjson"), Some(Media::Ndjson));
        for other in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/jsonx",
            "",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
        assert_eq!(media(&TestRequest::post().to_http_request()), None);
    }
}
