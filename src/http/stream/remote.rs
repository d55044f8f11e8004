//! Streams of other nodes, framed anew for a reader of this one.
//!
//! Owns: joining them, and taking their events apart. Never: changes a message. Invariant: a stream that ends without its last message is
//! "moved" to the reader, who comes back and gets the present; so nothing is missed, whichever node fails.

use super::events::{self, LAST_EVENT_ID};
use super::listed::Listed;
use super::outlet::{End, Outlet};
use crate::coordinator::api::CoordinatorError;
use crate::coordinator::{Asker, Coordinator, Neighbour, Place};
use crate::domain::ids::JobId;
use crate::http::auth::Caller;
use crate::http::error::{ApiError, ApiResult};
use crate::http::forward::target;
use crate::http::hop::is_hop;
use crate::http::state::AppState;
use crate::http::wire::StreamMessage;
use actix_web::HttpRequest;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::future::{LocalBoxFuture, join_all as all, select_all};
use futures_util::stream::BoxStream;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// Longest wait for another node to open its stream.
const OPENING: Duration = Duration::from_secs(2);
/// How long a stream that a node is missing in is shown.
const PARTIAL: Duration = Duration::from_secs(5);
/// One message; a complete job with its labels is far below.
const EVENT_MAX_BYTES: usize = 4 << 20;
/// Signs of life of the other node after which its silence is its end.
const SILENCES: u32 = 3;

/// What the owner of a job said to a reader of ours.
pub(super) enum Joined {
    Events(Events),
    /// The reader has seen the end already.
    NothingMore,
}

/// The events of another node's stream.
pub(super) struct Events {
    from: Neighbour,
    bytes: BoxStream<'static, reqwest::Result<Bytes>>,
    unread: BytesMut,
    silence: Duration,
    coordinator: Coordinator,
    changes: watch::Receiver<u64>,
}

/// One message.
struct Event {
    json: Bytes,
    is_last: bool,
}

/// The stream of a job that another node serves; none if it is served here.
pub(super) async fn join_owner(
    state: &AppState,
    caller: &Caller,
    job: JobId,
    req: &HttpRequest,
) -> ApiResult<Option<Joined>> {
    let coordinator = state.coordinator();
    let asker = if is_hop(req) { Asker::Node } else { Asker::Client };
    let mut place = coordinator.place_of_job(job, asker).await?;
    for _ in 0..2 {
        let Place::There(owner) = place else { return Ok(None) };
        match join(state, caller, &owner, req).await {
            Err(CoordinatorError::NotOwner) => place = coordinator.place_of_job(job, Asker::Again(&owner)).await?,
            joined => return joined.map(Some).map_err(ApiError::from),
        }
    }
    match place {
        Place::Here => Ok(None),
        Place::There(_) => Err(CoordinatorError::NotOwner.into()),
    }
}

/// The streams of these nodes, and whether each could be joined.
pub(super) async fn join_all(
    state: &AppState,
    caller: &Caller,
    req: &HttpRequest,
    nodes: &[Neighbour],
) -> (Vec<Events>, bool) {
    let joined = all(nodes.iter().map(|node| join(state, caller, node, req))).await;
    let is_whole = joined.iter().all(Result::is_ok);
    let streams = joined.into_iter().filter_map(|joined| match joined {
        Ok(Joined::Events(events)) => Some(events),
        _ => None,
    });
    (streams.collect(), is_whole)
}

async fn join(
    state: &AppState,
    caller: &Caller,
    to: &Neighbour,
    req: &HttpRequest,
) -> Result<Joined, CoordinatorError> {
    let target = target(req.path(), req.query_string());
    let request = state
        .neighbours()
        .request(to, "GET", &target, caller.token_id(), state.now())
        .ok_or(CoordinatorError::NotOwner)?;
    let mut request = request.header("accept", "text/event-stream");
    if events::has_seen_the_end(req) {
        request = request.header(LAST_EVENT_ID, events::LAST_ID);
    }
    // Subscribed before the stream is opened: whatever changes from now on is seen.
    let mut changes = state.coordinator().ownership_changes();
    changes.mark_unchanged();
    let answered = timeout(OPENING, request.send())
        .await
        .map_err(|_| CoordinatorError::NotOwner)?;
    let answer = answered.map_err(|_| CoordinatorError::NotOwner)?;
    match answer.status().as_u16() {
        200 => Ok(Joined::Events(Events {
            from: to.clone(),
            bytes: answer.bytes_stream().boxed(),
            unread: BytesMut::new(),
            silence: Duration::from_millis(state.settings().stream_ping_ms) * SILENCES,
            coordinator: state.coordinator().clone(),
            changes,
        })),
        204 => Ok(Joined::NothingMore),
        404 => Err(CoordinatorError::NotFound),
        503 => match answer.json::<crate::http::wire::Problem>().await {
            Ok(problem) if problem.code == "busy" => Err(CoordinatorError::Busy("too many streams are open")),
            _ => Err(CoordinatorError::NotOwner),
        },
        _ => Err(CoordinatorError::NotOwner),
    }
}

