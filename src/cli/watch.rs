//! `watch`: following jobs to their end.
//!
//! Owns: which jobs are left, and the exit code. Never: asks again and again for a job (the node tells). Invariant: the exit code is 0 only
//! if the server said of every job that it succeeded.

mod follow;
mod screen;
mod standing;

use super::client::Client;
use super::output::{self, clean};
use super::server::ServerArgs;
use super::stop::{self, Phase};
use super::work::INTERRUPTED;
use crate::http::wire::StreamMessage;
use anyhow::{Context, Result};
use clap::Args;
use follow::{Told, follow};
use screen::Screen;
use standing::{News, Standing, code, ending, line, worst};
use std::future::pending;
use std::process::ExitCode;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// A job was canceled.
const CANCELED: u8 = 3;
/// Messages that wait for whoever reads standard output.
const WAITING: usize = 16;

/// Arguments of `watch`.
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// The jobs' numbers
    #[arg(value_name = "ID", required = true, value_parser = clap::value_parser!(i64).range(1..))]
    ids: Vec<i64>,
    /// Print every message as JSON, one per line, and nothing else
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// `watch`
pub(crate) async fn watch(args: WatchArgs) -> Result<ExitCode> {
    let client = args.server.client()?;
    let (stopper, stop) = stop::channel();
    stopper
        .follow_signals(Duration::ZERO, || {})
        .context("cannot follow signals")?;
    let mut watching = Watching::new(args.ids, args.json);
    let outcome = tokio::select! {
        outcome = watching.run(&client) => outcome.map(|()| false),
        () = stop.reached(Phase::Finish) => Ok(true),
    };
    watching.screen.clear();
    let is_interrupted = outcome?;
    watching.conclude()?;
    Ok(ExitCode::from(if is_interrupted {
        INTERRUPTED
    } else {
        worst(watching.jobs.iter().map(Watched::code))
    }))
}

/// One of the jobs.
struct Watched {
    id: i64,
    standing: Standing,
    has_failed: bool,
}

impl Watched {
    fn code(&self) -> u8 {
        let verdict = self.standing.verdict().filter(|_| !self.has_failed);
        verdict.map_or(1, code)
    }
}

/// All of them.
struct Watching {
    jobs: Vec<Watched>,
    screen: Screen,
    json: bool,
}

impl Watching {
    fn new(ids: Vec<i64>, json: bool) -> Watching {
        let mut jobs: Vec<Watched> = Vec::new();
        for id in ids {
            if jobs.iter().all(|job| job.id != id) {
                jobs.push(Watched {
                    id,
                    standing: Standing::default(),
                    has_failed: false,
                });
            }
        }
        let screen = Screen::new(jobs.len(), json);
        Watching { jobs, screen, json }
    }

    /// Shows what the followers tell until each of them is done.
    async fn run(&mut self, client: &Client) -> Result<()> {
        let (sender, mut told) = mpsc::channel(WAITING);
        for (index, job) in self.jobs.iter().enumerate() {
            tokio::spawn(follow(client.clone(), job.id, index, sender.clone()));
        }
        drop(sender);
        loop {
            let due = self.screen.due();
            let turn = async {
                match due {
                    Some(at) => sleep_until(at).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                told = told.recv() => match told {
                    Some((index, Told::Message(message))) => self.take(index, &message)?,
                    Some((index, Told::Broken(why))) => {
                        let id = self.jobs[index].id;
                        self.screen.note(&format!("job {id}: trying again: {why}"));
                    }
                    Some((index, Told::Failed(error))) => self.fail(index, &error.to_string()),
                    None => return Ok(()),
                },
                () = turn => self.say_what_is_due(),
            }
        }
    }

    fn take(&mut self, index: usize, message: &StreamMessage) -> Result<()> {
        let watched = &mut self.jobs[index];
        let news = watched.standing.take(message);
        if news == News::Stale {
            if matches!(message, StreamMessage::Final { .. }) {
                self.fail(index, "the server tells of an end before what it told already");
            }
            return Ok(());
        }
        if self.json {
            output::print(&output::json(message)?)?;
        }
        if let Some(job) = watched.standing.job() {
            self.screen.show(index, job, news, Instant::now());
        }
        Ok(())
    }

    fn say_what_is_due(&mut self) {
        let now = Instant::now();
        for (index, watched) in self.jobs.iter().enumerate() {
            if let Some(job) = watched.standing.job() {
                self.screen.show(index, job, News::Nothing, now);
            }
        }
    }

    fn fail(&mut self, index: usize, why: &str) {
        let watched = &mut self.jobs[index];
        watched.has_failed = true;
        self.screen.note(&format!("error: job {}: {why}", watched.id));
    }

    /// Prints what came of each job; of one that goes on, where it stands. The messages say it all to whoever reads those.
    fn conclude(&self) -> Result<()> {
        for watched in self.jobs.iter().filter(|_| !self.json) {
            match watched.standing.job() {
                Some(job) if job.state.is_final() => output::print(&ending(job))?,
                Some(job) => output::note(&clean(&line(job))),
                None => {}
            }
        }
        Ok(())
    }
}
