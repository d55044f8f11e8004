//! How a caller's requests are made: how long they wait, and whose leases they keep alive.
//!
//! Owns: the two ways in which a handle may differ from another. Never: changes what a request does. Invariant: every call has an end, be
//! it its own or one that it shares with others.

use super::Coordinator;
use super::directory::{JobHandle, Lane, Permit};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A patient call that is late already still gets this long, so that it hears the answer of an idle node.
const AT_LEAST: Duration = Duration::from_millis(50);

/// How long a call waits for a permit and the store.
#[derive(Debug, Clone, Copy, Default)]
enum Patience {
    /// For the store only, and as long as the settings say.
    #[default]
    Ordinary,
    /// All calls of the handle together.
    Until(Instant),
    /// Each call by itself.
    Each { wait_ms: u64 },
}

#[derive(Debug, Clone, Default)]
pub(super) struct Manner {
    patience: Patience,
    renews: Option<Arc<str>>,
}

impl Coordinator {
    /// A handle whose calls wait for a permit, instead of being sent away, and for the store, until then.
    pub fn patient(&self, until: Instant) -> Coordinator {
        let mut patient = self.clone();
        patient.manner.patience = Patience::Until(until);
        patient
    }

    /// The same for calls that are made while something arrives, however slowly: each of them waits so long by itself.
    pub fn patient_each(&self, wait: Duration) -> Coordinator {
        let mut patient = self.clone();
        patient.manner.patience = Patience::Each {
            wait_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
        };
        patient
    }

    /// A handle whose every request to a job keeps alive what this holder's workers (named `holder@where`) hold there.
    pub fn renewing(&self, holder: Arc<str>) -> Coordinator {
        let mut renewing = self.clone();
        renewing.manner.renews = Some(holder);
        renewing
    }

    pub(super) fn renews(&self) -> Option<Arc<str>> {
        self.manner.renews.clone()
    }

    /// How long a call of this handle may wait from now on.
    pub fn store_wait(&self) -> Duration {
        match self.manner.patience {
            Patience::Ordinary => self.shared.settings.store_wait,
            Patience::Until(until) => until.saturating_duration_since(Instant::now()).max(AT_LEAST),
            Patience::Each { wait_ms } => Duration::from_millis(wait_ms).max(AT_LEAST),
        }
    }

    /// A permit of the lane; none if all are taken, by the end of the handle's patience.
    pub(super) async fn permit(&self, handle: &JobHandle, lane: Lane) -> Option<Permit> {
        let until = match self.manner.patience {
            Patience::Ordinary => return handle.permit(lane),
            Patience::Until(until) => until,
            Patience::Each { wait_ms } => Instant::now() + Duration::from_millis(wait_ms),
        };
        tokio::time::timeout_at(until.into(), handle.permit_in_turn(lane))
            .await
            .ok()
    }
}
