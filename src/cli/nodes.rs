//! `nodes` and `drain`: looking at server processes, and asking one to go.
//!
//! Owns: how they are printed. Never: waits for a drain to end (the process that drains says how it did). Invariant: a node that cannot be
//! asked makes the exit code 1.

use super::client::retry::within;
use super::jobs::PATIENCE;
use super::output::{self, Align, clean};
use super::server::ServerArgs;
use anyhow::{Context, Result};
use clap::Args;
use std::process::ExitCode;

/// Arguments of `nodes`.
#[derive(Debug, Args)]
pub(crate) struct NodesArgs {
    /// Print one JSON object per node and line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Arguments of `drain`.
#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    /// The node's name, as `nodes` lists it
    #[arg(value_name = "NODE")]
    node: String,
    #[command(flatten)]
    server: ServerArgs,
}

/// `nodes`
pub(crate) async fn nodes(args: NodesArgs) -> Result<ExitCode> {
    let client = args.server.client()?;
    let listed = within(PATIENCE, || client.nodes()).await.context("cannot list nodes")?;
    if args.json {
        for node in &listed.items {
            output::print(&output::json(node)?)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let columns = ["NODE", "STATE", "ADDRESS", "STARTED"].map(|title| (title, Align::Left));
    let rows = listed.items.iter().map(|node| {
        let state = if node.alive { "alive" } else { "gone" };
        vec![
            node.node.clone(),
            state.to_owned(),
            node.address.clone(),
            node.started_at.to_string(),
        ]
    });
    output::print(&output::table(&columns, &rows.collect::<Vec<_>>()))?;
    Ok(ExitCode::SUCCESS)
}

/// `drain`
pub(crate) async fn drain(args: DrainArgs) -> Result<ExitCode> {
    let client = args.server.client()?;
    let draining = within(PATIENCE, || client.drain(&args.node)).await;
    let draining = draining.with_context(|| format!("cannot drain {}", clean(&args.node)))?;
    output::print(&format!("{} drains and ends", clean(&draining.node)))?;
    Ok(ExitCode::SUCCESS)
}
