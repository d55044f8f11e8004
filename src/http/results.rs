//! Posting results: the busiest route.
//!
//! Owns: turning a request into reports, item by item. Never: counts. Invariant: an unusable item is answered `rejected` and touches
//! none of its neighbours.

pub mod intake;
pub mod read;
pub mod text;

use super::auth::Caller;
use super::body::{self, Arrival, Body, parse};
use super::delivery::Undelivered;
use super::error::{ApiError, ApiResult};
use super::extract::{JobPath, ok_json, to_json};
use super::leases::{max_tasks, worker};
use super::state::AppState;
use super::{views, wire};
use crate::coordinator::api::{PostResults, Report, ReportedResult};
use crate::domain::json_text::{check, mend_nul};
use crate::domain::rows::Kept;
use actix_web::{HttpRequest, HttpResponse, web};
use intake::{Intake, Shape};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

/// ItemBounds on one item.
#[derive(Debug, Clone, Copy)]
pub(super) struct ItemBounds {
    counters: usize,
    counter_name_bytes: usize,
    pub(super) error_bytes: usize,
}

impl ItemBounds {
    pub(super) fn of(state: &AppState) -> ItemBounds {
        ItemBounds {
            counters: state.limits().counters,
            counter_name_bytes: state.limits().name_bytes,
            error_bytes: state.settings().error_max_bytes,
        }
    }
}

/// `POST /v1/jobs/{id}/results`
pub async fn post(
    state: web::Data<AppState>,
    caller: Caller,
    path: JobPath,
    req: HttpRequest,
    mut payload: web::Payload,
) -> ApiResult<HttpResponse> {
    body::require_json(&req)?;
    let settings = state.settings();
    let allowance = state.allowance(settings.body_max_bytes);
    let arrival = body::begin(&req, &mut payload, allowance, Duration::ZERO).await?;
    match arrival {
        Arrival::Whole(body) => {
            let (request, items) = whole(&state, &body).await?;
            let call = checked(&state, request, items)?;
            caller.check_job(state.coordinator(), path.0).await?;
            hand_on(&state, path, call).await
        }
        Arrival::Long(mut stream) => {
            // Before anything of it is stored.
            caller.check_job(state.coordinator(), path.0).await?;
            let (coordinator, bounds) = (state.coordinator(), ItemBounds::of(&state));
            let taken = Intake::run(coordinator, path.0, None, &mut stream, SHAPE, bounds, settings).await?;
            let _share = stream.into_reservation();
            let mut upload = taken.upload;
            let items = taken.items.into_iter().map(|(item, ())| item).collect();
            let beside = parse::text_off_thread(taken.rest, settings.parse_inline_max_bytes, parse::json_owned);
            let call = checked(&state, beside.await?, items)?;
            upload.handed_on();
            hand_on(&state, path, call).await
        }
    }
}

const SHAPE: Shape<()> = Shape {
    list: "results",
    lease: "lease",
    worker: Some("worker"),
    read: read_item,
};

/// Parses a short body.
async fn whole(state: &AppState, body: &Body) -> ApiResult<(wire::PostResults, Vec<ReportedResult>)> {
    let settings = state.settings();
    let (bounds, items_max) = (ItemBounds::of(state), settings.batch_items_max);
    let parsed = parse::off_thread(body, settings.parse_inline_max_bytes, move |bytes| {
        let mut request: wire::PostResults = parse::json(bytes)?;
        if request.results.len() > items_max {
            return Err(ApiError::invalid("results", format!("at most {items_max} items")));
        }
        let results = std::mem::take(&mut request.results);
        let items: Vec<_> = results.into_iter().map(|item| reported(item, bounds)).collect();
        Ok((request, items))
    });
    parsed.await
}

/// The call, if what stands beside its items keeps to its limits.
fn checked(state: &AppState, request: wire::PostResults, items: Vec<ReportedResult>) -> ApiResult<PostResults> {
    let most = state.settings().lease_tasks_max;
    let then_lease = request
        .then_lease
        .map(|more| max_tasks("then_lease.max_tasks", more.max_tasks, most));
    Ok(PostResults {
        worker: worker(state, &request.worker)?,
        items,
        then_lease: then_lease.transpose()?,
    })
}

