//! What the process says about itself, on standard error.
//!
//! Owns: the subscriber and its filter. Never: writes to standard output. Invariant: a log line nobody can read stops nothing.

use anyhow::{Context, Result, anyhow};
use clap::{Args, ValueEnum};
use std::io;
use tracing_subscriber::EnvFilter;

/// How much is said, and how.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Log")]
pub(crate) struct LogArgs {
    /// Say more on standard error; twice for debugging
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
    /// What to log: a level, or levels by module such as info,tallykeeper::store=debug; beats -v
    #[arg(long = "log", value_name = "FILTER", env = "TALLYKEEPER_LOG", global = true)]
    filter: Option<String>,
    /// How log lines are written
    #[arg(
        long = "log-format",
        value_name = "FORMAT",
        env = "TALLYKEEPER_LOG_FORMAT",
        default_value = "text",
        global = true
    )]
    format: Format,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Starts logging; `quiet_level` is what is said without any option.
pub(crate) fn start(args: &LogArgs, quiet_level: &str) -> Result<()> {
    let level = match args.verbose {
        0 => quiet_level,
        1 => "info",
        _ => "debug",
    };
    let filter = args
        .filter
        .as_deref()
        .filter(|filter| !filter.trim().is_empty())
        .unwrap_or(level);
    let filter = EnvFilter::try_new(filter).with_context(|| format!("the log filter {filter:?} is not valid"))?;
    let ansi = io::IsTerminal::is_terminal(&io::stderr()) && std::env::var_os("NO_COLOR").is_none();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .log_internal_errors(false)
        .with_ansi(ansi);
    let started = match args.format {
        Format::Text => builder.try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| anyhow!("cannot start logging: {error}"))
}
