//! Reading results: a page, or a stream of lines.
//!
//! Owns: the cursor and the pace. Never: holds more than one page; the next is read when the client has taken the one before. Invariant:
//! a stream that ends in order is complete; one that cannot go on is cut off, so that it cannot be taken for complete.

use crate::domain::ids::TaskNo;
use crate::domain::rows::Verdict;
use crate::http::auth::Caller;
use crate::http::error::{ApiError, ApiResult};
use crate::http::extract::{JobPath, Query, ok_json, to_json};
use crate::http::state::AppState;
use crate::http::views::{self, ResultView};
use crate::store::{ResultFilter, ResultRow, Store};
use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde::Serialize;
use std::sync::Arc;

/// `GET /v1/jobs/{id}/results`
pub async fn list(
    state: web::Data<AppState>,
    caller: Caller,
    path: JobPath,
    req: HttpRequest,
) -> ApiResult<HttpResponse> {
    let settings = state.settings();
    let mut query = Query::of(&req)?;
    let verdict = query.one("status")?.map(|text| verdict(&text)).transpose()?;
    let after = query.parsed::<u32>("cursor", "a next_cursor of this list")?.map(TaskNo);
    let streamed = wants_ndjson(&req);
    let default = if streamed {
        settings.list_max_items
    } else {
        settings.list_default_items
    };
    let limit = query.limit(default, settings.list_max_items)?;
    query.finish()?;
    let job = state.coordinator().job(path.0).await?.record;
    if !caller.sees(&job.queue) {
        return Err(ApiError::not_found("job"));
    }
    let filter = ResultFilter {
        job: job.id,
        base_run: job.base_run,
        run: job.run,
        verdict,
        after,
        limit,
        max_bytes: settings.result_page_max_bytes,
    };
    let store = Arc::clone(state.coordinator().store());
    if streamed {
        lines(store, filter).await
    } else {
        page(store.as_ref(), filter).await
    }
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

#[derive(Serialize)]
struct Page<'a> {
    items: Vec<ResultView<'a>>,
    next_cursor: Option<String>,
}

async fn page(store: &dyn Store, mut filter: ResultFilter) -> ApiResult<HttpResponse> {
    let rows = store.results(&filter).await?;
    filter.after = rows.last().map(|row| row.task);
    // A page may have ended at its limit or at its bytes, and either may be the last: only asking tells.
    let more = !rows.is_empty() && {
        filter.limit = 1;
        filter.max_bytes = 1;
        !store.results(&filter).await?.is_empty()
    };
    ok_json(&Page {
        items: rows.iter().map(views::result).collect(),
        next_cursor: filter.after.filter(|_| more).map(|task| task.to_string()),
    })
}

async fn lines(store: Arc<dyn Store>, filter: ResultFilter) -> ApiResult<HttpResponse> {
    // The first page is read before the answer begins, so that a store that is down is a plain 503.
    let first = next_page(store.as_ref(), filter).await?;
    let rest = first.as_ref().map(|(_, filter)| filter.clone());
    let first = stream::iter(first.map(|(bytes, _)| Ok(bytes)));
    let others = stream::unfold(rest, move |filter| {
        let store = Arc::clone(&store);
        async move {
            match next_page(store.as_ref(), filter?).await {
                Ok(page) => page.map(|(bytes, filter)| (Ok(bytes), Some(filter))),
                // An error as the last item breaks the connection off.
                Err(error) => Some((Err(error), None)),
            }
        }
    });
    let response = HttpResponse::Ok()
        .content_type("application/x-ndjson")
        .streaming(first.chain(others));
    Ok(response)
}

/// The lines of one page and where the next begins, or none at the end.
async fn next_page(store: &dyn Store, mut filter: ResultFilter) -> ApiResult<Option<(Bytes, ResultFilter)>> {
    let rows: Vec<ResultRow> = store.results(&filter).await?;
    let Some(last) = rows.last() else {
        return Ok(None);
    };
    filter.after = Some(last.task);
    let mut text = Vec::new();
    for row in &rows {
        text.extend_from_slice(&to_json(&views::result(row))?);
        text.push(b'\n');
    }
    Ok(Some((Bytes::from(text), filter)))
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
