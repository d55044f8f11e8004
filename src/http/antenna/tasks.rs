//! Leasing tasks of one job, as existing workers do.
//!
//! Owns: what a task looks like to them. Never: decides who gets what. Invariant: never more tasks than asked for, each with text in every
//! member, and given back if the answer is not delivered.

use super::lenient::Text;
use super::wire::{AntennaTask, AntennaTasks, AntennaTasksRequest};
use super::{Call, Refusal, answered, patiently};
use crate::coordinator::api::{Granted, GrantedTask, LeaseJob};
use crate::http::delivery::Undelivered;
use crate::http::error::{ApiError, ApiResult};
use crate::http::extract::to_json;
use crate::http::leases::max_tasks;
use actix_web::HttpResponse;
use serde::Deserialize;

/// `POST /api/v2/jobs/{id}/tasks/`
pub async fn lease(mut call: Call) -> Result<HttpResponse, Refusal> {
    granted(&mut call).await.map_err(Refusal::of_lease)
}

async fn granted(call: &mut Call) -> ApiResult<HttpResponse> {
    let job = call.job()?;
    let AntennaTasksRequest { batch_size } = call.object("batch_size").await?;
    let asked = u64::try_from(batch_size).map_err(|_| ApiError::invalid("batch_size", "at least 1"))?;
    let max_tasks = max_tasks("batch_size", asked, call.state.settings().lease_tasks_max)?;
    let (coordinator, until) = call.patient();
    let ask = LeaseJob {
        worker: call.identity().worker,
        max_tasks,
        request_id: None,
    };
    let granted: Granted = patiently(until, async || {
        call.caller.check_job(&coordinator, job).await?;
        answered(coordinator.lease_job(job, ask.clone()).await)
    })
    .await?;
    let guard = Undelivered::hold(call.state.coordinator(), job, &granted.tasks);
    let tasks = granted.tasks.into_iter().map(shown).collect();
    let text = to_json(&AntennaTasks { tasks })?;
    Ok(guard.respond(text))
}

/// The image is the task's key; a task without one, which another API made, goes by its number.
fn shown(task: GrantedTask) -> AntennaTask {
    let id = task.key.unwrap_or_else(|| task.task.to_string());
    AntennaTask {
        image_id: id.clone(),
        id,
        image_url: image_url(&task.payload),
        reply_subject: task.lease,
    }
}

/// The payload's `image_url`, or the payload itself if it is a text.
fn image_url(payload: &str) -> String {
    #[derive(Deserialize)]
    struct Payload {
        image_url: Option<Text>,
    }
    let text = payload.trim_start();
    let url = match text.as_bytes().first() {
        Some(b'{') => serde_json::from_str::<Payload>(text)
            .ok()
            .and_then(|payload| payload.image_url),
        Some(b'"') => serde_json::from_str(text).ok(),
        _ => None,
    };
    url.unwrap_or_default().0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_of_any_kind_has_an_address_that_is_text() {
        assert_eq!(image_url(r#"{"image_url":"http://x/1.jpg","w":1}"#), "http://x/1.jpg");
        assert_eq!(image_url(r#" "http://x/1.jpg""#), "http://x/1.jpg");
        for other in [
            "{}",
            r#"{"image_url":null}"#,
            r#"{"image_url":[1]}"#,
            "[\"x\"]",
            "7",
            "null",
        ] {
            assert_eq!(image_url(other), "", "{other}");
        }
    }
}
