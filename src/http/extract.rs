//! What handlers take from a request besides its body: the job in the path, the query, small JSON bodies.
//!
//! Owns: their parsing and errors. Never: knows a route. Invariant: an unknown query parameter is refused, never ignored.

use super::body::{self, Body};
use super::error::{ApiError, ApiResult};
use super::settings::HttpSettings;
use super::state::AppState;
use crate::domain::ids::JobId;
use actix_web::http::header;
use actix_web::{FromRequest, HttpRequest, HttpResponse, dev, web};
use futures_util::future::LocalBoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::future::{Ready, ready};
use std::str::FromStr;
use std::time::Duration;

/// The job of a path such as `/v1/jobs/{id}`.
#[derive(Debug, Clone, Copy)]
pub struct JobPath(pub JobId);

impl FromRequest for JobPath {
    type Error = ApiError;
    type Future = Ready<ApiResult<JobPath>>;

    fn from_request(req: &HttpRequest, _: &mut dev::Payload) -> Self::Future {
        ready(JobPath::of(req).ok_or_else(|| ApiError::not_found("job")))
    }
}

impl JobPath {
    /// None for what cannot be a job's number.
    pub fn of(req: &HttpRequest) -> Option<JobPath> {
        let id = req.match_info().get("id")?.parse::<i64>().ok()?;
        (1..1 << 53).contains(&id).then_some(JobPath(JobId(id)))
    }
}

/// Query parameters, taken out one by one.
pub struct Query {
    pairs: Vec<(String, String)>,
}

impl FromRequest for Query {
    type Error = ApiError;
    type Future = Ready<ApiResult<Query>>;

    fn from_request(req: &HttpRequest, _: &mut dev::Payload) -> Self::Future {
        ready(Query::of(req))
    }
}

impl Query {
    pub fn of(req: &HttpRequest) -> ApiResult<Query> {
        let pairs = web::Query::<Vec<(String, String)>>::from_query(req.query_string())
            .map_err(|_| ApiError::malformed("the query could not be read"))?;
        Ok(Query {
            pairs: pairs.into_inner(),
        })
    }

    pub fn has(&self, name: &str) -> bool {
        self.pairs.iter().any(|(key, _)| key == name)
    }

    /// Every value of a repeatable parameter; commas separate values, too.
    pub fn all(&mut self, name: &str) -> Vec<String> {
        let mut values = Vec::new();
        self.pairs.retain(|(key, value)| {
            if key == name {
                values.extend(value.split(',').filter(|part| !part.is_empty()).map(str::to_owned));
            }
            key != name
        });
        values
    }

    /// The value of a parameter that may be given once.
    pub fn one(&mut self, name: &str) -> ApiResult<Option<String>> {
        let Some(at) = self.pairs.iter().position(|(key, _)| key == name) else {
            return Ok(None);
        };
        let (_, value) = self.pairs.swap_remove(at);
        if self.pairs.iter().any(|(key, _)| key == name) {
            return Err(ApiError::invalid(name, "given once"));
        }
        Ok(Some(value))
    }

    /// The parsed value of a parameter that may be given once.
    pub fn parsed<T: FromStr>(&mut self, name: &str, limit: &str) -> ApiResult<Option<T>> {
        let text = self.one(name)?;
        text.map(|text| text.parse().map_err(|_| ApiError::invalid(name, limit)))
            .transpose()
    }

    /// Where a list goes on: what its last page gave as `next_cursor`.
    pub fn cursor<T: FromStr>(&mut self) -> ApiResult<Option<T>> {
        self.parsed("cursor", "a next_cursor of this list")
    }

    /// `limit` of a list that may be as long as any.
    pub fn list_limit(&mut self, settings: &HttpSettings) -> ApiResult<u32> {
        self.limit(settings.list_default_items, settings.list_max_items)
    }

    /// `limit`, within other bounds.
    pub fn limit(&mut self, default: u32, max: u32) -> ApiResult<u32> {
        let words = format!("from 1 to {max}");
        match self.parsed::<u32>("limit", &words)? {
            None => Ok(default.min(max)),
            Some(limit) if (1..=max).contains(&limit) => Ok(limit),
            Some(_) => Err(ApiError::invalid("limit", words)),
        }
    }

    /// Refuses what nobody took.
    pub fn finish(self) -> ApiResult<()> {
        self.only(&[])
    }

    /// Refuses what is none of these.
    pub fn only(self, known: &[&str]) -> ApiResult<()> {
        let unknown = self.pairs.into_iter().find(|(key, _)| !known.contains(&key.as_str()));
        match unknown {
            None => Ok(()),
            Some((key, _)) => {
                let limit = match known {
                    [] => "absent".to_owned(),
                    known => format!("one of {}", known.join(", ")),
                };
                let error = ApiError::malformed(format!("unknown parameter {key:?}"));
                Err(error.at_field(key).keeping_to(limit))
            }
        }
    }
}

/// A small JSON body; one over its bound, or without JSON's content type, is refused. A handler takes it last, so that nothing is read of a
/// request that is refused without it.
pub struct Small<T>(pub T);

impl<T: DeserializeOwned + 'static> FromRequest for Small<T> {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, ApiResult<Small<T>>>;

    fn from_request(req: &HttpRequest, payload: &mut dev::Payload) -> Self::Future {
        let (req, mut payload) = taken(req, payload);
        Box::pin(async move { small_json(&req, &mut payload).await.map(Small) })
    }
}

/// Like [`Small`], but an absent body stands for the default.
pub struct SmallOrDefault<T>(pub T);