impl Events {
    /// Passes every message on, at the reader's pace.
    pub(super) async fn run(mut self, outlet: Outlet) -> End {
        loop {
            let Some(event) = self.next().await else {
                return End::Moved;
            };
            match outlet.room().await {
                Ok(room) => room.put(&event.json, event.is_last),
                Err(end) => return end,
            }
            if event.is_last {
                return End::Final;
            }
        }
    }

    /// The same as one of several sources.
    async fn run_among(mut self, source: usize, listed: Listed, outlet: Outlet) -> End {
        loop {
            let Some(event) = self.next().await else {
                return End::Moved;
            };
            let sent = match count(&event.json) {
                Some((jobs, more)) => listed.told(source, jobs, more, &outlet).await,
                None => outlet.room().await.map(|room| room.put(&event.json, false)),
            };
            if let Err(end) = sent {
                return end;
            }
        }
    }

    /// The next message; none when there will be no more from there.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = take_event(&mut self.unread) {
                return Some(event);
            }
            if self.unread.len() > EVENT_MAX_BYTES {
                return None;
            }
            let piece = tokio::select! {
                piece = timeout(self.silence, self.bytes.next()) => piece.ok()??.ok()?,
                changed = self.changes.changed() => {
                    if changed.is_err() || !self.coordinator.is_there(&self.from) {
                        return None;
                    }
                    continue;
                }
            };
            self.unread.extend_from_slice(&piece);
        }
    }
}

/// Takes the first whole event, skipping what carries no message.
fn take_event(unread: &mut BytesMut) -> Option<Event> {
    loop {
        let end = unread.windows(2).position(|pair| pair == b"\n\n")?;
        let block = unread.split_to(end + 2).freeze();
        let mut event = Event {
            json: Bytes::new(),
            is_last: false,
        };
        for line in block.split(|byte| *byte == b'\n') {
            if let Some(json) = line.strip_prefix(b"data: ") {
                event.json = block.slice_ref(json);
            }
            event.is_last |= line.strip_prefix(b"id: ") == Some(events::LAST_ID.as_bytes());
        }
        if !event.json.is_empty() {
            return Some(event);
        }
    }
}

/// How many jobs a source has listed, if the message says so.
fn count(json: &[u8]) -> Option<(usize, bool)> {
    if !json.starts_with(br#"{"type":"listed""#) {
        return None;
    }
    match serde_json::from_slice(json) {
        Ok(StreamMessage::Listed { jobs, more }) => Some((jobs, more)),
        _ => None,
    }
}

/// One stream out of this node's own and those of others. It ends with the first of them, and when nodes come or go; soon, if a node is
/// missing in it, which its reader cannot see.
pub(super) async fn merge(
    own: impl Future<Output = End> + 'static,
    others: Vec<Events>,
    listed: Listed,
    outlet: Outlet,
    among: Option<(Coordinator, Vec<Neighbour>)>,
    is_whole: bool,
) -> End {
    let mut sources: Vec<LocalBoxFuture<'static, End>> = vec![Box::pin(own)];
    if !is_whole {
        sources.push(Box::pin(async {
            tokio::time::sleep(PARTIAL).await;
            End::Moved
        }));
    }
    if let Some((coordinator, nodes)) = among {
        sources.push(Box::pin(async move {
            other_nodes_than(&nodes, &coordinator).await;
            End::Moved
        }));
    }
    for (i, events) in others.into_iter().enumerate() {
        sources.push(Box::pin(events.run_among(i + 1, listed.clone(), outlet.clone())));
    }
    select_all(sources).await.0
}

/// Resolves when others live than these.
async fn other_nodes_than(nodes: &[Neighbour], coordinator: &Coordinator) {
    let mut changes = coordinator.ownership_changes();
    while coordinator.neighbours() == nodes {
        if changes.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_taken_apart_wherever_the_pieces_end() {
        let mut sent = BytesMut::new();
        events::write(&mut sent, br#"{"a":1}"#, false);
        sent.extend_from_slice(&events::comment());
        events::write(&mut sent, br#"{"b":2}"#, true);
        for cut in 0..sent.len() {
            let (mut unread, mut found) = (BytesMut::new(), Vec::new());
            for piece in [&sent[..cut], &sent[cut..]] {
                unread.extend_from_slice(piece);
                while let Some(event) = take_event(&mut unread) {
                    found.push((event.json, event.is_last));
                }
            }
            let expected = [
                (Bytes::from_static(br#"{"a":1}"#), false),
                (Bytes::from_static(br#"{"b":2}"#), true),
            ];
            assert_eq!(found, expected, "cut at {cut}");
        }
    }

    #[test]
    fn only_the_message_of_a_whole_list_is_counted() {
        assert_eq!(count(br#"{"type":"listed","jobs":3,"more":true}"#), Some((3, true)));
        assert_eq!(count(br#"{"type":"gone","id":1,"seq":2}"#), None);
    }
}
