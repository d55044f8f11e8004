//! Carrying one request to another node, and its answer back.
//!
//! Owns: which headers travel, how the body is carried, how long an answer is waited for. Never: looks into a body, but for the code of a
//! refusal. Invariant: a small body is held, within the node's budget, until the answer is known; a large one passes through in pieces
//! and cannot be sent again.

use super::target;
use crate::coordinator::Neighbour;
use crate::http::auth::Caller;
use crate::http::body::budget::Reservation;
use crate::http::envelope::{REQUEST_ID, request_id};
use crate::http::error::{ApiError, ApiResult, PROBLEM_JSON};
use crate::http::hop::HOP;
use crate::http::state::AppState;
use crate::http::wire::Problem;
use actix_web::body::SizedStream;
use actix_web::dev::{Payload, ServiceRequest};
use actix_web::http::header::{self, HeaderMap, HeaderName};
use actix_web::http::{Method, StatusCode};
use actix_web::{FromRequest, HttpMessage, HttpResponse, web};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use std::io;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// Headers that belong to one connection, or that the node makes itself.
const NOT_CARRIED: [HeaderName; 14] = [
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
    patience: Duration,
    /// Carried out twice it would do twice: tasks handed out, or appended without keys.
    is_double_harm: bool,
}

enum Carried {
    Held(Bytes),
    /// Read by a task of its own, since a connection's body cannot leave its thread.
    Passing(Option<(mpsc::Receiver<io::Result<Bytes>>, oneshot::Receiver<()>)>),
}

/// What became of it.
pub enum Sent {
    Answered(HttpResponse),
    /// It was not carried out: the node refused it as not its own, or was not there.
    NotTaken {
        reached: bool,
    },
    /// Nobody knows.
    Lost,
}

impl Outgoing {
    /// Takes the request apart.
    pub async fn take(
        state: &AppState,
        caller: &Caller,
        req: &mut ServiceRequest,
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
        let mut room = None;
        let body = if !has_body {
            Carried::Held(Bytes::new())
        } else {
            let mut inner = req.take_payload();
            let mut payload = web::Payload::from_request(req.request(), &mut inner)
                .await
                .map_err(|error| ApiError::malformed(error.to_string()))?;
            match length.filter(|length| *length <= state.settings().small_body_max_bytes) {
                Some(length) => {
                    room = Some(state.budget().reserve(length)?);
                    Carried::Held(hold(&mut payload, length, state.settings().body_idle_timeout_s).await?)
                }
                None => Carried::Passing(Some(pass(payload, state.settings().body_idle_timeout_s, patience))),
            }
        };
        Ok(Outgoing {
            method: req.method().clone(),
            is_double_harm: req.method() == Method::POST && does_more_when_repeated(req.path()),
            target,
            headers,
            caller: caller.token_id().to_owned(),
            body,
            _room: room,
            patience,
        })
    }

    /// Can it be sent once more?
    pub fn is_repeatable(&self) -> bool {
        matches!(self.body, Carried::Held(_))
    }

    /// Gives the body back, for a handler of this node.
    pub fn put_back(self, req: &mut ServiceRequest) {
        if let Carried::Held(bytes) = self.body
            && !bytes.is_empty()
        {
            req.set_payload(Payload::from(bytes));
        }
    }

    /// Sends it to a node and answers what came of it.
    pub async fn send(&mut self, state: &AppState, to: &Neighbour) -> Sent {
        let neighbours = state.neighbours();
        let Some(request) = neighbours.request(to, self.method.as_str(), &self.target, &self.caller, state.now())
        else {
            return Sent::NotTaken { reached: false };
        };
        let mut request = request.headers(self.headers.clone());
        let mut passed = None;
        match &mut self.body {
            Carried::Held(bytes) if bytes.is_empty() => {}
            Carried::Held(bytes) => request = request.body(bytes.clone()),
            Carried::Passing(parts) => {
                let Some((pieces, end)) = parts.take() else {
                    return Sent::Lost;
                };
                passed = Some(end);
                let pieces = stream::unfold(pieces, |mut pieces| async move { Some((pieces.recv().await?, pieces)) });
                request = request.body(reqwest::Body::wrap_stream(pieces));
            }
        }
        let patience = self.patience;
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
            Ok(answer) => came_back(answer, patience).await,
            Err(error) if error.is_connect() => Sent::NotTaken { reached: false },
            // The connection broke, as one that lay ready does when its node has restarted.
            Err(_) if self.is_repeatable() && !self.is_double_harm => Sent::NotTaken { reached: false },
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
async fn next_piece(payload: &mut web::Payload, idle_s: u64) -> ApiResult<Option<Bytes>> {
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
    mut payload: web::Payload,
    idle_s: u64,
    patience: Duration,
) -> (mpsc::Receiver<io::Result<Bytes>>, oneshot::Receiver<()>) {
    let (pieces, taken) = mpsc::channel(2);
    let (ended, end) = oneshot::channel();
    actix_web::rt::spawn(async move {
        loop {
            let piece = match next_piece(&mut payload, idle_s).await {
                Ok(Some(piece)) => Ok(piece),
                Ok(None) => break,
                // The other node must not take a part for the whole.
                Err(error) => Err(io::Error::other(error)),
            };
            let is_last = piece.is_err();
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

/// The answer as it came, unless it says that the request was not taken.
async fn came_back(answer: reqwest::Response, patience: Duration) -> Sent {
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
    let is_problem = answer
        .headers()
        .get(reqwest::header::CONTENT_TYPE)
        .is_some_and(|media| media.as_bytes() == PROBLEM_JSON.as_bytes());
    if status == StatusCode::SERVICE_UNAVAILABLE && is_problem {
        let Ok(Ok(body)) = timeout(patience, answer.bytes()).await else {
            return Sent::Lost;
        };
        let refused = serde_json::from_slice::<Problem>(&body).is_ok_and(|problem| problem.code == "not_owner");
        let response = response.body(body);
        return match refused {
            true => Sent::NotTaken { reached: true },
            false => Sent::Answered(response),
        };
    }
    let length = answer.content_length();
    let body = answer.bytes_stream();
    Sent::Answered(match length {
        Some(length) => response.body(SizedStream::new(length, body)),
        None => response.streaming(body.boxed()),
    })
}
