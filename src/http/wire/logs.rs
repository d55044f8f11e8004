//! Bodies of the log routes.
//!
//! Owns: their shapes. Never: validates. Invariant: messages pass through unchanged, but for U+0000.

use super::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `POST /v1/jobs/{id}/logs`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PostLogs {
    pub entries: Vec<LogIn>,
}

/// One entry to be written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LogIn {
    #[serde(default)]
    pub level: LogLevel,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<u32>,
    /// When it happened; the server's time if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}

/// How grave an entry is, from the least.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    Debug,
    #[default]
    Info,
    Warn,
    Error,
}

/// Answer to posted entries: all of them are durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogsPosted {
    pub written: u32,
}

/// `GET /v1/jobs/{id}/logs`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LogList {
    /// In the order in which they were written.
    pub items: Vec<Log>,
    /// Give it back as `after` for what comes next, also for what has not been written yet.
    pub after: i64,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Log {
    /// Rises with every entry.
    pub id: i64,
    pub at: Timestamp,
    pub level: LogLevel,
    pub source: LogSource,
    pub worker: Option<String>,
    pub task: Option<u32>,
    pub message: String,
}

/// Who wrote an entry: the server itself, or somebody who posted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogSource {
    Coordinator,
    Posted,
}