async fn hand_on(state: &AppState, path: JobPath, call: PostResults) -> ApiResult<HttpResponse> {
    let leases: Vec<String> = call.items.iter().map(|item| item.lease.clone()).collect();
    let posted = state.coordinator().post_results(path.0, call).await?;
    let Some(tasks) = &posted.tasks else {
        return ok_json(&views::posted(&leases, &posted));
    };
    let guard = Undelivered::hold(state.coordinator(), posted.job, tasks);
    let json = to_json(&views::posted(&leases, &posted))?;
    Ok(guard.respond(json))
}

/// An item as it was read: its report, without its result, which lies at this place of the text, and whatever else its kind knows.
pub(super) struct ItemRead<X> {
    pub(super) lease: String,
    pub(super) report: Report,
    pub(super) result: Option<Range<usize>>,
    pub(super) extra: X,
}

/// [`wire::ResultIn`], borrowed: a large result is not copied to be read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ItemText<'a> {
    lease: String,
    status: wire::ResultStatus,
    #[serde(default, borrow)]
    result: Option<&'a RawValue>,
    #[serde(default)]
    error: Option<String>,
    #[serde(default = "wire::yes")]
    retryable: bool,
    #[serde(default)]
    counters: Option<wire::Json>,
}

fn read_item(text: &str, bounds: ItemBounds) -> ApiResult<ItemRead<()>> {
    let item: ItemText<'_> = parse::part(text.as_bytes())?;
    let result = item.result.filter(|_| item.status == wire::ResultStatus::Succeeded);
    let small = wire::ResultIn {
        lease: item.lease,
        status: item.status,
        result: None,
        error: item.error,
        retryable: item.retryable,
        counters: item.counters,
    };
    let ReportedResult { lease, report } = reported(small, bounds);
    Ok(ItemRead {
        lease,
        report,
        result: result.map(|result| place_of(result.get(), text)),
        extra: (),
    })
}

/// Where a part of a text lies in it.
pub(super) fn place_of(part: &str, whole: &str) -> Range<usize> {
    let start = part.as_ptr().addr() - whole.as_ptr().addr();
    start..start + part.len()
}

fn reported(item: wire::ResultIn, bounds: ItemBounds) -> ReportedResult {
    let lease = item.lease;
    let report = match item.status {
        wire::ResultStatus::Succeeded => succeeded(item.result, item.counters, bounds),
        wire::ResultStatus::Failed => Some(Report::Failed {
            error: bounded_error(item.error.unwrap_or_default(), bounds.error_bytes),
            retryable: item.retryable,
        }),
    };
    ReportedResult {
        lease,
        report: report.unwrap_or(Report::Unusable),
    }
}

/// None if result or counters cannot be kept.
fn succeeded(result: Option<wire::Json>, counted: Option<wire::Json>, bounds: ItemBounds) -> Option<Report> {
    let result = match result {
        None => None,
        Some(text) => Some(Kept::Text(kept(text)?)),
    };
    let counters = match counted {
        None => Vec::new(),
        Some(text) => counters(text.get(), bounds)?,
    };
    Some(Report::Succeeded { result, counters })
}

/// The result as it is kept; none if it cannot be.
pub(super) fn kept(text: wire::Json) -> Option<Box<str>> {
    check(text.get()).ok()?;
    Some(match mend_nul(text.get()) {
        Cow::Owned(mended) => mended.into_boxed_str(),
        // The text as it was parsed, not a copy of it.
        Cow::Borrowed(_) => text.into(),
    })
}

/// The counters by name, or none if they are no object of integers within bounds.
fn counters(text: &str, bounds: ItemBounds) -> Option<Vec<(String, i64)>> {
    let parsed: BTreeMap<String, i64> = serde_json::from_str(text).ok()?;
    let good_name = |name: &String| crate::domain::job::check_name("counters", name, bounds.counter_name_bytes).is_ok();
    let good = parsed.len() <= bounds.counters && parsed.keys().all(good_name);
    good.then(|| parsed.into_iter().collect())
}

