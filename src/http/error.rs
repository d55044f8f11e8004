//! Errors as clients see them: RFC 9457 problems with stable codes.
//!
//! Owns: the one mapping from failures to statuses and codes. Never: shows an internal cause or a secret. Invariant: every 503 carries
//! `Retry-After`, and every error answer is `application/problem+json`; what is no HTTP
//! request never comes this far.

use super::antenna;
use super::wire::Problem;
use crate::coordinator::api::CoordinatorError;
use crate::domain::job::InvalidJob;
use crate::store::StoreError;
use actix_web::http::{StatusCode, header};
use actix_web::{HttpResponse, ResponseError};
use serde_json::Value;
use std::fmt;

/// Media type of every error.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// An error answer.
#[derive(Debug, Clone)]
pub struct ApiError {
    problem: Box<Problem>,
    retry_after_s: Option<u32>,
    allow: Option<String>,
}

/// Answer of every handler.
pub type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Self {
        ApiError {
            problem: Box::new(Problem {
                kind: format!("urn:tallykeeper:problem:{code}"),
                title: code.replace('_', " "),
                status: status.as_u16(),
                detail: detail.into(),
                code: code.to_owned(),
                field: None,
                limit: None,
                next_task: None,
                run: None,
                state: None,
            }),
            retry_after_s: None,
            allow: None,
        }
    }

    /// The request as a whole makes no sense.
    pub fn malformed(detail: impl Into<String>) -> Self {
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_request", detail)
    }

    /// One member or parameter breaks its limit.
    pub fn invalid(field: impl Into<String>, limit: impl Into<Value>) -> Self {
        let (field, limit) = (field.into(), limit.into());
        let shown = limit.as_str().map_or_else(|| limit.to_string(), str::to_owned);
        let mut error = ApiError::malformed(format!("{field} must be {shown}"));
        error.problem.field = Some(field);
        error.problem.limit = Some(limit);
        error
    }

    pub fn unauthenticated(detail: &str) -> Self {
        ApiError::new(StatusCode::UNAUTHORIZED, "unauthenticated", detail)
    }

    pub fn forbidden(detail: impl Into<String>) -> Self {
        ApiError::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// It does not exist, or lies outside the token's queues: the two must look the same.
    pub fn not_found(what: &str) -> Self {
        ApiError::new(StatusCode::NOT_FOUND, "not_found", format!("{what} not found"))
    }

    pub fn method_not_allowed(allow: String) -> Self {
        let mut error = ApiError::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "this path does not take this method",
        );
        error.allow = Some(allow);
        error
    }

    pub fn too_large(limit: usize) -> Self {
        let mut error = ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            format!("the body must be at most {limit} bytes"),
        );
        error.problem.limit = Some(limit.into());
        error
    }

    pub fn unsupported_media_type(expected: &str) -> Self {
        ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            format!("the content type must be {expected}"),
        )
    }

    /// The body is compressed in a way that is not understood.
    pub fn unsupported_encoding() -> Self {
        let limit = "gzip, zstd or identity, once";
        let mut error = ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            format!("the content encoding must be {limit}"),
        );
        error.problem.field = Some("content-encoding".into());
        error.problem.limit = Some(limit.into());
        error
    }

    /// The path opens a stream, and the request asked for none.
    pub fn upgrade_required() -> Self {
        ApiError::new(
            StatusCode::UPGRADE_REQUIRED,
            "upgrade_required",
            "open a WebSocket here, or ask for text/event-stream in Accept",
        )
    }

    /// The WebSocket is of a version that is not spoken here.
    pub fn unknown_websocket() -> Self {
        let mut error = ApiError::new(
            StatusCode::UPGRADE_REQUIRED,
            "upgrade_required",
            "the version of a WebSocket must be 13",
        );
        error.problem.field = Some("sec-websocket-version".into());
        error.problem.limit = Some(13.into());
        error
    }

    /// The body came too slowly.
    pub fn body_timeout() -> Self {
        ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            "request_timeout",
            "the body did not arrive in time",
        )
    }

    /// What another node refused, to be said again.
    pub fn of_another(problem: Problem, status: StatusCode, retry_after_s: Option<u32>, allow: Option<String>) -> Self {
        let problem = Problem {
            status: status.as_u16(),
            ..problem
        };
        ApiError {
            problem: Box::new(problem),
            retry_after_s,
            allow,
        }
    }

    /// The error that a handler answered with, in whichever form it was written.
    pub fn of_answer<B>(answer: &HttpResponse<B>) -> Option<&ApiError> {
        let error = answer.error()?;
        let refusal = error.as_error::<antenna::Refusal>().map(antenna::Refusal::error);
        refusal.or_else(|| error.as_error::<ApiError>())
    }

    pub fn busy(what: &str) -> Self {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "busy", format!("busy: {what}")).retry_after(1)
    }

    pub fn store_unavailable() -> Self {
        CoordinatorError::StoreUnavailable.into()
    }

    /// An answer that could not be printed.
    pub fn unprintable(cause: &serde_json::Error) -> Self {
        ApiError::internal(cause)
    }

    fn internal(cause: &dyn fmt::Display) -> Self {
        tracing::error!(%cause, "internal error");
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "internal error")
    }

    fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// Says in which part of the body the fault lies: its path, and where it begins.
    pub fn within(mut self, part: &str, at: u64) -> Self {
        self.problem.detail = format!("{} (of {part}, which begins at byte {at})", self.problem.detail);
        let field = match &self.problem.field {
            Some(field) => format!("{part}.{field}"),
            None => part.to_owned(),
        };
        self.at_field(field)
    }

    /// Names the member at fault.
    pub fn at_field(mut self, field: impl Into<String>) -> Self {
        self.problem.field = Some(field.into());
        self
    }

    /// Says what the member at fault must be.
    pub fn keeping_to(mut self, limit: impl Into<Value>) -> Self {
        self.problem.limit = Some(limit.into());
        self
    }

    /// Says where an interrupted append goes on, if that is known.
    pub fn resuming_at(mut self, next_task: Option<u32>) -> Self {
        if self.problem.next_task.is_none() {
            self.problem.next_task = next_task;
        }
        self
    }

    /// The answer in the form that clients of this path understand.
    pub fn response_at(&self, path: &str) -> HttpResponse {
        if antenna::serves(path) {
            antenna::refused_at(path, self.clone()).error_response()
        } else {
            self.error_response()
        }
    }

    /// The value of `Retry-After`, if the answer carries one.
    pub fn retry_after_s(&self) -> Option<u32> {
        self.retry_after_s
    }

    /// May the identical request succeed here later?
    pub fn is_not_now(&self) -> bool {
        self.problem.status == 503 && !self.is_not_taken()
    }

    /// Does it say that this node does not take the request, and that another will?
    pub fn is_not_taken(&self) -> bool {
        matches!(self.problem.code.as_str(), "not_owner" | "draining")
    }

    /// The value of `Allow`, if the answer carries one.
    pub fn allow(&self) -> Option<&str> {
        self.allow.as_deref()
    }

    pub fn problem(&self) -> &Problem {
        &self.problem
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.problem.code, self.problem.detail)
    }
}

