//! `run`: one command for every line of the input, by a node, a store and workers inside this process.
//!
//! Owns: finding or making the job, and the order in which the parts start and stop. Never: gives a worker work but through the node's
//! HTTP API. Invariant: the exit code is 0 only if the server says that every task succeeded, and what was interrupted can be resumed.

use super::Usage;
use super::client::Client;
use super::client::retry::{until_answered, within};
use super::items::Items;
use super::jobs::{PATIENCE, tally};
use super::meter::{Meter, duration};
use super::node::{Node, NodeOptions};
use super::opening::{DEFAULT_STORE, StoreAddress};
use super::output::{self, clean};
use super::stop::{self, Phase, Stop, Stopper};
use super::submit::random_key;
use super::template::Template;
use super::upload::{self, Chunk};
use super::work::{INTERRUPTED, names};
use super::worker::{Left, Shared, Source, Trouble, Worker};
use crate::domain::counted::{counted, verb};
use crate::domain::state::State;
use crate::http::wire::{CreateJob, Job, Retry, RetryOnly};
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use rustix::process::{Resource, getrlimit};
use std::io::{self, IsTerminal};
use std::num::NonZero;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::MissedTickBehavior;

/// The queue of these jobs; the workers ask for one job only, so it matters to nobody.
const QUEUE: &str = "run";
/// The label that carries the hash of command and items.
const LABEL: &str = "run-hash";
/// Lease on a shared store: short, since what a killed run held comes back only when it runs out.
const SHARED_LEASE_S: u32 = 60;
/// Lease on a store of our own, where a killed run's leases are void at once: long, so that a suspended run (Ctrl-Z) loses nothing.
const PRIVATE_LEASE_S: u32 = 7 * 24 * 3600;
/// File handles per command: two ends of a connection, two pipes, the process, two spools.
const HANDLES_EACH: u64 = 7;
/// For the store, the listener, the runtime, and a command that is being started.
const SPARE_HANDLES: u64 = 64;
/// How often the bar moves.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Arguments of `run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Commands to run at the same time [default: one per processor]
    #[arg(short, long = "jobs", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    jobs: Option<u16>,
    /// Go on with the unfinished run of the same command and items, or do again what failed in a finished one
    #[arg(long)]
    resume: bool,
    /// Try a failing command again up to so many times [default: 0]; a resumed run keeps its number
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=63))]
    retries: Option<u32>,
    /// Do not forward what the commands print
    #[arg(short, long)]
    quiet: bool,
    /// Items end with a NUL character instead of a newline (find -print0)
    #[arg(short = '0', long)]
    null: bool,
    /// Where the run is kept
    #[arg(long, value_name = "STORE", env = "TALLYKEEPER_STORE", default_value = DEFAULT_STORE, hide_env_values = true)]
    store: StoreAddress,
    /// When interrupted, seconds until running commands are killed and their tasks given back
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    grace_s: u32,
    /// The command and its arguments; {} is replaced by the item, or the item is appended
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// `run`
pub(crate) async fn run(args: RunArgs) -> Result<ExitCode> {
    let template = Template::from_words(args.command.clone()).map_err(Usage::because)?;
    let items = read_items(args.null).await?;
    if items.len() == 0 {
        output::note("no items on standard input: nothing to do");
        return Ok(ExitCode::SUCCESS);
    }
    let (stopper, stop) = stop::channel();
    stopper
        .follow_signals(Duration::from_secs(args.grace_s.into()), || {
            output::note("interrupted: waiting for the commands that run; once more to stop at once");
        })
        .context("cannot follow signals")?;
    let mut node = Node::start(NodeOptions::embedded(args.store.clone())).await?;
    let (client, url) = (node.client()?, node.url());
    let outcome = tokio::select! {
        outcome = with_node(&args, template, items, client, &url, &stopper, stop.clone()) => outcome,
        // Without it the workers would go on trying for ever.
        ended = node.ended() => {
            ended.context("the node ended")?;
            bail!("the node ended before the run did");
        }
    };
    let stopped = tokio::select! {
        stopped = node.stop() => stopped,
        // A store that is away would hold the drain up; without it, going on costs what it costs after a crash.
        () = stop.patience_ends() => {
            output::note("the store did not answer: the run is left as a crash leaves it");
            Ok(())
        }
    };
    let code = outcome?;
    stopped.context("the node did not stop cleanly")?;
    Ok(code)
}

async fn read_items(null: bool) -> Result<Items> {
    if io::stdin().is_terminal() {
        output::note("reading items from the terminal, one per line; end with Ctrl-D");
    }
    let separator = if null { 0 } else { b'\n' };
    let items = tokio::task::spawn_blocking(move || Items::read(io::stdin().lock(), separator)).await?;
    items.map_err(Usage::because)
}

