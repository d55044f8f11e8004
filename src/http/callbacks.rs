//! Callbacks: the calls themselves, and what a client may see and ask of them.
//!
//! Owns: how an event is sent over HTTP, which addresses it may go to, how it is signed; the routes of a job's callbacks. Never: decides
//! when one is sent or what an answer means; follows a redirect, uses a proxy, shows a secret or what a receiver wrote. Invariant: a
//! connection goes to an address of the one answer that was checked, and ends within the timeout.

mod address;
mod signature;

pub use address::{Network, Networks};
pub use signature::Secret;

use super::auth::Caller;
use super::error::{ApiError, ApiResult};
use super::extract::{JobPath, Query, SmallOrDefault, json_with, ok_json};
use super::state::AppState;
use super::wire::{self, Timestamp};
use crate::coordinator::Courier;
use crate::coordinator::api::CoordinatorError;
use crate::domain::callback::Heard;
use crate::domain::ids::UnixMs;
use crate::store::{DueEvent, EventRow};
use actix_web::{HttpRequest, HttpResponse, web};
use async_trait::async_trait;
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

const MAX_URL_BYTES: usize = 2048;
/// Bytes of an answer's body that are taken, so that a short one ends as its sender expects. Nobody reads them.
const BODY_TAKEN_BYTES: usize = 4 << 10;
const MAX_ID_BYTES: usize = 128;
const UNSIGNED: &str = "set: this node has no secret to sign callbacks with";
const ABSENT: &str = "absent: this node has no secret to sign callbacks with; set callbacks.secrets in its configuration \
                      or TALLYKEEPER_CALLBACKS__SECRETS in its environment";

/// The node's way to make calls. Cheap to clone.
#[derive(Clone)]
pub struct Callbacks {
    inner: Arc<Inner>,
}

struct Inner {
    http: reqwest::Client,
    secrets: Vec<Secret>,
    allowed: Networks,
    timeout: Duration,
}

impl Callbacks {
    /// `secrets`: at least one, the one in use first; receivers may check any. `allowed`: where calls may go besides public addresses.
    pub fn new(secrets: Vec<Secret>, allowed: Networks, timeout: Duration) -> Callbacks {
        // Fails only if another provider was installed first, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = || {
            reqwest::Client::builder()
                .timeout(timeout)
                // Receivers are many and called rarely; a connection that is kept would also outlive the look at its address.
                .pool_max_idle_per_host(0)
                .redirect(reqwest::redirect::Policy::none())
                .referer(false)
                .no_proxy()
                .dns_resolver(Checked {
                    allowed: allowed.clone(),
                })
        };
        // Where the machine trusts nobody, receivers without TLS are still reached.
        let http = builder().build().or_else(|_| builder().tls_certs_only([]).build());
        Callbacks {
            inner: Arc::new(Inner {
                http: http.expect("a client without roots needs nothing of the machine"),
                secrets,
                allowed,
                timeout,
            }),
        }
    }

    /// May a job have this URL called? If not, what it must be. Names are looked up when it is called.
    pub fn check(&self, text: &str) -> Result<(), String> {
        let is_plain = text.len() <= MAX_URL_BYTES && !text.chars().any(|c| c.is_control() || c.is_whitespace());
        let url = Url::parse(text).ok().filter(|_| is_plain);
        let Some(url) = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host()) else {
            return Err(format!("an http or https URL of at most {MAX_URL_BYTES} bytes"));
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err("a URL without a user or password in it".to_owned());
        }
        match host_address(&url) {
            Some(ip) if !self.inner.allowed.permit(ip) => Err(refusal(ip)),
            _ => Ok(()),
        }
    }

    async fn post(&self, event: &DueEvent, now: UnixMs) -> Result<Heard, String> {
        let inner = &self.inner;
        // Checked again: the settings may be others than when the job was made, and a number is looked up nowhere.
        self.check(&event.url)
            .map_err(|limit| format!("the URL must be {limit}"))?;
        let timestamp_s = now.0.div_euclid(1000);
        let signature = signature::sign(&inner.secrets, &event.id, timestamp_s, &event.payload);
        let request = inner
            .http
            .post(&event.url)
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("tallykeeper/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", &event.id)
            .header("webhook-timestamp", timestamp_s)
            .header("webhook-signature", signature)
            .body(event.payload.clone());
        let mut response = request.send().await.map_err(|error| self.words(&error))?;
        let retry_after = response.headers().get(RETRY_AFTER);
        let heard = Heard::Status {
            status: response.status().as_u16(),
            retry_after_s: retry_after.and_then(|value| value.to_str().ok()?.trim().parse().ok()),
        };
        let mut taken = 0;
        // The status is the answer; what goes wrong behind it changes nothing.
        while let Ok(Some(piece)) = response.chunk().await {
            taken += piece.len();
            if taken >= BODY_TAKEN_BYTES {
                break;
            }
        }
        Ok(heard)
    }

    /// Why there was no answer, without the URL.
    fn words(&self, error: &reqwest::Error) -> String {
        if error.is_timeout() {
            return format!("no answer within {} s", self.inner.timeout.as_secs_f64());
        }
        let mut innermost: &dyn Error = error;
        while let Some(source) = innermost.source() {
            innermost = source;
        }
        match innermost.downcast_ref::<reqwest::Error>() {
            // It shows the URL, which its owner knows and others need not.
            Some(_) => "the call could not be made".to_owned(),
            None => innermost.to_string(),
        }
    }
}

