//! A job's report: one HTML file that needs nothing else.
//!
//! Owns: reading what it tells. Never: holds more than one page of results, or takes a number from elsewhere than the job's own view
//! and its results. Invariant: what a user wrote is printed escaped, and the file runs no script.

mod chart;
mod durations;
mod page;
mod summary;

use super::auth::Caller;
use super::error::{ApiError, ApiResult};
use super::extract::JobPath;
use super::pages::guarded;
use super::state::AppState;
use crate::store::ResultFilter;
use actix_web::{HttpResponse, web};
use summary::Summary;

/// The file brings its styles along and may load nothing.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; \
                      form-action 'none'";

/// `GET /v1/jobs/{id}/report`
pub async fn show(state: web::Data<AppState>, caller: Caller, path: JobPath) -> ApiResult<HttpResponse> {
    let view = state.coordinator().job(path.0).await?;
    if !caller.sees(&view.record.queue) {
        return Err(ApiError::not_found("job"));
    }
    // A report reads every result of its job: few at a time, so that they do not slow down the work.
    let Ok(_permit) = state.reports().try_acquire() else {
        return Err(ApiError::busy("other reports are being written"));
    };
    let settings = state.settings();
    let mut filter = ResultFilter {
        job: view.record.id,
        base_run: view.record.base_run,
        run: view.record.run,
        verdict: None,
        after: None,
        limit: settings.list_max_items,
        max_bytes: settings.result_page_max_bytes,
    };
    let mut summary = Summary::default();
    loop {
        let rows = state.coordinator().store().results(&filter).await?;
        let Some(last) = rows.last() else { break };
        filter.after = Some(last.task);
        rows.iter().for_each(|row| summary.add(row, view.record.run));
    }
    let text = page::html(&view, &summary, state.now());
    Ok(guarded(HttpResponse::Ok(), POLICY)
        .content_type("text/html; charset=utf-8")
        .body(text.into_string()))
}
