//! Every request and response body of API version 1, shared by the server and its clients.
//!
//! Owns: member names, defaults and text forms. Never: checks a limit or converts to the domain (the handlers do). Invariant: each type
//! reads what it writes, and payloads and results pass through verbatim.

pub mod callbacks;
pub mod fleet;
pub mod jobs;
pub mod leases;
pub mod logs;
pub mod results;
mod schemas;
pub mod streams;
pub mod timestamp;
pub mod tokens;

pub use callbacks::*;
pub use fleet::*;
pub use jobs::*;
pub use leases::*;
pub use logs::*;
pub use results::*;
pub use streams::*;
pub use timestamp::Timestamp;
pub use tokens::*;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// JSON text kept as it came.
pub type Json = Box<serde_json::value::RawValue>;

/// An RFC 9457 problem, the body of every error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// `urn:tallykeeper:problem:` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    pub detail: String,
    /// Stable word to branch on, such as `invalid_request`.
    pub code: String,
    /// The member or parameter at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What the field, or the body, must keep to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schemas::text_or_number)]
    pub limit: Option<serde_json::Value>,
    /// Where an interrupted or mistaken append goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_task: Option<u32>,
    /// The run the job is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<u32>,
    /// The state the job is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub state: Option<crate::domain::state::State>,
}
