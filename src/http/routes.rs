//! The one table of routes: method, path, access, handler and what the API document says of it.
//!
//! Owns: which routes exist and who may use them. Never: handles a request. Invariant: routes are mounted from this table and nowhere
//! else, each behind the gate, so none can be without its access rule.

use super::auth::Access::{self, Either, Needs, Open, Streams, WholeNode};
use super::auth::gate;
use super::error::ApiError;
use super::wire::Scope::{Admin, Read, Submit, Work};
use super::{
    antenna, append, callbacks, fleet, jobs, leases, logs, nodes, pages, probes, report, results, stream, tickets,
    tokens,
};
use actix_web::http::Method;
use actix_web::middleware::from_fn;
use actix_web::{HttpRequest, HttpResponse, Route, web};

/// One route.
pub struct Entry {
    pub method: Method,
    pub path: &'static str,
    pub access: Access,
    /// One line for the API document.
    pub summary: &'static str,
    /// Query parameters.
    pub query: &'static [&'static str],
    /// Name of the request body's schema.
    pub request: Option<&'static str>,
    /// Status and schema of the good answer.
    pub response: (u16, Option<&'static str>),
    /// Further good answers, and other forms of that one.
    pub also: &'static [Answer],
    /// Request headers with a meaning of their own here.
    pub headers: &'static [&'static str],
    route: fn() -> Route,
}

/// A good answer in one of its forms.
pub struct Answer {
    pub status: u16,
    pub media: &'static str,
    pub body: Body,
}

/// What an answer's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    Absent,
    Text,
    /// Any JSON.
    Any,
    /// JSON of this schema; of each line or event, where the form is made of them.
    Of(&'static str),
}

const fn answer(status: u16, media: &'static str, body: Body) -> Answer {
    Answer { status, media, body }
}

const JSON: &str = "application/json";
const HTML: &str = "text/html";
const EVENTS: &str = "text/event-stream";

impl Entry {
    /// Is HEAD answered like GET? Not where an answer takes as long as there is something to wait for.
    pub fn answers_head(&self) -> bool {
        let waits = matches!(self.access, Streams(_)) || self.query.contains(&"wait_s");
        self.method == Method::GET && !waits
    }
}

macro_rules! entry {
    ($method:ident $path:literal $access:expr, $summary:literal, [$($query:literal)*], $request:expr => $status:literal $response:expr, $handler:path
        $(, also [$($also:expr),*])? $(, headers [$($header:literal),*])?) => {
        Entry {
            method: Method::$method,
            path: $path,
            access: $access,
            summary: $summary,
            query: &[$($query),*],
            request: $request,
            response: ($status, $response),
            also: &[$($($also),*)?],
            headers: &[$($($header),*)?],
            route: || web::method(Method::$method).to($handler),
        }
    };
}

