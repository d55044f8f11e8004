//! A long post of results, item by item while it arrives.
//!
//! Owns: what is held of such a post: one item, what is small of the items before, what stands beside them, and the names of the large results that
//! are stored already. Never: posts; its caller does, when the whole body made sense. Invariant: results of a post that came to nothing are given up,
//! and no lease that was named in it expires before it is judged.

use super::{ItemBounds, ItemRead};
use crate::coordinator::api::{CoordinatorError, Report, ReportedResult};
use crate::coordinator::{Coordinator, LeaseHold};
use crate::domain::ids::{BlobId, JobId};
use crate::domain::json_text::{check, mend_nul_owned};
use crate::domain::rows::Kept;
use crate::http::body::Stream;
use crate::http::body::items::{ItemSplitter, RawItem, Unsplittable, peek};
use crate::http::error::{ApiError, ApiResult};
use crate::http::settings::HttpSettings;
use actix_web::web;
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

/// How a kind of post names its members, and how one of its items is read. `X` is what an item says beside its report.
pub(in crate::http) struct Shape<X> {
    /// The member that holds the items.
    pub list: &'static str,
    /// The member of an item that names its lease. Where it stands before the result, the lease is held while the result is uploaded.
    pub lease: &'static str,
    /// The member beside the list that names the worker, if one does.
    pub worker: Option<&'static str>,
    /// Reads an item's text. What cannot be kept is `Unusable`; an error refuses the whole post.
    pub read: fn(&str, ItemBounds) -> ApiResult<ItemRead<X>>,
}

impl<X> Clone for Shape<X> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<X> Copy for Shape<X> {}

/// What has come of a post.
pub(in crate::http) struct Intake<'a, X> {
    coordinator: &'a Coordinator,
    shape: Shape<X>,
    by: Option<Arc<str>>,
    /// So much of what stands beside the list was looked into for the worker's name.
    rest_seen: usize,
    bounds: ItemBounds,
    job: JobId,
    items_max: usize,
    inline_max_bytes: usize,
    deadline: Instant,
    hold: LeaseHold,
    items: Vec<(ReportedResult, X)>,
    stored: Vec<BlobId>,
}

/// A post that was read to its end.
pub(in crate::http) struct Taken<'a, X> {
    /// What stood beside the list, with the list empty: short as a rule, but as long as the body if that had no list.
    pub rest: Bytes,
    pub items: Vec<(ReportedResult, X)>,
    /// Dropped when the post is answered.
    pub upload: Intake<'a, X>,
}

