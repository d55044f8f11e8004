//! The one integration-test binary: linking once keeps the build short.
//!
//! Owns: the list of suites. Never: holds a test itself. Invariant: a test that needs PostgreSQL fails loudly where there is none.

mod app;
mod cli_run;
mod cluster;
mod conformance;
mod http_append;
mod http_auth;
mod http_bounds;
mod http_call;
mod http_facts;
mod http_reads;
mod lifecycle;
mod naive_writer;
mod postgres_crash;
mod postgres_fence;
mod postgres_schema;
mod postgres_sql;
mod postgres_values;
mod scratch;
