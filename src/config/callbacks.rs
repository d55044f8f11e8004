//! The `[callbacks]` section.
//!
//! Owns: its settings and their checks. Never: shows a secret. Invariant: what passed the check can be built.

use super::ConfigError;
use crate::coordinator::CallbackSettings;
use crate::domain::callback::Schedule;
use crate::domain::policy::MAX_DURATION_S;
use crate::http::callbacks::{Callbacks, Network, Networks, Secret};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Calls at the end of jobs.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CallbacksConfig {
    /// None: no job may ask for a callback.
    #[serde(deserialize_with = "list_or_text")]
    pub secrets: Vec<String>,
    #[serde(deserialize_with = "list_or_text")]
    pub allow: Vec<String>,
    pub timeout_s: u32,
    pub retry_first_s: u32,
    pub retry_longest_s: u32,
    pub give_up_after_s: u32,
    pub calls_at_once: u32,
    pub calls_per_receiver: u32,
}

impl Default for CallbacksConfig {
    fn default() -> Self {
        let defaults = CallbackSettings::default();
        let Schedule {
            first_ms,
            longest_ms,
            give_up_after_ms,
        } = defaults.schedule;
        CallbacksConfig {
            secrets: Vec::new(),
            allow: Vec::new(),
            timeout_s: u32::try_from(defaults.call_timeout.as_secs()).unwrap_or(u32::MAX),
            retry_first_s: first_ms / 1000,
            retry_longest_s: longest_ms / 1000,
            give_up_after_s: u32::try_from(give_up_after_ms / 1000).unwrap_or(u32::MAX),
            calls_at_once: defaults.calls_at_once,
            calls_per_receiver: defaults.calls_per_receiver,
        }
    }
}

impl fmt::Debug for CallbacksConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallbacksConfig")
            .field("secrets", &self.secrets.len())
            .field("allow", &self.allow)
            .field("timeout_s", &self.timeout_s)
            .field("retry_first_s", &self.retry_first_s)
            .field("retry_longest_s", &self.retry_longest_s)
            .field("give_up_after_s", &self.give_up_after_s)
            .field("calls_at_once", &self.calls_at_once)
            .field("calls_per_receiver", &self.calls_per_receiver)
            .finish()
    }
}

/// A list, or texts with commas between them as the environment gives them.
fn list_or_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        List(Vec<String>),
        Text(String),
    }
    Ok(match Either::deserialize(deserializer)? {
        Either::List(list) => list,
        Either::Text(text) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            items.map(str::to_owned).collect()
        }
    })
}

/// Reads every item; the error shows none of them.
fn parsed<T: FromStr>(field: &'static str, texts: &[String]) -> Result<Vec<T>, ConfigError>
where
    T::Err: fmt::Display,
{
    let item = |text: &String| {
        text.parse().map_err(|limit: T::Err| ConfigError::OutOfRange {
            field,
            limit: format!("a list of items, each {limit}"),
        })
    };
    texts.iter().map(item).collect()
}

impl CallbacksConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        self.secrets()?;
        self.networks()?;
        for (field, value, most) in [
            ("callbacks.timeout_s", self.timeout_s, 300),
            ("callbacks.retry_first_s", self.retry_first_s, MAX_DURATION_S),
            ("callbacks.retry_longest_s", self.retry_longest_s, MAX_DURATION_S),
            ("callbacks.calls_at_once", self.calls_at_once, 1_000),
            ("callbacks.calls_per_receiver", self.calls_per_receiver, 1_000),
        ] {
            if !(1..=most).contains(&value) {
                let limit = format!("from 1 to {most}");
                return Err(ConfigError::OutOfRange { field, limit });
            }
        }
        Ok(())
    }

    fn secrets(&self) -> Result<Vec<Secret>, ConfigError> {
        parsed("callbacks.secrets", &self.secrets)
    }

    fn networks(&self) -> Result<Networks, ConfigError> {
        Ok(parsed::<Network>("callbacks.allow", &self.allow)?.into_iter().collect())
    }

    fn call_timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_s.into())
    }

    /// The coordinator's part.
    pub fn settings(&self) -> CallbackSettings {
        CallbackSettings {
            call_timeout: self.call_timeout(),
            calls_at_once: self.calls_at_once,
            calls_per_receiver: self.calls_per_receiver,
            schedule: Schedule {
                first_ms: self.retry_first_s.saturating_mul(1000),
                longest_ms: self.retry_longest_s.saturating_mul(1000),
                give_up_after_ms: u64::from(self.give_up_after_s) * 1000,
            },
        }
    }

    /// Whoever makes the calls; none without a secret.
    pub fn callbacks(&self) -> Result<Option<Callbacks>, ConfigError> {
        let secrets = self.secrets()?;
        if secrets.is_empty() {
            return Ok(None);
        }
        Ok(Some(Callbacks::new(secrets, self.networks()?, self.call_timeout())))
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, ConfigError, Flags};

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn load(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let named = |&(name, value): &(&str, &str)| (format!("TALLYKEEPER_CALLBACKS__{name}"), value.to_owned());
        Config::load(None, variables.iter().map(named), &Flags::default())
    }

    #[test]
    fn lists_come_from_the_environment_as_one_text_or_as_a_list() {
        let two = format!("{SECRET}, {SECRET}");
        for (secrets, count) in [(SECRET, 1), (two.as_str(), 2), (&format!("[{SECRET:?}]"), 1), ("", 0)] {
            let config = load(&[("SECRETS", secrets), ("ALLOW", "10.0.0.0/8,::1")]).unwrap();
            assert_eq!(config.callbacks.secrets.len(), count, "{secrets}");
            assert_eq!(config.callbacks.allow, ["10.0.0.0/8", "::1"]);
            assert_eq!(config.callbacks.callbacks().unwrap().is_some(), count > 0);
        }
    }

    #[test]
    fn what_cannot_work_is_an_error_that_names_the_setting_and_no_secret() {
        for (name, value) in [
            ("SECRETS", "hunter2hunter2hunter2hunter2"),
            ("SECRETS", "whsec_aHVudGVyMg=="),
            ("ALLOW", "10.0.0.0/99"),
            ("TIMEOUT_S", "0"),
            ("CALLS_AT_ONCE", "0"),
            ("RETRY_LONGEST_S", "604801"),
            ("CALLS_PER_RECEIVER", "1001"),
            ("SECRET", SECRET),
        ] {
            let error = load(&[(name, value)]).unwrap_err().to_string();
            let named = format!("TALLYKEEPER_CALLBACKS__{name}");
            assert!(error.contains(&named), "{name}: {error}");
            assert!(!name.starts_with("SECRET") || !error.contains(value), "{error}");
        }
    }

    #[test]
    fn a_secret_is_not_shown() {
        let config = load(&[("SECRETS", SECRET)]).unwrap();
        let shown = format!("{config:?}");
        assert!(shown.contains("secrets: 1") && !shown.contains("whsec"), "{shown}");
    }
}
