//! How a caller's requests are made: how long they wait, and whose leases they keep alive.
//!
//! Owns: the two ways in which a handle may differ from another. Never: changes what a request does. Invariant: a patient call ends by its
//! deadline, like any other by its own.

use super::Coordinator;
use super::directory::{JobHandle, Lane, Permit};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A patient call that is late already still gets this long, so that it hears the answer of an idle node.
const AT_LEAST: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Default)]
pub(super) struct Manner {
    patient_until: Option<Instant>,
    renews: Option<Arc<str>>,
}

impl Coordinator {
    /// A handle whose calls wait for a permit, instead of being sent away, and for the store, until then.
    pub fn patient(&self, until: Instant) -> Coordinator {
        let mut patient = self.clone();
        patient.manner.patient_until = Some(until);
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
        match self.manner.patient_until {
            None => self.shared.settings.store_wait,
            Some(until) => until.saturating_duration_since(Instant::now()).max(AT_LEAST),
        }
    }

    /// A permit of the lane; none if all are taken, by the end of the handle's patience.
    pub(super) async fn permit(&self, handle: &JobHandle, lane: Lane) -> Option<Permit> {
        match self.manner.patient_until {
            None => handle.permit(lane),
            Some(until) => tokio::time::timeout_at(until.into(), handle.permit_in_turn(lane))
                .await
                .ok(),
        }
    }
}
