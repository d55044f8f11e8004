//! Completion events that wait to be sent.
//!
//! Owns: claims and what became of them. Never: waits for a row that another claim holds. Invariant: a claim is taken by the statement that
//! puts its event off, so by one caller.

use super::session::Session;
use super::{Postgres, row};
use crate::domain::callback::Fate;
use crate::domain::ids::{JobId, UnixMs};
use crate::store::{Claiming, DueEvent, EventRow, EventStore, Result, StoreError};
use async_trait::async_trait;

const CLAIM: &str = include_str!("queries/events/claim.sql");
const SETTLE: &str = include_str!("queries/events/settle.sql");
const FORGET: &str = include_str!("queries/events/forget.sql");
const WAITING: &str = include_str!("queries/events/waiting.sql");
const NEXT: &str = include_str!("queries/events/next.sql");
const LIST: &str = include_str!("queries/events/list.sql");
const RESEND: &str = include_str!("queries/events/resend.sql");

#[async_trait]
impl EventStore for Postgres {
    async fn claim_events(&self, claiming: &Claiming) -> Result<Vec<DueEvent>> {
        let (receivers, calls): (Vec<&str>, Vec<i64>) = claiming
            .under_way
            .iter()
            .map(|(receiver, calls)| (receiver.as_str(), i64::from(*calls)))
            .unzip();
        let (limit, per_receiver) = (i64::from(claiming.limit), i64::from(claiming.per_receiver));
        let session = self.writer().await?;
        let claimed = session
            .query(
                CLAIM,
                &[
                    &claiming.now.0,
                    &claiming.until.0,
                    &limit,
                    &per_receiver,
                    &receivers,
                    &calls,
                ],
            )
            .await?;
        claimed.iter().map(row::due_event).collect()
    }

    async fn settle_event(&self, id: &str, claim: i64, fate: &Fate) -> Result<bool> {
        let session = self.writer().await?;
        let settled = settle(&session, id, claim, fate).await?;
        if settled && !matches!(fate, Fate::Again { .. }) {
            // After that is committed: a deletion meanwhile finds it settled, or is seen here.
            session.execute(FORGET, &[&id]).await?;
        }
        Ok(settled)
    }

    async fn next_event(&self, now: UnixMs) -> Result<Option<UnixMs>> {
        let found = self.reader().await?.first(NEXT, &[&now.0]).await?;
        Ok(found.map(|found| UnixMs(found.get(0))))
    }

    async fn waiting_events(&self) -> Result<u64> {
        let found = self.reader().await?.first(WAITING, &[]).await?;
        Ok(found.map_or(0, |found| found.get::<_, i64>(0).unsigned_abs()))
    }

    async fn events(&self, job: JobId, limit: u32) -> Result<Vec<EventRow>> {
        let rows = self.reader().await?.query(LIST, &[&job.0, &i64::from(limit)]).await?;
        rows.iter().map(row::event).collect()
    }

    async fn resend_event(&self, job: JobId, id: &str, now: UnixMs) -> Result<EventRow> {
        let found = self.writer().await?.first(RESEND, &[&job.0, &id, &now.0]).await?;
        row::event(&found.ok_or(StoreError::NotFound("callback"))?)
    }
}

async fn settle(session: &Session, id: &str, claim: i64, fate: &Fate) -> Result<bool> {
    let (mut due_at, mut delivered_at, mut given_up_at, mut last_error) = (None, None, None, None);
    match fate {
        Fate::Delivered { at } => delivered_at = Some(at.0),
        Fate::Again { at, error } => (due_at, last_error) = (Some(at.0), Some(error.as_str())),
        Fate::GivenUp { at, error } => (given_up_at, last_error) = (Some(at.0), Some(error.as_str())),
    }
    let changed = session
        .execute(
            SETTLE,
            &[&id, &claim, &due_at, &delivered_at, &given_up_at, &last_error],
        )
        .await?;
    Ok(changed == 1)
}