/// Every route there is. Paths are tried in this order, each by a regular expression, so those that workers call come first.
pub static ROUTES: &[Entry] = &[
    entry!(POST "/v1/jobs/{id}/results" Needs(Work), "Post results", [],
        Some("PostResults") => 200 Some("ResultsPosted"), results::post),
    entry!(POST "/v1/jobs/{id}/leases" Needs(Work), "Lease tasks of one job", [],
        Some("LeaseJob") => 200 Some("Granted"), leases::lease_job),
    entry!(POST "/v1/jobs" Needs(Submit), "Create a job", [], Some("CreateJob") => 201 Some("Job"), jobs::create,
        also [answer(200, JSON, Body::Of("Job"))], headers ["Idempotency-Key"]),
    entry!(GET "/v1/jobs" Needs(Read), "List jobs, newest first",
        ["state" "queue" "label" "q" "cursor" "limit"], None => 200 Some("JobList"), jobs::list),
    entry!(GET "/v1/jobs/{id}" Needs(Read), "Show a job with its live progress", [], None => 200 Some("Job"), jobs::get),
    entry!(PATCH "/v1/jobs/{id}" Needs(Submit), "Change priority or failure threshold of a job that has not ended", [],
        Some("ChangeJob") => 200 Some("Job"), jobs::change),
    entry!(DELETE "/v1/jobs/{id}" Needs(Submit), "Delete a job that has ended, with everything about it", [],
        None => 204 None, jobs::delete),
    entry!(POST "/v1/jobs/{id}/tasks" Needs(Submit), "Append tasks to an open job: a JSON array, or NDJSON",
        ["first_task"], Some("TaskIn") => 200 Some("Appended"), append::append),
    entry!(GET "/v1/jobs/{id}/tasks" Needs(Read), "List tasks and where they are",
        ["state" "cursor" "limit"], None => 200 Some("TaskList"), leases::tasks),
    entry!(POST "/v1/jobs/{id}/seal" Needs(Submit), "Close a job to further tasks", [], Some("Empty") => 200 Some("Job"), jobs::seal),
    entry!(POST "/v1/jobs/{id}/start" Needs(Submit), "Start a pending job", [], Some("Empty") => 200 Some("Job"), jobs::start),
    entry!(POST "/v1/jobs/{id}/pause" Needs(Submit), "Stop handing out tasks", [], Some("Empty") => 200 Some("Job"), jobs::pause),
    entry!(POST "/v1/jobs/{id}/resume" Needs(Submit), "Hand out tasks again", [], Some("Empty") => 200 Some("Job"), jobs::resume),
    entry!(POST "/v1/jobs/{id}/cancel" Needs(Submit), "Cancel a job", [], Some("Cancel") => 200 Some("Job"), jobs::cancel),
    entry!(GET "/v1/jobs/{id}/callbacks" Needs(Read), "The callbacks of a job: one for each run that ended", ["limit"],
        None => 200 Some("CallbackList"), callbacks::list),
    entry!(POST "/v1/jobs/{id}/callbacks/{callback}/redeliver" Needs(Submit), "Send a callback again, under the same id", [],
        Some("Empty") => 202 Some("Callback"), callbacks::redeliver),
    entry!(POST "/v1/jobs/{id}/retry" Needs(Submit), "Start a new run of a final job", [], Some("Retry") => 200 Some("Job"), jobs::retry),
    entry!(POST "/v1/leases" Needs(Work), "Lease tasks of the fair next job among some queues", [],
        Some("LeaseAny") => 200 Some("Granted"), leases::lease_any),
    entry!(POST "/v1/jobs/{id}/leases/extend" Needs(Work), "Keep leases for longer", [],
        Some("Extend") => 200 Some("Extended"), leases::extend),
    entry!(POST "/v1/jobs/{id}/leases/release" Needs(Work), "Give leases back, spending nothing", [],
        Some("Release") => 200 Some("Released"), leases::release),
    entry!(POST "/v1/jobs/{id}/logs" Either(Work, Submit), "Write into a job's log", [],
        Some("PostLogs") => 200 Some("LogsPosted"), logs::post),
    entry!(GET "/v1/jobs/{id}/logs" Needs(Read), "Read a job's log: the newest entries, or those after one; waits for more if asked to",
        ["after" "limit" "level" "wait_s"], None => 200 Some("LogList"), logs::list),
    entry!(GET "/v1/jobs/{id}/results" Needs(Read), "Read results: a page, or NDJSON if asked for by Accept: to the end, or `limit` lines, the last one's `task` being the next `cursor`",
        ["status" "cursor" "limit"], None => 200 Some("ResultList"), results::read::list,
        also [answer(200, "application/x-ndjson", Body::Of("ResultOut"))]),
    entry!(GET "/v1/jobs/{id}/tasks/{task}/result" Needs(Read), "The result of one task that succeeded, verbatim", [],
        None => 200 None, results::text::show,
        also [answer(200, JSON, Body::Any)]),
    entry!(GET "/v1/jobs/{id}/report" Needs(Read), "A report of a job, as one HTML file", [], None => 200 None, report::show,
        also [answer(200, HTML, Body::Text)]),
    entry!(GET "/v1/jobs/{id}/progress" Streams(Read), "Watch a job: a WebSocket, or server-sent events if asked for by Accept",
        ["rate_hz" "ticket"], None => 200 None, stream::job,
        also [answer(200, EVENTS, Body::Of("StreamMessage")), answer(101, "", Body::Absent), answer(204, "", Body::Absent)]),
    entry!(GET "/v1/progress" Streams(Read), "Watch many jobs in one stream, the newest that match",
        ["state" "queue" "label" "rate_hz" "ticket"], None => 200 None, stream::jobs,
        also [answer(200, EVENTS, Body::Of("StreamMessage")), answer(101, "", Body::Absent)]),
    entry!(POST "/v1/tickets" Needs(Read), "Make a single-use ticket for a stream", [],
        Some("CreateTicket") => 201 Some("TicketCreated"), tickets::create),
    entry!(GET "/v1/jobs/{id}/explain" Needs(Read), "Why a job is not done: what it waits for, and its undecided tasks",
        ["limit"], None => 200 Some("Explained"), fleet::explain),
    entry!(GET "/v1/jobs/{id}/failures" Needs(Read), "Failed tasks of the current run, grouped by error",
        [], None => 200 Some("FailureList"), fleet::failures),
    entry!(GET "/v1/workers" Needs(Read), "Workers as this node has seen them", [], None => 200 Some("WorkerList"), fleet::workers),
    entry!(GET "/v1/queues" Needs(Read), "Queues and who serves them", [], None => 200 Some("QueueList"), fleet::queues),
    entry!(GET "/v1/nodes" WholeNode(Read), "Server processes", [], None => 200 Some("NodeList"), nodes::list),
    entry!(POST "/v1/nodes/{node}/drain" WholeNode(Admin), "Ask a node to give up its queues and to end", [],
        Some("Empty") => 202 Some("Draining"), nodes::drain),
    entry!(POST "/v1/tokens" Needs(Admin), "Create a token", [], Some("CreateToken") => 201 Some("TokenCreated"), tokens::create),
    entry!(GET "/v1/tokens" Needs(Admin), "List tokens", [], None => 200 Some("TokenList"), tokens::list),
    entry!(DELETE "/v1/tokens/{token}" Needs(Admin), "Revoke a token", [], None => 204 None, tokens::revoke),
    // Those below /api/v2 are served with and without their last slash.
    entry!(POST "/api/v2/jobs/{id}/result/" Needs(Work), "Post results", [],
        Some("AntennaResults") => 200 Some("AntennaResultsTaken"), antenna::results::post),
    entry!(POST "/api/v2/jobs/{id}/tasks/" Needs(Work), "Lease tasks of a job", [],
        Some("AntennaTasksRequest") => 200 Some("AntennaTasks"), antenna::tasks::lease),
    entry!(GET "/api/v2/jobs/next/" Either(Work, Read), "The job to be served next; 204 without one",
        ["pipeline__slug__in" "incomplete_only" "dispatch_mode" "processing_service_name"],
        None => 200 Some("AntennaJobId"), antenna::list::next,
        also [answer(204, "", Body::Absent)]),
    entry!(GET "/api/v2/jobs/" Either(Work, Read), "List jobs, or with ids_only those that have work, in the order they would be served",
        ["pipeline__slug__in" "ids_only" "incomplete_only" "dispatch_mode" "processing_service_name" "cursor" "limit"],
        None => 200 Some("AntennaJobList"), antenna::list::list),
    entry!(POST "/api/v2/jobs/" Needs(Submit), "Create a job", [],
        Some("AntennaCreateJob") => 201 Some("AntennaJob"), antenna::jobs::create),
    entry!(GET "/api/v2/jobs/{id}/" Either(Work, Read), "Show a job with its progress and its log", ["logs_limit"],
        None => 200 Some("AntennaJob"), antenna::jobs::show),
    entry!(POST "/api/v2/jobs/{id}/run/" Needs(Submit), "Start a job", [], None => 200 Some("AntennaJob"), antenna::jobs::run),
    entry!(POST "/api/v2/jobs/{id}/retry/" Needs(Submit), "Start a new run of a job that has ended", [],
        Some("AntennaRetry") => 200 Some("AntennaJob"), antenna::jobs::retry),
    entry!(POST "/api/v2/jobs/{id}/cancel/" Needs(Submit), "Cancel a job", [], None => 200 Some("AntennaJob"), antenna::jobs::cancel),
    entry!(GET "/api/v2/projects/" Either(Work, Read), "List projects: there is one", [],
        None => 200 Some("AntennaProjects"), antenna::projects::list),
    entry!(POST "/api/v2/projects/{project}/pipelines/" Either(Work, Submit), "Register pipelines; each is a queue", [],
        Some("AntennaRegister") => 201 Some("AntennaRegistered"), antenna::projects::register),
    entry!(GET "/healthz" Open, "Is the process alive?", [], None => 200 Some("Alive"), probes::healthz),
    entry!(GET "/readyz" Open, "Is the node fit to serve?", [], None => 200 Some("Ready"), probes::readyz,
        also [answer(503, JSON, Body::Of("Ready"))]),
    entry!(GET "/metrics" WholeNode(Read), "Metrics in Prometheus text form", [], None => 200 None, probes::metrics,
        also [answer(200, "text/plain", Body::Text)]),
    entry!(GET "/openapi.json" Open, "This document", [], None => 200 None, pages::openapi_json,
        also [answer(200, JSON, Body::Any)]),
    entry!(GET "/docs" Open, "Leads to the API browser", [], None => 308 None, pages::docs_redirect),
    entry!(GET "/docs/{file:.*}" Open, "The API browser", [], None => 200 None, pages::docs,
        also [answer(200, "*/*", Body::Text)]),
    entry!(GET "/ui/{file:.*}" Open, "A part of the live page", [], None => 200 None, pages::asset,
        also [answer(200, "*/*", Body::Text)]),
    entry!(GET "/" Open, "The live page", [], None => 200 None, pages::front,
        also [answer(200, HTML, Body::Text)]),
];

