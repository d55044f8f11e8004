//! Appending tasks to an open job, as one array or as a stream of lines.
//!
//! Owns: cutting an upload into chunks. Never: holds more than one chunk of a stream. Invariant: chunks are handed over one after
//! another, and an error part-way says at which task to go on.

use super::auth::Caller;
use super::body::ndjson::{LineSplitter, LineTooLong};
use super::body::{self, Media, parse};
use super::error::{ApiError, ApiResult};
use super::extract::{JobPath, Query, ok_json};
use super::jobs::new_task;
use super::state::AppState;
use super::wire;
use crate::coordinator::Coordinator;
use crate::coordinator::api::{CoordinatorError, Ingested};
use crate::domain::ids::JobId;
use crate::domain::job::{Limits, NewTask};
use actix_web::{HttpRequest, HttpResponse, web};
use async_trait::async_trait;
use bytes::Bytes;
use std::time::Duration;

/// Takes chunks; the coordinator in production.
#[async_trait(?Send)]
trait Ingest {
    async fn ingest(&self, job: JobId, tasks: Vec<NewTask>, first: Option<u32>) -> Result<Ingested, CoordinatorError>;
}

#[async_trait(?Send)]
impl Ingest for Coordinator {
    async fn ingest(&self, job: JobId, tasks: Vec<NewTask>, first: Option<u32>) -> Result<Ingested, CoordinatorError> {
        self.append(job, tasks, first).await
    }
}

/// An upload under way: what gathers, and what was acknowledged.
struct Upload<'a, I: Ingest> {
    to: &'a I,
    job: JobId,
    chunk_tasks: usize,
    chunk_bytes: usize,
    gathered: Vec<NewTask>,
    gathered_bytes: usize,
    /// Where the next chunk must begin, if the caller asked for that to be checked.
    first_task: Option<u32>,
    next_task: Option<u32>,
    added: u64,
    existing: u64,
}

impl<'a, I: Ingest> Upload<'a, I> {
    fn new(to: &'a I, job: JobId, first_task: Option<u32>, chunk_tasks: usize, chunk_bytes: usize) -> Self {
        Upload {
            to,
            job,
            chunk_tasks: chunk_tasks.max(1),
            chunk_bytes,
            gathered: Vec::new(),
            gathered_bytes: 0,
            first_task,
            next_task: None,
            added: 0,
            existing: 0,
        }
    }

