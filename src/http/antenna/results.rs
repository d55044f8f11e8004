//! Posting results, as existing workers do: once, and never again.
//!
//! Owns: the answer's words. Never: counts. Invariant: the answer names every item in its order, and `queued` means durable.

use super::told::{Told, read_item, told};
use super::wire::{AntennaResults, AntennaResultsTaken, AntennaTaken};
use super::{Call, Refusal, answered, json, object, patiently};
use crate::coordinator::Coordinator;
use crate::coordinator::api::{Disposition, KeyedResult, PostResults, Report};
use crate::domain::ids::JobId;
use crate::domain::job::check_name;
use crate::domain::lease::Lease;
use crate::http::body::{self, Arrival, Body, Stream, parse};
use crate::http::error::{ApiError, ApiResult};
use crate::http::results::ItemBounds;
use crate::http::results::intake::{Intake, Shape};
use actix_web::{HttpResponse, web};
use std::time::Instant;

/// `POST /api/v2/jobs/{id}/result/`
pub async fn post(mut call: Call) -> Result<HttpResponse, Refusal> {
    let job = call.job()?;
    let refused = Refusal::of_results(job);
    body::require_json(&call.req).map_err(refused)?;
    let mut payload = call.take_payload();
    let answered = match arrival(&mut call, &mut payload).await.map_err(refused)? {
        // Kept to the end: the node's memory is spoken for as long as what came of the body is held.
        Arrival::Whole(body) => {
            call.keep(&body);
            short(&call, job, &body).await
        }
        Arrival::Long(stream) => long(&call, job, *stream).await,
    };
    let taken: Vec<AntennaTaken> = answered.map_err(refused)?.into_iter().map(shown).collect();
    let answer = AntennaResultsTaken {
        status: "accepted",
        job_id: job.0,
        results_queued: taken.iter().filter(|taken| taken.status == QUEUED).count(),
        tasks: taken,
    };
    json(HttpResponse::Ok(), &answer)
}

/// What was asked about, in its order, and what became of it.
type Answered = Vec<(String, Disposition)>;

/// The body or its beginning, once the node has room for it.
async fn arrival<'a>(call: &mut Call, payload: &'a mut web::Payload) -> ApiResult<Arrival<'a>> {
    let state = call.state.clone();
    let allowance = state.allowance(state.settings().body_max_bytes);
    let arrival = body::begin(&call.req, payload, allowance, call.wait).await?;
    call.wait = match &arrival {
        Arrival::Whole(body) => body.patience,
        Arrival::Long(stream) => stream.patience(),
    };
    Ok(arrival)
}

async fn short(call: &Call, job: JobId, body: &Body) -> ApiResult<Answered> {
    let settings = call.state.settings();
    let (bounds, items_max) = (ItemBounds::of(&call.state), settings.batch_items_max);
    let parsed = parse::off_thread(body, settings.parse_inline_max_bytes, move |bytes| {
        items(bytes, items_max, bounds)
    });
    let items = parsed.await?;
    let (coordinator, until) = call.patient();
    may_post(call, &coordinator, job, until).await?;
    take(call, &coordinator, job, until, items, || {}).await
}

const SHAPE: Shape<Option<String>> = Shape {
    list: "results",
    lease: "reply_subject",
    worker: None,
    read: read_item,
};

async fn long(call: &Call, job: JobId, mut stream: Stream<'_>) -> ApiResult<Answered> {
    let (coordinator, until) = call.patient();
    // Before anything of it is stored.
    may_post(call, &coordinator, job, until).await?;
    let (settings, worker) = (call.state.settings(), call.identity().worker);
    let bounds = ItemBounds::of(&call.state);
    // The body may take longer to come than any call may wait.
    let storing = call.patient_each();
    let taken = Intake::run(&storing, job, Some(worker), &mut stream, SHAPE, bounds, settings).await?;
    let arrived = stream.last_arrival();
    let _share = stream.into_reservation();
    // Whether there was a list at all.
    let beside = parse::text_off_thread(taken.rest, settings.parse_inline_max_bytes, |rest| {
        object::<AntennaResults>(rest, "results").map(drop)
    });
    beside.await?;
    let mut upload = taken.upload;
    let items = taken.items.into_iter().map(|(result, image)| Told { result, image });
    let (coordinator, until) = call.patient_since(arrived.into());
    take(call, &coordinator, job, until, items.collect(), || upload.handed_on()).await
}

