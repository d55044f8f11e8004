//! The HTTP face of a node: parses requests, checks who may ask, speaks to the coordinator, prints answers.
//!
//! Owns: the wire format, authentication, body bounds, and the mapping of errors to problems. Never: decides a rule of a job, and
//! never names a store's backend. Invariant: a 2xx for a result is written only after the coordinator answered `Ok` for it.

pub mod auth;
pub mod wire;

pub mod antenna;
pub mod append;
pub mod body;
pub mod callbacks;
pub mod delivery;
pub mod envelope;
pub mod error;
pub mod extract;
pub mod fleet;
pub mod forward;
pub mod gathered;
pub mod hop;
pub mod jobs;
pub mod leases;
pub mod logs;
pub mod nodes;
pub mod openapi;
pub mod pages;
pub mod probes;
pub mod report;
pub mod results;
pub mod routes;
pub mod server;
pub mod settings;
pub mod state;
pub mod stream;
pub mod tickets;
pub mod tokens;
pub mod views;

pub use auth::local::check_listen;
pub use auth::secret::new_token;
pub use callbacks::Callbacks;
pub use probes::install_metrics;
pub use server::{Serving, serve};
pub use settings::HttpSettings;
pub use state::AppState;

use actix_web::middleware::from_fn;
use actix_web::web;
use tracing_actix_web::TracingLogger;

/// Mounts the whole API, with everything that surrounds a request: the same for production and tests.
pub fn configure(cfg: &mut web::ServiceConfig, state: AppState) {
    let everything = web::scope("")
        .app_data(web::Data::new(state))
        .configure(routes::mount)
        .default_service(web::to(routes::nowhere))
        .wrap(from_fn(envelope::surround))
        .wrap(TracingLogger::<envelope::RequestSpan>::new());
    cfg.service(everything);
}
