//! Every setting of a node: what stands in no section, and the sections.
//!
//! Owns: names, units, defaults, checks and layering of every setting, each section's in a file of its own. Never: acts on one. Invariant:
//! settings that were loaded have been checked.

mod callbacks;
mod coordinator;
mod error;
mod http;
mod limits;
mod loading;
mod postgres;

pub use callbacks::CallbacksConfig;
pub use coordinator::CoordinatorConfig;
pub use error::ConfigError;
pub use limits::LimitsConfig;
pub use loading::{DEFAULT_PATH, ENV_PREFIX, Flags};
pub use postgres::PostgresConfig;

use crate::coordinator::Settings;
use crate::domain::job::Limits;
use crate::http::HttpSettings;
use error::check_positive;
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

/// Every setting of a node.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub listen: String,
    pub store: String,
    /// Empty: the host's name.
    #[serde(deserialize_with = "text_or_number")]
    pub node_id: String,
    pub node_lease_s: u32,
    /// Where other nodes reach this one; empty: where it listens.
    pub advertise: String,
    pub http: HttpSettings,
    pub coordinator: CoordinatorConfig,
    pub limits: LimitsConfig,
    pub postgres: PostgresConfig,
    pub callbacks: CallbacksConfig,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            listen: "127.0.0.1:8080".into(),
            store: "sqlite:./tallykeeper.db".into(),
            node_id: String::new(),
            node_lease_s: Settings::default().node_lease_s,
            advertise: String::new(),
            http: HttpSettings::default(),
            coordinator: CoordinatorConfig::default(),
            limits: LimitsConfig::default(),
            postgres: PostgresConfig::default(),
            callbacks: CallbacksConfig::default(),
        }
    }
}

impl Config {
    /// Refuses settings with which a node could not work.
    fn check(&self) -> Result<(), ConfigError> {
        if !self.advertise.is_empty() && !is_address(&self.advertise) {
            return Err(ConfigError::OutOfRange {
                field: "advertise",
                limit: "an address such as http://HOST:PORT, without a path".to_owned(),
            });
        }
        check_positive(&[("node_lease_s", u64::from(self.node_lease_s))])?;
        http::check(&self.http)?;
        self.coordinator.check(&self.http)?;
        self.limits.check()?;
        self.callbacks.check()
    }

    /// This node's stable name.
    pub fn node_name(&self) -> String {
        if !self.node_id.is_empty() {
            return self.node_id.clone();
        }
        let files = ["/proc/sys/kernel/hostname", "/etc/hostname"];
        let names = files.iter().filter_map(|file| std::fs::read_to_string(file).ok());
        let names = names
            .chain(std::env::var("HOSTNAME"))
            .map(|name| name.trim().to_owned());
        names
            .into_iter()
            .find(|name| !name.is_empty())
            .unwrap_or_else(|| "local".to_owned())
    }

    /// The addresses to listen on; a host's name may stand for several.
    pub fn listen_addresses(&self) -> io::Result<Vec<SocketAddr>> {
        Ok(self.listen.to_socket_addrs()?.collect())
    }

    /// The coordinator's part.
    pub fn coordinator_settings(&self) -> Settings {
        Settings {
            callbacks: self.callbacks.settings(),
            ..self.coordinator.settings(self.node_name(), self.node_lease_s)
        }
    }

    /// The PostgreSQL store's part.
    pub fn postgres_settings(&self) -> crate::store::postgres::Settings {
        self.postgres.settings()
    }

    /// The domain's part.
    pub fn limits(&self) -> Limits {
        self.limits.limits()
    }
}

impl fmt::Debug for Config {
    /// Without the store's address, which may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("listen", &self.listen)
            .field("node_id", &self.node_id)
            .field("node_lease_s", &self.node_lease_s)
            .field("advertise", &self.advertise)
            .field("http", &self.http)
            .field("coordinator", &self.coordinator)
            .field("limits", &self.limits)
            .field("postgres", &self.postgres)
            .field("callbacks", &self.callbacks)
            .finish_non_exhaustive()
    }
}

/// Names such as a node's may look like a number, which the environment's values are then taken for.
fn text_or_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Text(String),
        Number(i64),
    }
    Ok(match Either::deserialize(deserializer)? {
        Either::Text(text) => text,
        Either::Number(number) => number.to_string(),
    })
}

/// A duration of a room's settings, as a section that counts milliseconds shows it.
fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Can other nodes reach this one there? A path would be none of theirs: what they sign begins at the root.
fn is_address(text: &str) -> bool {
    reqwest::Url::parse(text).is_ok_and(|url| {
        let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        let is_open = url.username().is_empty() && url.password().is_none();
        matches!(url.scheme(), "http" | "https") && is_bare && is_open
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_advertised_address_has_no_path() {
        let advertising = |address: &str| Config {
            advertise: address.to_owned(),
            ..Config::default()
        };
        for good in ["http://node1:8080", "https://node1.example/", "http://[::1]:8080"] {
            advertising(good).check().expect(good);
        }
        for bad in [
            "node1:8080",
            "ftp://node1",
            "http://node1/tally",
            "http://node1?x",
            "http://u@node1",
            "http://",
        ] {
            let message = advertising(bad).check().expect_err(bad).to_string();
            assert!(
                message.contains("advertise") && message.contains("without a path"),
                "{message}"
            );
        }
    }

    #[test]
    fn a_node_has_a_name_without_one_being_given() {
        assert!(!Config::default().coordinator_settings().node_id.is_empty());
    }
}
