//! Carrying one request to another node, and its answer back.
//!
//! Owns: which headers travel, how the body is carried, how long an answer is waited for. Never: looks into a body, but for the code of a
//! refusal. Invariant: a small body is held, within the node's budget, until the answer is known; a large one passes through in pieces
//! and cannot be sent again.

use super::target;
use crate::coordinator::Neighbour;
use crate::http::antenna;
use crate::http::auth::Caller;
use crate::http::body::budget::Reservation;
use crate::http::envelope::{REQUEST_ID, request_id};
use crate::http::error::{ApiError, ApiResult, PROBLEM_JSON};
use crate::http::hop::{HOP, WAIT};
use crate::http::state::AppState;
use crate::http::wire::Problem;
use actix_web::body::SizedStream;
use actix_web::dev::{Payload, ServiceRequest};
use actix_web::error::PayloadError;
use actix_web::http::header::{self, HeaderMap, HeaderName};
use actix_web::http::{Method, StatusCode};
use actix_web::{FromRequest, HttpMessage, HttpResponse, web};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};
use std::io;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// Headers that belong to one connection, or that the node makes itself.
const NOT_CARRIED: [HeaderName; 15] = [
    header::HOST,
    header::CONNECTION,
    header::PROXY_AUTHORIZATION,
    header::TRANSFER_ENCODING,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    header::EXPECT,
    header::AUTHORIZATION,
    header::COOKIE,
    header::ORIGIN,
    HOP,
    WAIT,
    REQUEST_ID,
    HeaderName::from_static("keep-alive"),
];

/// A request that leaves.
pub struct Outgoing {
    method: Method,
    target: String,
    headers: reqwest::header::HeaderMap,
    caller: String,
    body: Carried,
    /// The share of a held body in the node's budget.
    _room: Option<Reservation>,
    /// How long a held body took to arrive.
    pub arriving: Duration,
    /// Its client understands no problem: whatever is refused is said again in the form of its API.
    is_retold: bool,
    /// Carried out twice it would do twice: tasks handed out, or appended without keys.
    is_double_harm: bool,
}

enum Carried {
    Held(Bytes),
    /// Read by a task of its own, since a connection's body cannot leave its thread.
    Passing(Option<(Pieces, oneshot::Receiver<()>)>),
}

/// Pieces of a body, and none as its end: without that it was broken off.
type Pieces = mpsc::Receiver<io::Result<Option<Bytes>>>;

/// What became of it.
pub enum Sent {
    Answered(HttpResponse),
    /// Refused, and the client is to be told in its own way.
    Refused(ApiError),
    /// It was not carried out: the node said that it is not its own, or that it goes; or it was not there, and said nothing.
    NotTaken(Option<ApiError>),
    /// Nobody knows.
    Lost,
}

impl Sent {
    pub fn not_reached() -> Sent {
        Sent::NotTaken(None)
    }
}

impl Outgoing {
    /// Takes the request apart, waiting until then for room for its body. `patience`: with a node that takes nothing of a long one.
    pub async fn take(
        state: &AppState,
        caller: &Caller,
        req: &mut ServiceRequest,
        until: Instant,
        patience: Duration,
    ) -> ApiResult<Outgoing> {
        let target = target(req.path(), req.query_string());
        let mut headers = carried(req.headers());
        // Whom the client is to its owner: who calls from where is told apart by it.
        if let Some(address) = req.connection_info().realip_remote_addr() {
            insert(&mut headers, "x-forwarded-for", address.as_bytes());
        }
        if let Some(id) = request_id(&req.extensions()) {
            insert(&mut headers, "x-request-id", id.as_bytes());
        }
        let length = req.headers().get(header::CONTENT_LENGTH);
        let length = length.and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        let has_body = length.is_some_and(|length| length > 0) || req.headers().contains_key(header::TRANSFER_ENCODING);
        let settings = state.settings();
        let announced = length.filter(|length| *length <= settings.small_body_max_bytes);
        let room = match announced.filter(|_| has_body) {
            Some(length) => Some(state.budget().reserve_by(length, until.into()).await?),
            None => None,
        };
        let began = Instant::now();
        let body = if !has_body {
            Carried::Held(Bytes::new())
        } else {
            let mut inner = req.take_payload();
            let mut payload = web::Payload::from_request(req.request(), &mut inner)
                .await
                .map_err(|error| ApiError::malformed(error.to_string()))?;
            match announced {
                Some(length) => {
                    let total = Duration::from_secs(settings.body_total_timeout_s);
                    let held = timeout(total, hold(&mut payload, length, settings.body_idle_timeout_s)).await;
                    Carried::Held(held.unwrap_or_else(|_| Err(ApiError::body_timeout()))?)
                }
                None => Carried::Passing(Some(pass(payload, settings.body_idle_timeout_s, patience))),
            }
        };
        Ok(Outgoing {
            arriving: match &body {
                Carried::Held(_) => began.elapsed(),
                Carried::Passing(_) => Duration::ZERO,
            },
            method: req.method().clone(),
            is_retold: antenna::serves(req.path()),
            is_double_harm: req.method() == Method::POST && does_more_when_repeated(req.path()),
            target,
            headers,
            caller: caller.token_id().to_owned(),
            body,
            _room: room,
        })
    }

