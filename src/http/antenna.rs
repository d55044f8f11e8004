//! The worker API that existing image-processing workers speak, under `/api/v2`.
//!
//! Owns: translating that protocol into the same calls that `/v1` makes, and back. Never: holds a state of its own, or decides a rule of a
//! job. Invariant: a 200 for a result is written only after its commit, and a POST waits where its client, which never repeats one, would
//! lose what it carries.

pub mod jobs;
pub mod list;
pub mod projects;
pub mod results;
pub mod tasks;
pub mod wire;

mod identity;
mod lenient;
mod refusal;
mod shown;
mod told;

pub use refusal::Refusal;

use super::auth::Caller;
use super::body::{self, Body, parse};
use super::error::{ApiError, ApiResult};
use super::extract::JobPath;
use super::hop::{WAIT, is_hop};
use super::state::AppState;
use super::wire::Scope;
use crate::coordinator::Coordinator;
use crate::coordinator::api::CoordinatorError;
use crate::domain::ids::JobId;
use actix_web::dev::ServiceRequest;
use actix_web::http::header;
use actix_web::{FromRequest, HttpMessage, HttpRequest, HttpResponse, dev, web};
use bytes::Bytes;
use identity::Identity;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::future::{Ready, ready};
use std::time::{Duration, Instant};

/// Tag of these routes in the API document.
pub const TAG: &str = "Antenna workers (v2)";
const PREFIX: &str = "/api/v2";
/// Between two tries of a call that waits.
const NAP: Duration = Duration::from_millis(100);

/// Is this a path of this API?
pub fn serves(path: &str) -> bool {
    path.strip_prefix(PREFIX)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A refusal in the form that the client of this path understands, where no handler is there to say so.
pub fn refused_at(path: &str, error: ApiError) -> Refusal {
    let mut parts = path.strip_prefix(PREFIX).unwrap_or_default().split('/').skip(1);
    let (of, id, verb) = (parts.next(), parts.next(), parts.next());
    let job = id.and_then(|id| id.parse().ok()).map(JobId);
    match (of, job, verb) {
        (Some("jobs"), Some(_), Some("tasks")) => Refusal::of_lease(error),
        (Some("jobs"), Some(job), Some("result")) => Refusal::of_results(job)(error),
        _ => Refusal::from(error),
    }
}

/// Do workers make such calls? Jobs are created and steered by others, which are no workers for that.
fn is_of_workers(req: &HttpRequest) -> bool {
    let verb = req.path().trim_end_matches('/').rsplit('/').next();
    req.method().is_safe() || verb.is_some_and(|verb| matches!(verb, "tasks" | "result" | "pipelines"))
}

/// The ways in which a path may be written: its clients do not agree about the last slash, and a redirect would lose a POST.
pub fn spellings(path: &'static str) -> Vec<&'static str> {
    match path.strip_suffix('/') {
        Some(bare) if serves(path) => vec![path, bare],
        _ => vec![path],
    }
}

/// Until when a call of this API may wait, at whichever nodes it does so: its client gives up not long after.
#[derive(Debug, Clone, Copy)]
pub struct WaitsUntil(pub Instant);

impl WaitsUntil {
    /// Notes it of a call that arrived then. Another node says what it has left of it.
    pub fn note(req: &ServiceRequest, state: &AppState, arrived: Instant) {
        if !serves(req.path()) {
            return;
        }
        let ours = Duration::from_millis(state.settings().antenna_post_wait_ms);
        let left = req.headers().get(WAIT).filter(|_| is_hop(req.request()));
        let left = left.and_then(|value| value.to_str().ok()?.parse().ok());
        let wait = left.map_or(ours, |ms| ours.min(Duration::from_millis(ms)));
        req.extensions_mut().insert(WaitsUntil(arrived + wait));
    }

    pub fn of(req: &HttpRequest) -> Option<Instant> {
        req.extensions().get::<WaitsUntil>().map(|until| until.0)
    }
}

/// A body that was read whole and as it came: its request can be made again, at another node, should this one have to refuse it.
struct Arrived(Bytes);

/// The body that the handler of this request has read, if it can be used again.
pub fn take_arrived(req: &HttpRequest) -> Option<Bytes> {
    req.extensions_mut().remove::<Arrived>().map(|Arrived(bytes)| bytes)
}

/// One request, with everything that a handler needs of it.
pub struct Call {
    pub state: web::Data<AppState>,
    pub caller: Caller,
    pub req: HttpRequest,
    payload: web::Payload,
    /// What is left of the time for which this request may wait.
    wait: Duration,
}

impl FromRequest for Call {
    type Error = Refusal;
    type Future = Ready<Result<Call, Refusal>>;

    fn from_request(req: &HttpRequest, payload: &mut dev::Payload) -> Self::Future {
        let state = req
            .app_data::<web::Data<AppState>>()
            .expect("configure adds it")
            .clone();
        let caller = Caller::extract(req).into_inner();
        let payload = web::Payload::from_request(req, payload).into_inner();
        let payload = payload.expect("a payload can always be taken");
        let wait = WaitsUntil::of(req).map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()));
        ready(caller.map_err(Refusal::from).map(|caller| {
            let call = Call {
                state,
                caller,
                req: req.clone(),
                payload,
                wait,
            };
            // Whatever it is about and whatever becomes of it. What a node asks of another for a list does not say where the worker is.
            if is_of_workers(req) && !is_hop(req) {
                call.note_life(&[]);
            }
            call
        }))
    }
}

