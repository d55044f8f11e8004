//! Posting results, as existing workers do: once, and never again.
//!
//! Owns: the answer's words. Never: counts. Invariant: the answer names every item in its order, and `queued` means durable.

use super::told::{Told, told};
use super::wire::{AntennaResults, AntennaResultsTaken, AntennaTaken};
use super::{Call, Refusal, answered, json, object, patiently};
use crate::coordinator::api::{Disposition, KeyedResult, PostResults, Report};
use crate::domain::ids::JobId;
use crate::domain::job::check_name;
use crate::domain::lease::Lease;
use crate::http::body::parse;
use crate::http::error::{ApiError, ApiResult};
use crate::http::results::ItemBounds;
use actix_web::HttpResponse;

/// `POST /api/v2/jobs/{id}/result/`
pub async fn post(mut call: Call) -> Result<HttpResponse, Refusal> {
    let job = call.job()?;
    let refused = Refusal::of_results(job);
    let settings = call.state.settings();
    let (body_max, inline_max, items_max) = (
        settings.body_max_bytes,
        settings.parse_inline_max_bytes,
        settings.batch_items_max,
    );
    // Kept to the end: the node's memory is spoken for as long as what came of the body is held.
    let body = call.read(body_max).await.map_err(refused)?;
    let bounds = ItemBounds::of(&call.state);
    let parsed = parse::off_thread(&body, inline_max, move |bytes| items(bytes, items_max, bounds));
    let items = parsed.await.map_err(refused)?;
    let subjects: Vec<String> = items.iter().map(|item| item.result.lease.clone()).collect();
    let dispositions = take(&call, job, items).await.map_err(refused)?;
    let taken: Vec<AntennaTaken> = subjects.into_iter().zip(dispositions).map(shown).collect();
    let answer = AntennaResultsTaken {
        status: "accepted",
        job_id: job.0,
        results_queued: taken.iter().filter(|taken| taken.status == QUEUED).count(),
        tasks: taken,
    };
    json(HttpResponse::Ok(), &answer)
}

fn items(bytes: &[u8], most: usize, bounds: ItemBounds) -> ApiResult<Vec<Told>> {
    let request: AntennaResults = object(bytes, "results")?;
    if request.results.len() > most {
        return Err(ApiError::invalid("results", format!("at most {most} items")));
    }
    let items = request.results.into_iter().enumerate();
    items.map(|(place, item)| told(item, place, bounds)).collect()
}

async fn take(call: &Call, job: JobId, mut items: Vec<Told>) -> ApiResult<Vec<Disposition>> {
    let (coordinator, until) = call.patient();
    let worker = call.identity().worker;
    // Whatever the store is needed for beforehand may be tried again; the results themselves are handed over once.
    patiently(until, async || {
        answered(coordinator.queue_of(job).await)?;
        call.caller.check_job(&coordinator, job).await
    })
    .await?;
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
    let call = PostResults {
        worker,
        items: items.into_iter().map(|item| item.result).collect(),
        then_lease: None,
    };
    Ok(answered(coordinator.post_results(job, call).await)?.dispositions)
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