impl<'a, X: Send + 'static> Intake<'a, X> {
    /// Reads a whole post to a job that the caller may post to. `by`: the worker, if it is known without the body.
    pub(in crate::http) async fn run(
        coordinator: &'a Coordinator,
        job: JobId,
        by: Option<Arc<str>>,
        stream: &mut Stream<'_>,
        shape: Shape<X>,
        bounds: ItemBounds,
        settings: &HttpSettings,
    ) -> ApiResult<Taken<'a, X>> {
        let mut intake = Intake {
            coordinator,
            shape,
            by,
            rest_seen: 0,
            bounds,
            job,
            items_max: settings.batch_items_max,
            inline_max_bytes: settings.parse_inline_max_bytes,
            deadline: stream.deadline(),
            hold: coordinator.hold_leases(job).await,
            items: Vec::new(),
            stored: Vec::new(),
        };
        let mut splitter = ItemSplitter::new(shape.list, stream.max_bytes());
        let mut looked_into = None;
        while let Some(piece) = stream.next().await? {
            splitter.push(piece);
            loop {
                let item = match splitter.next_item() {
                    Ok(Some(item)) => item,
                    Ok(None) => break,
                    // The parser of the rest refuses a list, however long it would have been, as it does a short one.
                    Err(Unsplittable::BareList { .. }) => return Ok(intake.taken(b"[]".to_vec())),
                    Err(error) => return Err(refused(&error)),
                };
                intake.find_worker(splitter.rest());
                let given_back = intake.add(item).await?;
                stream.give_back(given_back);
            }
            // Long before a large result is here its lease is known.
            if splitter.partial().len() > LOOK_INTO_BYTES && looked_into != Some(intake.items.len()) {
                looked_into = Some(intake.items.len());
                if let Some(lease) = peek(splitter.partial(), shape.lease) {
                    intake.find_worker(splitter.rest());
                    intake.hold.add(intake.by.as_ref(), std::iter::once(lease.as_str()));
                }
            }
        }
        let rest = splitter.finish().map_err(|error| refused(&error))?;
        Ok(intake.taken(rest))
    }

    fn taken(mut self, rest: Vec<u8>) -> Taken<'a, X> {
        Taken {
            rest: rest.into(),
            items: std::mem::take(&mut self.items),
            upload: self,
        }
    }

    /// Looks for the worker's name in what has come beside the list, if it is not known and that is news.
    fn find_worker(&mut self, rest: &[u8]) {
        if self.by.is_none() && std::mem::replace(&mut self.rest_seen, rest.len()) != rest.len() {
            let beginning = &rest[..rest.len().min(LOOK_INTO_BYTES)];
            let named = self.shape.worker.and_then(|member| peek(beginning, member));
            self.by = named.map(Arc::from);
        }
    }

    /// Takes an item; answers how many of its bytes are no longer held.
    async fn add(&mut self, item: RawItem) -> ApiResult<usize> {
        if item.index >= self.items_max {
            return Err(ApiError::invalid(
                self.shape.list,
                format!("at most {} items", self.items_max),
            ));
        }
        let (shape, bounds, length) = (self.shape, self.bounds, item.text.len());
        let digested = if length <= self.inline_max_bytes {
            digest(item, shape, bounds)?
        } else {
            let turn = timeout_at(self.deadline, DIGESTING.acquire()).await;
            let _turn = turn.map_err(|_| ApiError::body_timeout())?.expect("never closed");
            let digesting = web::block(move || digest(item, shape, bounds));
            digesting.await.map_err(|_| ApiError::busy("parsing"))??
        };
        let Digested { read, text } = digested;
        self.hold.add(self.by.as_ref(), std::iter::once(read.lease.as_str()));
        let result = read.result.clone().and_then(|place| text.get(place));
        let is_large = result.is_some_and(|text| text.len() > self.coordinator.inline_result_bytes());
        let kept = match result {
            Some(result) if is_large => Some(Kept::Blob(self.store(result).await?)),
            other => other.map(Kept::from),
        };
        let report = match read.report {
            Report::Succeeded { counters, .. } => Report::Succeeded { result: kept, counters },
            other => other,
        };
        let lease = read.lease;
        self.items.push((ReportedResult { lease, report }, read.extra));
        Ok(if is_large { length } else { 0 })
    }

    async fn store(&mut self, text: &str) -> ApiResult<BlobId> {
        let storing = self.coordinator.store_result(self.job, text);
        // What is cut off here is swept.
        let stored = timeout_at(self.deadline, storing).await;
        let blob = stored.map_err(|_| CoordinatorError::StoreUnavailable)??;
        self.stored.push(blob);
        Ok(blob)
    }

    /// The post was handed on: from now on its answer decides what becomes of the results.
    pub(in crate::http) fn handed_on(&mut self) {
        self.stored.clear();
    }
}

impl<X> Drop for Intake<'_, X> {
    fn drop(&mut self) {
        self.coordinator.discard_results(std::mem::take(&mut self.stored));
    }
}

/// Large results are looked through one at a time, whoever posts them: they take one core at most from everything else.
static DIGESTING: Semaphore = Semaphore::const_new(1);

/// What has come of an item before it is looked into for its lease; so much beside the list is looked through for the worker.
const LOOK_INTO_BYTES: usize = 16 << 10;

struct Digested<X> {
    read: ItemRead<X>,
    text: String,
}

/// Reads an item and makes its result fit to be kept, in its place.
fn digest<X>(item: RawItem, shape: Shape<X>, bounds: ItemBounds) -> ApiResult<Digested<X>> {
    let part = format!("{}[{}]", shape.list, item.index);
    let at = item.at;
    let text = String::from_utf8(item.text).map_err(|error| {
        let valid = error.utf8_error().valid_up_to() as u64;
        ApiError::malformed(format!("not UTF-8 at byte {}", at + valid)).within(&part, at)
    })?;
    let mut read = (shape.read)(&text, bounds).map_err(|error| error.within(&part, at))?;
    let unusable = read
        .result
        .clone()
        .and_then(|place| text.get(place))
        .is_some_and(|result| check(result).is_err());
    if unusable || read.report == Report::Unusable {
        read.report = Report::Unusable;
        read.result = None;
    }
    // Its length stays, and so does the place of the result.
    let text = mend_nul_owned(text);
    Ok(Digested { read, text })
}

fn refused(error: &Unsplittable) -> ApiError {
    ApiError::malformed(error.to_string())
}
