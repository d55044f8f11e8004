//! The `[http]` section, whose settings are the room's own.
//!
//! Owns: the checks on them. Never: acts on one. Invariant: with what passes here no request waits for ever, and every body that is
//! allowed can be read.

use super::error::{ConfigError, check_positive};
use crate::http::HttpSettings;

/// Threads that actix-web starts at most.
const WORKERS_MAX: usize = 512;

pub(super) fn check(http: &HttpSettings) -> Result<(), ConfigError> {
    check_positive(&[
        ("http.body_idle_timeout_s", http.body_idle_timeout_s),
        ("http.body_total_timeout_s", http.body_total_timeout_s),
        ("http.client_request_timeout_s", http.client_request_timeout_s),
        (
            "http.connections_per_worker_max",
            http.connections_per_worker_max as u64,
        ),
        ("http.append_chunk_tasks", http.append_chunk_tasks as u64),
        ("http.append_chunk_bytes", http.append_chunk_bytes as u64),
        ("http.line_max_bytes", http.line_max_bytes as u64),
        ("http.batch_items_max", http.batch_items_max as u64),
        ("http.lease_tasks_max", u64::from(http.lease_tasks_max)),
        ("http.list_default_items", u64::from(http.list_default_items)),
        ("http.list_max_items", u64::from(http.list_max_items)),
        ("http.result_page_max_bytes", http.result_page_max_bytes as u64),
        ("http.antenna_lease_timeout_s", u64::from(http.antenna_lease_timeout_s)),
        ("http.token_refresh_timeout_ms", http.token_refresh_timeout_ms),
        ("http.stream_rate_max_hz", u64::from(http.stream_rate_max_hz)),
        ("http.stream_jobs_max", http.stream_jobs_max as u64),
        ("http.stream_ping_ms", http.stream_ping_ms),
        ("http.stream_write_timeout_ms", http.stream_write_timeout_ms),
    ])?;
    // More threads than that are refused by the server itself.
    if http.workers > WORKERS_MAX {
        return Err(ConfigError::OutOfRange {
            field: "http.workers",
            limit: format!("at most {WORKERS_MAX}"),
        });
    }
    // A body that never fits would be answered "busy" for ever.
    let largest = http
        .body_max_bytes
        .max(http.append_chunk_bytes + 2 * http.line_max_bytes);
    if http.body_budget_bytes < largest {
        return Err(ConfigError::OutOfRange {
            field: "http.body_budget_bytes",
            limit: format!("at least {largest}, the largest body"),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_threads_than_the_server_starts_are_refused_by_name() {
        let with = |workers| HttpSettings {
            workers,
            ..HttpSettings::default()
        };
        assert!(check(&with(WORKERS_MAX)).is_ok());
        let refused = check(&with(WORKERS_MAX + 1)).expect_err("too many").to_string();
        assert!(refused.contains("http.workers") && refused.contains("512"), "{refused}");
    }
}
