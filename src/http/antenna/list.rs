//! Which jobs there are, and which have work.
//!
//! Owns: the filters. Never: serves a job: looking advances no rotation. Invariant: with `ids_only` exactly what could be leased is listed, in
//! the order in which it would be served.

use super::lenient::flag_of;
use super::shown::job;
use super::wire::{
    AntennaIdList, AntennaJobId, AntennaJobList, AntennaJobsThere, AntennaListed, AntennaLogs, AntennaNumber,
};
use super::{Call, Refusal, answered, json};
use crate::coordinator::api::{ClaimableJob, CoordinatorError, JobView};
use crate::domain::ids::JobId;
use crate::domain::job::check_name;
use crate::domain::state::{ALL, State};
use crate::http::error::{ApiError, ApiResult};
use crate::http::extract::Query;
use crate::http::gathered;
use crate::http::hop::is_hop;
use crate::http::wire::Scope;
use crate::store::JobFilter;
use actix_web::{HttpRequest, HttpResponse};
use rand::seq::SliceRandom;
use serde_json::value::RawValue;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// How jobs of this server reach their workers, and how others' may.
const OURS: &str = "async_api";
const OTHERS: [&str; 2] = ["sync_api", "internal"];

/// What a list is asked for. Unknown parameters are ignored.
#[derive(Debug, PartialEq, Eq)]
struct Filter {
    /// None: any.
    slugs: Option<Vec<String>>,
    ids_only: bool,
    incomplete_only: bool,
    /// The jobs asked for are none of this server's.
    elsewhere: bool,
    limit: Option<u32>,
    before: Option<JobId>,
}

impl Filter {
    fn of(req: &HttpRequest, most: u32, slugs_max: usize, name_bytes: usize) -> ApiResult<Filter> {
        let mut query = Query::of(req)?;
        let words = format!("from 1 to {most}");
        let limit = query.parsed::<u32>("limit", &words)?;
        if limit.is_some_and(|limit| !(1..=most).contains(&limit)) {
            return Err(ApiError::invalid("limit", words));
        }
        let slugs = slugs(&mut query, slugs_max, name_bytes)?;
        let mode = query.one("dispatch_mode")?.filter(|mode| !mode.is_empty());
        let elsewhere = match mode.as_deref() {
            None | Some(OURS) => false,
            Some(mode) if OTHERS.contains(&mode) => true,
            Some(_) => {
                return Err(ApiError::invalid(
                    "dispatch_mode",
                    [OURS, OTHERS[0], OTHERS[1]].join(", "),
                ));
            }
        };
        Ok(Filter {
            slugs,
            ids_only: flag(&mut query, "ids_only")?,
            incomplete_only: flag(&mut query, "incomplete_only")?,
            elsewhere,
            limit,
            before: query.parsed("cursor", "that of a next page")?.map(JobId),
        })
    }

    /// The queues to look into: those asked for that the caller may see, and without any those that this node serves.
    fn queues(&self, call: &Call) -> Vec<String> {
        let wanted = self
            .slugs
            .clone()
            .unwrap_or_else(|| call.state.coordinator().served_queues());
        wanted.into_iter().filter(|queue| call.caller.sees(queue)).collect()
    }
}

fn slugs(query: &mut Query, most: usize, name_bytes: usize) -> ApiResult<Option<Vec<String>>> {
    const SLUGS: &str = "pipeline__slug__in";
    let mut slugs = query.all(SLUGS);
    // The name older workers use.
    slugs.extend(query.all("pipeline__slug"));
    if slugs.len() > most {
        return Err(ApiError::invalid(SLUGS, format!("at most {most} slugs")));
    }
    for slug in &slugs {
        check_name(SLUGS, slug, name_bytes)?;
    }
    Ok((!slugs.is_empty()).then_some(slugs))
}

fn flag(query: &mut Query, name: &str) -> ApiResult<bool> {
    let text = query.one(name)?.unwrap_or_default();
    flag_of(&text).ok_or_else(|| ApiError::invalid(name, "1 or 0"))
}

impl Call {
    fn filter(&self) -> ApiResult<Filter> {
        let settings = self.state.settings();
        let limits = self.state.limits();
        Filter::of(
            &self.req,
            settings.list_max_items,
            settings.batch_items_max,
            limits.name_bytes,
        )
    }
}

