//! What a job's actor is told, and what it answers.
//!
//! Owns: the shapes of its messages. Never: handles one. Invariant: a request carries its permit, which is given back when it is answered
//! or forgotten.

use crate::coordinator::api::*;
use crate::coordinator::board::Channel;
use crate::coordinator::directory::Permit;
use crate::coordinator::queue_actor::Poll;
use crate::domain::ids::{Run, TaskNo};
use crate::domain::job::{Fence, NewTask};
use crate::domain::lease::Lease;
use crate::domain::ledger::{Hold, Item, NewerTokens, TaskStatus};
use crate::store::SnapshotRow;
use actix::prelude::*;
use std::sync::Arc;
use tokio::sync::oneshot;

/// What a caller wants of a job.
pub(in crate::coordinator) enum Request {
    Grant {
        worker: Arc<str>,
        max_tasks: u32,
        request_id: Option<String>,
    },
    Extend(ExtendLeases),
    Release {
        worker: Arc<str>,
        leases: Vec<String>,
    },
    Results {
        worker: Arc<str>,
        items: Vec<Item>,
        then_lease: Option<u32>,
    },
    Control(Control),
    Append {
        tasks: Arc<Vec<NewTask>>,
        first_task: Option<u32>,
    },
    View,
    /// Show the job to the readers of this channel from now on.
    Watch(Arc<Channel>),
    Standing,
    Explain {
        limit: u32,
    },
    /// May it be deleted, and under which fence and run?
    ProveDeletable,
    Tasks {
        state: Option<TaskState>,
        after: Option<TaskNo>,
        limit: u32,
    },
}

/// What a caller gets.
pub(in crate::coordinator) enum Answer {
    Granted(Granted),
    Extended(Extended),
    Released(Released),
    Results(ResultsPosted),
    Appended(Ingested),
    View(Box<JobView>),
    Watched,
    Tasks(Vec<(TaskNo, TaskStatus)>),
    Deletable(Fence, Run),
    Standing(JobStanding),
    Explained(Box<Explanation>),
}

impl Request {
    /// The worker whose sign of life this is.
    pub(in crate::coordinator) fn worker(&self) -> Option<&Arc<str>> {
        match self {
            Request::Grant { worker, .. } | Request::Release { worker, .. } | Request::Results { worker, .. } => {
                Some(worker)
            }
            Request::Extend(call) => Some(&call.worker),
            _ => None,
        }
    }

    /// Does it only read?
    pub(super) fn reads_only(&self) -> bool {
        matches!(
            self,
            Request::View | Request::Watch(_) | Request::Tasks { .. } | Request::Standing | Request::Explain { .. }
        )
    }
}

pub(in crate::coordinator) type Replier = oneshot::Sender<Result<Answer, CoordinatorError>>;

/// A caller's request, with the permit that is held until it is answered.
#[derive(Message)]
#[rtype(result = "()")]
pub(in crate::coordinator) struct Ask {
    pub(in crate::coordinator) request: Request,
    pub(in crate::coordinator) reply: Replier,
    pub(in crate::coordinator) permit: Option<Permit>,
}

/// The queue passes a poll on: answer it, or give it back.
#[derive(Message)]
#[rtype(result = "()")]
pub(in crate::coordinator) struct Serve(pub(in crate::coordinator) Poll);

/// Leases whose answer was never delivered.
#[derive(Message)]
#[rtype(result = "()")]
pub(in crate::coordinator) struct Undelivered(pub(in crate::coordinator) Vec<Lease>);

/// Results for these leases are being uploaded: they do not expire meanwhile.
#[derive(Message)]
#[rtype(result = "()")]
pub(in crate::coordinator) struct HoldLeases {
    pub(in crate::coordinator) hold: Hold,
    pub(in crate::coordinator) worker: Option<Arc<str>>,
    pub(in crate::coordinator) leases: Vec<Lease>,
}

/// The upload has ended, one way or the other.
#[derive(Message)]
#[rtype(result = "()")]
pub(in crate::coordinator) struct EndHold(pub(in crate::coordinator) Hold);

/// Ownership was proven (again): load the job under this fence.
#[derive(Message, Clone, Copy)]
#[rtype(result = "()")]
pub(in crate::coordinator) struct Load {
    pub(in crate::coordinator) fence: Fence,
    pub(in crate::coordinator) newer_tokens: NewerTokens,
}

/// Ownership was lost: stop, telling every caller to ask elsewhere.
#[derive(Message)]
#[rtype(result = "()")]
pub(in crate::coordinator) struct StopJob;

/// The job's row is gone: stop, telling every caller so.
#[derive(Message)]
#[rtype(result = "()")]
pub(in crate::coordinator) struct JobDeleted;

/// Time may have come for something.
#[derive(Message, Clone, Copy)]
#[rtype(result = "()")]
pub(in crate::coordinator) struct Wake;

/// Hand over what is worth saving.
#[derive(Message)]
#[rtype(result = "Option<SnapshotRow>")]
pub(in crate::coordinator) struct TakeSnapshot;

/// Take no more requests and answer when nothing is under way.
#[derive(Message)]
#[rtype(result = "()")]
pub(in crate::coordinator) struct Settle(pub(in crate::coordinator) oneshot::Sender<()>);

/// Who waits for a ticket.
pub(in crate::coordinator) enum Waiter {
    Caller {
        reply: Replier,
        tokens: Vec<String>,
        _permit: Option<Permit>,
    },
    Poll(Poll),
}
