//! The states of a job and the one table of transitions between them.
//!
//! Owns: which states exist, which sets they form, and which moves are legal. Never: decides *when* a move happens (the ledger does).
//! Invariant: every state list anywhere else (SQL, wire, page) is checked by a test against this file.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Where a job is in its life. The text form (`as_str`) is the same on the wire and in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Pending,
    Running,
    Paused,
    Canceling,
    Succeeded,
    PartiallySucceeded,
    Failed,
    Canceled,
}

/// Every state, in the order of a life.
pub const ALL: [State; 8] = [
    State::Pending,
    State::Running,
    State::Paused,
    State::Canceling,
    State::Succeeded,
    State::PartiallySucceeded,
    State::Failed,
    State::Canceled,
];
/// States whose leasable tasks may be handed out.
pub const CLAIMABLE: [State; 1] = [State::Running];
/// States in which work may still be going on.
pub const ACTIVE: [State; 3] = [State::Running, State::Paused, State::Canceling];
/// States that only a new run leaves.
pub const FINAL: [State; 4] = [
    State::Succeeded,
    State::PartiallySucceeded,
    State::Failed,
    State::Canceled,
];

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            State::Pending => "pending",
            State::Running => "running",
            State::Paused => "paused",
            State::Canceling => "canceling",
            State::Succeeded => "succeeded",
            State::PartiallySucceeded => "partially_succeeded",
            State::Failed => "failed",
            State::Canceled => "canceled",
        }
    }

    pub fn is_claimable(self) -> bool {
        CLAIMABLE.contains(&self)
    }

    pub fn is_active(self) -> bool {
        ACTIVE.contains(&self)
    }

    pub fn is_final(self) -> bool {
        FINAL.contains(&self)
    }

    /// The states a job may be in for `self` to be entered within one run. Entering `running` from a final state is legal
    /// only together with a larger run, see [`retry_sources`].
    pub fn sources(self) -> &'static [State] {
        use State::*;
        match self {
            Pending => &[],
            Running => &[Pending, Paused],
            Paused => &[Running],
            Canceling => &[Running, Paused],
            // `pending` covers the job without tasks, which ends in the transaction that starts it.
            Succeeded => &[Pending, Running, Paused, Canceling],
            PartiallySucceeded | Failed => &[Running, Paused, Canceling],
            Canceled => &[Pending, Running, Paused, Canceling],
        }
    }
}

/// May a job move from one state to another within the same run?
pub fn may_move(from: State, to: State) -> bool {
    to.sources().contains(&from)
}

/// The states from which a new run may start.
pub fn retry_sources() -> &'static [State] {
    &FINAL
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text was none of the eight states.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown state {0:?}")]
pub struct UnknownState(pub String);

impl FromStr for State {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        ALL.into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| UnknownState(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips_for_every_state() {
        for state in ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
        assert!("PENDING".parse::<State>().is_err());
    }

    #[test]
    fn fm02_fm03_nothing_leaves_a_final_state_within_a_run() {
        for from in FINAL {
            for to in ALL {
                assert!(!may_move(from, to), "{from} -> {to}");
            }
        }
    }

    #[test]
    fn only_listed_moves_are_legal() {
        let legal: Vec<_> = ALL
            .iter()
            .flat_map(|&from| ALL.iter().map(move |&to| (from, to)))
            .filter(|&(from, to)| may_move(from, to))
            .map(|(from, to)| format!("{from}->{to}"))
            .collect();
        assert_eq!(
            legal,
            [
                "pending->running",
                "pending->succeeded",
                "pending->canceled",
                "running->paused",
                "running->canceling",
                "running->succeeded",
                "running->partially_succeeded",
                "running->failed",
                "running->canceled",
                "paused->running",
                "paused->canceling",
                "paused->succeeded",
                "paused->partially_succeeded",
                "paused->failed",
                "paused->canceled",
                "canceling->succeeded",
                "canceling->partially_succeeded",
                "canceling->failed",
                "canceling->canceled",
            ]
        );
    }
}