    async fn add(&mut self, task: NewTask) -> ApiResult<()> {
        let bytes = task.payload.len() + task.key.as_ref().map_or(0, String::len);
        if !self.gathered.is_empty() && self.gathered_bytes + bytes > self.chunk_bytes {
            self.flush().await?;
        }
        self.gathered_bytes += bytes;
        self.gathered.push(task);
        if self.gathered.len() >= self.chunk_tasks {
            self.flush().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> ApiResult<()> {
        let chunk = std::mem::take(&mut self.gathered);
        self.gathered_bytes = 0;
        let done = self.to.ingest(self.job, chunk, self.first_task).await?;
        self.added += u64::from(done.added);
        self.existing += u64::from(done.existing);
        self.next_task = Some(done.next_task.0);
        if self.first_task.is_some() {
            self.first_task = self.next_task;
        }
        Ok(())
    }

    /// Hands over the rest; an upload without tasks still asks, so that it is refused like any other.
    async fn finish(&mut self) -> ApiResult<wire::Appended> {
        if !self.gathered.is_empty() || self.next_task.is_none() {
            self.flush().await?;
        }
        Ok(wire::Appended {
            added: self.added,
            existing: self.existing,
            next_task: self.next_task.expect("a chunk was acknowledged"),
        })
    }

    /// Adds to an error where a repeated upload goes on.
    fn explain(&self, error: ApiError) -> ApiError {
        error.resuming_at(self.next_task.or(self.first_task))
    }
}

/// `POST /v1/jobs/{id}/tasks`
pub async fn append(
    state: web::Data<AppState>,
    caller: Caller,
    path: JobPath,
    req: HttpRequest,
    mut payload: web::Payload,
) -> ApiResult<HttpResponse> {
    let media = body::media(&req)
        .ok_or_else(|| ApiError::unsupported_media_type("application/json or application/x-ndjson"))?;
    let mut query = Query::of(&req)?;
    let first_task = query.parsed::<u32>("first_task", "a task number")?;
    query.finish()?;
    caller.check_job(state.coordinator(), path.0).await?;
    let settings = state.settings();
    let (tasks, bytes) = (settings.append_chunk_tasks, settings.append_chunk_bytes);
    let mut upload = Upload::new(state.coordinator(), path.0, first_task, tasks, bytes);
    let sent = match media {
        Media::Json => array(&state, &req, &mut payload, &mut upload).await,
        Media::Ndjson => lines(&state, &req, &mut payload, &mut upload).await,
    };
    match sent {
        Ok(appended) => ok_json(&appended),
        Err(error) => Err(upload.explain(error)),
    }
}

async fn array<I: Ingest>(
    state: &AppState,
    req: &HttpRequest,
    payload: &mut web::Payload,
    upload: &mut Upload<'_, I>,
) -> ApiResult<wire::Appended> {
    let settings = state.settings();
    let body = body::read(req, payload, state.allowance(settings.body_max_bytes), Duration::ZERO).await?;
    let limits = state.limits().clone();
    let tasks = parse::off_thread(&body, settings.parse_inline_max_bytes, move |bytes| {
        let tasks: Vec<wire::TaskIn> = parse::json(bytes)?;
        let tasks: Vec<_> = tasks.into_iter().map(new_task).collect();
        for (i, task) in tasks.iter().enumerate() {
            task.check(i, &limits)?;
        }
        Ok(tasks)
    });
    for task in tasks.await? {
        upload.add(task).await?;
    }
    upload.finish().await
}

async fn lines<I: Ingest>(
    state: &AppState,
    req: &HttpRequest,
    payload: &mut web::Payload,
    upload: &mut Upload<'_, I>,
) -> ApiResult<wire::Appended> {
    let settings = state.settings();
    // What a stream holds at any time: a chunk, a line, and a piece of the body.
    let _reservation = state
        .budget()
        .reserve(settings.append_chunk_bytes + 2 * settings.line_max_bytes)?;
    let mut splitter = LineSplitter::new(settings.line_max_bytes);
    let too_long = |error| line_too_long(error, settings.line_max_bytes);
    let mut incoming = body::incoming::Incoming::endless(req, payload, state.allowance(usize::MAX))?;
    while let Some(piece) = incoming.next().await? {
        splitter.push(piece);
        while let Some((number, line)) = splitter.next_line().map_err(too_long)? {
            upload.add(task_of(number, &line, state.limits())?).await?;
        }
    }
    if let Some((number, line)) = splitter.finish().map_err(too_long)? {
        upload.add(task_of(number, &line, state.limits())?).await?;
    }
    upload.finish().await
}

fn line_too_long(error: LineTooLong, limit: usize) -> ApiError {
    ApiError::too_large(limit).at_field(format!("line {}", error.line))
}

fn task_of(number: u64, line: &Bytes, limits: &Limits) -> ApiResult<NewTask> {
    let at_line = |error: ApiError| {
        let field = match &error.problem().field {
            Some(field) => format!("line {number}: {}", field.trim_start_matches("tasks[0].")),
            None => format!("line {number}"),
        };
        error.at_field(field)
    };
    let task = new_task(parse::part(line).map_err(at_line)?);
    task.check(0, limits).map_err(|error| at_line(error.into()))?;
    Ok(task)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::TaskNo;
    use std::cell::RefCell;

    /// Numbers what it gets; refuses after `room` tasks.
    struct Fake {
        chunks: RefCell<Vec<(usize, Option<u32>)>>,
        total: RefCell<u32>,
        room: u32,
    }

    impl Fake {
        fn with_room(room: u32) -> Self {
            Fake {
                chunks: RefCell::default(),
                total: RefCell::new(10),
                room,
            }
        }
    }

    #[async_trait(?Send)]
    impl Ingest for Fake {
        async fn ingest(
            &self,
            _: JobId,
            tasks: Vec<NewTask>,
            first: Option<u32>,
        ) -> Result<Ingested, CoordinatorError> {
            let mut total = self.total.borrow_mut();
            if first.is_some_and(|first| first != *total) {
                return Err(CoordinatorError::WrongFirstTask {
                    next_task: TaskNo(*total),
                });
            }
            if *total + tasks.len() as u32 > self.room {
                return Err(CoordinatorError::StoreUnavailable);
            }
            self.chunks.borrow_mut().push((tasks.len(), first));
            *total += tasks.len() as u32;
            Ok(Ingested {
                added: tasks.len() as u32,
                existing: 0,
                next_task: TaskNo(*total),
            })
        }
    }

    fn task(bytes: usize) -> NewTask {
        NewTask {
            key: None,
            payload: "1".repeat(bytes),
        }
    }

    #[actix_web::test]
    async fn chunks_are_bounded_in_tasks_and_bytes_and_follow_each_other() {
        let fake = Fake::with_room(1000);
        let mut upload = Upload::new(&fake, JobId(1), Some(10), 3, 100);
        for bytes in [1, 1, 1, 60, 60, 200, 1] {
            upload.add(task(bytes)).await.unwrap();
        }
        let done = upload.finish().await.unwrap();
        assert_eq!((done.added, done.next_task), (7, 17));
        assert_eq!(
            *fake.chunks.borrow(),
            [
                (3, Some(10)),
                (1, Some(13)),
                (1, Some(14)),
                (1, Some(15)),
                (1, Some(16))
            ]
        );
    }

    #[actix_web::test]
    async fn without_first_task_none_is_checked() {
        let fake = Fake::with_room(1000);
        let mut upload = Upload::new(&fake, JobId(1), None, 1, 100);
        upload.add(task(1)).await.unwrap();
        upload.add(task(1)).await.unwrap();
        upload.finish().await.unwrap();
        assert_eq!(*fake.chunks.borrow(), [(1, None), (1, None)]);
    }

    #[actix_web::test]
    async fn an_error_part_way_says_where_to_go_on() {
        let fake = Fake::with_room(12);
        let mut upload = Upload::new(&fake, JobId(1), None, 2, 100);
        upload.add(task(1)).await.unwrap();
        upload.add(task(1)).await.unwrap();
        upload.add(task(1)).await.unwrap();
        let error = upload.add(task(1)).await.unwrap_err();
        assert_eq!(upload.explain(error).problem().next_task, Some(12));

        let fake = Fake::with_room(1000);
        let mut upload = Upload::new(&fake, JobId(1), Some(4), 1, 100);
        let error = upload.add(task(1)).await.unwrap_err();
        let problem = upload.explain(error).problem().clone();
        assert_eq!(
            (problem.code.as_str(), problem.next_task),
            ("wrong_first_task", Some(10))
        );
    }

    #[actix_web::test]
    async fn an_upload_without_tasks_still_asks_once() {
        let fake = Fake::with_room(1000);
        let done = Upload::new(&fake, JobId(1), None, 2, 100).finish().await.unwrap();
        assert_eq!((done.added, done.next_task), (0, 10));
    }

    #[test]
    fn a_bad_line_is_named_with_its_member() {
        let field = |line: &'static str| {
            let error = task_of(7, &Bytes::from(line), &Limits::default()).unwrap_err();
            error.problem().field.clone().unwrap()
        };
        assert_eq!(field("{"), "line 7");
        assert_eq!(field(r#"{"key":"","payload":1}"#), "line 7: key");
        assert_eq!(field(r#"{"key":"a"}"#), "line 7: payload");
        let task = task_of(
            1,
            &Bytes::from("{\"key\":\"a\",\"payload\":[1 ]}\r"),
            &Limits::default(),
        )
        .unwrap();
        assert_eq!((task.key.as_deref(), task.payload.as_str()), (Some("a"), "[1 ]"));
    }
}
