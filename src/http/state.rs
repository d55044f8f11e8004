//! What every handler may use.
//!
//! Owns: the bundle. Never: changes after start, but for where the node listens and whether it makes calls. Invariant: cheap to clone,
//! shared by all workers.

use super::auth::tokens::Tokens;
use super::body::budget::BodyBudget;
use super::body::{Allowance, largest_share};
use super::callbacks::Callbacks;
use super::forward::neighbours::Neighbours;
use super::settings::HttpSettings;
use crate::coordinator::Coordinator;
use crate::domain::ids::UnixMs;
use crate::domain::job::Limits;
use metrics_exporter_prometheus::PrometheusHandle;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::sync::Semaphore;

/// Reports written at the same time, at most.
const REPORTS_MAX: usize = 2;

/// The state of the HTTP room.
#[derive(Clone)]
pub struct AppState {
    inner: Arc<Inner>,
}

struct Inner {
    coordinator: Coordinator,
    settings: HttpSettings,
    limits: Limits,
    tokens: Tokens,
    budget: BodyBudget,
    metrics: Option<PrometheusHandle>,
    loopback_only: AtomicBool,
    neighbours: Neighbours,
    callbacks: OnceLock<Callbacks>,
    reports: Semaphore,
}

impl AppState {
    /// Without a metrics handle `/metrics` answers 404.
    pub fn new(
        coordinator: Coordinator,
        settings: HttpSettings,
        limits: Limits,
        metrics: Option<PrometheusHandle>,
    ) -> Self {
        let neighbours = Neighbours::new(&coordinator);
        coordinator.speak_through(Arc::new(neighbours.clone()));
        AppState {
            inner: Arc::new(Inner {
                tokens: Tokens::new(Arc::clone(coordinator.store()) as _, &settings),
                budget: BodyBudget::new(settings.body_budget_bytes, largest_share(&settings)),
                coordinator,
                settings,
                limits,
                metrics,
                loopback_only: AtomicBool::new(true),
                neighbours,
                callbacks: OnceLock::new(),
                reports: Semaphore::new(REPORTS_MAX),
            }),
        }
    }

    pub fn coordinator(&self) -> &Coordinator {
        &self.inner.coordinator
    }

    pub fn settings(&self) -> &HttpSettings {
        &self.inner.settings
    }

    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    pub fn tokens(&self) -> &Tokens {
        &self.inner.tokens
    }

    pub fn budget(&self) -> &BodyBudget {
        &self.inner.budget
    }

    /// What a body may take that is so long at most.
    pub fn allowance(&self, limit: usize) -> Allowance<'_> {
        Allowance {
            limit,
            budget: self.budget(),
            settings: self.settings(),
        }
    }

    pub fn metrics(&self) -> Option<&PrometheusHandle> {
        self.inner.metrics.as_ref()
    }

    /// How other nodes are spoken to.
    pub fn neighbours(&self) -> &Neighbours {
        &self.inner.neighbours
    }

    /// From now on this node makes calls. Without, jobs that want one are refused.
    pub fn make_calls(&self, callbacks: Callbacks) {
        if self.inner.callbacks.set(callbacks.clone()).is_ok() {
            self.inner.coordinator.call_through(Arc::new(callbacks));
        }
    }

    pub fn callbacks(&self) -> Option<&Callbacks> {
        self.inner.callbacks.get()
    }

    /// Permits for writing reports.
    pub fn reports(&self) -> &Semaphore {
        &self.inner.reports
    }

    pub fn now(&self) -> UnixMs {
        self.inner.coordinator.now()
    }

    /// Notes where the node listens: without tokens, nobody is let in from beyond this machine.
    pub fn listens_on(&self, addresses: &[SocketAddr]) {
        let loopback = addresses
            .iter()
            .all(|address| address.ip().to_canonical().is_loopback());
        self.inner.loopback_only.store(loopback, Ordering::Relaxed);
    }

    pub fn is_loopback_only(&self) -> bool {
        self.inner.loopback_only.load(Ordering::Relaxed)
    }
}
