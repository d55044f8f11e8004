//! The command line: what a person types, and what they read.
//!
//! Owns: arguments, printing, exit codes, child processes. Never: reaches around HTTP into a job, except where a command works on a store
//! by itself (`token`, `migrate`). Invariant: every path ends in an exit code that tells the truth.

mod capture;
mod child;
mod client;
mod items;
mod output;
mod stop;
mod template;
