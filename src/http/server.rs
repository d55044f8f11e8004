//! The listening server.
//!
//! Owns: sockets, connection bounds and timeouts. Never: handles signals; its caller stops it. Invariant: every wait on a client is
//! bounded.

use super::configure;
use super::state::AppState;
use actix_web::dev::{Server, ServerHandle};
use actix_web::http::KeepAlive;
use actix_web::rt::net::TcpStream;
use actix_web::{App, HttpServer};
use std::any::Any;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// How often recorded metrics are folded, so that they do not gather where nobody scrapes.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

/// A bound server. It serves while `server` is polled.
pub struct Serving {
    /// Where it listens; a port 0 has become a real one.
    pub addresses: Vec<SocketAddr>,
    /// Stops it: `handle.stop(true)` waits for requests under way, within the shutdown timeout.
    pub handle: ServerHandle,
    pub server: Server,
}

/// Binds the addresses; port 0 picks one. The caller has made sure that they may be listened on
/// ([`check_listen`](super::auth::local::check_listen)).
pub async fn serve(state: AppState, listen: &[SocketAddr]) -> io::Result<Serving> {
    let settings = state.settings().clone();
    let workers = match settings.workers {
        0 => std::thread::available_parallelism().map_or(2, usize::from),
        workers => workers,
    };
    let unread_timeout_ms = u32::try_from(settings.unread_timeout_s.saturating_mul(1_000)).unwrap_or(u32::MAX);
    let app = state.clone();
    let mut server = HttpServer::new(move || App::new().configure(|cfg| configure(cfg, app.clone())))
        .workers(workers)
        .backlog(settings.backlog_connections)
        .max_connections(settings.connections_per_worker_max)
        .keep_alive(KeepAlive::Timeout(Duration::from_secs(settings.keep_alive_s)))
        .client_request_timeout(Duration::from_secs(settings.client_request_timeout_s))
        // A client that closed its side will not read the answer: its leases go to someone else.
        .h1_allow_half_closed(false)
        .on_connect(move |connection, _| limit_unread(connection, unread_timeout_ms))
        .shutdown_timeout(settings.shutdown_timeout_s)
        .disable_signals();
    for address in listen {
        server = server.bind(address)?;
    }
    let addresses = server.addrs();
    state.listens_on(&addresses);
    if let Some(handle) = state.metrics().cloned() {
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(METRICS_UPKEEP);
            loop {
                ticks.tick().await;
                handle.run_upkeep();
            }
        });
    }
    let server = server.run();
    Ok(Serving {
        addresses,
        handle: server.handle(),
        server,
    })
}

/// Lets the kernel give a connection up whose client leaves what it was sent unread: nothing here is told of that otherwise.
fn limit_unread(connection: &dyn Any, timeout_ms: u32) {
    if let Some(stream) = connection.downcast_ref::<TcpStream>()
        && let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(stream, timeout_ms)
    {
        tracing::debug!(%error, "a connection has no bound on what is left unread");
    }
}
