//! Projects and pipelines, as far as workers ask about them.
//!
//! Owns: the one project, and that a pipeline is a queue. Never: keeps a service or a pipeline beside its queue. Invariant: a registered
//! pipeline's queue exists when this answers.

use super::wire::{AntennaProject, AntennaProjects, AntennaRegister, AntennaRegistered};
use super::{Call, Refusal, answered, json, patiently};
use crate::domain::job::check_name;
use crate::http::error::ApiError;
use actix_web::HttpResponse;

/// The project that jobs belong to which name none.
pub(super) const PROJECT: i64 = 1;
/// Services are told apart by their tokens; none is kept.
const SERVICE: i64 = 1;

/// `GET /api/v2/projects/`
pub async fn list(_: Call) -> Result<HttpResponse, Refusal> {
    let results = vec![AntennaProject {
        id: PROJECT,
        name: "Tallykeeper",
    }];
    let answer = AntennaProjects {
        count: results.len(),
        next: None,
        previous: None,
        results,
    };
    json(HttpResponse::Ok(), &answer)
}

/// `POST /api/v2/projects/{id}/pipelines/`. Any project's number is taken: workers carry one in their configuration.
pub async fn register(mut call: Call) -> Result<HttpResponse, Refusal> {
    let project = call
        .req
        .match_info()
        .get("project")
        .and_then(|text| text.parse::<i64>().ok());
    if project.is_none_or(|id| id < 1) {
        return Err(ApiError::not_found("project").into());
    }
    // Pipelines come with the whole category map of each of their algorithms.
    let request: AntennaRegister = call.long_object("pipelines").await?;
    let most = call.state.settings().batch_items_max;
    if request.pipelines.len() > most {
        return Err(ApiError::invalid("pipelines", format!("at most {most} pipelines")).into());
    }
    for (i, pipeline) in request.pipelines.iter().enumerate() {
        let field = format!("pipelines[{i}].slug");
        check_name(&field, &pipeline.slug, call.state.limits().name_bytes).map_err(ApiError::from)?;
        if !call.caller.sees(&pipeline.slug) {
            return Err(ApiError::not_found("pipeline").into());
        }
    }
    let slugs: Vec<&str> = request.pipelines.iter().map(|pipeline| &*pipeline.slug).collect();
    call.note_life(&slugs);
    let (coordinator, until) = call.patient();
    let mut answer = AntennaRegistered {
        pipelines_created: Vec::new(),
        pipelines_updated: Vec::new(),
        processing_service_id: SERVICE,
    };
    for pipeline in request.pipelines {
        let is_new = patiently(until, async || answered(coordinator.make_queue(&pipeline.slug).await)).await?;
        match is_new {
            true => answer.pipelines_created.push(pipeline.slug),
            false => answer.pipelines_updated.push(pipeline.slug),
        }
    }
    json(HttpResponse::Created(), &answer)
}