/// The jobs that have work; a sign of life of the worker that asks.
async fn claimable(call: &Call, filter: &Filter, limit: u32) -> ApiResult<Vec<AntennaJobId>> {
    let queues = filter.queues(call);
    let coordinator = call.state.coordinator();
    let is_hop = is_hop(&call.req);
    if call.caller.may(Scope::Work) && !is_hop {
        coordinator.note_asking(&call.identity().worker, &queues);
    }
    if filter.elsewhere {
        return Ok(Vec::new());
    }
    let found = answered(coordinator.claimable_jobs(&queues, limit as usize).await)?;
    let listed = |ClaimableJob { id, queue, priority }| AntennaJobId {
        id: id.0,
        pipeline_slug: queue.to_string(),
        priority: Some(priority),
    };
    let own: Vec<AntennaJobId> = found.into_iter().map(listed).collect();
    if is_hop {
        return Ok(own);
    }
    let target = same_of_others(&call.req, limit);
    let others = gathered::from_others::<AntennaIdList>(&call.state, &call.caller, &target).await;
    let lists = others.parts.into_iter().map(|(_, list)| list.results).chain([own]);
    let found = merged(lists.collect(), limit as usize);
    if found.is_empty() && others.missing > 0 {
        // What there is may be at the node that said nothing: an error is never "no work".
        return answered(Err(CoordinatorError::NotOwner));
    }
    Ok(found)
}

/// What another node is asked for its part of the list.
fn same_of_others(req: &HttpRequest, limit: u32) -> String {
    let own = |pair: &&str| {
        let name = pair.split('=').next().unwrap_or_default();
        !pair.is_empty() && !matches!(name, "ids_only" | "limit" | "cursor")
    };
    let pairs: Vec<&str> = req.query_string().split('&').filter(own).collect();
    format!("/api/v2/jobs/?ids_only=1&limit={limit}&{}", pairs.join("&"))
}

/// One list of several nodes' lists, each in its own order of service: larger priority first, then the places of the lists in turn. Which
/// node's turn comes first is left to chance, since nodes do not count each other's grants: so no node's jobs starve.
fn merged(mut lists: Vec<Vec<AntennaJobId>>, limit: usize) -> Vec<AntennaJobId> {
    lists.shuffle(&mut rand::rng());
    let placed = lists.into_iter().flat_map(|list| list.into_iter().enumerate());
    let mut placed: Vec<(usize, AntennaJobId)> = placed.collect();
    placed.sort_by_key(|(place, job)| (Reverse(job.priority), *place));
    let first = placed.into_iter().take(limit);
    first.map(|(_, job)| AntennaJobId { priority: None, ..job }).collect()
}

/// `GET /api/v2/jobs/next/`
pub async fn next(call: Call) -> Result<HttpResponse, Refusal> {
    let found = claimable(&call, &call.filter()?, 1).await?;
    match found.first() {
        Some(job) => json(HttpResponse::Ok(), job),
        None => Ok(HttpResponse::NoContent().finish()),
    }
}

/// `GET /api/v2/jobs/`
pub async fn list(call: Call) -> Result<HttpResponse, Refusal> {
    let filter = call.filter()?;
    let (results, next) = if filter.ids_only {
        let found = claimable(&call, &filter, filter.limit.unwrap_or(1)).await?;
        (found.into_iter().map(AntennaListed::Id).collect(), None)
    } else {
        whole(&call, &filter).await?
    };
    let answer = AntennaJobList {
        count: results.len(),
        next,
        previous: None,
        results,
    };
    json(HttpResponse::Ok(), &answer)
}

/// A page of jobs, newest first, and where the next one is.
async fn whole(call: &Call, filter: &Filter) -> ApiResult<(Vec<AntennaListed>, Option<String>)> {
    let limit = filter.limit.unwrap_or(call.state.settings().list_default_items);
    if filter.elsewhere {
        return Ok((Vec::new(), None));
    }
    let states = ALL
        .into_iter()
        .filter(|state| filter.incomplete_only && !state.is_final());
    let queues = match &filter.slugs {
        Some(_) => Some(filter.queues(call)),
        None => call.caller.queues().map(<[String]>::to_vec),
    };
    let stored = JobFilter {
        states: states.collect::<Vec<State>>(),
        queues,
        before: filter.before,
        // One more, to know whether there is a next page.
        limit: limit + 1,
        ..JobFilter::default()
    };
    let mut views = answered(call.state.coordinator().list_jobs(&stored).await)?;
    let more = views.len() > limit as usize;
    views.truncate(limit as usize);
    let last = views.last().filter(|_| more).map(|view| view.record.id);
    let next = last.map(|last| next_page(&call.req, last));
    let mut there = BTreeMap::new();
    if is_hop(&call.req) {
        // The node that asks has the same rows; what it lacks is what is known here alone.
        let us = call.state.coordinator().node_id();
        views.retain(|view| view.node.as_deref() == Some(us));
    } else {
        there = of_others(call).await;
    }
    let listed = |view: JobView| match there.remove(&view.record.id.0) {
        Some(told) => AntennaListed::There(told),
        None => AntennaListed::Job(Box::new(job(view, AntennaLogs::default()))),
    };
    Ok((views.into_iter().map(listed).collect(), next))
}

