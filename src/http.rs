//! The HTTP face of a node: parses requests, checks who may ask, speaks to the coordinator, prints answers.
//!
//! Owns: the wire format, authentication, body bounds, and the mapping of errors to problems. Never: decides a rule of a job, and
//! never names a store's backend. Invariant: a 2xx for a result is written only after the coordinator answered `Ok` for it.

pub mod wire;
