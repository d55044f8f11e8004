//! Logs of a job: posting entries, reading them, following them.
//!
//! Owns: the bounds on entries. Never: reads a log to find out what is so. Invariant: 200 for a post means that its entries are durable.

use super::auth::Caller;
use super::error::{ApiError, ApiResult};
use super::extract::{JobPath, Query, Small, ok_json};
use super::leases::wait;
use super::state::AppState;
use super::wire;
use crate::domain::ids::{JobId, TaskNo};
use crate::domain::job::check_name;
use crate::domain::logs::{Entry, Level, Source};
use crate::store::{LogFilter, LogRow};
use actix_web::{HttpResponse, web};

/// `POST /v1/jobs/{id}/logs`
pub async fn post(
    state: web::Data<AppState>,
    caller: Caller,
    path: JobPath,
    Small(call): Small<wire::PostLogs>,
) -> ApiResult<HttpResponse> {
    let most = state.settings().batch_items_max;
    if call.entries.len() > most {
        return Err(ApiError::invalid("entries", format!("at most {most} entries")));
    }
    let entries: Vec<Entry> = call
        .entries
        .into_iter()
        .enumerate()
        .map(|(i, entry)| checked(&state, path.0, i, entry))
        .collect::<ApiResult<_>>()?;
    caller.check_job(state.coordinator(), path.0).await?;
    let written = entries.len() as u32;
    state.coordinator().post_logs(path.0, entries).await?;
    ok_json(&wire::LogsPosted { written })
}

fn checked(state: &AppState, job: JobId, i: usize, entry: wire::LogIn) -> ApiResult<Entry> {
    let most = state.settings().log_message_max_bytes;
    if entry.message.len() > most {
        return Err(ApiError::invalid(
            format!("entries[{i}].message"),
            format!("at most {most} bytes"),
        ));
    }
    if let Some(worker) = &entry.worker {
        check_name(&format!("entries[{i}].worker"), worker, state.limits().name_bytes)?;
    }
    Ok(Entry {
        job,
        at: entry.at.map_or_else(|| state.now(), |at| at.0),
        level: match entry.level {
            wire::LogLevel::Debug => Level::Debug,
            wire::LogLevel::Info => Level::Info,
            wire::LogLevel::Warn => Level::Warn,
            wire::LogLevel::Error => Level::Error,
        },
        source: Source::Posted,
        worker: entry.worker,
        task: entry.task.map(TaskNo),
        message: if entry.message.contains('\0') {
            entry.message.replace('\0', "\u{fffd}")
        } else {
            entry.message
        },
    })
}

/// `GET /v1/jobs/{id}/logs`
pub async fn list(
    state: web::Data<AppState>,
    caller: Caller,
    path: JobPath,
    mut query: Query,
) -> ApiResult<HttpResponse> {
    let settings = state.settings();
    let after = query.parsed::<u64>("after", "the id of an entry, or 0")?;
    let after = after.map(|id| i64::try_from(id).unwrap_or(i64::MAX));
    let level = query.one("level")?.map(|text| level(&text)).transpose()?;
    let limit = query.list_limit(settings)?;
    let waits = wait(
        query.parsed("wait_s", "a number of seconds")?,
        settings.lease_wait_max_s,
    )?;
    query.finish()?;
    caller.check_job(state.coordinator(), path.0).await?;
    let filter = LogFilter {
        job: path.0,
        after,
        level: level.unwrap_or(Level::Debug),
        limit,
    };
    let rows = state.coordinator().logs(filter, waits).await?;
    let last = rows.last().map(|row| row.id).or(after).unwrap_or(0);
    ok_json(&wire::LogList {
        items: rows.into_iter().map(shown).collect(),
        after: last,
    })
}

fn level(text: &str) -> ApiResult<Level> {
    let words = Level::ALL.map(Level::as_str).join(", ");
    let found = Level::ALL.into_iter().find(|level| level.as_str() == text);
    found.ok_or_else(|| ApiError::invalid("level", words))
}

fn shown(LogRow { id, entry }: LogRow) -> wire::Log {
    wire::Log {
        id,
        at: entry.at.into(),
        level: match entry.level {
            Level::Debug => wire::LogLevel::Debug,
            Level::Info => wire::LogLevel::Info,
            Level::Warn => wire::LogLevel::Warn,
            Level::Error => wire::LogLevel::Error,
        },
        source: match entry.source {
            Source::Coordinator => wire::LogSource::Coordinator,
            Source::Posted => wire::LogSource::Posted,
        },
        worker: entry.worker,
        task: entry.task.map(|task| task.0),
        message: entry.message,
    }
}
