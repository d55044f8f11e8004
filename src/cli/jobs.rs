//! `jobs`, `show`, `pause`, `resume`, `cancel`, `retry`: looking at jobs and steering them.
//!
//! Owns: how a job is printed. Never: works a state out for itself (the server says it). Invariant: several ids are all tried, and one that
//! failed makes the exit code 1.

use super::client::retry::within;
use super::client::{Answer, Client};
use super::meter::duration;
use super::output::{self, Align, clean, shortened};
use super::server::ServerArgs;
use crate::domain::state::State;
use crate::http::wire::{Callback, CallbackState, Cancel, Job, Retry, RetryOnly, Timestamp};
use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use std::process::ExitCode;
use std::time::Duration;

/// How long these commands put up with a node that is busy or restarting.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// The server's largest page.
const PAGE: usize = 500;

/// Arguments of `jobs`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only jobs in this state; several may be given
    #[arg(long, value_name = "STATE", value_delimiter = ',')]
    state: Vec<State>,
    /// Only jobs of this queue
    #[arg(long, value_name = "QUEUE")]
    queue: Option<String>,
    /// Only jobs with this label
    #[arg(long, value_name = "KEY=VALUE")]
    label: Option<String>,
    /// Only jobs whose name contains this text
    #[arg(short, long = "search", value_name = "TEXT")]
    q: Option<String>,
    /// Most jobs to print, newest first
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50)]
    limit: usize,
    /// Print one JSON object per job and line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Arguments of `show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The job's number
    #[arg(value_name = "ID", value_parser = clap::value_parser!(i64).range(1..))]
    id: i64,
    /// Print the job as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Arguments of `pause` and `resume`.
#[derive(Debug, Args)]
pub(crate) struct ControlArgs {
    /// The jobs' numbers
    #[arg(value_name = "ID", required = true, value_parser = clap::value_parser!(i64).range(1..))]
    ids: Vec<i64>,
    /// Print each job as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Arguments of `cancel`.
#[derive(Debug, Args)]
pub(crate) struct CancelArgs {
    /// Seconds in which tasks that are under way may still report
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    grace_s: u32,
    #[command(flatten)]
    control: ControlArgs,
}

/// Arguments of `retry`.
#[derive(Debug, Args)]
pub(crate) struct RetryArgs {
    /// Which tasks to do again
    #[arg(long, value_enum, default_value_t = Only::Failed)]
    only: Only,
    #[command(flatten)]
    control: ControlArgs,
}

/// The choice of `retry`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Only {
    /// Those that did not succeed
    Failed,
    /// Every one, also those that succeeded
    All,
}

