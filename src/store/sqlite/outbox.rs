//! Completion events that wait to be sent.
//!
//! Owns: claims and what became of them. Never: judges a call. Invariant: a claim is taken by the statement that puts its event off, so by
//! one caller.

use super::Sqlite;
use super::record::to_json;
use crate::domain::callback::Fate;
use crate::domain::ids::{JobId, Run, UnixMs};
use crate::store::{Claiming, DueEvent, EventRow, EventStore, Result, StoreError};
use async_trait::async_trait;
use rusqlite::{OptionalExtension, Row, params};
use std::collections::BTreeMap;

#[async_trait]
impl EventStore for Sqlite {
    async fn claim_events(&self, claiming: &Claiming) -> Result<Vec<DueEvent>> {
        let claiming = claiming.clone();
        self.writer
            .transact(move |tx| {
                let under_way: BTreeMap<&String, u32> = claiming
                    .under_way
                    .iter()
                    .map(|(receiver, calls)| (receiver, *calls))
                    .collect();
                tx.prepare_cached(include_str!("queries/events/claim.sql"))?
                    .query_and_then(
                        params![
                            claiming.now.0,
                            claiming.until.0,
                            claiming.limit,
                            claiming.per_receiver,
                            to_json(&under_way)?,
                        ],
                        due_event,
                    )?
                    .collect()
            })
            .await
    }

    async fn settle_event(&self, id: &str, claim: i64, fate: &Fate) -> Result<bool> {
        let (id, fate) = (id.to_owned(), fate.clone());
        self.writer
            .transact(move |tx| {
                let (mut due_at, mut delivered_at, mut given_up_at, mut last_error) = (None, None, None, None);
                match &fate {
                    Fate::Delivered { at } => delivered_at = Some(at.0),
                    Fate::Again { at, error } => (due_at, last_error) = (Some(at.0), Some(error)),
                    Fate::GivenUp { at, error } => (given_up_at, last_error) = (Some(at.0), Some(error)),
                }
                let changed = tx
                    .prepare_cached(include_str!("queries/events/settle.sql"))?
                    .execute(params![id, claim, due_at, delivered_at, given_up_at, last_error])?;
                tx.prepare_cached(include_str!("queries/events/forget.sql"))?
                    .execute([id])?;
                Ok(changed == 1)
            })
            .await
    }

    async fn next_event(&self, now: UnixMs) -> Result<Option<UnixMs>> {
        self.readers
            .run(move |db| {
                let next = db
                    .prepare_cached(include_str!("queries/events/next.sql"))?
                    .query_row([now.0], |row| row.get(0).map(UnixMs))
                    .optional()?;
                Ok(next)
            })
            .await
    }

    async fn waiting_events(&self) -> Result<u64> {
        self.readers
            .run(|db| {
                let waiting: i64 = db
                    .prepare_cached(include_str!("queries/events/waiting.sql"))?
                    .query_row([], |row| row.get(0))?;
                Ok(waiting.unsigned_abs())
            })
            .await
    }

    async fn events(&self, job: JobId, limit: u32) -> Result<Vec<EventRow>> {
        self.readers
            .run(move |db| {
                db.prepare_cached(include_str!("queries/events/list.sql"))?
                    .query_and_then(params![job.0, limit], |row| Ok(event(row)?))?
                    .collect()
            })
            .await
    }

    async fn resend_event(&self, job: JobId, id: &str, now: UnixMs) -> Result<EventRow> {
        let id = id.to_owned();
        self.writer
            .transact(move |tx| {
                tx.prepare_cached(include_str!("queries/events/resend.sql"))?
                    .query_row(params![job.0, id, now.0], event)
                    .optional()?
                    .ok_or(StoreError::NotFound("callback"))
            })
            .await
    }
}

/// Reads a row of `events/claim.sql`.
fn due_event(row: &Row<'_>) -> Result<DueEvent> {
    Ok(DueEvent {
        id: row.get(0)?,
        job: JobId(row.get(1)?),
        run: Run(row.get(2)?),
        payload: row.get(3)?,
        url: row.get(4)?,
        receiver: row.get(5)?,
        claim: row.get(6)?,
        attempts: row.get(7)?,
        since: UnixMs(row.get(8)?),
    })
}

/// Reads a row of `events/list.sql` or `events/resend.sql`.
fn event(row: &Row<'_>) -> rusqlite::Result<EventRow> {
    let moment = |column: usize| row.get::<_, Option<i64>>(column).map(|at| at.map(UnixMs));
    Ok(EventRow {
        id: row.get(0)?,
        run: Run(row.get(1)?),
        url: row.get(2)?,
        created_at: UnixMs(row.get(3)?),
        due_at: moment(4)?,
        attempts: row.get(5)?,
        last_error: row.get(6)?,
        delivered_at: moment(7)?,
        given_up_at: moment(8)?,
    })
}