    /// Can it be sent more than once?
    pub fn is_repeatable(&self) -> bool {
        matches!(self.body, Carried::Held(_))
    }

    /// Can it still be sent?
    pub fn is_left(&self) -> bool {
        !matches!(self.body, Carried::Passing(None))
    }

    /// Gives the body back, for a handler of this node.
    pub fn put_back(self, req: &mut ServiceRequest) {
        match self.body {
            Carried::Held(bytes) if !bytes.is_empty() => req.set_payload(Payload::from(bytes)),
            Carried::Passing(Some((pieces, _))) => {
                let pieces = whole(pieces).map(|piece| piece.map_err(PayloadError::Io));
                req.set_payload(Payload::Stream {
                    payload: Box::pin(pieces),
                });
            }
            Carried::Held(_) | Carried::Passing(None) => {}
        }
    }

    /// Sends it to a node and answers what came of it, within so long after it has left. `left`: what is left of the client's bound, which
    /// the other node keeps to as well.
    pub async fn send(&mut self, state: &AppState, to: &Neighbour, patience: Duration, left: Option<Duration>) -> Sent {
        let neighbours = state.neighbours();
        let Some(request) = neighbours.request(to, self.method.as_str(), &self.target, &self.caller, state.now())
        else {
            return Sent::not_reached();
        };
        let mut request = request.headers(self.headers.clone());
        if let Some(left) = left {
            request = request.header(WAIT.as_str(), left.as_millis().to_string());
        }
        let mut passed = None;
        match &mut self.body {
            Carried::Held(bytes) if bytes.is_empty() => {}
            Carried::Held(bytes) => request = request.body(bytes.clone()),
            Carried::Passing(parts) => {
                let Some((pieces, end)) = parts.take() else {
                    return Sent::Lost;
                };
                passed = Some(end);
                request = request.body(reqwest::Body::wrap_stream(whole(pieces)));
            }
        }
        // Counted from when the whole request has left.
        let too_late = async move {
            if let Some(passed) = passed {
                let _ = passed.await;
            }
            tokio::time::sleep(patience).await;
        };
        let answered = tokio::select! {
            answered = request.send() => answered,
            () = too_late => return Sent::Lost,
        };
        match answered {
            Ok(answer) => came_back(answer, patience, self.is_retold).await,
            Err(error) if error.is_connect() => Sent::not_reached(),
            // The connection broke, as one that lay ready does when its node has restarted.
            Err(_) if self.is_repeatable() && !self.is_double_harm => Sent::not_reached(),
            Err(_) => Sent::Lost,
        }
    }
}

/// Leasing hands out more tasks, and appending adds more, where everything else finds what it did before.
fn does_more_when_repeated(path: &str) -> bool {
    let last = path.trim_end_matches('/').rsplit('/').next();
    matches!(last, Some("leases" | "tasks"))
}

/// The next piece of a body as it came, compressed or not; none at its end.
async fn next_piece(
    payload: &mut (impl Stream<Item = Result<Bytes, PayloadError>> + Unpin),
    idle_s: u64,
) -> ApiResult<Option<Bytes>> {
    match timeout(Duration::from_secs(idle_s), payload.next()).await {
        Err(_) => Err(ApiError::body_timeout()),
        Ok(piece) => piece
            .transpose()
            .map_err(|error| ApiError::malformed(format!("the body could not be read: {error}"))),
    }
}

async fn hold(payload: &mut web::Payload, length: usize, idle_s: u64) -> ApiResult<Bytes> {
    let mut held = BytesMut::with_capacity(length);
    while let Some(chunk) = next_piece(payload, idle_s).await? {
        held.extend_from_slice(&chunk);
        if held.len() > length {
            return Err(ApiError::malformed("the body is longer than announced"));
        }
    }
    Ok(held.freeze())
}

/// Reads the body piece by piece, as fast as the other node takes it.
fn pass(
    mut payload: impl Stream<Item = Result<Bytes, PayloadError>> + Unpin + 'static,
    idle_s: u64,
    patience: Duration,
) -> (Pieces, oneshot::Receiver<()>) {
    let (pieces, taken) = mpsc::channel(2);
    let (ended, end) = oneshot::channel();
    actix_web::rt::spawn(async move {
        loop {
            // The other node must not take a part for the whole.
            let piece = next_piece(&mut payload, idle_s).await.map_err(io::Error::other);
            let is_last = !matches!(piece, Ok(Some(_)));
            let taken = timeout(patience, pieces.send(piece)).await;
            if is_last || !matches!(taken, Ok(Ok(()))) {
                break;
            }
        }
        drop(pieces);
        let _ = ended.send(());
    });
    (taken, end)
}

