//! Which node a command speaks to.
//!
//! Owns: `--server` and `--token`. Never: starts a node. Invariant: a token given by environment is never shown in help or errors.

use super::Usage;
use super::client::Client;
use anyhow::Result;
use clap::Args;

/// Where a node listens unless told otherwise.
pub(crate) const DEFAULT_SERVER: &str = "http://127.0.0.1:8080";

/// The node to speak to.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Server")]
pub(crate) struct ServerArgs {
    /// The node's address
    #[arg(long, value_name = "URL", env = "TALLYKEEPER_SERVER", default_value = DEFAULT_SERVER)]
    pub(crate) server: String,
    /// Access token, if the node asks for one (see `tallykeeper token`)
    #[arg(long, value_name = "TOKEN", env = "TALLYKEEPER_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
}

impl ServerArgs {
    pub(crate) fn client(&self) -> Result<Client> {
        let token = self.token.as_deref().filter(|token| !token.is_empty());
        // A variable that is set to nothing is as good as none.
        let server = if self.server.is_empty() {
            DEFAULT_SERVER
        } else {
            &self.server
        };
        Client::new(server, token).map_err(Usage::because)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_empty_is_as_good_as_absent() {
        let args = |server: &str| ServerArgs {
            server: server.to_owned(),
            token: Some(String::new()),
        };
        assert!(args("").client().is_ok());
        assert!(args("nowhere").client().is_err());
    }
}
