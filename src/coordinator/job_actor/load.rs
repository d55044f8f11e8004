//! Activation: from what is durable to a ledger.
//!
//! Owns: the order of reads. Never: starts a ledger from a load that failed half-way. Invariant: ownership was proven before the first
//! read, so no other node writes behind it.

use super::JobActor;
use crate::coordinator::api::CoordinatorError;
use crate::coordinator::shared::Shared;
use crate::domain::ids::{JobId, UnixMs};
use crate::domain::job::Fence;
use crate::domain::ledger::{Bounds, Ledger, Loading, NewerTokens};
use crate::store::StoreError;
use actix::prelude::*;
use std::sync::Arc;
use std::time::Duration;

/// Facts in one page: about 2 MiB in memory.
const FACTS_PER_PAGE: u32 = 20_000;
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(1);

/// A job as it is stored.
struct Loaded {
    ledger: Ledger,
    /// Version of its snapshot; 0 without one.
    saved_version: i64,
}

impl JobActor {
    pub(super) fn load(&mut self, newer_tokens: NewerTokens, ctx: &mut Context<Self>) {
        let fence = self.fence;
        let loading = load_until_known(
            self.shared.clone(),
            self.job,
            fence,
            self.grants_known_since,
            newer_tokens,
        );
        ctx.spawn(loading.into_actor(self).map(move |loaded, actor, ctx| {
            if actor.fence != fence {
                return; // A later load is under way.
            }
            match loaded {
                Ok(loaded) => actor.loaded(loaded, ctx),
                Err(error) => actor.load_failed(&error, ctx),
            }
        }));
    }

    fn loaded(&mut self, Loaded { ledger, saved_version }: Loaded, ctx: &mut Context<Self>) {
        // Whoever saved it may have had a clock that is ahead of this one.
        self.saved_version = self.saved_version.max(saved_version);
        self.seen_outages = self.shared.outages();
        self.saved_revision = ledger.revision();
        self.saved_decided = ledger.decided();
        self.ledger = Some(ledger);
        // The queue waits to hear from this job, even if it has no work.
        self.has_served = true;
        if self.is_closing {
            return self.send_early_away();
        }
        self.tick(ctx);
        for ask in std::mem::take(&mut self.early) {
            self.take_request(ask, ctx);
        }
        for poll in std::mem::take(&mut self.early_polls) {
            ctx.notify(super::Serve(poll));
        }
        self.after_change(ctx);
    }

    fn load_failed(&mut self, error: &StoreError, ctx: &mut Context<Self>) {
        tracing::error!(job = %self.job, %error, "the job cannot be loaded");
        self.shared.board.move_away(self.job);
        // First: whoever hears of the failure and asks again finds no actor that is about to stop.
        self.leave(ctx);
        for ask in self.early.drain(..) {
            drop(ask.reply.send(Err(CoordinatorError::from(error.clone()))));
        }
    }
}

async fn load_until_known(
    shared: Arc<Shared>,
    job: JobId,
    fence: Fence,
    grants_known_since: UnixMs,
    newer_tokens: NewerTokens,
) -> Result<Loaded, StoreError> {
    let mut wait = FIRST_RETRY;
    loop {
        match load_once(&shared, job, fence, grants_known_since, newer_tokens).await {
            Err(error) if error.is_retryable() => {
                shared.store_failed(&error);
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(LAST_RETRY);
            }
            known => return known,
        }
    }
}

async fn load_once(
    shared: &Shared,
    job: JobId,
    fence: Fence,
    grants_known_since: UnixMs,
    newer_tokens: NewerTokens,
) -> Result<Loaded, StoreError> {
    let _turn = shared
        .loads
        .acquire()
        .await
        .map_err(|_| StoreError::Unavailable("node is stopping".into()))?;
    let record = shared.store.job(job).await?.ok_or(StoreError::NotFound("job"))?;
    let snapshot = shared.store.snapshot(job).await?;
    let corrupt = |error: crate::domain::ledger::CorruptJob| StoreError::Corrupt(error.to_string());
    let saved_version = snapshot.as_ref().map_or(0, |saved| saved.version);
    let mut loading = Loading::new(record, snapshot.as_ref().map(|saved| saved.bytes.as_slice()));
    loop {
        let facts = shared.store.facts(job, loading.after(), FACTS_PER_PAGE).await?;
        let is_last = facts.len() < FACTS_PER_PAGE as usize;
        loading.fold(facts).map_err(corrupt)?;
        if is_last {
            break;
        }
    }
    let settings = &shared.settings;
    let bounds = Bounds {
        worker_in_flight: settings.worker_in_flight,
        batch_bytes: settings.batch_bytes,
        restores_leases: settings.restores_leases,
        ..Bounds::default()
    };
    let ledger = loading
        .finish(
            fence,
            bounds,
            shared.next_lease_range(),
            grants_known_since,
            newer_tokens,
            shared.clock.now(),
        )
        .map_err(corrupt)?;
    Ok(Loaded { ledger, saved_version })
}
