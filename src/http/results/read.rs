//! Reading results: a page, or a stream of lines.
//!
//! Owns: the cursor and the pace. Never: holds more than one page, and of a large result more than a piece; the next is read when the client
//! has taken the one before. Invariant: a stream that ends in order is complete; one that cannot go on is cut off, so that it cannot be taken
//! for complete.

use super::text::Pieces;
use crate::domain::ids::TaskNo;
use crate::domain::rows::Verdict;
use crate::http::auth::Caller;
use crate::http::error::{ApiError, ApiResult};
use crate::http::extract::{JobPath, Query, to_json};
use crate::http::state::AppState;
use crate::store::{ResultFilter, ResultRow, Store};
use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::stream;
use std::sync::Arc;

/// `GET /v1/jobs/{id}/results`
pub async fn list(
    state: web::Data<AppState>,
    caller: Caller,
    path: JobPath,
    req: HttpRequest,
    mut query: Query,
) -> ApiResult<HttpResponse> {
    let settings = state.settings();
    let verdict = query.one("status")?.map(|text| verdict(&text)).transpose()?;
    let after = query.cursor()?.map(TaskNo);
    let streamed = wants_ndjson(&req);
    let default = if streamed {
        settings.list_max_items
    } else {
        settings.list_default_items
    };
    let limit = query.limit(default, settings.list_max_items)?;
    query.finish()?;
    let filter = ResultFilter {
        verdict,
        after,
        limit,
        ..current(&state, &caller, path).await?
    };
    let store = Arc::clone(state.coordinator().store());
    if streamed {
        lines(store, filter).await
    } else {
        page(store, filter).await
    }
}

/// The current view of a job that the caller may see, from its beginning.
pub async fn current(state: &AppState, caller: &Caller, path: JobPath) -> ApiResult<ResultFilter> {
    let job = state.coordinator().job(path.0).await?.record;
    if !caller.sees(&job.queue) {
        return Err(ApiError::not_found("job"));
    }
    Ok(ResultFilter {
        job: job.id,
        base_run: job.base_run,
        run: job.run,
        verdict: None,
        after: None,
        limit: state.settings().list_max_items,
        max_bytes: state.settings().result_page_max_bytes,
    })
}

fn verdict(text: &str) -> ApiResult<Verdict> {
    match text {
        "succeeded" => Ok(Verdict::Succeeded),
        "failed" => Ok(Verdict::Failed),
        _ => Err(ApiError::invalid("status", "succeeded or failed")),
    }
}

fn wants_ndjson(req: &HttpRequest) -> bool {
    let accepts = req
        .headers()
        .get_all(header::ACCEPT)
        .filter_map(|value| value.to_str().ok());
    accepts.flat_map(|value| value.split(',')).any(|range| {
        range
            .split(';')
            .next()
            .unwrap_or("")
            .trim()
            .eq_ignore_ascii_case("application/x-ndjson")
    })
}

/// `{"items":[…],"next_cursor":…}`
async fn page(store: Arc<dyn Store>, mut filter: ResultFilter) -> ApiResult<HttpResponse> {
    let rows = store.results(&filter).await?;
    filter.after = rows.last().map(|row| row.task);
    // A page may have ended at its limit or at its bytes, and either may be the last: only asking tells.
    let more = !rows.is_empty() && {
        filter.limit = 1;
        filter.max_bytes = 1;
        !store.results(&filter).await?.is_empty()
    };
    let next_cursor = filter.after.filter(|_| more).map(|task| task.to_string());
    let mut pieces = Pieces::new(store);
    pieces.text(b"{\"items\":[");
    for (place, row) in rows.iter().enumerate() {
        if place > 0 {
            pieces.text(b",");
        }
        pieces.row(row)?;
    }
    pieces.text(b"],\"next_cursor\":");
    pieces.text(&to_json(&next_cursor)?);
    pieces.text(b"}");
    Ok(pieces.respond("application/json"))
}

async fn lines(store: Arc<dyn Store>, filter: ResultFilter) -> ApiResult<HttpResponse> {
    let mut pieces = Pieces::new(store);
    // The first page is read before the answer begins, so that a store that is down is a plain 503.
    let filter = next_page(&mut pieces, filter).await?;
    let whole = stream::unfold(Some((pieces, filter)), |state| async move {
        let (mut pieces, mut filter) = state?;
        loop {
            match pieces.next().await {
                Ok(Some(bytes)) => return Some((Ok(bytes), Some((pieces, filter)))),
                // An error as the last item breaks the connection off.
                Err(error) => return Some((Err(error), None)),
                Ok(None) => match next_page(&mut pieces, filter?).await {
                    Ok(after) => filter = after,
                    Err(error) => return Some((Err(error), None)),
                },
            }
        }
    });
    Ok(HttpResponse::Ok().content_type("application/x-ndjson").streaming(whole))
}

/// Puts the lines of the next page behind the others; answers where the one after it begins, none if this was the end.
async fn next_page(pieces: &mut Pieces, mut filter: ResultFilter) -> ApiResult<Option<ResultFilter>> {
    let rows: Vec<ResultRow> = pieces.store().results(&filter).await?;
    let Some(last) = rows.last() else {
        return Ok(None);
    };
    filter.after = Some(last.task);
    for row in &rows {
        pieces.row(row)?;
        pieces.text(b"\n");
    }
    Ok(Some(filter))
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    #[test]
    fn only_a_client_that_asks_for_lines_gets_them() {
        let wants =
            |accept: &str| wants_ndjson(&TestRequest::get().insert_header(("accept", accept)).to_http_request());
        assert!(wants("application/x-ndjson"));
        assert!(wants("application/json, Application/X-NDJSON;q=0.9"));
        assert!(!wants("application/json"));
        assert!(!wants("*/*"));
        assert!(!wants_ndjson(&TestRequest::get().to_http_request()));
    }
}
