//! The HTTP client of every command that speaks to a node.
//!
//! Owns: requests, answers, timeouts, and which failures may pass. Never: decides how long to go on trying (the callers do, with
//! [`retry`]). Invariant: every wait is bounded, and a token is shown nowhere.

use crate::domain::ids::UnixMs;
use crate::http::wire::{
    Appended, CallbackList, Cancel, CreateJob, CreateToken, Draining, Empty, Extend, Extended, Granted, Job, JobList,
    LeaseAny, LeaseJob, NodeList, PostResults, Problem, Release, Released, ResultsPosted, Retry, TokenCreated,
    TokenList,
};
use anyhow::{Context, Result, bail};
use reqwest::header::{CONTENT_TYPE, DATE, RETRY_AFTER};
use reqwest::{Method, RequestBuilder, Response, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

pub(crate) mod retry;
pub(crate) mod stream;

/// How long an ordinary call may take from end to end.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Added to a long poll's own wait.
const POLL_SLACK: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a call has no answer to use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// No answer: whether the call took effect is unknown.
    #[error("cannot reach {server}: {cause}")]
    Unreachable { server: String, cause: String },
    /// The node, or something before it, says "not now".
    #[error("the server is not available: {detail}")]
    Busy {
        detail: String,
        retry_after: Option<Duration>,
    },
    /// The node says no.
    #[error("{}", explain(.0))]
    Refused(Box<Problem>),
    /// It does not speak this API.
    #[error("unexpected answer: {0}")]
    Unexpected(String),
}

impl ClientError {
    /// May the identical call succeed later?
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self, ClientError::Unreachable { .. } | ClientError::Busy { .. })
    }

    pub(crate) fn problem(&self) -> Option<&Problem> {
        match self {
            ClientError::Refused(problem) => Some(problem),
            _ => None,
        }
    }
}

/// The problem's sentence, with what it names.
fn explain(problem: &Problem) -> String {
    let mut text = if problem.detail.is_empty() {
        problem.title.clone()
    } else {
        problem.detail.clone()
    };
    if let Some(field) = &problem.field
        && !text.contains(field.as_str())
    {
        text.push_str(&format!(" (field {field})"));
    }
    format!("{text} [{}]", problem.code)
}

/// Answer of every call.
pub(crate) type Answer<T> = Result<T, ClientError>;

/// A node's address and how to speak to it; cheap to clone.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<Arc<str>>,
    /// The server's clock less ours, in milliseconds, from its latest answer.
    skew_ms: Arc<AtomicI64>,
}