/// An error text with U+FFFD for U+0000, which PostgreSQL's text cannot hold, and cut to its bound at a character.
pub(super) fn bounded_error(text: String, max_bytes: usize) -> Box<str> {
    let mut text = if text.contains('\0') {
        text.replace('\0', "\u{fffd}")
    } else {
        text
    };
    if text.len() > max_bytes {
        let end = (0..=max_bytes).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
        text.truncate(end);
    }
    text.into_boxed_str()
}

#[cfg(test)]
impl ItemBounds {
    pub(super) fn for_tests() -> ItemBounds {
        ItemBounds {
            counters: 64,
            counter_name_bytes: 256,
            error_bytes: 8 << 10,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: ItemBounds = ItemBounds {
        counters: 2,
        counter_name_bytes: 8,
        error_bytes: 5,
    };

    fn report(item: &str) -> Report {
        reported(parse::json(item.as_bytes()).unwrap(), BOUNDS).report
    }

    fn result_of(item: &str) -> Option<String> {
        match report(item) {
            Report::Succeeded { result, .. } => result.as_ref().and_then(Kept::text).map(str::to_owned),
            other => panic!("not a success: {other:?}"),
        }
    }

    #[test]
    fn results_are_kept_verbatim_but_for_nul() {
        let kept = result_of(r#"{"lease":"l","status":"succeeded","result":{"a" : [1.0,  2]}}"#);
        assert_eq!(kept.as_deref(), Some(r#"{"a" : [1.0,  2]}"#));
        let mended = result_of(r#"{"lease":"l","status":"succeeded","result":"a\u0000b"}"#);
        assert_eq!(mended.as_deref(), Some(r#""a\ufffdb""#));
        assert_eq!(result_of(r#"{"lease":"l","status":"succeeded"}"#), None);
    }

    #[test]
    fn what_cannot_be_kept_is_unusable_by_itself() {
        let deep = format!(
            r#"{{"lease":"l","status":"succeeded","result":{}{}}}"#,
            "[".repeat(129),
            "]".repeat(129)
        );
        for item in [
            deep.as_str(),
            r#"{"lease":"l","status":"succeeded","result":"\ud800"}"#,
            r#"{"lease":"l","status":"succeeded","result":1e1000000}"#,
            r#"{"lease":"l","status":"succeeded","counters":{"a":1.5}}"#,
            r#"{"lease":"l","status":"succeeded","counters":{"a":"1"}}"#,
            r#"{"lease":"l","status":"succeeded","counters":{"a":9223372036854775808}}"#,
            r#"{"lease":"l","status":"succeeded","counters":[1]}"#,
            r#"{"lease":"l","status":"succeeded","counters":{"a":1,"b":1,"c":1}}"#,
            r#"{"lease":"l","status":"succeeded","counters":{"too long a name":1}}"#,
        ] {
            assert_eq!(report(item), Report::Unusable, "{item}");
        }
    }

    #[test]
    fn counters_come_with_a_success() {
        let Report::Succeeded { counters, .. } =
            report(r#"{"lease":"l","status":"succeeded","counters":{"b":-2,"a":1}}"#)
        else {
            panic!("not a success");
        };
        assert_eq!(counters, [("a".to_owned(), 1), ("b".to_owned(), -2)]);
    }

    #[test]
    fn errors_are_cut_at_a_character_and_free_of_nul() {
        let error = |item: &str| match report(item) {
            Report::Failed { error, retryable } => (error.into_string(), retryable),
            other => panic!("not a failure: {other:?}"),
        };
        assert_eq!(
            error(r#"{"lease":"l","status":"failed","error":"abcdäé"}"#),
            ("abcd".into(), true)
        );
        assert_eq!(
            error(r#"{"lease":"l","status":"failed","error":"a\u0000b","retryable":false}"#),
            ("a\u{fffd}b".into(), false)
        );
        assert_eq!(error(r#"{"lease":"l","status":"failed"}"#), (String::new(), true));
    }
}
