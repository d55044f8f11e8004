//! Bounds and intervals of the HTTP room.
//!
//! Owns: their names, units and defaults. Never: reads a file (`config` does). Invariant: nothing in this room waits or grows without
//! one of these.

use serde::{Deserialize, Serialize};

/// The `[http]` section of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpSettings {
    pub workers: usize,
    pub connections_per_worker_max: usize,
    pub backlog_connections: u32,
    pub keep_alive_s: u64,
    pub client_request_timeout_s: u64,
    pub unread_timeout_s: u64,
    pub shutdown_timeout_s: u64,
    pub body_max_bytes: usize,
    pub small_body_max_bytes: usize,
    pub stream_body_min_bytes: usize,
    pub body_budget_bytes: usize,
    pub body_idle_timeout_s: u64,
    pub body_total_timeout_s: u64,
    pub parse_inline_max_bytes: usize,
    pub line_max_bytes: usize,
    pub append_chunk_tasks: usize,
    pub append_chunk_bytes: usize,
    pub batch_items_max: usize,
    pub lease_tasks_max: u32,
    pub lease_wait_max_s: u32,
    pub list_default_items: u32,
    pub list_max_items: u32,
    pub result_page_max_bytes: usize,
    pub error_max_bytes: usize,
    pub stream_rate_max_hz: u32,
    pub stream_jobs_max: usize,
    pub stream_ping_ms: u64,
    pub stream_write_timeout_ms: u64,
    pub ticket_lifetime_ms: u64,
    pub log_message_max_bytes: usize,
    pub token_refresh_ms: u64,
    pub token_max_age_ms: u64,
    pub token_refresh_timeout_ms: u64,
}

impl Default for HttpSettings {
    fn default() -> Self {
        HttpSettings {
            workers: 0,
            connections_per_worker_max: 25_000,
            backlog_connections: 2_048,
            keep_alive_s: 120,
            client_request_timeout_s: 15,
            unread_timeout_s: 60,
            shutdown_timeout_s: 10,
            body_max_bytes: 128 << 20,
            small_body_max_bytes: 1 << 20,
            stream_body_min_bytes: 1 << 20,
            body_budget_bytes: 512 << 20,
            body_idle_timeout_s: 20,
            body_total_timeout_s: 300,
            parse_inline_max_bytes: 256 << 10,
            line_max_bytes: 1 << 20,
            append_chunk_tasks: 2_000,
            append_chunk_bytes: 4 << 20,
            batch_items_max: 1_000,
            lease_tasks_max: 1_000,
            lease_wait_max_s: 60,
            list_default_items: 50,
            list_max_items: 500,
            result_page_max_bytes: 8 << 20,
            error_max_bytes: 8 << 10,
            stream_rate_max_hz: 10,
            stream_jobs_max: 200,
            stream_ping_ms: 15_000,
            stream_write_timeout_ms: 10_000,
            ticket_lifetime_ms: 30_000,
            log_message_max_bytes: 8 << 10,
            token_refresh_ms: 500,
            token_max_age_ms: 1_000,
            token_refresh_timeout_ms: 1_000,
        }
    }
}
