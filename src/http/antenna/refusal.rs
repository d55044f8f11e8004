//! Errors in the form that the clients of this API understand.
//!
//! Owns: the three shapes. Never: maps a failure to a status (the room's one mapping has). Invariant: statuses, `Retry-After` and words are
//! those of the problem that `/v1` would answer.

use crate::domain::ids::JobId;
use crate::http::error::ApiError;
use actix_web::http::{StatusCode, header};
use actix_web::{HttpResponse, ResponseError};
use serde_json::{Value, json};
use std::fmt;

/// A refused request.
#[derive(Debug, Clone)]
pub struct Refusal {
    error: ApiError,
    not_now: NotNow,
}

/// How a 503 is written.
#[derive(Debug, Clone, Copy)]
enum NotNow {
    Detail,
    Error,
    OfJob(JobId),
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Refusal {
            error,
            not_now: NotNow::Detail,
        }
    }
}

impl Refusal {
    /// As leasing answers.
    pub(super) fn of_lease(error: ApiError) -> Refusal {
        Refusal {
            error,
            not_now: NotNow::Error,
        }
    }

    /// As posting results answers.
    pub(super) fn of_results(job: JobId) -> impl Fn(ApiError) -> Refusal + Copy {
        move |error| Refusal {
            error,
            not_now: NotNow::OfJob(job),
        }
    }

    /// What `/v1` would answer.
    pub fn error(&self) -> &ApiError {
        &self.error
    }

    pub(super) fn body(&self) -> Value {
        let problem = self.error.problem();
        let detail = &problem.detail;
        match (problem.status, self.not_now, &problem.field) {
            (400, _, Some(field)) => json!({ field: [detail] }),
            (503, NotNow::Error, _) => json!({ "error": detail }),
            (503, NotNow::OfJob(job), _) => json!({"status": "error", "job_id": job.0, "detail": detail}),
            _ => json!({ "detail": detail }),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl ResponseError for Refusal {
    fn status_code(&self) -> StatusCode {
        self.error.status_code()
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        if let Some(seconds) = self.error.retry_after_s() {
            response.insert_header((header::RETRY_AFTER, seconds.to_string()));
        }
        if let Some(allow) = self.error.allow() {
            response.insert_header((header::ALLOW, allow));
        }
        if self.status_code() == StatusCode::UNAUTHORIZED {
            response.insert_header((header::WWW_AUTHENTICATE, "Token"));
        }
        response.json(self.body())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_is_as_its_clients_expect() {
        let body = |refusal: Refusal| refusal.body();
        assert_eq!(
            body(ApiError::not_found("job").into()),
            json!({"detail": "job not found"})
        );
        assert_eq!(
            body(ApiError::invalid("batch_size", "at least 1").into()),
            json!({"batch_size": ["batch_size must be at least 1"]})
        );
        assert_eq!(
            body(Refusal::of_lease(ApiError::busy("x"))),
            json!({"error": "busy: x"})
        );
        let of_job = Refusal::of_results(JobId(42));
        assert_eq!(
            body(of_job(ApiError::store_unavailable())),
            json!({"status": "error", "job_id": 42, "detail": "store unavailable"})
        );
        assert_eq!(
            body(of_job(ApiError::not_found("job"))),
            json!({"detail": "job not found"})
        );
        let response = of_job(ApiError::busy("x")).error_response();
        assert!(response.headers().contains_key(header::RETRY_AFTER));
    }
}
