//! A node inside this process: store, coordinator and HTTP server, on a thread of their own.
//!
//! Owns: the order of starting and stopping. Never: handles signals (the commands do). Invariant: once started, the node is drained before
//! its server stops and before its store is closed, however it ends.

use super::client::Client;
use super::opening::StoreAddress;
use super::token;
use crate::config::Config;
use crate::coordinator::{Coordinator, Settings};
use crate::domain::job::Limits;
use crate::http::auth::local::check_listen;
use crate::http::{AppState, Callbacks, HttpSettings, Serving, install_metrics, serve};
use crate::store::{Store, postgres};
use anyhow::{Context, Result, anyhow, bail};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread;
use tokio::net::TcpSocket;
use tokio::sync::oneshot;

/// How long the token is good that a run lends itself.
const LENT_TOKEN_MS: i64 = 30 * 24 * 3_600_000;

/// Everything a node needs to know before it starts.
pub(crate) struct NodeOptions {
    pub(crate) store: StoreAddress,
    pub(crate) postgres: postgres::Settings,
    pub(crate) listen: Vec<SocketAddr>,
    /// Where other nodes reach this one; empty: where it listens.
    pub(crate) advertise: String,
    pub(crate) coordinator: Settings,
    pub(crate) http: HttpSettings,
    pub(crate) limits: Limits,
    /// None: it makes no calls.
    pub(crate) callbacks: Option<Callbacks>,
    /// Make a token for this process, if the store holds tokens.
    pub(crate) lends_token: bool,
}

impl NodeOptions {
    /// A node for this process alone.
    pub(crate) fn embedded(store: StoreAddress) -> Self {
        // On a store of its own its workers end with it, so what they held is free at once after a crash.
        let restores_leases = !store.is_private();
        NodeOptions {
            store,
            postgres: postgres::Settings::default(),
            listen: vec![(Ipv4Addr::LOCALHOST, 0).into()],
            advertise: String::new(),
            coordinator: Settings {
                // The name `serve` goes by here: one takes over from the other without waiting for a lease to end.
                node_id: Config::default().node_name(),
                restores_leases,
                ..Settings::default()
            },
            http: HttpSettings::default(),
            limits: Limits::default(),
            callbacks: None,
            lends_token: true,
        }
    }
}

/// A node that runs.
pub(crate) struct Node {
    addresses: Vec<SocketAddr>,
    token: Option<String>,
    stop: Option<oneshot::Sender<()>>,
    ended: oneshot::Receiver<Result<()>>,
}

/// What the thread says once the node serves.
struct Started {
    addresses: Vec<SocketAddr>,
    token: Option<String>,
}

impl Node {
    /// Opens the store, brings its schema up to date, starts the coordinator and serves.
    pub(crate) async fn start(options: NodeOptions) -> Result<Self> {
        let (started, is_started) = oneshot::channel();
        let (stop, is_stopping) = oneshot::channel();
        let (ended, is_ended) = oneshot::channel();
        thread::Builder::new().name("node".to_owned()).spawn(move || {
            let outcome = actix::System::new().block_on(live(options, started, is_stopping));
            // Only a command that gave up waiting does not listen any more.
            let _ = ended.send(outcome);
        })?;
        match is_started.await {
            Ok(started) => Ok(Node {
                addresses: started.addresses,
                token: started.token,
                stop: Some(stop),
                ended: is_ended,
            }),
            Err(_) => match is_ended.await {
                Ok(Err(error)) => Err(error),
                _ => Err(anyhow!("the node ended before it served")),
            },
        }
    }

    /// `http://ADDR:PORT` of each address it listens on.
    pub(crate) fn urls(&self) -> impl Iterator<Item = String> {
        self.addresses.iter().map(|address| format!("http://{address}"))
    }

    /// The first of [`Node::urls`].
    pub(crate) fn url(&self) -> String {
        self.urls().next().unwrap_or_default()
    }

    /// The token it lent us, if it asks for one.
    pub(crate) fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// A client of this node, with the token it lent us if it asks for one.
    pub(crate) fn client(&self) -> Result<Client> {
        Client::new(&self.url(), self.token.as_deref())
    }

    /// Resolves when the node ends, also without being asked to.
    pub(crate) async fn ended(&mut self) -> Result<()> {
        (&mut self.ended)
            .await
            .unwrap_or_else(|_| Err(anyhow!("the node's thread failed")))
    }

    /// Asks it to drain; [`Node::ended`] says when it has.
    pub(crate) fn begin_stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // It may have ended by itself meanwhile.
            let _ = stop.send(());
        }
    }

    /// Drains and stops it.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.begin_stop();
        self.ended().await
    }
}

