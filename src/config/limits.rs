//! The `[limits]` section: bounds on what is accepted.
//!
//! Owns: its settings' names, units, defaults and checks, and their translation into the domain's own. Never: judges a job by them.
//! Invariant: the defaults are those of the domain.

use super::error::{ConfigError, check_positive};
use crate::domain::job::Limits;
use serde::{Deserialize, Serialize};

/// The `[limits]` section: bounds on what is accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    pub name_bytes: usize,
    pub key_bytes: usize,
    pub payload_bytes: usize,
    pub stages: usize,
    pub labels: usize,
    pub counters: usize,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        let defaults = Limits::default();
        LimitsConfig {
            name_bytes: defaults.name_bytes,
            key_bytes: defaults.key_bytes,
            payload_bytes: defaults.payload_bytes,
            stages: defaults.stages,
            labels: defaults.labels,
            counters: defaults.counters,
        }
    }
}

impl LimitsConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        check_positive(&[("limits.name_bytes", self.name_bytes as u64)])
    }

    pub(super) fn limits(&self) -> Limits {
        Limits {
            name_bytes: self.name_bytes,
            key_bytes: self.key_bytes,
            payload_bytes: self.payload_bytes,
            stages: self.stages,
            labels: self.labels,
            counters: self.counters,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_domain_gets_its_limits() {
        assert_eq!(LimitsConfig::default().limits(), Limits::default());
    }
}
