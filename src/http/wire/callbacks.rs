//! Bodies of the callback routes.
//!
//! Owns: their shapes. Never: holds a secret. Invariant: none of its own.

use super::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How far a callback has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CallbackState {
    /// It will be sent, or sent again.
    Pending,
    /// The receiver has answered 2xx.
    Delivered,
    /// It was given up.
    Failed,
}

/// The callback of one run of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Callback {
    /// What its receiver gets as `webhook-id`, the same at every attempt.
    pub id: String,
    pub run: u32,
    pub url: String,
    pub state: CallbackState,
    /// Since the run ended, or since it was last asked for again.
    pub attempts: u32,
    pub last_error: Option<String>,
    pub created_at: Timestamp,
    /// When the next attempt is due; while one is under way, when it is repeated should the node die.
    pub next_at: Option<Timestamp>,
    pub delivered_at: Option<Timestamp>,
    pub given_up_at: Option<Timestamp>,
}

/// `GET /v1/jobs/{id}/callbacks`, from the last run to the first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CallbackList {
    pub items: Vec<Callback>,
}
