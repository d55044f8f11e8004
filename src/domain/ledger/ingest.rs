//! Adding tasks to an open job, one chunk at a time.
//!
//! Owns: when a chunk may be stored, and from which number. Never: sees a task's key or payload. Invariant: while a chunk is being stored,
//! the job's row does not change otherwise, so its total has one writer.

use super::{AppendOutcome, Appended, Chunk, Effects, Ledger, Refusal, Reply, Ticket, Waiting};

impl Ledger {
    pub(super) fn queue_chunk(&mut self, ticket: Ticket, first_task: Option<u32>) {
        self.chunks.push_back(Chunk { ticket, first_task });
    }

    /// Hands the next chunk out, unless one is under way or a control has its turn first.
    pub(super) fn start_chunk(&mut self, effects: &mut Effects) {
        let row_is_changing = self.in_flight.as_ref().is_some_and(|batch| batch.update.is_some());
        while self.storing.is_none() && !row_is_changing && !self.chunks.is_empty() {
            if self.inbox.iter().any(|waiting| matches!(waiting, Waiting::Control(..))) {
                return;
            }
            let Some(chunk) = self.chunks.pop_front() else { return };
            match self.refusal(&chunk) {
                Some(refusal) => effects.reply(chunk.ticket, Reply::Appended(Err(refusal))),
                None => {
                    self.storing = Some(chunk);
                    effects.append = Some((chunk.ticket, self.tasks.total));
                }
            }
        }
    }

    fn refusal(&self, chunk: &Chunk) -> Option<Refusal> {
        let total = self.tasks.total;
        if self.record.state.is_final() {
            Some(Refusal::InvalidTransition {
                state: self.record.state,
                verb: "take more tasks",
            })
        } else if !self.record.open {
            Some(Refusal::Sealed)
        } else if chunk.first_task.is_some_and(|first| first != total) {
            Some(Refusal::WrongFirstTask { total })
        } else {
            None
        }
    }

    pub(super) fn appended(&mut self, ticket: Ticket, outcome: AppendOutcome, effects: &mut Effects) {
        if self.storing.take_if(|chunk| chunk.ticket == ticket).is_none() {
            return;
        }
        let reply = match outcome {
            AppendOutcome::Done { added, existing } => {
                self.fraction_floor = self.fraction().unwrap_or(0.0);
                self.stage_floors = (0..self.record.stages.len())
                    .map(|place| self.stage_fraction(place).unwrap_or(0.0))
                    .collect();
                self.tasks.grow(added);
                self.record.tally.total = self.tasks.total;
                self.changed();
                Ok(Appended {
                    added,
                    existing,
                    total: self.tasks.total,
                })
            }
            AppendOutcome::Refused => Err(Refusal::NotStored),
        };
        effects.reply(ticket, Reply::Appended(reply));
    }
}
