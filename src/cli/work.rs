//! `work`: workers that run a command for the tasks of some queues.
//!
//! Owns: how many workers there are, their names, and when they go. Never: runs a node. Invariant: a lease that was taken is reported or
//! given back before the process ends, unless it is killed.

use super::Usage;
use super::output::{self, clean};
use super::server::ServerArgs;
use super::stop::{self, Interrupt, Phase};
use super::template::Template;
use super::worker::{Shared, Source, Worker};
use crate::domain::counted::{counted, verb};
use anyhow::{Context, Result};
use clap::Args;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinSet;

/// The exit code of what a person interrupted.
pub(crate) const INTERRUPTED: u8 = 130;

/// Arguments of `work`.
#[derive(Debug, Args)]
pub(crate) struct WorkArgs {
    /// A queue to take tasks from; may be given several times
    #[arg(long = "queue", value_name = "QUEUE", required = true)]
    queues: Vec<String>,
    /// The command as one text, split into words once; no shell ever sees it
    #[arg(
        long,
        value_name = "COMMAND",
        required_unless_present = "command",
        conflicts_with = "command"
    )]
    exec: Option<String>,
    /// Commands to run at the same time
    #[arg(short, long = "jobs", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    jobs: u16,
    /// This worker's name, as others see it [default: host name and process number]
    #[arg(long, value_name = "NAME")]
    worker: Option<String>,
    /// Leave as soon as there is nothing to do
    #[arg(long, conflicts_with = "idle_exit")]
    once: bool,
    /// Leave after so many seconds without anything to do
    #[arg(long, value_name = "SECONDS")]
    idle_exit: Option<u32>,
    /// When asked to stop, seconds until running commands are killed and their tasks given back
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    grace_s: u32,
    #[command(flatten)]
    server: ServerArgs,
    /// The command and its arguments, instead of --exec; {} is replaced by the task's payload
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// The host's name, for telling workers and nodes apart.
pub(crate) fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Names of `count` workers of this process.
pub(crate) fn names(base: &str, count: u16) -> Vec<String> {
    match count {
        1 => vec![base.to_owned()],
        _ => (1..=count).map(|n| format!("{base}-{n}")).collect(),
    }
}

/// `work`
pub(crate) async fn work(args: WorkArgs) -> Result<ExitCode> {
    let template = match &args.exec {
        Some(text) => Template::from_text(text),
        None => Template::from_words(args.command.clone()),
    };
    let (stopper, stop) = stop::channel();
    let shared = Shared {
        client: args.server.client()?,
        source: Source::Queues(args.queues.clone()),
        template: Arc::new(template.map_err(Usage::because)?),
        stop,
        meter: None,
        forwards: false,
        idle_exit: if args.once {
            Some(Duration::ZERO)
        } else {
            args.idle_exit.map(|s| Duration::from_secs(s.into()))
        },
        done: Arc::default(),
        shortage: Arc::default(),
    };
    let interrupt = stopper.follow_signals(Duration::from_secs(args.grace_s.into()), || {
        output::note("stopping: finishing the commands that run; once more to stop at once");
    });
    let interrupt = interrupt.context("cannot follow signals")?;
    let name = args
        .worker
        .unwrap_or_else(|| format!("{}-{}", host(), std::process::id()));
    let mut workers = JoinSet::new();
    for name in names(&name, args.jobs) {
        workers.spawn(Worker::new(shared.clone(), name).work());
    }
    let mut first_error = None;
    while let Some(left) = workers.join_next().await {
        if let Err(error) = left? {
            // One that is refused will not be the only one; the others finish what they have.
            stopper.reach(Phase::Finish);
            first_error.get_or_insert(error);
        }
    }
    let [succeeded, failed, retrying] =
        [&shared.done.succeeded, &shared.done.failed, &shared.done.retrying].map(|count| count.load(Ordering::Relaxed));
    let again = match retrying {
        0 => String::new(),
        _ => format!(
            ", {} {} to be tried again",
            counted(retrying, "failed attempt"),
            verb(retrying, "was", "were")
        ),
    };
    output::note(&clean(&format!(
        "{name}: {succeeded} succeeded, {failed} failed{again}"
    )));
    match first_error {
        Some(error) => Err(error.into()),
        None if interrupt.get() == Some(&Interrupt::Keyboard) => Ok(ExitCode::from(INTERRUPTED)),
        None if failed > 0 => Ok(ExitCode::FAILURE),
        None => Ok(ExitCode::SUCCESS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_workers_have_different_names() {
        assert_eq!(names("gpu", 1), ["gpu"]);
        assert_eq!(names("gpu", 2), ["gpu-1", "gpu-2"]);
    }
}
