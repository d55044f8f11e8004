//! The rules of a job, and nothing else.
//!
//! Owns: identifiers, states and their transition table, policy, lease tokens, the [`Ledger`](ledger::Ledger) (one job's whole
//! state machine), the [`Rotation`](rotation::Rotation) (fairness among a queue's jobs) and progress.
//! Never: reads a clock, draws randomness, does I/O or names a runtime or a database; time is passed in as [`UnixMs`](ids::UnixMs).
//! Invariant: every rule of a job lives in this room; the rooms to the right carry out what it decides.

pub mod callback;
pub mod counted;
pub mod failures;
pub mod ids;
pub mod job;
pub mod json_text;
pub mod lease;
pub mod ledger;
pub mod logs;
pub mod policy;
pub mod progress;
pub mod rotation;
pub mod rows;
pub mod state;