/// The route that a GET of this path takes.
pub fn get_at(path: &str) -> Option<&'static Entry> {
    ROUTES
        .iter()
        .find(|entry| entry.method == Method::GET && is_at(entry.path, path))
}

fn is_at(pattern: &str, path: &str) -> bool {
    let (mut parts, mut given) = (pattern.split('/'), path.split('/'));
    loop {
        match (parts.next(), given.next()) {
            (None, None) => return true,
            (Some(part), Some(text)) if part == text || (part.starts_with('{') && !text.is_empty()) => {}
            _ => return false,
        }
    }
}

/// Mounts the whole table.
pub fn mount(cfg: &mut web::ServiceConfig) {
    let mut mounted: Vec<&str> = Vec::new();
    for entry in ROUTES {
        if mounted.contains(&entry.path) {
            continue;
        }
        mounted.push(entry.path);
        let entries: Vec<&'static Entry> = ROUTES.iter().filter(|other| other.path == entry.path).collect();
        let head = entries
            .iter()
            .any(|entry| entry.answers_head())
            .then_some(Method::HEAD.as_str());
        let methods = entries.iter().map(|entry| entry.method.as_str()).chain(head);
        let allow = methods.collect::<Vec<_>>().join(", ");
        let mut resource = web::resource(antenna::spellings(entry.path));
        for entry in &entries {
            resource = resource.route((entry.route)());
        }
        let refuse = move |req: HttpRequest| {
            let response = ApiError::method_not_allowed(allow.clone()).response_at(req.path());
            async move { response }
        };
        let gate = from_fn(move |req, next| {
            let entries = entries.clone();
            async move { gate::pass(&entries, req, next).await }
        });
        cfg.service(resource.default_service(web::to(refuse)).wrap(gate));
    }
}

/// Answers paths that are not in the table.
pub async fn nowhere(req: HttpRequest) -> HttpResponse {
    ApiError::not_found("path").response_at(req.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_finds_its_route() {
        let found = |path| get_at(path).map(|entry| entry.path);
        assert_eq!(found("/v1/jobs/7/progress"), Some("/v1/jobs/{id}/progress"));
        assert_eq!(found("/v1/progress"), Some("/v1/progress"));
        for none in [
            "/v1/jobs//progress",
            "/v1/jobs/7/progress/",
            "/v1/tickets",
            "v1/progress",
            "",
        ] {
            assert_eq!(found(none), None, "{none}");
        }
    }
}
