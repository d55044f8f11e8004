//! What operators and their tools ask: alive, ready, metrics.
//!
//! Owns: these three answers and the metrics recorder. Never: touches a job. Invariant: `/healthz` depends on nothing but the process.

use super::error::{ApiError, ApiResult};
use super::extract::json_with;
use super::state::AppState;
use super::wire;
use actix_web::http::header;
use actix_web::{HttpResponse, web};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// Upper bounds of the duration buckets, in seconds; the last ones are for long polls, and for commits repeated through an outage.
const DURATION_BUCKETS_S: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 30.0, 120.0,
];
/// Upper bounds of the buckets of rows, up to the largest group commit.
const ROW_BUCKETS: [f64; 10] = [1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0, 3_000.0, 10_000.0, 20_000.0];

/// Makes this process record metrics; call once. Every distribution has buckets: quantiles of several nodes could not be put together.
pub fn install_metrics() -> Result<PrometheusHandle, BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_duration_seconds".into()), &DURATION_BUCKETS_S)?
        .set_buckets_for_metric(Matcher::Suffix("_rows".into()), &ROW_BUCKETS)?
        .install_recorder()
}

/// `GET /healthz`
pub async fn healthz() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("application/json")
        .body(r#"{"status":"ok"}"#)
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
        &wire::Ready {
            ready: readiness.ready,
            reasons: readiness.reasons.into_iter().map(str::to_owned).collect(),
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
