//! The messages of one job.
//!
//! Owns: when its reader gets the next one. Never: sends more often than asked for, but for a new state or run. Invariant: the stream ends
//! with the final message, or without it only if the job goes on elsewhere.

use super::message::{self, Seen};
use super::outlet::{End, Outlet};
use crate::coordinator::{Form, Seat, Sight, Update, Watch};
use std::sync::Arc;
use tokio::time::{Instant, sleep_until};

pub(super) struct One {
    watch: Watch,
    seat: Arc<Seat>,
    seen: Option<Seen>,
}

impl One {
    pub(super) fn new(watch: Watch, seat: Arc<Seat>) -> One {
        One {
            watch,
            seat,
            seen: None,
        }
    }

    pub(super) async fn run(mut self, outlet: Outlet) -> End {
        // None: the reader knows everything.
        let mut due = Some(Instant::now());
        let mut earliest = Instant::now();
        loop {
            tokio::select! {
                () = self.watch.changed() => due = Some(if self.is_urgent() { Instant::now() } else { earliest }),
                () = sleep_until(due.unwrap_or(earliest)), if due.is_some() => {
                    due = None;
                    if let Err(end) = self.send(&outlet).await {
                        return end;
                    }
                    earliest = Instant::now() + self.seat.interval();
                }
            }
        }
    }

    /// Is there something that a reader should not have to wait for?
    fn is_urgent(&self) -> bool {
        match self.watch.peek() {
            Sight::Newest(update) => {
                let now = Seen::of(&update);
                self.seen
                    .is_none_or(|seen| (seen.state, seen.run) != (now.state, now.run))
            }
            Sight::Moved(_) => true,
            Sight::Nothing => false,
        }
    }

    async fn send(&mut self, outlet: &Outlet) -> Result<(), End> {
        let room = outlet.room().await?;
        let (update, has_moved) = match self.watch.look() {
            Sight::Newest(update) => (Some(update), false),
            Sight::Moved(update) => (update, true),
            Sight::Nothing => (None, false),
        };
        if let Some((update, form)) = update.and_then(|update| self.form(&update).map(|form| (update, form))) {
            // A reader who is told to come back gets the present then; only an end is worth telling on the way out.
            if form == Form::Final || !has_moved {
                room.put(&message::print(&update, form), form == Form::Final);
            }
            self.seen = Some(Seen::of(&update));
            if form == Form::Final {
                return Err(End::Final);
            }
        }
        if has_moved { Err(End::Moved) } else { Ok(()) }
    }

    fn form(&self, update: &Update) -> Option<Form> {
        let now = Seen::of(update);
        match self.seen {
            None if now.state.is_final() => Some(Form::Final),
            seen => message::form(seen, now),
        }
    }
}