impl Call {
    /// The job in the path.
    fn job(&self) -> ApiResult<JobId> {
        let path = JobPath::of(&self.req).ok_or_else(|| ApiError::not_found("job"))?;
        Ok(path.0)
    }

    /// The caller is alive, if it is a worker, and its call is about these queues.
    fn note_life(&self, queues: &[&str]) {
        if self.caller.may(Scope::Work) {
            let worker = self.identity().worker;
            self.state.coordinator().note_calling(&worker, queues);
        }
    }

    fn identity(&self) -> Identity {
        Identity::of(&self.caller, &self.req)
    }

    /// The coordinator, whose calls to a job keep alive what this caller's token holds there.
    fn coordinator(&self) -> Coordinator {
        self.state.coordinator().renewing(self.identity().holder)
    }

    /// How long a POST may wait, all in all.
    fn whole_wait(&self) -> Duration {
        Duration::from_millis(self.state.settings().antenna_post_wait_ms)
    }

    /// The same for a POST, which waits, and how long it may.
    fn patient(&self) -> (Coordinator, Instant) {
        self.patient_until(Instant::now() + self.wait)
    }

    /// The same for one whose body has come whole only then: nobody waited before, and what it took to come is not held against it.
    fn patient_since(&self, arrived: Instant) -> (Coordinator, Instant) {
        self.patient_until(arrived + self.whole_wait())
    }

    /// A step that comes after others which waited gets at least what a call that does not wait would: a store that works answers in that.
    fn patient_until(&self, until: Instant) -> (Coordinator, Instant) {
        let coordinator = self.coordinator();
        let ordinary = coordinator.store_wait().min(self.whole_wait());
        let until = until.max(Instant::now() + ordinary);
        (coordinator.patient(until), until)
    }

    /// The same while the body arrives, which takes as long as it takes: each call waits by itself.
    fn patient_each(&self) -> Coordinator {
        self.coordinator().patient_each(self.whole_wait())
    }

    /// The body, for one who reads it piece by piece; it can be taken once.
    fn take_payload(&mut self) -> web::Payload {
        let empty = web::Payload::from_request(&self.req, &mut dev::Payload::None).into_inner();
        std::mem::replace(&mut self.payload, empty.expect("a payload can always be taken"))
    }

    /// Keeps a body for as long as its request may have to be made again.
    fn keep(&self, body: &Body) {
        let is_plain = !self.req.headers().contains_key(header::CONTENT_ENCODING);
        if is_plain && body.bytes.len() <= self.state.settings().small_body_max_bytes {
            self.req.extensions_mut().insert(Arrived(body.bytes.clone()));
        }
    }

    /// Reads the whole body, once the node has room for it.
    async fn read(&mut self, limit: usize) -> ApiResult<Body> {
        body::require_json(&self.req)?;
        let allowance = self.state.allowance(limit);
        let body = body::read(&self.req, &mut self.payload, allowance, self.wait).await?;
        self.wait = body.patience;
        self.keep(&body);
        Ok(body)
    }

