//! The OpenAPI document, built from the route table and the wire types.
//!
//! Owns: how a route is described. Never: lists routes itself. Invariant: the document names exactly the routes of the table, and every
//! schema it refers to is in it.

use super::auth::Access;
use super::routes::{Body, Entry, ROUTES};
use super::{antenna, wire};
use actix_web::http::Method;
use std::collections::BTreeMap;
use std::sync::LazyLock;
use utoipa::OpenApi;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::path::{HttpMethod, OperationBuilder, ParameterBuilder, ParameterIn, Paths};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Type};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{self, Ref, Required, ResponseBuilder};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Tallykeeper",
        description = "Job coordinator: exact live progress, exactly-once completion, safe restarts."
    ),
    components(schemas(
        wire::Problem,
        wire::CreateJob,
        wire::TaskIn,
        wire::Job,
        wire::JobList,
        wire::Appended,
        wire::ChangeJob,
        wire::Cancel,
        wire::Retry,
        wire::CallbackList,
        wire::Callback,
        wire::Empty,
        wire::LeaseAny,
        wire::LeaseJob,
        wire::Granted,
        wire::Extend,
        wire::Extended,
        wire::Release,
        wire::Released,
        wire::TaskList,
        wire::WorkerList,
        wire::QueueList,
        wire::NodeList,
        wire::Alive,
        wire::Ready,
        wire::Draining,
        wire::Explained,
        wire::FailureList,
        wire::PostLogs,
        wire::LogsPosted,
        wire::LogList,
        wire::PostResults,
        wire::ResultsPosted,
        wire::ResultList,
        wire::CreateToken,
        wire::TokenCreated,
        wire::TokenList,
        wire::CreateTicket,
        wire::TicketCreated,
        wire::StreamMessage,
        antenna::wire::AntennaError,
        antenna::wire::AntennaJobList,
        antenna::wire::AntennaJobId,
        antenna::wire::AntennaJob,
        antenna::wire::AntennaCreateJob,
        antenna::wire::AntennaRetry,
        antenna::wire::AntennaTasksRequest,
        antenna::wire::AntennaTasks,
        antenna::wire::AntennaResults,
        antenna::wire::AntennaResultsTaken,
        antenna::wire::AntennaProjects,
        antenna::wire::AntennaRegister,
        antenna::wire::AntennaRegistered,
    ))
)]
struct Schemas;

static TEXT: LazyLock<String> = LazyLock::new(|| document().to_json().expect("the document is plain data"));

/// The document as JSON.
pub fn text() -> &'static str {
    &TEXT
}

fn document() -> openapi::OpenApi {
    let mut document = Schemas::openapi();
    let mut paths = Paths::new();
    for entry in ROUTES {
        let path = documented_path(entry.path);
        paths.add_path_operation(path, vec![http_method(&entry.method)], operation(entry));
    }
    document.paths = paths;
    if let Some(components) = &mut document.components {
        components.add_security_scheme("token", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    }
    document
}

/// A path without the pattern some parameters carry.
fn documented_path(path: &str) -> String {
    path.replace(":.*}", "}")
}

fn http_method(method: &Method) -> HttpMethod {
    match *method {
        Method::POST => HttpMethod::Post,
        Method::DELETE => HttpMethod::Delete,
        Method::PATCH => HttpMethod::Patch,
        _ => HttpMethod::Get,
    }
}

fn operation(entry: &Entry) -> openapi::path::Operation {
    let mut operation = OperationBuilder::new().summary(Some(entry.summary));
    if antenna::serves(entry.path) {
        operation = operation.tag(antenna::TAG);
    }
    for name in path_parameters(entry.path) {
        let kind = if matches!(name, "id" | "task" | "project") {
            Type::Integer
        } else {
            Type::String
        };
        operation = operation.parameter(parameter(name, ParameterIn::Path, Required::True, kind));
    }
    for &name in entry.query {
        let kind = match name {
            "limit" | "first_task" | "after" | "logs_limit" => Type::Integer,
            "rate_hz" | "wait_s" => Type::Number,
            _ => Type::String,
        };
        operation = operation.parameter(parameter(name, ParameterIn::Query, Required::False, kind));
    }
    for &name in entry.headers {
        operation = operation.parameter(parameter(name, ParameterIn::Header, Required::False, Type::String));
    }
    if let Some(schema) = entry.request {
        operation = operation.request_body(Some(request_body(schema)));
    }
    for (status, forms) in good_answers(entry) {
        let mut good = ResponseBuilder::new().description(meaning(status));
        for (media, body) in forms {
            good = good.content(media, content(body));
        }
        operation = operation.response(status.to_string(), good);
    }
    let (schema, media) = match antenna::serves(entry.path) {
        true => ("AntennaError", "application/json"),
        false => ("Problem", super::error::PROBLEM_JSON),
    };
    let problem = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name(schema)))
        .build();
    let bad = ResponseBuilder::new().description("a problem").content(media, problem);
    operation = operation.response("default", bad);
    let needs = entry.access.scopes().map(|scopes| match scopes {
        (scope, None) => format!("Needs the scope `{scope}`."),
        (one, Some(other)) => format!("Needs the scope `{one}` or `{other}`."),
    });
    let unbound = match entry.access {
        Access::WholeNode(_) => " A token that is bound to queues does not do.",
        _ => "",
    };
    if let Some(needs) = needs.map(|needs| needs + unbound) {
        operation = operation
            .security(SecurityRequirement::new::<_, [String; 0], String>("token", []))
            .description(Some(needs));
    }
    operation.build()
}

