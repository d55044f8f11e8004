//! `serve`: a node that runs until it is told to stop.
//!
//! Owns: its options and what it says on standard output. Never: exits with 0 unless everything was saved. Invariant: the first line on
//! standard output is `listening on http://ADDR:PORT`, printed once the port answers.

use super::node::{Node, NodeOptions};
use super::opening::{DEFAULT_STORE, StoreAddress};
use super::output;
use super::work::host;
use anyhow::{Context, Result, bail};
use clap::Args;
use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Address to listen on; port 0 picks a free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8080")]
    listen: String,
    /// Where jobs are kept: sqlite:PATH or postgres://USER@HOST/DATABASE
    #[arg(long, value_name = "STORE", env = "TALLYKEEPER_STORE", default_value = DEFAULT_STORE, hide_env_values = true)]
    store: StoreAddress,
    /// This node's stable name [default: the host's name]
    #[arg(long, value_name = "ID")]
    node_id: Option<String>,
}

/// `serve`
pub(crate) async fn serve(args: ServeArgs) -> Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut options = NodeOptions::embedded(args.store);
    options.listen = resolve(&args.listen)?;
    options.coordinator.node_id = args.node_id.unwrap_or_else(host);
    options.lends_token = false;
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
            ended?;
            bail!("the node ended");
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

fn resolve(listen: &str) -> Result<Vec<SocketAddr>> {
    let addresses: Vec<SocketAddr> = listen
        .to_socket_addrs()
        .with_context(|| format!("cannot listen on {listen:?}: expected ADDR:PORT"))?
        .collect();
    Ok(addresses)
}