async fn with_node(
    args: &RunArgs,
    template: Template,
    items: Items,
    client: Client,
    url: &str,
    stopper: &Stopper,
    stop: Stop,
) -> Result<ExitCode> {
    let job = find_or_create(&client, args, &template, &items).await?;
    output::note(&format!(
        "job {0}, {1}, live at {url}/#/jobs/{0}",
        job.id,
        counted(items.len(), "item")
    ));
    if job.state.is_final() && job.progress.succeeded == job.progress.total {
        output::note(&format!("job {} is finished already", job.id));
        return Ok(finished(&job, None));
    }
    note_retries(args, &job);
    let job = match job.state.is_final() {
        true => again(&client, job).await?,
        false => job,
    };
    if job.progress.leased > 0 {
        let held = job.progress.leased;
        output::note(&format!(
            "{} {} under way when an earlier run was killed; what was comes back within a minute",
            counted(held, "item"),
            verb(held, "was", "were")
        ));
    }
    let started = Instant::now();
    let job = unpaused(&client, job).await?;
    let meter = Arc::new(Meter::new(items.len() as u64));
    let shared = Shared {
        client: client.clone(),
        source: Source::Job(job.id),
        template: Arc::new(template),
        stop: stop.clone(),
        meter: Some(meter.clone()),
        forwards: !args.quiet,
        idle_exit: None,
        done: Arc::default(),
        shortage: Arc::default(),
    };
    let mut workers = JoinSet::new();
    for name in names(&format!("run-{}", std::process::id()), at_a_time(args.jobs)) {
        workers.spawn(Worker::new(shared.clone(), name).work());
    }
    let upload = tokio::spawn(upload_all(client.clone(), job.clone(), items));
    let watched = watch(&client, job.id, &meter, &stop, &mut workers, upload).await;
    // An interruption leaves the phase to the signals. A program that is missing is no reason to give up the commands that run. After
    // any other error whoever still works does so in vain.
    let failed_here = matches!(&watched, Err(error) if is_programs(error));
    let in_vain = watched.is_err() && !failed_here;
    stopper.reach(if in_vain { Phase::Abort } else { Phase::Finish });
    while workers.join_next().await.is_some() {}
    meter.clear();
    if failed_here {
        note_kept(args);
    }
    match watched? {
        Some(job) => Ok(forwarded(finished(&job, Some(started.elapsed())), &meter)),
        None => Ok(interrupted(&client, job.id, args).await),
    }
}

/// How many commands to run at the same time: as asked, as far as this process may hold the file handles for it. The workers and the node
/// are both in here: with more, calls could not be accepted while the commands hold what is left.
fn at_a_time(asked: Option<u16>) -> u16 {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let asked = asked.unwrap_or_else(|| u16::try_from(cores).unwrap_or(1));
    let Some(limit) = getrlimit(Resource::Nofile).current else {
        return asked;
    };
    let room = (limit.saturating_sub(SPARE_HANDLES) / HANDLES_EACH).max(1);
    let count = asked.min(u16::try_from(room).unwrap_or(u16::MAX));
    if count < asked {
        output::note(&format!(
            "{limit} file handles (`ulimit -n`) are enough for {} at a time, not {asked}",
            counted(count, "command")
        ));
    }
    count
}

/// The job to work on: with `--resume` the unfinished one of the same hash, or else its last one; a new one otherwise.
async fn find_or_create(client: &Client, args: &RunArgs, template: &Template, items: &Items) -> Result<Job> {
    let hash = items.hash(template);
    let query = [("label", format!("{LABEL}={hash}")), ("limit", "500".to_owned())];
    let mut same = within(PATIENCE, || client.jobs(&query)).await?.items;
    let unfinished = same.iter().position(|job| !job.state.is_final());
    if args.resume {
        if !same.is_empty() {
            let job = same.swap_remove(unfinished.unwrap_or(0));
            if !job.state.is_final() || job.progress.total as usize == items.len() {
                return Ok(job);
            }
            // What is missing cannot be appended any more.
            let (id, state) = (job.id, job.state);
            output::note(&format!("job {id} is {state} and never held every item: starting anew"));
        } else {
            output::note("no run of this command and these items to resume: starting one");
        }
    } else if let Some(at) = unfinished {
        let id = same[at].id;
        output::note(&format!(
            "job {id} is an unfinished run of the same command and items (--resume goes on with it): starting anew"
        ));
    }
    let request = request(args, template, items, &hash)?;
    let key = random_key();
    Ok(within(PATIENCE, || client.create_job(&request, &key)).await?)
}

fn request(args: &RunArgs, template: &Template, items: &Items, hash: &str) -> Result<CreateJob> {
    let mut job = CreateJob::named(job_name(template), QUEUE);
    job.open = true;
    job.expected_total = Some(u32::try_from(items.len())?);
    job.policy.max_attempts = args.retries.unwrap_or(0) + 1;
    job.policy.lease_timeout_s = if args.store.is_private() {
        PRIVATE_LEASE_S
    } else {
        SHARED_LEASE_S
    };
    job.labels.insert(LABEL.to_owned(), hash.to_owned());
    Ok(job)
}

