//! What surrounds every request: its id, its span, its metrics.
//!
//! Owns: `X-Request-Id` and the request metrics. Never: looks into a body. Invariant: every answer carries the id its log lines carry.

use super::state::AppState;
use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{Extensions, ServiceRequest, ServiceResponse};
use actix_web::http::ConnectionType;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, web};
use std::time::Instant;
use tracing::Span;
use tracing_actix_web::{RequestId, RootSpanBuilder};

/// Name of the header that carries a request's id.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const MAX_REQUEST_ID_BYTES: usize = 128;

/// The pattern of the matched route, for metrics: bounded, unlike paths.
#[derive(Debug, Clone, Copy)]
pub struct RoutePattern(pub &'static str);

/// The id a request goes by.
#[derive(Debug, Clone)]
struct CorrelationId(HeaderValue);

/// Makes the span of a request.
pub struct RequestSpan;

impl RootSpanBuilder for RequestSpan {
    fn on_request_start(request: &ServiceRequest) -> Span {
        let id = given_id(request).unwrap_or_else(|| {
            let made = request.extensions().get::<RequestId>().map(ToString::to_string);
            HeaderValue::from_str(&made.unwrap_or_default()).expect("an id is printable")
        });
        request.extensions_mut().insert(CorrelationId(id.clone()));
        // The path only: a query may hold what does not belong in logs.
        tracing::info_span!(
            "request",
            request_id = id.to_str().unwrap_or(""),
            method = %request.method(),
            path = request.path(),
            status = tracing::field::Empty,
        )
    }

    fn on_request_end<B: MessageBody>(span: Span, outcome: &Result<ServiceResponse<B>, Error>) {
        let status = match outcome {
            Ok(response) => response.status(),
            Err(error) => error.as_response_error().status_code(),
        };
        span.record("status", status.as_u16());
        tracing::debug!(parent: &span, "answered");
    }
}

/// The id of the request with these extensions.
pub fn request_id(extensions: &Extensions) -> Option<HeaderValue> {
    extensions.get::<CorrelationId>().map(|CorrelationId(id)| id.clone())
}

/// The client's own id, if it is short and printable.
fn given_id(request: &ServiceRequest) -> Option<HeaderValue> {
    let value = request.headers().get(&REQUEST_ID)?;
    let bytes = value.as_bytes();
    let good = !bytes.is_empty() && bytes.len() <= MAX_REQUEST_ID_BYTES && bytes.iter().all(u8::is_ascii_graphic);
    good.then(|| value.clone())
}

/// Adds the id to the answer and counts the request.
pub async fn surround<B: MessageBody + 'static>(
    req: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let started = Instant::now();
    let method = method_label(req.method().as_str());
    let id = req.extensions().get::<CorrelationId>().cloned();
    let mut response = next.call(req).await?.map_into_boxed_body();
    let state = response.request().app_data::<web::Data<AppState>>();
    if state.is_some_and(|state| state.coordinator().is_draining()) {
        // The next request on this connection might meet a socket that is being closed.
        response
            .response_mut()
            .head_mut()
            .set_connection_type(ConnectionType::Close);
    }
    if let Some(CorrelationId(id)) = id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    let route = response
        .request()
        .extensions()
        .get::<RoutePattern>()
        .map_or("unmatched", |route| route.0);
    let status = response.status().as_str().to_owned();
    metrics::counter!("tallykeeper_http_requests_total", "method" => method, "route" => route, "status" => status)
        .increment(1);
    metrics::histogram!("tallykeeper_http_request_duration_seconds", "method" => method, "route" => route)
        .record(started.elapsed().as_secs_f64());
    Ok(response)
}

/// Methods are the client's to invent; labels are not.
fn method_label(method: &str) -> &'static str {
    ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]
        .into_iter()
        .find(|known| *known == method)
        .unwrap_or("other")
}