    /// Reads a small JSON object; `first` names the member to speak of where it is none.
    async fn object<T: DeserializeOwned>(&mut self, first: &'static str) -> ApiResult<T> {
        let body = self.read(self.state.settings().small_body_max_bytes).await?;
        object(&body.bytes, first)
    }

    /// Reads a JSON object that may be long, most of which nobody looks at.
    async fn long_object<T: DeserializeOwned + Send + 'static>(&mut self, first: &'static str) -> ApiResult<T> {
        let body = self.read(self.state.settings().body_max_bytes).await?;
        let inline = self.state.settings().parse_inline_max_bytes;
        parse::off_thread(&body, inline, move |bytes| object(bytes, first)).await
    }

    /// Reads a body that may be absent.
    async fn object_or_default<T: DeserializeOwned + Default>(&mut self) -> ApiResult<T> {
        match body::has_body(&self.req) {
            true => self.object("body").await,
            false => Ok(T::default()),
        }
    }
}

/// Parses a JSON object; a list in its place is no object with its members in order.
fn object<'a, T: Deserialize<'a>>(bytes: &'a [u8], first: &'static str) -> ApiResult<T> {
    match bytes.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'[') => Err(ApiError::invalid(first, "a member of an object, not a bare list")),
        _ => parse::json(bytes),
    }
}

/// Tries again while the answer is "not now", as long as there is time. Where the job is being moved the gate knows where to try.
async fn patiently<T>(until: Instant, mut attempt: impl AsyncFnMut() -> Result<T, ApiError>) -> Result<T, ApiError> {
    loop {
        match attempt().await {
            Err(error) if error.is_not_now() && Instant::now() + NAP < until => tokio::time::sleep(NAP).await,
            answered => return answered,
        }
    }
}

/// The coordinator's answer as this room's.
fn answered<T>(answer: Result<T, CoordinatorError>) -> ApiResult<T> {
    answer.map_err(ApiError::from)
}

fn json(mut response: actix_web::HttpResponseBuilder, value: &impl Serialize) -> Result<HttpResponse, Refusal> {
    let text = super::extract::to_json(value)?;
    Ok(response
        .insert_header((header::CONTENT_TYPE, "application/json"))
        .body(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_each_path_are_served_and_no_others() {
        assert_eq!(spellings("/api/v2/jobs/"), ["/api/v2/jobs/", "/api/v2/jobs"]);
        assert_eq!(spellings("/v1/jobs"), ["/v1/jobs"]);
        assert_eq!(spellings("/"), ["/"]);
        assert!(serves("/api/v2/x") && !serves("/api/v20/x") && !serves("/v1/api/v2"));
    }

    #[test]
    fn a_refusal_has_the_shape_of_its_path() {
        let members = |path| {
            let refusal = refused_at(path, ApiError::from(CoordinatorError::StoreUnavailable));
            let body: Vec<String> = refusal.body().as_object().expect("an object").keys().cloned().collect();
            body.join(" ")
        };
        assert_eq!(members("/api/v2/jobs/7/tasks/"), "error");
        assert_eq!(members("/api/v2/jobs/7/result"), "detail job_id status");
        assert_eq!(members("/api/v2/jobs/7/"), "detail");
    }

    #[test]
    fn a_bare_list_is_no_object() {
        #[derive(Debug, serde::Deserialize)]
        struct One {
            _a: u8,
        }
        let error = object::<One>(b" [1]", "_a").unwrap_err();
        assert_eq!(error.problem().field.as_deref(), Some("_a"));
        assert!(object::<One>(br#"{"_a":1,"b":2}"#, "_a").is_ok());
    }

    #[actix_web::test]
    async fn only_not_now_is_tried_again_and_not_for_ever() {
        let soon = || Instant::now() + 3 * NAP;
        let mut tries = 0;
        let answer = patiently(soon(), async || {
            tries += 1;
            if tries < 3 { Err(ApiError::busy("x")) } else { Ok(tries) }
        });
        assert_eq!(answer.await.unwrap(), 3);
        let never: ApiResult<()> = patiently(soon(), async || Err(ApiError::store_unavailable())).await;
        assert_eq!(never.unwrap_err().problem().status, 503);
        let mut tries = 0;
        let refused: ApiResult<()> = patiently(soon(), async || {
            tries += 1;
            Err(ApiError::not_found("job"))
        })
        .await;
        assert_eq!((refused.unwrap_err().problem().status, tries), (404, 1));
    }
}