impl<T: DeserializeOwned + Default + 'static> FromRequest for SmallOrDefault<T> {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, ApiResult<SmallOrDefault<T>>>;

    fn from_request(req: &HttpRequest, payload: &mut dev::Payload) -> Self::Future {
        let (req, mut payload) = taken(req, payload);
        Box::pin(async move { small_json_or_default(&req, &mut payload).await.map(SmallOrDefault) })
    }
}

fn taken(req: &HttpRequest, payload: &mut dev::Payload) -> (HttpRequest, web::Payload) {
    let payload = web::Payload::from_request(req, payload).into_inner();
    (req.clone(), payload.expect("a payload can always be taken"))
}

async fn small_body(req: &HttpRequest, payload: &mut web::Payload) -> ApiResult<Body> {
    let state = req.app_data::<web::Data<AppState>>().expect("configure adds it");
    let allowance = state.allowance(state.settings().small_body_max_bytes);
    body::read(req, payload, allowance, Duration::ZERO).await
}

async fn small_json<T: DeserializeOwned>(req: &HttpRequest, payload: &mut web::Payload) -> ApiResult<T> {
    body::require_json(req)?;
    body::parse::json(&small_body(req, payload).await?.bytes)
}

async fn small_json_or_default<T: DeserializeOwned + Default>(
    req: &HttpRequest,
    payload: &mut web::Payload,
) -> ApiResult<T> {
    if body::has_body(req) {
        return small_json(req, payload).await;
    }
    // An HTTP/2 body may come unannounced: what does come must obey the same rules.
    if req.version() >= actix_web::http::Version::HTTP_2 {
        let body = small_body(req, payload).await?;
        if !body.bytes.is_empty() {
            body::require_json(req)?;
            return body::parse::json(&body.bytes);
        }
    }
    Ok(T::default())
}

/// Does the client ask for this media type by name?
pub fn asks_for(req: &HttpRequest, media: &str) -> bool {
    let accepts = req.headers().get_all(header::ACCEPT);
    let ranges = accepts
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    ranges.into_iter().any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let is_named = parts.next().is_some_and(|named| named.eq_ignore_ascii_case(media));
        let weights = parts.filter_map(|part| part.split_once('='));
        let mut weights = weights.filter(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
        // A weight of 0 says "anything but this".
        is_named && !weights.any(|(_, weight)| weight.trim().parse() == Ok(0.0_f32))
    })
}

/// 200 with a JSON body.
pub fn ok_json(value: &impl Serialize) -> ApiResult<HttpResponse> {
    json_with(HttpResponse::Ok(), value)
}

/// The given answer with a JSON body.
pub fn json_with(mut response: actix_web::HttpResponseBuilder, value: &impl Serialize) -> ApiResult<HttpResponse> {
    Ok(response.content_type("application/json").body(to_json(value)?))
}

/// Prints JSON; fails only for values that cannot be shown, such as a moment beyond the year 9999.
pub fn to_json(value: &impl Serialize) -> ApiResult<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| ApiError::unprintable(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    fn query(text: &str) -> Query {
        Query::of(&TestRequest::get().uri(&format!("/?{text}")).to_http_request()).unwrap()
    }

    #[test]
    fn parameters_repeat_or_not_and_unknown_ones_are_refused() {
        let mut q = query("state=a&state=b,c&queue=x%2Cy&limit=7");
        assert_eq!(q.all("state"), ["a", "b", "c"]);
        assert_eq!(q.one("queue").unwrap().as_deref(), Some("x,y"));
        assert_eq!(q.limit(50, 500).unwrap(), 7);
        assert!(q.finish().is_ok());
        assert!(query("queue=a&queue=b").one("queue").is_err());
        let error = query("status=a").finish().unwrap_err();
        assert_eq!(error.problem().field.as_deref(), Some("status"));
    }

    #[test]
    fn limits_of_lists_are_refused_not_clamped() {
        assert_eq!(query("").limit(50, 500).unwrap(), 50);
        for bad in ["limit=0", "limit=501", "limit=x", "limit=-1"] {
            assert_eq!(
                query(bad).limit(50, 500).unwrap_err().problem().field.as_deref(),
                Some("limit"),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_media_type_is_asked_for_by_name_and_with_some_weight() {
        let asks = |accept: &str| {
            let req = TestRequest::get().insert_header(("accept", accept)).to_http_request();
            asks_for(&req, "text/event-stream")
        };
        for yes in [
            "text/event-stream",
            "application/json, Text/Event-Stream;q=0.9",
            "text/event-stream; q=1",
        ] {
            assert!(asks(yes), "{yes}");
        }
        for no in [
            "text/event-stream;q=0",
            "text/event-stream; Q=0.000, */*",
            "x/text/event-stream",
            "text/event-streams",
            "*/*",
            "",
        ] {
            assert!(!asks(no), "{no}");
        }
        assert!(!asks_for(&TestRequest::get().to_http_request(), "text/event-stream"));
    }

    #[actix_web::test]
    async fn job_ids_are_positive_and_below_two_to_the_53rd() {
        for (text, good) in [("1", true), ("9007199254740991", true), ("0", false), ("-1", false)] {
            assert_eq!(job_path(text).await.is_ok(), good, "{text}");
        }
        for bad in ["9007199254740992", "x", "1.0", "", "99999999999999999999"] {
            assert_eq!(job_path(bad).await.unwrap_err().problem().code, "not_found", "{bad}");
        }
    }

    async fn job_path(text: &'static str) -> ApiResult<JobPath> {
        JobPath::extract(&TestRequest::get().param("id", text).to_http_request()).await
    }
}
