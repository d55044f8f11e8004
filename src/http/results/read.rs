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
use crate::http::extract::{JobPath, Query, asks_for, to_json};
use crate::http::state::AppState;
use crate::store::{ResultFilter, ResultRow, Store};
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::stream;
use std::sync::Arc;

const NDJSON: &str = "application/x-ndjson";

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
    let streamed = asks_for(&req, NDJSON);
    // A stream without a limit goes on to the end, read in pages of this size.
    let all = streamed && !query.has("limit");
    let limit = match all {
        true => settings.list_max_items,
        false => query.list_limit(settings)?,
    };
    query.finish()?;
    let filter = ResultFilter {
        verdict,
        after,
        limit,
        ..current(&state, &caller, path).await?
    };
    let store = Arc::clone(state.coordinator().store());
    if streamed {
        lines(store, filter, (!all).then_some(limit)).await
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

/// Lines from where the filter begins, at most so many.
async fn lines(store: Arc<dyn Store>, filter: ResultFilter, left: Option<u32>) -> ApiResult<HttpResponse> {
    let mut pieces = Pieces::new(store);
    // The first page is read before the answer begins, so that a store that is down is a plain 503.
    let rest = next_page(&mut pieces, Rest { filter, left }).await?;
    let whole = stream::unfold(Some((pieces, rest)), |state| async move {
        let (mut pieces, mut rest) = state?;
        loop {
            match pieces.next().await {
                Ok(Some(bytes)) => return Some((Ok(bytes), Some((pieces, rest)))),
                // An error as the last item breaks the connection off.
                Err(error) => return Some((Err(error), None)),
                Ok(None) => match next_page(&mut pieces, rest?).await {
                    Ok(after) => rest = after,
                    Err(error) => return Some((Err(error), None)),
                },
            }
        }
    });
    Ok(HttpResponse::Ok().content_type(NDJSON).streaming(whole))
}

/// What of a stream is still to be read.
struct Rest {
    filter: ResultFilter,
    /// Lines; none: all there are.
    left: Option<u32>,
}

/// Puts the lines of the next page behind the others; answers what comes after it, none if this was the end.
async fn next_page(pieces: &mut Pieces, mut rest: Rest) -> ApiResult<Option<Rest>> {
    if let Some(left) = rest.left {
        rest.filter.limit = rest.filter.limit.min(left);
    }
    if rest.filter.limit == 0 {
        return Ok(None);
    }
    let rows: Vec<ResultRow> = pieces.store().results(&rest.filter).await?;
    let Some(last) = rows.last() else {
        return Ok(None);
    };
    rest.filter.after = Some(last.task);
    // A page may end early, at its bytes.
    rest.left = rest.left.map(|left| left.saturating_sub(rows.len() as u32));
    for row in &rows {
        pieces.row(row)?;
        pieces.text(b"\n");
    }
    Ok(Some(rest))
}