/// Each good status of a route with its forms.
fn good_answers(entry: &Entry) -> BTreeMap<u16, Vec<(&'static str, Body)>> {
    let (status, schema) = entry.response;
    let first = schema.map(|schema| ("application/json", Body::Of(schema)));
    let mut answers = BTreeMap::from([(status, Vec::from_iter(first))]);
    for answer in entry.also {
        let forms = answers.entry(answer.status).or_default();
        if answer.body != Body::Absent {
            forms.push((answer.media, answer.body));
        }
    }
    answers
}

fn meaning(status: u16) -> &'static str {
    match status {
        101 => "a WebSocket",
        204 => "done, or nothing there",
        503 => "not fit",
        _ => "done",
    }
}

fn content(body: Body) -> openapi::Content {
    let content = ContentBuilder::new();
    match body {
        Body::Absent | Body::Any => content.build(),
        Body::Text => content
            .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
            .build(),
        Body::Of(schema) => content.schema(Some(Ref::from_schema_name(schema))).build(),
    }
}

fn parameter(name: &str, place: ParameterIn, required: Required, kind: Type) -> openapi::path::Parameter {
    let schema = ObjectBuilder::new().schema_type(kind);
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(required)
        .schema(Some(schema))
        .build()
}

/// Said of every body.
const COMPRESSED: &str = "May be compressed: `Content-Encoding: gzip` or `zstd`.";

fn request_body(schema: &str) -> openapi::request_body::RequestBody {
    let one = Ref::from_schema_name(schema);
    if schema != "TaskIn" {
        return RequestBodyBuilder::new()
            .description(Some(COMPRESSED))
            .content("application/json", ContentBuilder::new().schema(Some(one)).build())
            .build();
    }
    // The one body that comes in two forms.
    let array = ArrayBuilder::new().items(one.clone());
    RequestBodyBuilder::new()
        .description(Some(COMPRESSED))
        .content("application/json", ContentBuilder::new().schema(Some(array)).build())
        .content("application/x-ndjson", ContentBuilder::new().schema(Some(one)).build())
        .build()
}

fn path_parameters(path: &str) -> impl Iterator<Item = &str> {
    path.split('{')
        .skip(1)
        .map(|rest| rest.split(['}', ':']).next().unwrap_or(""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                for (key, member) in members {
                    match member.as_str() {
                        Some(target) if key == "$ref" => found.push(target.to_owned()),
                        _ => references(member, found),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_resolves_and_every_route_is_there() {
        let document: Value = serde_json::from_str(text()).unwrap();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 40);
        for target in found {
            let pointer = target.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{target}");
        }
        let documented: usize = document["paths"]
            .as_object()
            .unwrap()
            .values()
            .map(|item| item.as_object().unwrap().len())
            .sum();
        assert_eq!(documented, ROUTES.len());
        for entry in ROUTES {
            let operation = &document["paths"][documented_path(entry.path)][entry.method.as_str().to_lowercase()];
            assert_eq!(operation["summary"], entry.summary);
            assert_eq!(
                operation["tags"][0] == antenna::TAG,
                antenna::serves(entry.path),
                "{}",
                entry.path
            );
        }
    }
}
