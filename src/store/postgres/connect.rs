//! How connections are made: the URL, TLS, session settings and the pools.
//!
//! Owns: what every session is told before its first statement. Never: runs a statement. Invariant: every session has a statement, a lock
//! and an idle-in-transaction timeout, whichever pool it belongs to.

use super::Settings;
use super::sqlstate;
use crate::store::{Result, StoreError};
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use rustls::ClientConfig;
use rustls_platform_verifier::BuilderVerifierExt;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Writes get one plan per statement: it depends on no value, and planning each time would cost more than running.
const WRITE_PLANS: &str = "-c plan_cache_mode=force_generic_plan";
/// Reads have optional filters, whose plan depends on which are given.
const READ_PLANS: &str = "-c plan_cache_mode=force_custom_plan";

/// The pools.
pub(super) struct Pools {
    pub(super) write: Pool,
    pub(super) blob: Pool,
    pub(super) read: Pool,
    pub(super) control: Pool,
    pub(super) witness: Pool,
}

impl Pools {
    pub(super) fn new(config: &Config, settings: &Settings) -> Result<Pools> {
        Ok(Pools {
            write: pool(
                config,
                settings,
                WRITE_PLANS,
                settings.commit_lanes + settings.spare_writers,
            )?,
            blob: pool(config, settings, WRITE_PLANS, settings.blob_writers)?,
            read: pool(config, settings, READ_PLANS, settings.readers)?,
            control: pool(config, settings, WRITE_PLANS, 1)?,
            witness: pool(config, settings, WRITE_PLANS, 1)?,
        })
    }
}

/// Reads the URL and adds what bounds every session.
pub(super) fn config(url: &str, settings: &Settings) -> Result<Config> {
    // The URL holds a password, so the message must not hold the URL.
    let mut config: Config = url
        .parse()
        .map_err(|why| StoreError::Rejected(format!("not a postgres url: {}", sqlstate::describe(&why))))?;
    let on_sockets = config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
    if on_sockets && config.get_ssl_mode() == SslMode::Prefer {
        config.ssl_mode(SslMode::Disable);
    }
    // Every statement here is short; compiling one costs a third of a second where its rows take a millisecond.
    let options = format!(
        "{} -c jit=off -c statement_timeout={} -c lock_timeout={} -c idle_in_transaction_session_timeout={}",
        config.get_options().unwrap_or_default(),
        settings.statement_timeout.as_millis(),
        settings.lock_timeout.as_millis(),
        settings.idle_in_transaction_timeout.as_millis(),
    );
    if config.get_application_name().is_none() {
        config.application_name("tallykeeper");
    }
    config
        .options(options)
        .connect_timeout(settings.connect_timeout)
        .keepalives_idle(Duration::from_secs(10))
        .keepalives_interval(Duration::from_secs(5))
        .keepalives_retries(3)
        .tcp_user_timeout(settings.statement_timeout);
    Ok(config)
}

fn pool(config: &Config, settings: &Settings, plans: &str, size: usize) -> Result<Pool> {
    let mut config = config.clone();
    let options = format!("{} {plans}", config.get_options().unwrap_or_default());
    config.options(options);
    // A closed connection is noticed without a round trip; one that hangs is given up by the session that meets it.
    let recycling = ManagerConfig {
        recycling_method: RecyclingMethod::Fast,
    };
    let manager = match tls(&config)? {
        Some(tls) => Manager::from_config(config, tls, recycling),
        None => Manager::from_config(config, NoTls, recycling),
    };
    Pool::builder(manager)
        .max_size(size.max(1))
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(settings.pool_timeout))
        .create_timeout(Some(settings.connect_timeout))
        .recycle_timeout(Some(settings.connect_timeout))
        .build()
        .map_err(|why| StoreError::Unavailable(why.to_string()))
}

/// One connection outside the pools, for migrations, which may run longer than any statement of the service.
pub(super) async fn single(config: &Config) -> Result<Client> {
    let mut config = config.clone();
    let options = format!(
        "{} -c statement_timeout=0 -c lock_timeout=60000",
        config.get_options().unwrap_or_default()
    );
    config.options(options);
    match tls(&config)? {
        Some(tls) => config.connect(tls).await.map(|(client, link)| {
            tokio::spawn(link);
            client
        }),
        None => config.connect(NoTls).await.map(|(client, link)| {
            tokio::spawn(link);
            client
        }),
    }
    .map_err(|why| sqlstate::store_error(&why))
}

/// TLS as the mode asks for. `prefer` goes without it where the platform has no roots to trust: a server that offers none must stay
/// reachable from there. `require` never does.
fn tls(config: &Config) -> Result<Option<MakeRustlsConnect>> {
    let mode = config.get_ssl_mode();
    if mode == SslMode::Disable {
        return Ok(None);
    }
    match verifying() {
        Ok(client) => Ok(Some(MakeRustlsConnect::new(client))),
        Err(why) if mode == SslMode::Prefer => {
            tracing::warn!(%why, "connecting to postgresql without tls");
            Ok(None)
        }
        Err(why) => Err(StoreError::Unavailable(format!("tls cannot be set up: {why}"))),
    }
}

fn verifying() -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_platform_verifier()?
        .with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(url: &str) -> SslMode {
        config(url, &Settings::default()).unwrap().get_ssl_mode()
    }

    #[test]
    fn tls_is_tried_on_networks_and_left_out_on_sockets_unless_asked_for() {
        assert_eq!(mode("postgres://h/db"), SslMode::Prefer);
        assert_eq!(mode("postgres://h/db?sslmode=disable"), SslMode::Disable);
        assert_eq!(mode("postgres://h/db?sslmode=require"), SslMode::Require);
        assert_eq!(mode("postgres:///db?host=/run/postgresql"), SslMode::Disable);
        assert_eq!(
            mode("postgres:///db?host=/run/postgresql&sslmode=require"),
            SslMode::Require
        );
    }

    #[test]
    fn every_session_is_bounded_and_keeps_its_own_options() {
        let config = config("postgres://h/db?options=-c%20work_mem%3D8MB", &Settings::default()).unwrap();
        let options = config.get_options().unwrap();
        for option in [
            "work_mem=8MB",
            "statement_timeout=15000",
            "lock_timeout=5000",
            "idle_in_transaction_session_timeout=10000",
        ] {
            assert!(options.contains(option), "{option} in {options}");
        }
        assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(3)));
    }
}