fn items(bytes: &[u8], most: usize, bounds: ItemBounds) -> ApiResult<Vec<Told>> {
    let request: AntennaResults = object(bytes, "results")?;
    if request.results.len() > most {
        return Err(ApiError::invalid("results", format!("at most {most} items")));
    }
    let items = request.results.into_iter().enumerate();
    items.map(|(place, item)| told(item, place, bounds)).collect()
}

/// Whatever the store is needed for beforehand may be tried again; the results themselves are handed over once.
async fn may_post(call: &Call, coordinator: &Coordinator, job: JobId, until: Instant) -> ApiResult<()> {
    patiently(until, async || {
        answered(coordinator.queue_of(job).await)?;
        call.caller.check_job(coordinator, job).await
    })
    .await
}

/// Hands the items over, and says so just before.
async fn take(
    call: &Call,
    coordinator: &Coordinator,
    job: JobId,
    until: Instant,
    mut items: Vec<Told>,
    handed_over: impl FnOnce(),
) -> ApiResult<Answered> {
    let worker = call.identity().worker;
    let subjects: Vec<String> = items.iter().map(|item| item.result.lease.clone()).collect();
    let unread: Vec<usize> = (0..items.len())
        .filter(|&place| is_unread(call, &items[place]))
        .collect();
    if !unread.is_empty() {
        let keyed = unread.iter().map(|&place| {
            let key = items[place].image.clone().unwrap_or_default();
            KeyedResult::new(key, &items[place].result.report)
        });
        let keyed: Vec<KeyedResult> = keyed.collect();
        let named = patiently(until, async || {
            answered(coordinator.name_leases(job, &worker, &keyed).await)
        });
        for (place, lease) in unread.into_iter().zip(named.await?) {
            items[place].result.lease = lease.unwrap_or_default();
        }
    }
    let post = PostResults {
        worker,
        items: items.into_iter().map(|item| item.result).collect(),
        then_lease: None,
    };
    handed_over();
    let posted = answered(coordinator.post_results(job, post).await)?;
    Ok(subjects.into_iter().zip(posted.dispositions).collect())
}

/// Is this an item whose lease cannot be read, but whose image may name its task?
fn is_unread(call: &Call, item: &Told) -> bool {
    let limit = call.state.limits().key_bytes;
    let image = item.image.as_deref().unwrap_or("");
    item.result.report != Report::Unusable
        && Lease::decode(&item.result.lease).is_err()
        && check_name("image_id", image, limit).is_ok()
}

const QUEUED: &str = "queued";

fn shown((reply_subject, disposition): (String, Disposition)) -> AntennaTaken {
    let status = match disposition {
        Disposition::Counted
        | Disposition::Retrying
        | Disposition::Duplicate
        | Disposition::Superseded
        | Disposition::Late => QUEUED,
        Disposition::StaleRun | Disposition::UnknownTask | Disposition::Rejected => disposition.as_str(),
    };
    AntennaTaken {
        reply_subject,
        status,
        disposition,
        task_id: random_uuid(),
    }
}

/// A random UUID (version 4).
fn random_uuid() -> String {
    let bits: u128 = rand::random();
    let bits = bits & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_id_is_a_uuid() {
        let (one, other) = (random_uuid(), random_uuid());
        assert_ne!(one, other);
        let lengths: Vec<usize> = one.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert!(
            one.as_bytes()[14] == b'4' && b"89ab".contains(&one.as_bytes()[19]),
            "{one}"
        );
    }
}
