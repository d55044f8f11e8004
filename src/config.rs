//! Settings: defaults, under a file, under the environment, under flags.
//!
//! Owns: names, units, defaults and layering of every setting. Never: acts on one. Invariant: an unknown key is an error, and
//! `config/tallykeeper.toml` names every setting with its default.

mod callbacks;

pub use callbacks::CallbacksConfig;

use crate::coordinator::Settings;
use crate::domain::job::Limits;
use crate::http::HttpSettings;
use crate::store::postgres;
use figment::Figment;
use figment::providers::{Format, Serialized, Toml};
use figment::value::Value;
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The file that is read unless another is named; it may be absent.
pub const DEFAULT_PATH: &str = "config/tallykeeper.toml";
/// What the names of settings in the environment start with; `__` stands between a section and a setting.
pub const ENV_PREFIX: &str = "TALLYKEEPER_";
/// Variables of the command line that are no settings of a node.
const NOT_SETTINGS: [&str; 5] = ["SERVER", "TOKEN", "CONFIG", "LOG", "LOG_FORMAT"];

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

/// The `[postgres]` section: connections to a PostgreSQL store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PostgresConfig {
    pub commit_lanes_connections: usize,
    pub spare_writers_connections: usize,
    pub blob_writers_connections: usize,
    pub readers_connections: usize,
    pub connect_timeout_ms: u64,
    pub pool_timeout_ms: u64,
    pub statement_timeout_ms: u64,
    pub lock_timeout_ms: u64,
    pub idle_in_transaction_timeout_ms: u64,
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

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
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

impl Default for PostgresConfig {
    fn default() -> Self {
        let defaults = postgres::Settings::default();
        PostgresConfig {
            commit_lanes_connections: defaults.commit_lanes,
            spare_writers_connections: defaults.spare_writers,
            blob_writers_connections: defaults.blob_writers,
            readers_connections: defaults.readers,
            connect_timeout_ms: ms(defaults.connect_timeout),
            pool_timeout_ms: ms(defaults.pool_timeout),
            statement_timeout_ms: ms(defaults.statement_timeout),
            lock_timeout_ms: ms(defaults.lock_timeout),
            idle_in_transaction_timeout_ms: ms(defaults.idle_in_transaction_timeout),
        }
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

/// What the command line of a node may set; absent members leave the layers below in force.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Flags {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,
}

/// The settings could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("no configuration file at {}", .0.display())]
    Missing(PathBuf),
    /// An unknown key, a value of the wrong kind, or a file that is no TOML; says which and where.
    #[error("configuration: {0}")]
    Invalid(Box<figment::Error>),
    #[error("configuration: {field} must be {limit}")]
    OutOfRange { field: &'static str, limit: String },
}

impl Config {
    /// Reads the settings: `flags` over `variables` (all of the environment) over the file over the defaults. A file that is named
    /// must exist.
    pub fn load(
        path: Option<&Path>,
        variables: impl IntoIterator<Item = (String, String)>,
        flags: &Flags,
    ) -> Result<Config, ConfigError> {
        let file = path.unwrap_or(Path::new(DEFAULT_PATH));
        if path.is_some() && !file.is_file() {
            return Err(ConfigError::Missing(file.to_owned()));
        }
        let mut layers = Figment::from(Serialized::defaults(Config::default()));
        // `file_exact` takes an absent file for an error; the one at the default place may be absent.
        if file.is_file() {
            layers = layers.merge(Toml::file_exact(file));
        }
        let layers = environment(layers, variables).merge(Serialized::defaults(flags));
        let config: Config = layers
            .extract()
            .map_err(|error| ConfigError::Invalid(Box::new(error)))?;
        config.check()?;
        Ok(config)
    }

