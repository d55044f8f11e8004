//! Where settings come from: defaults, under a file, under the environment, under flags.
//!
//! Owns: the layers and their order. Never: knows what a section holds. Invariant: an unknown key is an error in every layer, and
//! `config/tallykeeper.toml` names every setting with its default.

use super::Config;
use super::error::ConfigError;
use figment::providers::{Format, Serialized, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use serde::Serialize;
use std::path::Path;

/// The file that is read unless another is named; it may be absent.
pub const DEFAULT_PATH: &str = "config/tallykeeper.toml";
/// What the names of settings in the environment start with; `__` stands between a section and a setting.
pub const ENV_PREFIX: &str = "TALLYKEEPER_";
/// Variables of the command line that are no settings of a node.
const NOT_SETTINGS: [&str; 5] = ["SERVER", "TOKEN", "CONFIG", "LOG", "LOG_FORMAT"];

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
        let set: Vec<Variable> = variables.into_iter().filter_map(Variable::of).collect();
        let layers = set.iter().fold(layers, |layers, variable| layers.merge(variable));
        let config: Config = layers
            .merge(Serialized::defaults(flags))
            .extract()
            .map_err(|error| ConfigError::Invalid(Box::new(error)))?;
        config
            .check()
            .map_err(|error| error.naming(|field| variable_of(field, &set)))?;
        Ok(config)
    }
}

/// A setting in the environment.
struct Variable {
    name: String,
    /// As the file spells it.
    key: String,
    value: Value,
}

impl Variable {
    fn of((name, text): (String, String)) -> Option<Variable> {
        let bare = name.strip_prefix(ENV_PREFIX)?;
        if NOT_SETTINGS.contains(&bare) || is_service_link(bare, &text) {
            return None;
        }
        let key = bare.to_lowercase().replace("__", ".");
        let value = text.parse().expect("any text is a value");
        Some(Variable { name, key, value })
    }
}

impl Provider for &Variable {
    fn metadata(&self) -> Metadata {
        let name = self.name.clone();
        Metadata::named("the environment").interpolater(move |_, _| name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Serialized::default(&self.key, &self.value).data()
    }
}

/// The variable that has set a setting, if one has.
fn variable_of(field: &str, set: &[Variable]) -> Option<String> {
    let found = set.iter().find(|variable| variable.key == field)?;
    Some(found.name.clone())
}

/// Is this one of the variables that Kubernetes and Docker set for each service, named after it? Beside a service called `tallykeeper` they
/// begin as settings do. A port set by hand is no address, and is refused like any other unknown setting.
fn is_service_link(name: &str, text: &str) -> bool {
    let words = std::iter::once(0).chain(name.match_indices('_').map(|(at, _)| at + 1));
    !name.contains("__") && words.into_iter().any(|at| is_link(&name[at..], text))
}

fn is_link(name: &str, text: &str) -> bool {
    let Some(port) = name.strip_prefix("PORT") else {
        let service_port = name.strip_prefix("SERVICE_PORT");
        return name == "SERVICE_HOST" || service_port.is_some_and(|rest| rest.is_empty() || rest.starts_with('_'));
    };
    let parts: Vec<&str> = port.split('_').skip(1).collect();
    match parts.as_slice() {
        [] => port.is_empty() && text.contains("://"),
        [number, "TCP" | "UDP" | "SCTP"] | [number, "TCP" | "UDP" | "SCTP", "ADDR" | "PORT" | "PROTO"] => {
            port.starts_with('_') && number.parse::<u16>().is_ok()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENTED: &str = include_str!("../../config/tallykeeper.toml");

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
    fn an_error_names_the_variable_or_the_line_it_comes_from() {
        for (name, text) in [
            ("TALLYKEEPER_HTTP__WORKERS", "many"),
            ("TALLYKEEPER_HTTP__WORKER", "1"),
            ("TALLYKEEPER_HTPP__WORKERS", "1"),
            ("TALLYKEEPER_COLOUR", "red"),
            ("TALLYKEEPER_HTTP__LIST_MAX_ITEMS", "0"),
            ("TALLYKEEPER_NODE_LEASE_S", "0"),
            ("TALLYKEEPER_PORT", "8080"),
        ] {
            let error = load("", &[(name, text)], &Flags::default()).unwrap_err().to_string();
            assert!(error.contains(name) && !error.contains(".rs"), "{name}: {error}");
        }
        let error = load("listen = \"a:1\"\nstore = ]", &[], &Flags::default()).unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
        let error = load("[http]\nlist_max_items = 0", &[], &Flags::default()).unwrap_err();
        assert!(error.to_string().contains("http.list_max_items"), "{error}");
    }

    #[test]
    fn the_links_of_services_are_no_settings() {
        let links = [
            ("TALLYKEEPER_SERVICE_HOST", "10.0.0.7"),
            ("TALLYKEEPER_SERVICE_PORT", "8080"),
            ("TALLYKEEPER_SERVICE_PORT_HTTP", "8080"),
            ("TALLYKEEPER_PORT", "tcp://10.0.0.7:8080"),
            ("TALLYKEEPER_PORT_8080_TCP", "tcp://10.0.0.7:8080"),
            ("TALLYKEEPER_PORT_8080_TCP_ADDR", "10.0.0.7"),
            ("TALLYKEEPER_PORT_8080_TCP_PORT", "8080"),
            ("TALLYKEEPER_PORT_8080_TCP_PROTO", "tcp"),
            ("TALLYKEEPER_DB_SERVICE_HOST", "10.0.0.8"),
            ("TALLYKEEPER_DB_PORT_5432_TCP", "tcp://10.0.0.8:5432"),
        ];
        assert_eq!(load("", &links, &Flags::default()).unwrap(), Config::default());
        for (name, text) in [
            ("TALLYKEEPER_PORT", "8080"),
            ("TALLYKEEPER_PORTS", "tcp://x"),
            ("TALLYKEEPER_SERVICE_HOSTS", "x"),
            ("TALLYKEEPER_PORT_HTTP_TCP", "tcp://x"),
            ("TALLYKEEPER_HTTP__SERVICE_HOST", "x"),
        ] {
            assert!(load("", &[(name, text)], &Flags::default()).is_err(), "{name}");
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
}
