//! Which store a command works on, and opening it.
//!
//! Owns: the text form of `--store`. Never: names a backend anywhere else in this room. Invariant: a password in a store's address is
//! never printed.

use crate::store::Store;
use crate::store::postgres::{self, Postgres};
use crate::store::sqlite::Sqlite;
use anyhow::{Context, Result, bail};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

/// The store used unless another is named.
pub(crate) const DEFAULT_STORE: &str = "sqlite:./tallykeeper.db";

/// A store's address.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum StoreAddress {
    Sqlite(PathBuf),
    Postgres(String),
}

impl StoreAddress {
    /// The whole text form, not to be printed.
    pub(crate) fn with_password(&self) -> String {
        match self {
            StoreAddress::Sqlite(_) => self.to_string(),
            StoreAddress::Postgres(url) => url.clone(),
        }
    }

    /// Opens the store with default bounds; the schema is left as it is.
    pub(crate) async fn open(&self) -> Result<Arc<dyn Store>> {
        self.open_with(postgres::Settings::default()).await
    }

    /// Opens the store; `settings` matter to one of them.
    pub(crate) async fn open_with(&self, settings: postgres::Settings) -> Result<Arc<dyn Store>> {
        let opened: Result<Arc<dyn Store>> = match self {
            StoreAddress::Sqlite(path) => {
                let path = path.clone();
                let opened = tokio::task::spawn_blocking(move || Sqlite::open(&path)).await?;
                opened.map(|store| Arc::new(store) as _).map_err(Into::into)
            }
            StoreAddress::Postgres(url) => {
                let opened = Postgres::connect(url, settings).await;
                opened.map(|store| Arc::new(store) as _).map_err(Into::into)
            }
        };
        opened.with_context(|| format!("cannot open the store {self}"))
    }
}

impl StoreAddress {
    /// Can no other process use it at the same time?
    pub(crate) fn is_private(&self) -> bool {
        matches!(self, StoreAddress::Sqlite(_))
    }

    /// Short name of the kind of store.
    pub(crate) fn backend(&self) -> &'static str {
        match self {
            StoreAddress::Sqlite(_) => "sqlite",
            StoreAddress::Postgres(_) => "postgres",
        }
    }
}

impl FromStr for StoreAddress {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(path) = text.strip_prefix("sqlite:") {
            if path.is_empty() {
                bail!("sqlite: needs a path, such as {DEFAULT_STORE}");
            }
            return Ok(StoreAddress::Sqlite(path.into()));
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(StoreAddress::Postgres(text.to_owned()));
        }
        bail!("expected sqlite:PATH or postgres://USER@HOST/DATABASE");
    }
}

impl fmt::Display for StoreAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreAddress::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            StoreAddress::Postgres(url) => f.write_str(&without_password(url)),
        }
    }
}

impl fmt::Debug for StoreAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The address up to its query (which may hold a password too), without what stands between the user's name and the host.
fn without_password(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = url.split_once("://") else {
        return String::new();
    };
    match rest.rsplit_once('@') {
        Some((credentials, host)) => {
            let user = credentials.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}@{host}")
        }
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_printed_without_password() {
        let sqlite: StoreAddress = "sqlite:./a b.db".parse().unwrap();
        assert_eq!(sqlite.to_string(), "sqlite:./a b.db");
        let postgres: StoreAddress = "postgres://me:p@ss:w0rd@db:5432/tally?password=x".parse().unwrap();
        assert_eq!(
            format!("{postgres} {postgres:?}"),
            "postgres://me@db:5432/tally postgres://me@db:5432/tally"
        );
        for bad in ["", "sqlite:", "tally.db", "mysql://x"] {
            assert!(bad.parse::<StoreAddress>().is_err(), "{bad}");
        }
    }
}
