//! What operators and their tools ask: alive, ready, metrics.
//!
//! Owns: these three answers and the metrics recorder. Never: touches a job. Invariant: `/healthz` depends on nothing but the process.

use super::error::{ApiError, ApiResult};
use super::extract::json_with;
use super::state::AppState;
use actix_web::http::header;
use actix_web::{HttpResponse, web};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use serde::Serialize;

/// Upper bounds of the duration buckets, in seconds; the last ones are for long polls.
const DURATION_BUCKETS_S: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 120.0,
];

/// Makes this process record metrics; call once.
pub fn install_metrics() -> Result<PrometheusHandle, BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_duration_seconds".into()), &DURATION_BUCKETS_S)?
        .install_recorder()
}

/// `GET /healthz`
pub async fn healthz() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("application/json")
        .body(r#"{"status":"ok"}"#)
}

#[derive(Serialize)]
struct Ready {
    ready: bool,
    reasons: Vec<&'static str>,
}

/// `GET /readyz`
pub async fn readyz(state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    let readiness = state.coordinator().readiness();
    let mut response = if readiness.ready {
        HttpResponse::Ok()
    } else {
        let mut response = HttpResponse::ServiceUnavailable();
        response.insert_header((header::RETRY_AFTER, "1"));
        response
    };
    response.insert_header((header::CACHE_CONTROL, "no-store"));
    json_with(
        response,
        &Ready {
            ready: readiness.ready,
            reasons: readiness.reasons,
        },
    )
}

/// `GET /metrics`
pub async fn metrics(state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    let handle = state.metrics().ok_or_else(|| ApiError::not_found("metrics"))?;
    Ok(HttpResponse::Ok()
        .content_type("text/plain; version=0.0.4; charset=utf-8")
        .body(handle.render()))
}
