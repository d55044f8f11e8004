//! Tallykeeper: an actor-model, in-process job coordinator.
//!
//! The rooms and the one-way arrow between them: `domain ← store ← coordinator ← http ← cli`. A room may use rooms to its left,
//! never to its right; `tests/tidy.rs` checks it.

pub mod cli;
pub mod config;
pub mod coordinator;
pub mod domain;
pub mod http;
pub mod store;
