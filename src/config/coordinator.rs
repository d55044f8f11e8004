//! The `[coordinator]` section: bounds and intervals of a node's actors.
//!
//! Owns: its settings' names, units, defaults and checks, and their translation into the room's own. Never: acts on one. Invariant: the
//! defaults are those of the room.

use super::error::{ConfigError, check_positive};
use super::ms;
use crate::coordinator::Settings;
use crate::http::HttpSettings;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The `[coordinator]` section: bounds and intervals of a node's actors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CoordinatorConfig {
    pub snapshot_interval_ms: u64,
    pub store_wait_ms: u64,
    pub result_permits_requests: usize,
    pub lease_permits_requests: usize,
    pub control_permits_requests: usize,
    pub parked_limit_requests: usize,
    pub streams_max: usize,
    pub stream_messages_per_s: u32,
    pub worker_in_flight_tasks: u32,
    pub lease_payload_bytes: usize,
    pub batch_bytes: usize,
    pub inline_result_max_bytes: usize,
    pub orphan_blob_age_s: u64,
    pub worker_alive_s: u32,
    pub workers_kept: usize,
    pub log_entries_per_job: u32,
    pub log_queue_bytes: usize,
    pub passivate_after_ms: u64,
    pub drain_timeout_ms: u64,
    pub actor_threads: usize,
}

impl Default for CoordinatorConfig {
    fn default() -> Self {
        let defaults = Settings::default();
        CoordinatorConfig {
            snapshot_interval_ms: ms(defaults.snapshot_interval),
            store_wait_ms: ms(defaults.store_wait),
            result_permits_requests: defaults.result_permits,
            lease_permits_requests: defaults.lease_permits,
            control_permits_requests: defaults.control_permits,
            parked_limit_requests: defaults.parked_limit,
            streams_max: defaults.streams_max,
            stream_messages_per_s: defaults.stream_messages_per_s,
            worker_in_flight_tasks: defaults.worker_in_flight,
            lease_payload_bytes: defaults.lease_payload_bytes,
            batch_bytes: defaults.batch_bytes,
            inline_result_max_bytes: defaults.inline_result_bytes,
            orphan_blob_age_s: defaults.orphan_blob_age.as_secs(),
            worker_alive_s: defaults.worker_alive_s,
            workers_kept: defaults.workers_kept,
            log_entries_per_job: defaults.log_entries_per_job,
            log_queue_bytes: defaults.log_queue_bytes,
            passivate_after_ms: ms(defaults.passivate_after),
            drain_timeout_ms: ms(defaults.drain_timeout),
            actor_threads: defaults.actor_threads,
        }
    }
}

impl CoordinatorConfig {
    pub(super) fn check(&self, http: &HttpSettings) -> Result<(), ConfigError> {
        check_positive(&[
            ("coordinator.snapshot_interval_ms", self.snapshot_interval_ms),
            ("coordinator.store_wait_ms", self.store_wait_ms),
            ("coordinator.actor_threads", self.actor_threads as u64),
            (
                "coordinator.stream_messages_per_s",
                u64::from(self.stream_messages_per_s),
            ),
        ])?;
        // An upload must not be swept while it is under way.
        let longest_s = http.body_total_timeout_s + self.store_wait_ms.div_ceil(1000);
        if self.orphan_blob_age_s <= longest_s {
            return Err(ConfigError::OutOfRange {
                field: "coordinator.orphan_blob_age_s",
                limit: format!("more than {longest_s}, which an upload may take"),
            });
        }
        Ok(())
    }

    /// What the coordinator is given; who the node is stands outside of this section.
    pub(super) fn settings(&self, node_id: String, node_lease_s: u32) -> Settings {
        Settings {
            node_id,
            node_lease_s,
            snapshot_interval: Duration::from_millis(self.snapshot_interval_ms),
            store_wait: Duration::from_millis(self.store_wait_ms),
            result_permits: self.result_permits_requests,
            lease_permits: self.lease_permits_requests,
            control_permits: self.control_permits_requests,
            parked_limit: self.parked_limit_requests,
            streams_max: self.streams_max,
            stream_messages_per_s: self.stream_messages_per_s,
            worker_in_flight: self.worker_in_flight_tasks,
            lease_payload_bytes: self.lease_payload_bytes,
            batch_bytes: self.batch_bytes,
            inline_result_bytes: self.inline_result_max_bytes,
            orphan_blob_age: Duration::from_secs(self.orphan_blob_age_s),
            worker_alive_s: self.worker_alive_s,
            workers_kept: self.workers_kept,
            log_entries_per_job: self.log_entries_per_job,
            log_queue_bytes: self.log_queue_bytes,
            passivate_after: Duration::from_millis(self.passivate_after_ms),
            drain_timeout: Duration::from_millis(self.drain_timeout_ms),
            actor_threads: self.actor_threads,
            restores_leases: true,
            ..Settings::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_coordinator_gets_its_settings() {
        let defaults = Settings::default();
        let settings = CoordinatorConfig::default().settings(defaults.node_id.clone(), defaults.node_lease_s);
        assert_eq!(format!("{settings:?}"), format!("{defaults:?}"));
    }
}
