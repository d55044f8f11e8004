//! The messages of many jobs in one stream.
//!
//! Owns: which jobs the stream shows. Never: asks the store again while the news suffice. Invariant: every job that matches the filter is
//! shown, the newest first to stay, and the reader is told of each that is shown no longer.

use super::line::is_closed;
use super::listed::Listed;
use super::message::{self, Seen};
use super::outlet::{End, Outlet};
use crate::coordinator::{Coordinator, Form, News, Rate, Seat, Sight, Update, Watch, Watched};
use crate::domain::ids::JobId;
use crate::http::wire::StreamMessage;
use crate::store::JobFilter;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// A job that is shown.
struct Member {
    /// Absent while only news can tell something about it.
    watch: Option<Watch>,
    seen: Option<Seen>,
}

pub(super) struct Many {
    coordinator: Coordinator,
    filter: JobFilter,
    most: usize,
    rate: Rate,
    seat: Arc<Seat>,
    news: broadcast::Receiver<News>,
    closed: watch::Receiver<bool>,
    members: BTreeMap<JobId, Member>,
    /// Is a queue this node's to show?
    shows: Box<dyn Fn(&str) -> bool>,
    listed: Listed,
}

impl Many {
    pub(super) fn new(coordinator: Coordinator, filter: JobFilter, most: usize, rate: Rate, seat: Arc<Seat>) -> Many {
        Many {
            // Before anything is listed, so that nothing falls in between.
            news: coordinator.news(),
            closed: coordinator.streams_closed(),
            coordinator,
            filter,
            most,
            rate,
            seat,
            members: BTreeMap::new(),
            shows: Box::new(|_| true),
            listed: Listed::of(1),
        }
    }

    /// One of several sources of a stream: it shows only some queues, and what was listed is told once for all.
    pub(super) fn among(self, shows: Box<dyn Fn(&str) -> bool>, listed: Listed) -> Many {
        Many { shows, listed, ..self }
    }

    pub(super) async fn run(mut self, outlet: Outlet) -> End {
        match self.show(&outlet).await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn show(&mut self, outlet: &Outlet) -> Result<std::convert::Infallible, End> {
        self.list(outlet).await?;
        let mut round = Instant::now() + self.seat.interval();
        loop {
            tokio::select! {
                () = is_closed(&mut self.closed) => return Err(End::Moved),
                news = self.news.recv() => match news {
                    Ok(News::Turned(update)) => self.consider(&update, outlet).await?,
                    Ok(News::Deleted(job)) => self.remove(job, outlet).await?,
                    Err(RecvError::Lagged(_)) => self.list(outlet).await?,
                    Err(RecvError::Closed) => return Err(End::Moved),
                },
                () = sleep_until(round) => {
                    self.feed(outlet).await?;
                    round = Instant::now() + self.seat.interval();
                }
            }
        }
    }

    /// Shows what the store lists, and no longer what it does not.
    async fn list(&mut self, outlet: &Outlet) -> Result<(), End> {
        let filter = JobFilter {
            limit: self.most as u32 + 1,
            ..self.filter.clone()
        };
        let listed = self.coordinator.watch_listed(&filter, self.rate, &self.shows).await;
        let mut listed = listed.map_err(|error| {
            tracing::debug!(%error, "jobs could not be listed for a stream");
            End::Moved
        })?;
        let more = listed.len() > self.most;
        listed.truncate(self.most);
        let known: Vec<JobId> = self.members.keys().copied().collect();
        for job in known {
            if !listed.iter().any(|watched| watched.update.view.record.id == job) {
                self.remove(job, outlet).await?;
            }
        }
        for Watched { update, watch } in listed {
            let job = update.view.record.id;
            let seen = self.members.get(&job).and_then(|member| member.seen);
            self.members.insert(job, Member { watch, seen });
            self.tell(job, &update, outlet).await?;
        }
        self.seat.reads(self.members.len());
        let jobs = self.members.len();
        self.listed.told(0, jobs, more, outlet).await
    }

    /// A job was created, loaded, or changed its state: does it come, stay or go?
    async fn consider(&mut self, update: &Arc<Update>, outlet: &Outlet) -> Result<(), End> {
        let job = update.view.record.id;
        let record = &update.view.record;
        let admits = self.filter.admits(record) && (self.shows)(&record.queue);
        match (self.members.contains_key(&job), admits) {
            (false, false) => Ok(()),
            (true, false) => {
                self.tell(job, update, outlet).await?;
                self.remove(job, outlet).await
            }
            (is_known, true) => {
                if !is_known && !self.make_place(job, outlet).await? {
                    return Ok(());
                }
                let member = self.members.entry(job).or_insert(Member {
                    watch: None,
                    seen: None,
                });
                if member.watch.is_none() && !update.view.record.state.is_final() {
                    // A failure here is the node's, which will let the reader come back in a better moment.
                    let watch = self.coordinator.watch(job, self.rate).await;
                    member.watch = Some(watch.map_err(|_| End::Moved)?);
                }
                self.seat.reads(self.members.len());
                self.tell(job, update, outlet).await
            }
        }
    }

    /// Makes place for a new job, unless it is older than all that are shown.
    async fn make_place(&mut self, job: JobId, outlet: &Outlet) -> Result<bool, End> {
        if self.members.len() < self.most {
            return Ok(true);
        }
        match self.members.keys().next().copied() {
            Some(oldest) if oldest < job => self.remove(oldest, outlet).await.map(|()| true),
            _ => Ok(false),
        }
    }

    async fn remove(&mut self, job: JobId, outlet: &Outlet) -> Result<(), End> {
        let Some(member) = self.members.remove(&job) else {
            return Ok(());
        };
        self.seat.reads(self.members.len());
        let seq = member.seen.map_or(0, |seen| seen.seq.0);
        put(outlet, &StreamMessage::Gone { id: job.0, seq }).await
    }

    /// Sends what changed since the last round, of each job the newest.
    async fn feed(&mut self, outlet: &Outlet) -> Result<(), End> {
        let has_changed = |member: &Member| member.watch.as_ref().is_some_and(Watch::has_changed);
        let changed = self.members.iter().filter(|(_, member)| has_changed(member));
        let changed: Vec<JobId> = changed.map(|(job, _)| *job).collect();
        for job in changed {
            let room = outlet.room().await?;
            let Some(member) = self.members.get_mut(&job) else {
                continue;
            };
            match member.watch.as_mut().map(Watch::look) {
                // A new state is news as well, and whether the job stays is decided there.
                Some(Sight::Newest(update)) if self.filter.admits(&update.view.record) => member.put(&update, room),
                Some(Sight::Moved(_)) => return Err(End::Moved),
                _ => {}
            }
        }
        Ok(())
    }

    /// Sends what an update says of a job, or what has become of it since.
    async fn tell(&mut self, job: JobId, update: &Arc<Update>, outlet: &Outlet) -> Result<(), End> {
        let room = outlet.room().await?;
        let Some(member) = self.members.get_mut(&job) else {
            return Ok(());
        };
        member.put(update, room);
        Ok(())
    }
}

impl Member {
    fn put(&mut self, update: &Update, room: super::outlet::Room<'_>) {
        let now = Seen::of(update);
        let Some(form) = message::form(self.seen, now) else {
            return;
        };
        self.seen = Some(now);
        if form == Form::Final {
            // Whatever comes next of it is news.
            self.watch = None;
        }
        room.put(&message::print(update, form), false);
    }
}

async fn put(outlet: &Outlet, message: &StreamMessage) -> Result<(), End> {
    outlet.room().await?.put(&message::to_bytes(message), false);
    Ok(())
}