impl Client {
    /// A client for `http://HOST:PORT` or `https://HOST`.
    pub(crate) fn new(server: &str, token: Option<&str>) -> Result<Self> {
        let base = Url::parse(server).with_context(|| format!("the server's address {server:?} is not a URL"))?;
        let secure = match base.scheme() {
            "http" => false,
            "https" => true,
            other => bail!("the server's address must start with http:// or https://, not {other}://"),
        };
        install_crypto();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("tallykeeper/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .tcp_nodelay(true);
        if !secure {
            // Without this, a machine without CA certificates could not build a client, even one that never needs them.
            builder = builder.tls_certs_only([]);
        }
        if is_loopback(&base) {
            builder = builder.no_proxy();
        }
        Ok(Client {
            http: builder.build().context("cannot set up the HTTP client")?,
            base,
            token: token.map(Into::into),
            skew_ms: Arc::default(),
        })
    }

    /// Our clock, corrected to the server's.
    pub(crate) fn server_now(&self) -> UnixMs {
        UnixMs(local_now_ms() + self.skew_ms.load(Ordering::Relaxed))
    }

    pub(crate) async fn create_job(&self, job: &CreateJob, idempotency_key: &str) -> Answer<Job> {
        let request = self.request(Method::POST, "v1/jobs").json(job);
        self.call(request.header("Idempotency-Key", idempotency_key)).await
    }

    pub(crate) async fn job(&self, id: i64) -> Answer<Job> {
        self.call(self.request(Method::GET, &format!("v1/jobs/{id}"))).await
    }

    /// The callbacks of a job, from its last run to its first.
    pub(crate) async fn callbacks(&self, id: i64) -> Answer<CallbackList> {
        self.call(self.request(Method::GET, &format!("v1/jobs/{id}/callbacks")))
            .await
    }

    /// One page of jobs; `query` holds filters as they are on the wire.
    pub(crate) async fn jobs(&self, query: &[(&str, String)]) -> Answer<JobList> {
        let mut url = self.url("v1/jobs");
        url.query_pairs_mut().extend_pairs(query);
        self.call(self.prepare(Method::GET, url)).await
    }

    /// Appends NDJSON lines that become the tasks from `first_task` on.
    pub(crate) async fn append(&self, id: i64, first_task: u32, ndjson: String) -> Answer<Appended> {
        let mut url = self.url(&format!("v1/jobs/{id}/tasks"));
        url.query_pairs_mut().append_pair("first_task", &first_task.to_string());
        let request = self
            .prepare(Method::POST, url)
            .header(CONTENT_TYPE, "application/x-ndjson");
        self.call(request.body(ndjson)).await
    }

    /// `start`, `pause`, `resume` or `seal`.
    pub(crate) async fn control(&self, id: i64, verb: &str) -> Answer<Job> {
        self.post(&format!("v1/jobs/{id}/{verb}"), &Empty {}).await
    }

    pub(crate) async fn cancel(&self, id: i64, body: &Cancel) -> Answer<Job> {
        self.post(&format!("v1/jobs/{id}/cancel"), body).await
    }

    pub(crate) async fn retry(&self, id: i64, body: &Retry) -> Answer<Job> {
        self.post(&format!("v1/jobs/{id}/retry"), body).await
    }

    pub(crate) async fn lease_any(&self, body: &LeaseAny) -> Answer<Granted> {
        let wait = Duration::from_secs_f64(body.wait_s.unwrap_or(0.0));
        let request = self.request(Method::POST, "v1/leases").json(body);
        self.call(request.timeout(wait + POLL_SLACK)).await
    }

    pub(crate) async fn lease_job(&self, id: i64, body: &LeaseJob) -> Answer<Granted> {
        self.post(&format!("v1/jobs/{id}/leases"), body).await
    }

    pub(crate) async fn post_results(&self, id: i64, body: &PostResults) -> Answer<ResultsPosted> {
        self.post(&format!("v1/jobs/{id}/results"), body).await
    }

    pub(crate) async fn extend(&self, id: i64, body: &Extend) -> Answer<Extended> {
        self.post(&format!("v1/jobs/{id}/leases/extend"), body).await
    }

    pub(crate) async fn release(&self, id: i64, body: &Release) -> Answer<Released> {
        self.post(&format!("v1/jobs/{id}/leases/release"), body).await
    }

    pub(crate) async fn create_token(&self, body: &CreateToken) -> Answer<TokenCreated> {
        self.post("v1/tokens", body).await
    }

    pub(crate) async fn tokens(&self) -> Answer<TokenList> {
        self.call(self.request(Method::GET, "v1/tokens")).await
    }

    pub(crate) async fn nodes(&self) -> Answer<NodeList> {
        self.call(self.request(Method::GET, "v1/nodes")).await
    }

    pub(crate) async fn drain(&self, node: &str) -> Answer<Draining> {
        let mut url = self.url("v1/nodes");
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.extend([node, "drain"]);
        }
        self.call(self.prepare(Method::POST, url)).await
    }

    pub(crate) async fn revoke_token(&self, id: &str) -> Answer<()> {
        let mut url = self.url("v1/tokens");
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.push(id);
        }
        self.send(self.prepare(Method::DELETE, url)).await.map(drop)
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Answer<T> {
        self.call(self.request(Method::POST, path).json(body)).await
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        let prefix = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{prefix}/{path}"));
        url
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.prepare(method, self.url(path))
    }

    fn prepare(&self, method: Method, url: Url) -> RequestBuilder {
        self.unbounded(method, url).timeout(CALL_TIMEOUT)
    }

