//! What the board shows of a job at one moment.
//!
//! Owns: a complete view and the printed forms made of it. Never: knows how a form is printed. Invariant: each form is printed at most
//! once, by the first reader who needs it, for all of them.

use crate::coordinator::api::JobView;
use bytes::Bytes;
use std::sync::{Arc, OnceLock};

/// The messages that one update may become; which one depends on what its reader saw before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The first one a reader gets.
    Snapshot,
    Progress,
    /// State or run differ from what the reader saw last.
    State,
    /// The job has ended.
    Final,
}

/// A job as it was committed at one moment.
#[derive(Debug)]
pub struct Update {
    pub view: JobView,
    printed: [OnceLock<Bytes>; 4],
}

impl Update {
    pub(in crate::coordinator) fn new(view: JobView) -> Arc<Update> {
        Arc::new(Update {
            view,
            printed: Default::default(),
        })
    }

    /// The printed form, made by `print` if nobody did before.
    pub fn printed(&self, form: Form, print: impl FnOnce(&JobView) -> Bytes) -> Bytes {
        self.printed[form as usize].get_or_init(|| print(&self.view)).clone()
    }
}
