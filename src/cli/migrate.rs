//! `migrate`: brings a store's schema up to date, without starting a node.
//!
//! Owns: nothing but the call. Never: goes back to an older schema. Invariant: safe beside running nodes, as the store promises.

use super::opening::{DEFAULT_STORE, StoreAddress};
use super::output;
use anyhow::Result;
use clap::Args;
use std::process::ExitCode;

/// Arguments of `migrate`.
#[derive(Debug, Args)]
pub(crate) struct MigrateArgs {
    /// The store
    #[arg(long, value_name = "STORE", env = "TALLYKEEPER_STORE", default_value = DEFAULT_STORE, hide_env_values = true)]
    store: StoreAddress,
}

/// `migrate`
pub(crate) async fn migrate(args: MigrateArgs) -> Result<ExitCode> {
    let store = args.store.open().await?;
    let applied = store.migrate().await?;
    output::print(&match applied {
        0 => format!("{} is up to date", args.store),
        1 => format!("{}: 1 migration applied", args.store),
        n => format!("{}: {n} migrations applied", args.store),
    })?;
    Ok(ExitCode::SUCCESS)
}
