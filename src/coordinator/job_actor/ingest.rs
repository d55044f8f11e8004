//! Storing one chunk of tasks at a time.
//!
//! Owns: the repetition of an append whose answer was lost. Never: stores a chunk twice. Invariant: the chunk is guarded by the number of
//! tasks the job held before it, so a repetition that finds more tasks knows that its first try was committed.

use super::JobActor;
use crate::coordinator::shared::Shared;
use crate::domain::ids::JobId;
use crate::domain::job::{Fence, NewTask};
use crate::domain::ledger::{AppendOutcome, Command, NewerTokens, Ticket};
use crate::store::{Appended, StoreError};
use actix::prelude::*;
use std::sync::Arc;
use std::time::Duration;

const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(1);

impl JobActor {
    pub(super) fn store_chunk(&mut self, ticket: Ticket, first_task: u32, ctx: &mut Context<Self>) {
        let Some(tasks) = self.chunks.get(&ticket).cloned() else {
            return;
        };
        let storing = append_until_known(self.shared.clone(), self.job, self.fence, first_task, tasks);
        self.writes_under_way += 1;
        ctx.spawn(storing.into_actor(self).map(move |stored, actor, ctx| {
            if !actor.write_ended(ctx) {
                return; // The ledger is being rebuilt, and will read what became of the chunk.
            }
            match stored {
                Some(outcome) => actor.apply(Command::Appended { ticket, outcome }, ctx),
                None => actor.doubt(NewerTokens::Suspect, ctx),
            }
        }));
    }
}

/// Repeats the append until the store's answer is definite; none if ownership is in doubt.
async fn append_until_known(
    shared: Arc<Shared>,
    job: JobId,
    fence: Fence,
    first_task: u32,
    tasks: Arc<Vec<NewTask>>,
) -> Option<AppendOutcome> {
    let (mut wait, mut in_doubt) = (FIRST_RETRY, false);
    loop {
        match shared.store.append_tasks(job, fence, first_task, &tasks).await {
            Ok(Appended::Done { added, existing }) => return Some(AppendOutcome::Done { added, existing }),
            Ok(Appended::WrongFirstTask { total }) if in_doubt && total > first_task => {
                let added = total - first_task;
                let existing = (tasks.len() as u32).saturating_sub(added);
                return Some(AppendOutcome::Done { added, existing });
            }
            Ok(Appended::WrongFirstTask { .. }) | Err(StoreError::Fenced(_)) => return None,
            Err(error) if error.is_retryable() => {
                shared.store_failed(&error);
                in_doubt = true;
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(LAST_RETRY);
            }
            Err(error) => {
                tracing::warn!(%job, %error, "a chunk of tasks was refused");
                return Some(AppendOutcome::Refused);
            }
        }
    }
}