impl std::error::Error for ApiError {}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.problem.status).expect("built from a status code")
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        response.content_type(PROBLEM_JSON);
        if let Some(seconds) = self.retry_after_s {
            response.insert_header((header::RETRY_AFTER, seconds.to_string()));
        }
        if let Some(allow) = &self.allow {
            response.insert_header((header::ALLOW, allow.as_str()));
        }
        if self.problem.field.as_deref() == Some("content-encoding") {
            response.insert_header((header::ACCEPT_ENCODING, super::body::inflate::UNDERSTOOD));
        }
        if self.problem.status == 426 {
            response.insert_header((header::UPGRADE, "websocket"));
            response.insert_header((header::SEC_WEBSOCKET_VERSION, "13"));
        }
        if self.problem.status == 401 {
            response.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
        }
        response.body(serde_json::to_vec(&self.problem).expect("a problem is plain data"))
    }
}

impl From<InvalidJob> for ApiError {
    fn from(error: InvalidJob) -> Self {
        ApiError::invalid(error.field, error.limit)
    }
}

impl From<CoordinatorError> for ApiError {
    fn from(error: CoordinatorError) -> Self {
        let detail = error.to_string();
        let conflict = |code| ApiError::new(StatusCode::CONFLICT, code, detail.clone());
        let unavailable =
            |code, seconds| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, code, detail.clone()).retry_after(seconds);
        match error {
            CoordinatorError::Invalid(invalid) => invalid.into(),
            CoordinatorError::NotFound => ApiError::not_found("job"),
            CoordinatorError::InvalidTransition { state, .. } => {
                let mut error = conflict("invalid_transition");
                error.problem.state = Some(state);
                error
            }
            CoordinatorError::Sealed => conflict("job_sealed"),
            CoordinatorError::WrongRun { run } => {
                let mut error = conflict("wrong_run");
                error.problem.run = Some(run.0);
                error
            }
            CoordinatorError::WrongFirstTask { next_task } => {
                conflict("wrong_first_task").resuming_at(Some(next_task.0))
            }
            CoordinatorError::IdempotencyMismatch => {
                ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_mismatch", detail)
            }
            CoordinatorError::Busy(_) => unavailable("busy", 1),
            CoordinatorError::StoreUnavailable => unavailable("store_unavailable", 2),
            CoordinatorError::Draining => unavailable("draining", 2),
            CoordinatorError::NotOwner => unavailable("not_owner", 1),
            CoordinatorError::Refused(_) => ApiError::malformed(detail),
            CoordinatorError::Internal(cause) => ApiError::internal(&cause),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        CoordinatorError::from(error).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::{Run, TaskNo};
    use crate::domain::state::State;
    use actix_web::body::to_bytes;

    #[actix_web::test]
    async fn every_coordinator_error_has_its_status_code_and_fields() {
        let invalid = InvalidJob {
            field: "name".into(),
            limit: "short".into(),
        };
        let transition = CoordinatorError::InvalidTransition {
            state: State::Canceled,
            verb: "pause",
        };
        let table = [
            (CoordinatorError::Invalid(invalid), 400, "invalid_request"),
            (CoordinatorError::NotFound, 404, "not_found"),
            (transition, 409, "invalid_transition"),
            (CoordinatorError::Sealed, 409, "job_sealed"),
            (CoordinatorError::WrongRun { run: Run(3) }, 409, "wrong_run"),
            (
                CoordinatorError::WrongFirstTask { next_task: TaskNo(7) },
                409,
                "wrong_first_task",
            ),
            (CoordinatorError::IdempotencyMismatch, 422, "idempotency_mismatch"),
            (CoordinatorError::Busy("results"), 503, "busy"),
            (CoordinatorError::StoreUnavailable, 503, "store_unavailable"),
            (CoordinatorError::Draining, 503, "draining"),
            (CoordinatorError::NotOwner, 503, "not_owner"),
            (CoordinatorError::Refused("x".into()), 400, "invalid_request"),
            (CoordinatorError::Internal("secret".into()), 500, "internal"),
        ];
        for (error, status, code) in table {
            let response = ApiError::from(error).error_response();
            assert_eq!(response.status(), status);
            assert_eq!(
                response.headers().contains_key(header::RETRY_AFTER),
                status == 503,
                "{code}"
            );
            assert_eq!(response.headers().get(header::CONTENT_TYPE).unwrap(), PROBLEM_JSON);
            let body = to_bytes(response.into_body()).await.unwrap();
            let problem: Problem = serde_json::from_slice(&body).unwrap();
            assert_eq!((problem.status, problem.code.as_str()), (status, code));
            assert!(!problem.detail.contains("secret"));
            match code {
                "wrong_first_task" => assert_eq!(problem.next_task, Some(7)),
                "wrong_run" => assert_eq!(problem.run, Some(3)),
                "invalid_transition" => assert_eq!(problem.state, Some(State::Canceled)),
                _ => {}
            }
        }
    }

    #[test]
    fn limits_keep_their_json_type() {
        assert_eq!(ApiError::too_large(5).problem().limit, Some(5.into()));
        let error = ApiError::invalid("results", 1000);
        assert_eq!(error.problem().limit, Some(1000.into()));
        assert_eq!(error.problem().field.as_deref(), Some("results"));
        assert_eq!(error.problem().detail, "results must be 1000");
    }
}
