//! Where settings come from: defaults, under a file, under the environment, under flags.
//!
//! Owns: the layers and their order. Never: knows what a section holds. Invariant: an unknown key is an error in every layer, and
//! `config/tallykeeper.toml` names every setting with its default.

use super::Config;
use super::error::ConfigError;
use figment::Figment;
use figment::providers::{Format, Serialized, Toml};
use figment::value::Value;
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
        let layers = environment(layers, variables).merge(Serialized::defaults(flags));
        let config: Config = layers
            .extract()
            .map_err(|error| ConfigError::Invalid(Box::new(error)))?;
        config.check()?;
        Ok(config)
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
