//! Request bodies: how much of them a node holds, how long it waits for them, how they are parsed.
//!
//! Owns: size, time and memory bounds of every body, and the content-type rule. Never: interprets a member. Invariant: no byte is read
//! before it is reserved from the node's budget.

pub mod budget;
pub mod ndjson;
pub mod parse;

use super::error::{ApiError, ApiResult};
use super::settings::HttpSettings;
use actix_web::http::header;
use actix_web::{HttpRequest, web};
use budget::{BodyBudget, Reservation};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

/// A whole body, and its share of the budget for as long as what came of it is held.
pub struct Body {
    pub bytes: Bytes,
    _reservation: Reservation,
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

/// Reads a whole body of at most `limit` bytes.
///
/// Errors: 413 past the limit, 503 without budget, 408 when it comes too slowly, 400 when it ends early.
pub async fn read(
    req: &HttpRequest,
    payload: &mut web::Payload,
    limit: usize,
    budget: &BodyBudget,
    settings: &HttpSettings,
) -> ApiResult<Body> {
    let announced = content_length(req);
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(ApiError::too_large(limit));
    }
    // HTTP/2 bodies need not announce a length, so an unknown one may be as long as allowed.
    let expected = announced.map_or(limit, |length| length as usize);
    let reservation = budget.reserve(expected)?;
    let deadline = Instant::now() + Duration::from_secs(settings.body_total_timeout_s);
    let collect = collect(
        payload,
        limit,
        announced.map_or(0, |_| expected),
        settings.body_idle_timeout_s,
    );
    let bytes = timeout_at(deadline, collect)
        .await
        .map_err(|_| ApiError::body_timeout())??;
    Ok(Body {
        bytes,
        _reservation: reservation,
    })
}

async fn collect(payload: &mut web::Payload, limit: usize, expected: usize, idle_s: u64) -> ApiResult<Bytes> {
    let Some(first) = next_chunk(payload, idle_s).await? else {
        return Ok(Bytes::new());
    };
    if first.len() > limit {
        return Err(ApiError::too_large(limit));
    }
    // Most requests come in one piece: no copy.
    if first.len() == expected {
        return Ok(first);
    }
    let mut whole = BytesMut::with_capacity(expected.max(first.len()));
    whole.extend_from_slice(&first);
    while let Some(chunk) = next_chunk(payload, idle_s).await? {
        if whole.len() + chunk.len() > limit {
            return Err(ApiError::too_large(limit));
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.freeze())
}

/// The next piece of a body, or none at its end; waits at most `idle_s` seconds for it.
pub async fn next_chunk(payload: &mut web::Payload, idle_s: u64) -> ApiResult<Option<Bytes>> {
    match timeout(Duration::from_secs(idle_s), payload.next()).await {
        Err(_) => Err(ApiError::body_timeout()),
        Ok(None) => Ok(None),
        Ok(Some(Ok(chunk))) => Ok(Some(chunk)),
        Ok(Some(Err(error))) => Err(ApiError::malformed(format!("the body could not be read: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::FromRequest;
    use actix_web::test::TestRequest;

    async fn read_all(body: &'static [u8], announce: Option<usize>, limit: usize) -> ApiResult<Body> {
        let budget = BodyBudget::new(1 << 20);
        let mut request = TestRequest::post().set_payload(body).to_srv_request();
        request.headers_mut().remove(header::CONTENT_LENGTH);
        if let Some(length) = announce {
            request.headers_mut().insert(header::CONTENT_LENGTH, length.into());
        }
        let (req, mut inner) = request.into_parts();
        let mut payload = web::Payload::from_request(&req, &mut inner).await.unwrap();
        read(&req, &mut payload, limit, &budget, &HttpSettings::default()).await
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
    async fn a_body_of_unknown_length_reserves_the_maximum() {
        let error = read_all(b"1", None, 2 << 20).await.err().unwrap();
        assert_eq!(error.problem().code, "busy");
        assert!(read_all(b"1", Some(1), 2 << 20).await.is_ok());
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