/// Starts the next run of a finished job, of what did not succeed.
async fn again(client: &Client, job: Job) -> Result<Job> {
    let left = job.progress.total - job.progress.succeeded;
    output::note(&format!(
        "job {} {}: doing the {} again that did not succeed",
        job.id,
        job.state,
        counted(left, "item")
    ));
    let body = Retry {
        only: RetryOnly::Failed,
        if_run: Some(job.run),
    };
    Ok(within(PATIENCE, || client.retry(job.id, &body)).await?)
}

/// The command, as far as it fits into a name.
fn job_name(template: &Template) -> String {
    let mut name = clean(&template.words().join(" "));
    if name.len() > 200 {
        name.truncate(name.floor_char_boundary(200));
        name.push('…');
    }
    name
}

/// A job somebody paused, or did not start, would wait for ever.
async fn unpaused(client: &Client, job: Job) -> Result<Job> {
    let verb = match job.state {
        State::Paused => "resume",
        State::Pending => "start",
        _ => return Ok(job),
    };
    Ok(within(PATIENCE, || client.control(job.id, verb)).await?)
}

/// Sends what the job does not hold yet, and seals it.
async fn upload_all(client: Client, job: Job, items: Items) -> Result<()> {
    if !job.open {
        return Ok(());
    }
    let mut next = job.progress.total;
    let total = u32::try_from(items.len())?;
    while next < total {
        let mut chunk = Chunk::default();
        let mut index = next as usize;
        while let Some(line) = items.ndjson(index).filter(|_| !chunk.is_full()) {
            index += 1;
            chunk.push(index as u64, line);
        }
        next = upload::append(&client, job.id, next, &chunk).await?;
    }
    until_answered(|| client.control(job.id, "seal"))
        .await
        .context("cannot seal the job")?;
    Ok(())
}

/// Watches until the job is over (some) or the run is interrupted (none).
async fn watch(
    client: &Client,
    id: i64,
    meter: &Meter,
    stop: &Stop,
    workers: &mut JoinSet<Result<Left, Trouble>>,
    mut upload: JoinHandle<Result<()>>,
) -> Result<Option<Job>> {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut uploading = true;
    loop {
        tokio::select! {
            () = stop.reached(Phase::Finish) => {
                upload.abort();
                return Ok(None);
            }
            uploaded = &mut upload, if uploading => {
                uploading = false;
                uploaded??;
                continue;
            }
            Some(left) = workers.join_next(), if !workers.is_empty() => {
                left??;
            }
            _ = ticks.tick() => {}
        }
        let looked = tokio::select! {
            looked = client.job(id) => looked,
            // Seen at the top.
            () = stop.reached(Phase::Finish) => continue,
        };
        match looked {
            Ok(job) => {
                meter.show(&job.progress);
                if job.state.is_final() {
                    return Ok(Some(job));
                }
                if workers.is_empty() {
                    return Err(anyhow!("the workers left before job {id} was done"));
                }
            }
            Err(error) if error.may_pass() => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Prints the final tally; the exit code says whether every task succeeded.
fn finished(job: &Job, took: Option<Duration>) -> ExitCode {
    let took = took.map(|took| format!(" in {}", duration(took))).unwrap_or_default();
    output::note(&format!("job {} {}: {}{took}", job.id, job.state, tally(job)));
    if let Some(error) = &job.error {
        output::note(&clean(&format!("{} ({})", error.message, error.code)));
    }
    match job.state {
        State::Succeeded => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// The exit code once all output is forwarded: what was lost of it is a failure, too.
fn forwarded(code: ExitCode, meter: &Meter) -> ExitCode {
    if !meter.has_lost_output() {
        return code;
    }
    output::note("not everything the commands printed could be written out; what their results hold of it is kept");
    ExitCode::FAILURE
}

/// A job's policy is fixed; a number that is not taken is not ignored without a word.
fn note_retries(args: &RunArgs, job: &Job) {
    let kept = job.policy.max_attempts.saturating_sub(1);
    if args.retries.is_some_and(|asked| asked != kept) {
        output::note(&format!(
            "job {} keeps --retries {kept}, with which it was started",
            job.id
        ));
    }
}

/// Says what is done and how to go on.
async fn interrupted(client: &Client, id: i64, args: &RunArgs) -> ExitCode {
    if let Ok(Ok(job)) = tokio::time::timeout(PATIENCE, client.job(id)).await {
        output::note(&format!("job {id} interrupted: {}", tally(&job)));
    }
    note_kept(args);
    ExitCode::from(INTERRUPTED)
}

fn note_kept(args: &RunArgs) {
    output::note(&clean(&format!(
        "it is kept in {}; the same command line with --resume goes on where it stopped",
        args.store
    )));
}

/// Can the command itself not be started?
fn is_programs(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Trouble::Program { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_bounded_and_clean() {
        let name = job_name(&Template::from_words(vec!["echo".into(), "é\n".repeat(200)]).unwrap());
        assert!(
            name.len() <= 256 && name.starts_with("echo é") && name.ends_with('…'),
            "{name}"
        );
        assert!(!name.contains('\n'));
    }
}