    /// A request whose answer may take as long as it likes; whoever sends it bounds the waits.
    fn unbounded(&self, method: Method, url: Url) -> RequestBuilder {
        let request = self.http.request(method, url);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn call<T: DeserializeOwned>(&self, request: RequestBuilder) -> Answer<T> {
        let response = self.send(request).await?;
        let body = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        serde_json::from_slice(&body).map_err(|error| ClientError::Unexpected(error.to_string()))
    }

    /// The response, if its status is a success.
    async fn send(&self, request: RequestBuilder) -> Answer<Response> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        self.note_clock(&response);
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(failure(response).await)
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> ClientError {
        // The outermost texts of reqwest repeat the URL and say little; the innermost cause is what a person can act on.
        let mut cause: &dyn std::error::Error = error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        let cause = if error.is_timeout() {
            "no answer in time".to_owned()
        } else {
            cause.to_string()
        };
        let mut server = self.base.clone();
        // An address may carry a password; nothing that is printed may.
        let _ = server.set_username("");
        let _ = server.set_password(None);
        ClientError::Unreachable {
            server: server.as_str().trim_end_matches('/').to_owned(),
            cause,
        }
    }

    fn note_clock(&self, response: &Response) {
        let date = response.headers().get(DATE).and_then(|date| date.to_str().ok());
        if let Some(server) = date.and_then(|date| OffsetDateTime::parse(date, &Rfc2822).ok()) {
            // The header is cut to whole seconds; half of one makes the estimate fair.
            let skew = server.unix_timestamp() * 1000 + 500 - local_now_ms();
            self.skew_ms.store(skew, Ordering::Relaxed);
        }
    }
}

/// reqwest brings no cryptography of its own; the first caller installs it, later ones find it there.
fn install_crypto() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

fn is_loopback(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost" | "[::1]") => true,
        Some(host) => host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback()),
        None => false,
    }
}

fn local_now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// What an unsuccessful response means.
async fn failure(response: Response) -> ClientError {
    let status = response.status();
    let retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok())
        .map(Duration::from_secs);
    let body = response.bytes().await.unwrap_or_default();
    let problem = serde_json::from_slice::<Problem>(&body).ok();
    if matches!(status.as_u16(), 429 | 502..=504) {
        let detail = problem.map_or_else(|| format!("status {status}"), |problem| explain(&problem));
        return ClientError::Busy { detail, retry_after };
    }
    match problem {
        Some(problem) => ClientError::Refused(Box::new(problem)),
        None => ClientError::Unexpected(format!("status {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_keep_the_prefix_of_the_address() {
        let client = Client::new("http://10.0.0.1:8080/tally/", None).unwrap();
        assert_eq!(client.url("v1/jobs").as_str(), "http://10.0.0.1:8080/tally/v1/jobs");
        let client = Client::new("http://localhost:8080", None).unwrap();
        assert_eq!(client.url("v1/jobs").as_str(), "http://localhost:8080/v1/jobs");
    }

    #[test]
    fn addresses_that_are_no_http_are_refused() {
        for bad in ["localhost:8080", "ftp://x", "", "127.0.0.1:8080"] {
            assert!(Client::new(bad, None).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_loopback_addresses_bypass_a_proxy() {
        let local = |text| is_loopback(&Url::parse(text).unwrap());
        assert!(local("http://127.0.0.1:1") && local("http://localhost") && local("http://[::1]:8"));
        assert!(!local("http://10.0.0.1") && !local("http://localhost.example.com"));
    }

    #[test]
    fn the_date_header_is_read() {
        let date = OffsetDateTime::parse("Tue, 24 Nov 2026 11:38:51 GMT", &Rfc2822).unwrap();
        assert_eq!(date.unix_timestamp(), 1_795_520_331);
    }

    #[tokio::test]
    async fn a_closed_port_is_unreachable_and_the_password_is_not_shown() {
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let client = Client::new(&format!("http://me:secret@127.0.0.1:{port}"), None).unwrap();
        let error = client.job(1).await.unwrap_err();
        assert!(error.may_pass());
        let text = error.to_string();
        assert!(
            text.starts_with(&format!("cannot reach http://127.0.0.1:{port}: ")),
            "{text}"
        );
        assert!(!text.contains("secret"));
    }
}