/// The jobs of this page that other nodes serve, as they tell of them, by number.
async fn of_others(call: &Call) -> BTreeMap<i64, Box<RawValue>> {
    let target = format!("/api/v2/jobs/?{}", call.req.query_string());
    let others = gathered::from_others::<AntennaJobsThere>(&call.state, &call.caller, &target).await;
    let told = others.parts.into_iter().flat_map(|(_, list)| list.results);
    told.filter_map(|job| Some((serde_json::from_str::<AntennaNumber>(job.get()).ok()?.id, job)))
        .collect()
}

/// The address of this request with another cursor.
fn next_page(req: &HttpRequest, last: JobId) -> String {
    let connection = req.connection_info();
    let pairs = req
        .query_string()
        .split('&')
        .filter(|pair| !pair.is_empty() && !pair.starts_with("cursor="));
    let cursor = format!("cursor={last}");
    let query: Vec<&str> = pairs.chain([cursor.as_str()]).collect();
    format!(
        "{}://{}{}?{}",
        connection.scheme(),
        connection.host(),
        req.path(),
        query.join("&")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    fn read(query: &str) -> ApiResult<Filter> {
        let req = TestRequest::get()
            .uri(&format!("/api/v2/jobs?{query}"))
            .to_http_request();
        Filter::of(&req, 500, 3, 8)
    }

    #[test]
    fn fm09_every_filter_is_typed_and_a_senseless_one_is_refused() {
        let filter =
            read("pipeline__slug__in=a,b&ids_only=1&incomplete_only=true&dispatch_mode=async_api&limit=7&x=y").unwrap();
        assert_eq!(filter.slugs, Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(
            (filter.ids_only, filter.incomplete_only, filter.elsewhere),
            (true, true, false)
        );
        assert_eq!((filter.limit, filter.before), (Some(7), None));
        let filter = read("pipeline__slug=a&dispatch_mode=sync_api&cursor=9").unwrap();
        assert_eq!(
            (filter.slugs.unwrap().len(), filter.elsewhere, filter.before),
            (1, true, Some(JobId(9)))
        );
        assert_eq!(read("").unwrap().slugs, None);
        for (bad, field) in [
            ("limit=0", "limit"),
            ("limit=501", "limit"),
            ("limit=x", "limit"),
            ("ids_only=2", "ids_only"),
            ("dispatch_mode=pigeon", "dispatch_mode"),
            ("pipeline__slug__in=a,b,c,d", "pipeline__slug__in"),
            ("pipeline__slug__in=toolonganame", "pipeline__slug__in"),
        ] {
            assert_eq!(read(bad).unwrap_err().problem().field.as_deref(), Some(field), "{bad}");
        }
    }

    #[test]
    fn the_next_page_keeps_the_filters() {
        let req = TestRequest::get()
            .uri("/api/v2/jobs/?limit=2&cursor=9&pipeline__slug=a%20b")
            .to_http_request();
        assert_eq!(
            next_page(&req, JobId(5)),
            "http://localhost:8080/api/v2/jobs/?limit=2&pipeline__slug=a%20b&cursor=5"
        );
    }

    #[test]
    fn fm10_the_lists_of_several_nodes_take_turns_within_a_priority() {
        let list = |ids: &[(i64, i32)]| {
            let listed = |&(id, priority)| AntennaJobId {
                id,
                pipeline_slug: "q".into(),
                priority: Some(priority),
            };
            ids.iter().map(listed).collect::<Vec<_>>()
        };
        let merge = |limit| {
            let lists = vec![list(&[(1, 0), (2, 0)]), list(&[(10, 5), (11, 0)]), list(&[])];
            let ids: Vec<i64> = merged(lists, limit).iter().map(|job| job.id).collect();
            ids
        };
        assert_eq!(merge(10).len(), 4);
        assert!((0..50).all(|_| merge(10)[..2] == [10, 1] && merge(1) == [10]));
        // Of equals each comes first sooner or later.
        let lists = || vec![list(&[(1, 0)]), list(&[(2, 0)])];
        let first: std::collections::BTreeSet<i64> = (0..200).map(|_| merged(lists(), 1)[0].id).collect();
        assert_eq!(first.len(), 2);
    }
}