    /// Refuses settings with which a node could not work.
    fn check(&self) -> Result<(), ConfigError> {
        if !self.advertise.is_empty() && !is_address(&self.advertise) {
            return Err(ConfigError::OutOfRange {
                field: "advertise",
                limit: "an address such as http://HOST:PORT, without a path".to_owned(),
            });
        }
        let http = &self.http;
        let positive = [
            ("node_lease_s", u64::from(self.node_lease_s)),
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
            (
                "coordinator.snapshot_interval_ms",
                self.coordinator.snapshot_interval_ms,
            ),
            ("coordinator.store_wait_ms", self.coordinator.store_wait_ms),
            ("coordinator.actor_threads", self.coordinator.actor_threads as u64),
            (
                "coordinator.stream_messages_per_s",
                u64::from(self.coordinator.stream_messages_per_s),
            ),
            ("http.stream_rate_max_hz", u64::from(http.stream_rate_max_hz)),
            ("http.stream_jobs_max", http.stream_jobs_max as u64),
            ("http.stream_ping_ms", http.stream_ping_ms),
            ("http.stream_write_timeout_ms", http.stream_write_timeout_ms),
            ("limits.name_bytes", self.limits.name_bytes as u64),
        ];
        for (field, value) in positive {
            if value == 0 {
                let limit = "at least 1".to_owned();
                return Err(ConfigError::OutOfRange { field, limit });
            }
        }
        self.callbacks.check()?;
        // An upload must not be swept while it is under way.
        let longest_s = http.body_total_timeout_s + self.coordinator.store_wait_ms.div_ceil(1000);
        if self.coordinator.orphan_blob_age_s <= longest_s {
            return Err(ConfigError::OutOfRange {
                field: "coordinator.orphan_blob_age_s",
                limit: format!("more than {longest_s}, which an upload may take"),
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
        let part = &self.coordinator;
        Settings {
            node_id: self.node_name(),
            node_lease_s: self.node_lease_s,
            snapshot_interval: Duration::from_millis(part.snapshot_interval_ms),
            store_wait: Duration::from_millis(part.store_wait_ms),
            result_permits: part.result_permits_requests,
            lease_permits: part.lease_permits_requests,
            control_permits: part.control_permits_requests,
            parked_limit: part.parked_limit_requests,
            streams_max: part.streams_max,
            stream_messages_per_s: part.stream_messages_per_s,
            worker_in_flight: part.worker_in_flight_tasks,
            lease_payload_bytes: part.lease_payload_bytes,
            batch_bytes: part.batch_bytes,
            inline_result_bytes: part.inline_result_max_bytes,
            orphan_blob_age: Duration::from_secs(part.orphan_blob_age_s),
            worker_alive_s: part.worker_alive_s,
            workers_kept: part.workers_kept,
            log_entries_per_job: part.log_entries_per_job,
            log_queue_bytes: part.log_queue_bytes,
            passivate_after: Duration::from_millis(part.passivate_after_ms),
            drain_timeout: Duration::from_millis(part.drain_timeout_ms),
            actor_threads: part.actor_threads,
            callbacks: self.callbacks.settings(),
            restores_leases: true,
        }
    }

    /// The PostgreSQL store's part.
    pub fn postgres_settings(&self) -> postgres::Settings {
        let part = &self.postgres;
        postgres::Settings {
            commit_lanes: part.commit_lanes_connections,
            spare_writers: part.spare_writers_connections,
            blob_writers: part.blob_writers_connections,
            readers: part.readers_connections,
            connect_timeout: Duration::from_millis(part.connect_timeout_ms),
            pool_timeout: Duration::from_millis(part.pool_timeout_ms),
            statement_timeout: Duration::from_millis(part.statement_timeout_ms),
            lock_timeout: Duration::from_millis(part.lock_timeout_ms),
            idle_in_transaction_timeout: Duration::from_millis(part.idle_in_transaction_timeout_ms),
        }
    }

    /// The domain's part.
    pub fn limits(&self) -> Limits {
        Limits {
            name_bytes: self.limits.name_bytes,
            key_bytes: self.limits.key_bytes,
            payload_bytes: self.limits.payload_bytes,
            stages: self.limits.stages,
            labels: self.limits.labels,
            counters: self.limits.counters,
        }
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

/// Puts the settings among the environment's variables over the layers.
fn environment(mut layers: Figment, variables: impl IntoIterator<Item = (String, String)>) -> Figment {
    for (name, text) in variables {
        let Some(name) = name.strip_prefix(ENV_PREFIX) else {
            continue;
        };
        if NOT_SETTINGS.contains(&name) {
            continue;
        }
        let value: Value = text.parse().expect("any text is a value");
        let key = name.to_lowercase().replace("__", ".");
        layers = layers.merge(Serialized::default(&key, value));
    }
    layers
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

    const DOCUMENTED: &str = include_str!("../config/tallykeeper.toml");

    fn load(toml: &str, variables: &[(&str, &str)], flags: &Flags) -> Result<Config, ConfigError> {
        let file = std::env::temp_dir().join(format!("tallykeeper-config-{}.toml", rand::random::<u64>()));
        std::fs::write(&file, toml).unwrap();
        let variables = variables
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()));
        let loaded = Config::load(Some(&file), variables, flags);
        std::fs::remove_file(&file).unwrap();
        loaded
    }

    #[test]
    fn flags_go_over_environment_over_file_over_defaults() {
        let toml =
            "listen = \"a:1\"\nstore = \"sqlite:file\"\nnode_id = \"file\"\n[http]\nkeep_alive_s = 90\nworkers = 3";
        let variables = [
            ("TALLYKEEPER_STORE", "sqlite:env"),
            ("TALLYKEEPER_NODE_ID", "17"),
            ("TALLYKEEPER_HTTP__WORKERS", "5"),
            ("TALLYKEEPER_TOKEN", "tk_secret"),
            ("PATH", "/bin"),
        ];
        let flags = Flags {
            store: Some("sqlite:flag".into()),
            ..Flags::default()
        };
        let config = load(toml, &variables, &flags).unwrap();
        assert_eq!((config.listen.as_str(), config.store.as_str()), ("a:1", "sqlite:flag"));
        assert_eq!((config.node_id.as_str(), config.node_name().as_str()), ("17", "17"));
        assert_eq!((config.http.keep_alive_s, config.http.workers), (90, 5));
        assert_eq!(config.http.body_max_bytes, 128 << 20);
    }

    #[test]
    fn an_advertised_address_has_no_path() {
        for good in ["http://node1:8080", "https://node1.example/", "http://[::1]:8080"] {
            let config = load(&format!("advertise = \"{good}\""), &[], &Flags::default());
            assert_eq!(config.unwrap().advertise, good);
        }
        for bad in [
            "node1:8080",
            "ftp://node1",
            "http://node1/tally",
            "http://node1?x",
            "http://u@node1",
            "http://",
        ] {
            let refused = load(&format!("advertise = \"{bad}\""), &[], &Flags::default());
            let message = refused.expect_err(bad).to_string();
            assert!(
                message.contains("advertise") && message.contains("without a path"),
                "{message}"
            );
        }
    }

    #[test]
    fn unknown_keys_and_bad_values_are_errors_that_name_them() {
        let none = Flags::default();
        for (toml, variables, named) in [
            ("lissten = \"x\"", vec![], "lissten"),
            ("[http]\nworker = 1", vec![], "worker"),
            ("", vec![("TALLYKEEPER_HTPP__WORKERS", "1")], "htpp"),
            ("", vec![("TALLYKEEPER_HTTP__WORKER", "1")], "worker"),
            ("[http]\nworkers = \"many\"", vec![], "workers"),
            ("[http]\nbody_budget_bytes = 1", vec![], "body_budget_bytes"),
            ("[http]\nlist_max_items = 0", vec![], "list_max_items"),
        ] {
            let error = load(toml, &variables, &none).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn a_named_file_must_exist() {
        let error = Config::load(Some(Path::new("/nonexistent/x.toml")), [], &Flags::default()).unwrap_err();
        assert!(matches!(error, ConfigError::Missing(_)));
    }

    #[test]
    fn the_file_documents_exactly_the_settings_there_are_with_their_defaults() {
        let is_setting = |line: &str| {
            let name = line.strip_prefix('#').and_then(|rest| rest.split_once(" = "));
            name.is_some_and(|(name, _)| !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
        };
        let lines: Vec<_> = DOCUMENTED.lines().collect();
        for (i, line) in lines.iter().enumerate().filter(|(_, line)| is_setting(line)) {
            assert!(i > 0 && lines[i - 1].starts_with("# "), "undocumented: {line}");
        }
        let uncommented: String = lines
            .iter()
            .map(|line| if is_setting(line) { &line[1..] } else { line })
            .flat_map(|line| [line, "\n"])
            .collect();
        let documented: serde_json::Value = Figment::from(Toml::string(&uncommented)).extract().unwrap();
        assert_eq!(documented, serde_json::to_value(Config::default()).unwrap());
        assert_eq!(load(DOCUMENTED, &[], &Flags::default()).unwrap(), Config::default());
        assert_eq!(load(&uncommented, &[], &Flags::default()).unwrap(), Config::default());
    }

    #[test]
    fn the_parts_carry_their_settings() {
        let config = Config::default();
        let settings = config.coordinator_settings();
        let defaults = Settings {
            node_id: settings.node_id.clone(),
            ..Settings::default()
        };
        assert_eq!(format!("{settings:?}"), format!("{defaults:?}"));
        assert_eq!(config.limits(), Limits::default());
        assert_eq!(config.postgres_settings(), postgres::Settings::default());
        assert!(!settings.node_id.is_empty());
    }
}
