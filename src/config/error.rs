//! Why settings are refused.
//!
//! Owns: the errors, and the one bound that most settings share. Never: knows what a setting is for. Invariant: every refusal names
//! the setting and its limit, as whoever set it spells them.

use std::path::PathBuf;

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
    #[error("configuration: {variable} must be {limit}")]
    VariableOutOfRange { variable: String, limit: String },
}

impl ConfigError {
    /// Names the variable that has set the setting at fault, if one has.
    pub(super) fn naming(self, variable_of: impl Fn(&str) -> Option<String>) -> ConfigError {
        let ConfigError::OutOfRange { field, limit } = self else {
            return self;
        };
        match variable_of(field) {
            Some(variable) => ConfigError::VariableOutOfRange { variable, limit },
            None => ConfigError::OutOfRange { field, limit },
        }
    }
}

/// Refuses the first of these settings that is 0.
pub(super) fn check_positive(settings: &[(&'static str, u64)]) -> Result<(), ConfigError> {
    let zero = settings.iter().find(|(_, value)| *value == 0);
    zero.map_or(Ok(()), |&(field, _)| {
        let limit = "at least 1".to_owned();
        Err(ConfigError::OutOfRange { field, limit })
    })
}