/// The node's whole life, on its own thread.
async fn live(options: NodeOptions, started: oneshot::Sender<Started>, stop: oneshot::Receiver<()>) -> Result<()> {
    // A store that is made or brought up to date for nothing would surprise.
    check_free(&options.listen)?;
    let store = options.store.open_with(options.postgres.clone()).await?;
    let applied = store
        .migrate()
        .await
        .context("cannot bring the store's schema up to date")?;
    if applied > 0 {
        tracing::info!(applied, store = %options.store, "the store's schema is up to date");
    }
    let has_tokens = !store.list_tokens().await?.is_empty();
    check_listen(&options.listen, has_tokens)?;
    let lent = match has_tokens && options.lends_token {
        true => Some(token::lend(store.as_ref(), LENT_TOKEN_MS).await?),
        false => None,
    };
    let (token_id, token) = lent.unzip();
    let lived = with_store(&store, options, token, started, stop).await;
    if let Some(id) = token_id {
        store
            .revoke_token(&id)
            .await
            .context("cannot revoke the token of this run")?;
    }
    lived
}

async fn with_store(
    store: &Arc<dyn Store>,
    options: NodeOptions,
    token: Option<String>,
    started: oneshot::Sender<Started>,
    stop: oneshot::Receiver<()>,
) -> Result<()> {
    let settings = options.coordinator;
    // Before the first queue is taken, so that what it counts is recorded. A second node in one process would find the recorder there; it
    // does without metrics.
    let metrics = install_metrics().ok();
    // Nobody can reach it before it listens.
    let coordinator = Coordinator::start(store.clone(), settings, String::new())
        .await
        .context("cannot start the node")?;
    let state = AppState::new(coordinator.clone(), options.http, options.limits, metrics);
    if let Some(callbacks) = options.callbacks {
        state.make_calls(callbacks);
    }
    match listen(state, &options.listen).await {
        Ok(serving) => {
            let addresses = serving.addresses.clone();
            coordinator.listens_at(reached_at(&options.advertise, &addresses));
            // The command may have been interrupted while we started; then `stop` resolves at once.
            let _ = started.send(Started { addresses, token });
            until_stopped(&coordinator, serving, stop).await
        }
        Err(error) => {
            let _ = coordinator.drain().await;
            Err(error)
        }
    }
}

/// The address for other nodes.
fn reached_at(advertised: &str, listens: &[SocketAddr]) -> String {
    let Some(first) = listens.first().filter(|_| advertised.is_empty()) else {
        return advertised.trim_end_matches('/').to_owned();
    };
    if first.ip().is_unspecified() {
        // "Everywhere" is no place to go to; the host's name is the best guess.
        return format!("http://{}:{}", Config::default().node_name(), first.port());
    }
    format!("http://{first}")
}

/// Fails where somebody listens already, or nobody may. Somebody may still come before us.
fn check_free(addresses: &[SocketAddr]) -> Result<()> {
    for &address in addresses {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        };
        // As the server binds. It is let go before anybody can connect to it.
        let bound = socket.and_then(|socket| socket.set_reuseaddr(true).and_then(|()| socket.bind(address)));
        bound.with_context(|| cannot_listen(&[address]))?;
    }
    Ok(())
}

async fn listen(state: AppState, addresses: &[SocketAddr]) -> Result<Serving> {
    let serving = serve(state, addresses).await;
    serving.with_context(|| cannot_listen(addresses))
}

fn cannot_listen(addresses: &[SocketAddr]) -> String {
    let addresses: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
    format!("cannot listen on {}", addresses.join(", "))
}

/// Serves until asked to stop, then drains while still answering, then closes the sockets.
async fn until_stopped(coordinator: &Coordinator, serving: Serving, stop: oneshot::Receiver<()>) -> Result<()> {
    let mut server = actix::spawn(serving.server);
    let end = tokio::select! {
        // A dropped sender is a command that is gone; nobody is left to serve for.
        _ = stop => End::Asked,
        () = coordinator.drain_asked() => End::Asked,
        () = coordinator.deposed() => End::Deposed,
        ended = &mut server => End::Failed(match ended {
            Ok(Ok(())) => anyhow!("the HTTP server ended"),
            Ok(Err(error)) => anyhow!(error).context("the HTTP server failed"),
            Err(error) => anyhow!(error).context("the HTTP server failed"),
        }),
    };
    let drained = match end {
        // Everything it owned belongs to the other process already.
        End::Deposed => Ok(()),
        _ => coordinator.drain().await.context("not everything was saved"),
    };
    serving.handle.stop(true).await;
    match end {
        End::Asked => drained,
        End::Deposed => bail!("another process has started with this node's id"),
        End::Failed(error) => Err(error),
    }
}

/// Why a node stops serving.
enum End {
    Asked,
    /// Another incarnation has taken its id.
    Deposed,
    Failed(anyhow::Error),
}
