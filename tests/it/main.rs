//! The one integration-test binary: linking once keeps the build short.
//!
//! Owns: the list of suites. Never: holds a test itself. Invariant: a test that needs PostgreSQL fails loudly where there is none.

mod app;
mod browser;
mod cli_run;
mod cli_watch;
mod cluster;
mod conformance;
mod crash_kill;
mod crash_load;
mod crash_million;
mod crash_outage;
mod crash_restart;
mod crash_run;
mod fm_access;
mod fm_counts;
mod fm_leases;
mod fm_outage;
mod fm_states;
mod http_append;
mod http_auth;
mod http_bounds;
mod http_call;
mod http_facts;
mod http_reads;
mod lifecycle;
mod naive_writer;
mod nodes_any;
mod nodes_cluster;
mod page_access;
mod page_live;
mod page_report;
mod postgres_crash;
mod postgres_fence;
mod postgres_nodes;
mod postgres_schema;
mod postgres_sql;
mod postgres_values;
mod process;
mod scratch;
mod stream_access;
mod stream_bounds;
mod stream_client;
mod stream_many;
mod stream_one;