/// The pieces as a body that ends well only where the client's did: not when the other node took none for too long.
fn whole(pieces: Pieces) -> impl Stream<Item = io::Result<Bytes>> {
    stream::unfold(Some(pieces), |pieces| async move {
        let mut pieces = pieces?;
        match pieces.recv().await {
            Some(Ok(Some(piece))) => Some((Ok(piece), Some(pieces))),
            Some(Ok(None)) => None,
            Some(Err(error)) => Some((Err(error), None)),
            None => Some((Err(io::Error::other("the body was not passed on to its end")), None)),
        }
    })
}

fn carried(from: &HeaderMap) -> reqwest::header::HeaderMap {
    let mut headers = reqwest::header::HeaderMap::with_capacity(from.len());
    for (name, value) in from.iter().filter(|(name, _)| !NOT_CARRIED.contains(name)) {
        let value = reqwest::header::HeaderValue::from_bytes(value.as_bytes());
        if let (Ok(name), Ok(value)) = (reqwest::header::HeaderName::from_bytes(name.as_str().as_bytes()), value) {
            headers.append(name, value);
        }
    }
    headers
}

fn insert(headers: &mut reqwest::header::HeaderMap, name: &'static str, value: &[u8]) {
    if let Ok(value) = reqwest::header::HeaderValue::from_bytes(value) {
        headers.insert(name, value);
    }
}

/// The answer as it came, unless it says that the request was not taken, or is a refusal to be retold.
async fn came_back(answer: reqwest::Response, patience: Duration, is_retold: bool) -> Sent {
    let status = StatusCode::from_u16(answer.status().as_u16()).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut response = HttpResponse::build(status);
    for (name, value) in answer.headers() {
        let name = HeaderName::from_bytes(name.as_str().as_bytes());
        let value = header::HeaderValue::from_bytes(value.as_bytes());
        if let (Ok(name), Ok(value)) = (name, value)
            && !NOT_CARRIED.contains(&name)
            && name != header::CONTENT_LENGTH
        {
            response.append_header((name, value));
        }
    }
    let text = |name| Some(answer.headers().get(name)?.to_str().ok()?.to_owned());
    let is_problem = text(reqwest::header::CONTENT_TYPE).is_some_and(|media| media == PROBLEM_JSON);
    if is_problem && (is_retold || status == StatusCode::SERVICE_UNAVAILABLE) {
        let (retry_after, allow) = (text(reqwest::header::RETRY_AFTER), text(reqwest::header::ALLOW));
        let Ok(Ok(body)) = timeout(patience, answer.bytes()).await else {
            return Sent::Lost;
        };
        let refusal = serde_json::from_slice::<Problem>(&body).map(|problem| {
            ApiError::of_another(problem, status, retry_after.and_then(|text| text.parse().ok()), allow)
        });
        return match refusal {
            Ok(error) if error.is_not_taken() => Sent::NotTaken(Some(error)),
            Ok(error) if is_retold => Sent::Refused(error),
            _ => Sent::Answered(response.body(body)),
        };
    }
    let length = answer.content_length();
    let body = answer.bytes_stream();
    Sent::Answered(match length {
        Some(length) => response.body(SizedStream::new(length, body)),
        None => response.streaming(body.boxed()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    const IDLE_S: u64 = 600;

    /// Pieces that a body passes through in, as the other node gets them.
    async fn passed(body: Vec<Result<Bytes, PayloadError>>) -> Vec<io::Result<Bytes>> {
        let (pieces, end) = pass(stream::iter(body), IDLE_S, Duration::from_secs(600));
        let passed = whole(pieces).collect().await;
        end.await.expect("it says that it has ended");
        passed
    }

    #[actix_web::test]
    async fn a_body_ends_well_only_if_it_was_passed_on_to_its_end() {
        let piece = || Ok(Bytes::from_static(b"a"));
        let good = passed(vec![piece(), piece(), piece(), piece()]).await;
        assert_eq!(good.into_iter().map(Result::unwrap).collect::<Vec<_>>(), ["a"; 4]);
        let broken = passed(vec![piece(), Err(PayloadError::Overflow)]).await;
        assert_eq!(broken.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false]);
        // Given up because nobody takes any of it, and taken afterwards.
        for length in [2, 8] {
            let body = stream::iter((0..length).map(|_| piece()).collect::<Vec<_>>());
            let (pieces, end) = pass(body, IDLE_S, Duration::from_millis(1));
            end.await.expect("it says that it has ended");
            let taken: Vec<_> = whole(pieces).collect().await;
            assert_eq!(taken.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, true, false]);
        }
    }

    #[actix_web::test]
    async fn a_held_body_is_as_long_as_announced_at_most() {
        let payload = async |body: &'static str| {
            let (req, mut inner) = TestRequest::post().set_payload(body).to_srv_request().into_parts();
            web::Payload::from_request(&req, &mut inner).await.unwrap()
        };
        assert_eq!(hold(&mut payload("abc").await, 3, IDLE_S).await.unwrap(), "abc");
        assert!(hold(&mut payload("abcd").await, 3, IDLE_S).await.is_err());
    }
}
