//! `serve`: a node that runs until it is told to stop.
//!
//! Owns: its options and what it says on standard output. Never: exits with 0 unless everything was saved. Invariant: the first line on
//! standard output is `listening on http://ADDR:PORT`, printed once the port answers.

use super::Usage;
use super::node::{Node, NodeOptions};
use super::opening::{DEFAULT_STORE, StoreAddress};
use super::output;
use crate::config::{Config, Flags};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Address to listen on; port 0 picks a free one [env: TALLYKEEPER_LISTEN] [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// Where jobs are kept: sqlite:PATH or postgres://USER@HOST/DATABASE [env: TALLYKEEPER_STORE]
    /// [default: sqlite:./tallykeeper.db]
    #[arg(long, value_name = "STORE")]
    store: Option<StoreAddress>,
    /// This node's stable name [env: TALLYKEEPER_NODE_ID] [default: the host's name]
    #[arg(long, value_name = "ID")]
    node_id: Option<String>,
    /// Where other nodes on the same store reach this one [env: TALLYKEEPER_ADVERTISE] [default: where it listens]
    #[arg(long, value_name = "URL")]
    advertise: Option<String>,
    /// File with settings [default: config/tallykeeper.toml, if there is one]
    #[arg(long, value_name = "PATH", env = "TALLYKEEPER_CONFIG")]
    config: Option<PathBuf>,
}

/// `serve`
pub(crate) async fn serve(args: ServeArgs) -> Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let options = options(args).map_err(Usage::because)?;
    let mut node = tokio::select! {
        node = Node::start(options) => node?,
        _ = interrupt.recv() => bail!("interrupted while starting"),
        _ = terminate.recv() => bail!("told to stop while starting"),
    };
    for url in node.urls() {
        output::print(&format!("listening on {url}"))?;
    }
    tokio::select! {
        ended = node.ended() => {
            // Asked to, by `drain`.
            ended?;
            tracing::info!("drained");
            return Ok(ExitCode::SUCCESS);
        }
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    tracing::info!("draining");
    node.begin_stop();
    tokio::select! {
        ended = node.ended() => ended?,
        _ = interrupt.recv() => bail!("stopped before everything was saved"),
        _ = terminate.recv() => bail!("stopped before everything was saved"),
    }
    tracing::info!("drained");
    Ok(ExitCode::SUCCESS)
}

/// Flags over environment over file over defaults.
fn options(args: ServeArgs) -> Result<NodeOptions> {
    let flags = Flags {
        listen: args.listen,
        store: args.store.map(|store| store.with_password()),
        node_id: args.node_id,
        advertise: args.advertise,
    };
    // A variable that is no text is none of ours.
    let variables =
        std::env::vars_os().filter_map(|(name, value)| name.into_string().ok().zip(value.into_string().ok()));
    let config = Config::load(args.config.as_deref(), variables, &flags)?;
    let listen = config.listen_addresses();
    let listen = listen.with_context(|| format!("cannot listen on {:?}: expected ADDR:PORT", config.listen))?;
    Ok(NodeOptions {
        store: config
            .store
            .parse()
            .with_context(|| format!("the store is not one, such as {DEFAULT_STORE}"))?,
        postgres: config.postgres_settings(),
        listen,
        advertise: config.advertise.clone(),
        coordinator: config.coordinator_settings(),
        limits: config.limits(),
        callbacks: config.callbacks.callbacks()?,
        http: config.http,
        lends_token: false,
    })
}
