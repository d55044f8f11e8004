//! Results as text on its way out, and the one result of a task.
//!
//! Owns: a large result's place in an answer. Never: holds more of one than a piece. Invariant: what was stored goes out verbatim; one that
//! cannot be read to its end breaks the answer off.

use super::read::current;
use crate::domain::ids::TaskNo;
use crate::domain::rows::Verdict;
use crate::http::auth::Caller;
use crate::http::error::{ApiError, ApiResult};
use crate::http::extract::{JobPath, Query, to_json};
use crate::http::state::AppState;
use crate::http::views;
use crate::store::{BlobRef, ResultFilter, ResultRow, Store, StoreError};
use actix_web::body::SizedStream;
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use futures_util::{Stream, stream};
use std::collections::VecDeque;
use std::sync::Arc;

/// `GET /v1/jobs/{id}/tasks/{task}/result`
pub async fn show(
    state: web::Data<AppState>,
    caller: Caller,
    path: JobPath,
    req: HttpRequest,
) -> ApiResult<HttpResponse> {
    Query::of(&req)?.finish()?;
    let task = req.match_info().get("task").and_then(|text| text.parse::<u32>().ok());
    let task = task.ok_or_else(|| ApiError::not_found("task"))?;
    let filter = ResultFilter {
        verdict: Some(Verdict::Succeeded),
        after: task.checked_sub(1).map(TaskNo),
        limit: 1,
        ..current(&state, &caller, path).await?
    };
    let store = Arc::clone(state.coordinator().store());
    let found = store.results(&filter).await?.into_iter().next();
    let row = found
        .filter(|row| row.task.0 == task)
        .ok_or_else(|| ApiError::not_found("result"))?;
    let mut response = HttpResponse::Ok();
    response.content_type("application/json");
    Ok(match row.blob {
        Some(blob) => {
            let mut pieces = Pieces::new(store);
            pieces.parts.push_back(Part::Blob { blob, piece: 0 });
            response.body(SizedStream::new(blob.bytes, pieces.stream()))
        }
        None => response.body(row.result.unwrap_or_else(|| "null".into())),
    })
}

enum Part {
    Text(Vec<u8>),
    /// From this piece on.
    Blob {
        blob: BlobRef,
        piece: u32,
    },
}

/// Text and large results in the order in which they go out.
pub struct Pieces {
    store: Arc<dyn Store>,
    parts: VecDeque<Part>,
    /// Bytes of the large result at hand that went out.
    sent: u64,
}

impl Pieces {
    pub fn new(store: Arc<dyn Store>) -> Pieces {
        Pieces {
            store,
            parts: VecDeque::new(),
            sent: 0,
        }
    }

    pub fn store(&self) -> &dyn Store {
        self.store.as_ref()
    }

    pub fn text(&mut self, text: &[u8]) {
        match self.parts.back_mut() {
            Some(Part::Text(before)) => before.extend_from_slice(text),
            _ => self.parts.push_back(Part::Text(text.to_vec())),
        }
    }

    /// A row as JSON; a result that was stored apart is its last member.
    pub fn row(&mut self, row: &ResultRow) -> ApiResult<()> {
        let json = to_json(&views::result(row))?;
        let Some(blob) = row.blob else {
            self.text(&json);
            return Ok(());
        };
        self.text(json.strip_suffix(b"}").unwrap_or(&json));
        self.text(b",\"result\":");
        self.parts.push_back(Part::Blob { blob, piece: 0 });
        self.text(b"}");
        Ok(())
    }

    /// What goes out next.
    pub async fn next(&mut self) -> ApiResult<Option<Bytes>> {
        loop {
            match self.parts.front_mut() {
                None => return Ok(None),
                Some(Part::Text(text)) => {
                    let text = std::mem::take(text);
                    self.parts.pop_front();
                    return Ok(Some(text.into()));
                }
                Some(Part::Blob { blob, .. }) if self.sent >= blob.bytes => {
                    self.sent = 0;
                    self.parts.pop_front();
                }
                Some(Part::Blob { blob, piece }) => {
                    let text = self.store.blob_piece(blob.id, *piece).await?;
                    let text =
                        text.ok_or_else(|| StoreError::Corrupt(format!("blob {} lacks piece {piece}", blob.id)))?;
                    *piece += 1;
                    self.sent += text.len() as u64;
                    return Ok(Some(text.into()));
                }
            }
        }
    }

    fn stream(self) -> impl Stream<Item = ApiResult<Bytes>> {
        stream::unfold(Some(self), |pieces| async move {
            let mut pieces = pieces?;
            match pieces.next().await {
                Ok(bytes) => bytes.map(|bytes| (Ok(bytes), Some(pieces))),
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    /// 200 with everything: at once where it is all text, else piece by piece.
    pub fn respond(mut self, media: &'static str) -> HttpResponse {
        let mut response = HttpResponse::Ok();
        response.content_type(media);
        let is_text = self.parts.len() == 1;
        match self.parts.pop_front() {
            Some(Part::Text(text)) if is_text => response.body(text),
            first => {
                first.into_iter().for_each(|part| self.parts.push_front(part));
                response.streaming(self.stream())
            }
        }
    }
}
