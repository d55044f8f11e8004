//! Messages of the progress streams, and the tickets that open them.
//!
//! Owns: their shapes. Never: frames one. Invariant: a message about a job's progress is complete; none has to be added to another.

use super::{Job, Timestamp};
use crate::domain::progress::Progress;
use crate::domain::state::State;
use serde::{Deserialize, Serialize};
use std::fmt;
use utoipa::ToSchema;

/// One message of a stream. `seq` never falls within a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum StreamMessage {
    /// The first one about a job.
    Snapshot {
        id: i64,
        seq: i64,
        job: Box<Job>,
    },
    Progress {
        id: i64,
        seq: i64,
        progress: Progress,
    },
    /// State or run have changed.
    State {
        id: i64,
        seq: i64,
        state: State,
        run: u32,
        job: Box<Job>,
    },
    /// The job has ended; the last message of a stream of one job.
    Final {
        id: i64,
        seq: i64,
        job: Box<Job>,
    },
    /// The job does not match the stream's filter any more, or was deleted. Only in streams of many jobs.
    Gone {
        id: i64,
        seq: i64,
    },
    /// Every job that matched was shown. Only in streams of many jobs. `more`: further ones match, older than these.
    Listed {
        jobs: usize,
        more: bool,
    },
}

/// `POST /v1/tickets`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateTicket {
    /// Path of a stream, without a query.
    pub path: String,
}

/// A new ticket; the only answer that ever holds it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TicketCreated {
    /// Send it as the parameter `ticket` of the stream, once.
    pub ticket: String,
    pub expires_at: Timestamp,
}

impl fmt::Debug for TicketCreated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: String = self.ticket.chars().take(8).collect();
        f.debug_struct("TicketCreated")
            .field("ticket", &format_args!("{shown}…"))
            .finish_non_exhaustive()
    }
}