/// `jobs`
pub(crate) async fn list(args: ListArgs) -> Result<ExitCode> {
    let client = args.server.client()?;
    let jobs = fetch(&client, &args).await?;
    if args.json {
        for job in &jobs {
            output::print(&output::json(job)?)?;
        }
    } else if jobs.is_empty() {
        output::note("no jobs");
    } else {
        output::print(&table(&jobs))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn fetch(client: &Client, args: &ListArgs) -> Result<Vec<Job>> {
    let mut query: Vec<(&str, String)> = Vec::new();
    if !args.state.is_empty() {
        let states: Vec<&str> = args.state.iter().map(|state| state.as_str()).collect();
        query.push(("state", states.join(",")));
    }
    query.extend(args.queue.clone().map(|queue| ("queue", queue)));
    query.extend(args.label.clone().map(|label| ("label", label)));
    query.extend(args.q.clone().map(|q| ("q", q)));
    let mut jobs: Vec<Job> = Vec::new();
    let mut cursor = None;
    while jobs.len() < args.limit {
        let mut page = query.clone();
        page.push(("limit", (args.limit - jobs.len()).min(PAGE).to_string()));
        page.extend(cursor.take().map(|cursor| ("cursor", cursor)));
        let list = within(PATIENCE, || client.jobs(&page)).await?;
        jobs.extend(list.items);
        cursor = list.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    jobs.truncate(args.limit);
    Ok(jobs)
}

fn table(jobs: &[Job]) -> String {
    let columns = [
        ("ID", Align::Right),
        ("STATE", Align::Left),
        ("QUEUE", Align::Left),
        ("NAME", Align::Left),
        ("DONE", Align::Right),
        ("TOTAL", Align::Right),
        ("FAILED", Align::Right),
        ("RUN", Align::Right),
        ("CREATED", Align::Left),
    ];
    let rows: Vec<Vec<String>> = jobs.iter().map(row).collect();
    output::table(&columns, &rows)
}

fn row(job: &Job) -> Vec<String> {
    let progress = &job.progress;
    vec![
        job.id.to_string(),
        job.state.to_string(),
        shortened(&job.queue, 24),
        shortened(&job.name, 40),
        (progress.succeeded + progress.failed).to_string(),
        progress.total.to_string(),
        progress.failed.to_string(),
        job.run.to_string(),
        seconds(job.created_at),
    ]
}

/// To the second, as a person reads it.
pub(crate) fn seconds(at: Timestamp) -> String {
    let text = at.to_string();
    match text.split_once('.') {
        Some((whole, _)) => format!("{whole}Z"),
        None => text,
    }
}

/// `show`
pub(crate) async fn show(args: ShowArgs) -> Result<ExitCode> {
    let client = args.server.client()?;
    let job = within(PATIENCE, || client.job(args.id)).await?;
    if args.json {
        output::print(&output::json(&job)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    output::print(&described(&job))?;
    // A server that does not know of callbacks has none to show.
    let callbacks = client.callbacks(args.id).await.ok();
    let last = callbacks.and_then(|list| list.items.into_iter().find(|callback| callback.run == job.run));
    if let Some(callback) = last {
        output::print(&told(&callback))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether somebody was told of the job's end.
fn told(callback: &Callback) -> String {
    let tried = match callback.attempts {
        1 => "1 attempt".to_owned(),
        attempts => format!("{attempts} attempts"),
    };
    let why = callback.last_error.as_ref().map(|why| format!(": {why}"));
    let why = why.unwrap_or_default();
    let words = match callback.state {
        CallbackState::Delivered => format!("delivered to {} after {tried}", callback.url),
        CallbackState::Pending => format!("not delivered to {} after {tried}{why}", callback.url),
        CallbackState::Failed => format!("given up for {} after {tried}{why}", callback.url),
    };
    format!("{:<9} {}", "callback", clean(&words))
}

fn described(job: &Job) -> String {
    let progress = &job.progress;
    let mut lines = vec![
        ("job", format!("{} {}", job.id, job.name)),
        ("queue", job.queue.clone()),
        ("state", format!("{} (run {})", job.state, job.run)),
        ("tasks", tally(job)),
    ];
    let undecided = progress.pending + progress.leased + progress.retrying;
    if undecided > 0 {
        let (pending, leased, retrying) = (progress.pending, progress.leased, progress.retrying);
        lines.push((
            "to do",
            format!("{pending} pending, {leased} leased, {retrying} to retry"),
        ));
    }
    if job.open {
        lines.push(("open", "more tasks may be appended".to_owned()));
    }
    if let Some(eta_s) = progress.eta_s.filter(|eta_s| eta_s.is_finite() && *eta_s >= 0.0) {
        let left = duration(Duration::from_secs_f64(eta_s.min(1e9)));
        lines.push(("left", format!("about {left}")));
    }
    lines.extend(
        job.labels
            .iter()
            .map(|(key, value)| ("label", format!("{key}={value}"))),
    );
    lines.extend(
        progress
            .counters
            .iter()
            .map(|(name, sum)| ("counter", format!("{name} {sum}"))),
    );
    lines.push(("created", seconds(job.created_at)));
    lines.extend(job.started_at.map(|at| ("started", seconds(at))));
    lines.extend(job.finished_at.map(|at| ("finished", seconds(at))));
    lines.extend(
        job.error
            .as_ref()
            .map(|error| ("error", format!("{} ({})", error.message, error.code))),
    );
    let lines = lines
        .into_iter()
        .map(|(name, text)| format!("{name:<9} {}", clean(&text)));
    lines.collect::<Vec<_>>().join("\n")
}

/// The job's numbers in words.
pub(crate) fn tally(job: &Job) -> String {
    let progress = &job.progress;
    let noun = if progress.total == 1 { "task" } else { "tasks" };
    format!(
        "{} {noun}: {} succeeded, {} failed",
        progress.total, progress.succeeded, progress.failed
    )
}

/// `pause` and `resume`
pub(crate) async fn control(args: ControlArgs, verb: &'static str) -> Result<ExitCode> {
    each(&args, async |client: &Client, id| {
        within(PATIENCE, || client.control(id, verb)).await
    })
    .await
}

/// `cancel`
pub(crate) async fn cancel(args: CancelArgs) -> Result<ExitCode> {
    let body = Cancel { grace_s: args.grace_s };
    each(&args.control, async |client: &Client, id| {
        within(PATIENCE, || client.cancel(id, &body)).await
    })
    .await
}

/// `retry`
pub(crate) async fn retry(args: RetryArgs) -> Result<ExitCode> {
    let only = match args.only {
        Only::Failed => RetryOnly::Failed,
        Only::All => RetryOnly::All,
    };
    each(&args.control, async |client: &Client, id| {
        // The run we see now is the one to leave: a call whose answer was lost cannot start a second run.
        let run = within(PATIENCE, || client.job(id)).await?.run;
        let body = Retry {
            only,
            if_run: Some(run),
        };
        client.retry(id, &body).await
    })
    .await
}

/// Does the same to each job, prints the new states, and fails in the end if any of them failed.
async fn each(args: &ControlArgs, call: impl AsyncFn(&Client, i64) -> Answer<Job>) -> Result<ExitCode> {
    let client = args.server.client()?;
    let mut code = ExitCode::SUCCESS;
    for &id in &args.ids {
        match call(&client, id).await.with_context(|| format!("job {id}")) {
            Ok(job) if args.json => output::print(&output::json(&job)?)?,
            Ok(job) => output::print(&format!("{id} {}", job.state))?,
            Err(error) => {
                output::note(&clean(&format!("error: {error:#}")));
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn job() -> Job {
        serde_json::from_value(serde_json::json!({
            "id": 7, "name": "wc\u{1b}[31m", "queue": "q", "state": "partially_succeeded", "run": 2, "priority": 0,
            "open": false, "labels": {"team": "a"}, "policy": {}, "node": null, "epoch": null,
            "created_at": "2026-03-01T12:00:00.250Z", "started_at": null, "finished_at": null,
            "updated_at": "2026-03-01T12:00:00.250Z",
            "progress": {"seq": 9, "total": 3, "pending": 0, "leased": 0, "retrying": 0, "succeeded": 2, "failed": 1,
                "fraction": 1.0, "rate_per_s": null, "eta_s": null, "counters": {"rows": 5}, "stages": []},
        }))
        .unwrap()
    }

    #[test]
    fn a_job_is_printed_clean_and_whole() {
        let text = described(&job());
        assert!(text.contains("job       7 wc[31m\n"), "{text}");
        assert!(text.contains("state     partially_succeeded (run 2)"), "{text}");
        assert!(text.contains("tasks     3 tasks: 2 succeeded, 1 failed"), "{text}");
        assert!(
            text.contains("label     team=a\ncounter   rows 5\ncreated   2026-03-01T12:00:00Z"),
            "{text}"
        );
        let table = table(&[job()]);
        assert!(!table.contains('\x1b') && table.lines().count() == 2, "{table}");
    }
}