#[async_trait]
impl Courier for Callbacks {
    async fn call(&self, event: &DueEvent, now: UnixMs) -> Heard {
        self.post(event, now).await.unwrap_or_else(Heard::Nothing)
    }
}

fn refusal(ip: IpAddr) -> String {
    format!("on a public address, or one that callbacks.allow names: {ip} is neither")
}

/// The address that stands in a URL as a number, whose every odd spelling the parser has normalised; none if its host is a name.
fn host_address(url: &Url) -> Option<IpAddr> {
    let host = url.host_str()?;
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Looks a name up once and lets through only addresses that may be called. A number in a URL is never looked up.
struct Checked {
    allowed: Networks,
}

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let allowed = self.allowed.clone();
        Box::pin(async move {
            let host = name.as_str().to_owned();
            // The port is replaced by that of the URL.
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
            let (good, bad): (Vec<_>, Vec<_>) = found.into_iter().partition(|address| allowed.permit(address.ip()));
            match (good.is_empty(), bad.first()) {
                (false, _) => Ok(Box::new(good.into_iter()) as Addrs),
                (true, Some(first)) => Err(format!("{host} must be {}", refusal(first.ip())).into()),
                (true, None) => Err(format!("{host} has no address").into()),
            }
        })
    }
}

/// Refuses a callback that this node would not send.
pub fn check_url(callbacks: Option<&Callbacks>, url: &str) -> ApiResult<()> {
    let checked = match callbacks {
        Some(callbacks) => callbacks.check(url),
        None => Err(ABSENT.to_owned()),
    };
    checked.map_err(|limit| ApiError::invalid("callback_url", limit))
}

/// `GET /v1/jobs/{id}/callbacks`
pub async fn list(
    state: web::Data<AppState>,
    caller: Caller,
    path: JobPath,
    mut query: Query,
) -> ApiResult<HttpResponse> {
    let limit = query.list_limit(state.settings())?;
    query.finish()?;
    caller.check_job(state.coordinator(), path.0).await?;
    let rows = state.coordinator().callbacks(path.0, limit).await?;
    ok_json(&wire::CallbackList {
        items: rows.into_iter().map(shown).collect(),
    })
}

/// `POST /v1/jobs/{id}/callbacks/{callback}/redeliver`
pub async fn redeliver(
    state: web::Data<AppState>,
    caller: Caller,
    path: JobPath,
    req: HttpRequest,
    _: SmallOrDefault<wire::Empty>,
) -> ApiResult<HttpResponse> {
    caller.check_job(state.coordinator(), path.0).await?;
    let event = req.match_info().get("callback").unwrap_or_default();
    if event.len() > MAX_ID_BYTES || !event.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(ApiError::not_found("callback"));
    }
    if state.callbacks().is_none() {
        return Err(ApiError::invalid("callbacks.secrets", UNSIGNED));
    }
    let row = match state.coordinator().call_again(path.0, event).await {
        // Its job was found just before.
        Err(CoordinatorError::NotFound) => return Err(ApiError::not_found("callback")),
        row => row?,
    };
    json_with(HttpResponse::Accepted(), &shown(row))
}

fn shown(row: EventRow) -> wire::Callback {
    wire::Callback {
        id: row.id,
        run: row.run.0,
        url: row.url,
        state: match (row.due_at, row.delivered_at) {
            (Some(_), _) => wire::CallbackState::Pending,
            (None, Some(_)) => wire::CallbackState::Delivered,
            (None, None) => wire::CallbackState::Failed,
        },
        attempts: row.attempts,
        last_error: row.last_error,
        created_at: row.created_at.into(),
        next_at: row.due_at.map(Timestamp),
        delivered_at: row.delivered_at.map(Timestamp),
        given_up_at: row.given_up_at.map(Timestamp),
    }
}

#[cfg(test)]
mod tests;
