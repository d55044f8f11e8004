//! The command line: what a person types, and what they read.
//!
//! Owns: arguments, printing, exit codes, child processes. Never: reaches around HTTP into a job, except where a command works on a store
//! by itself (`token`, `migrate`). Invariant: every path ends in an exit code that tells the truth.

mod bench;
mod capture;
mod child;
mod client;
mod items;
mod jobs;
mod logging;
mod meter;
mod migrate;
mod node;
mod nodes;
mod opening;
mod output;
mod run;
mod serve;
mod server;
mod stop;
mod submit;
mod template;
mod token;
mod upload;
mod watch;
mod work;
mod worker;

use anyhow::Result;
use clap::{Parser, Subcommand};
use logging::LogArgs;
use output::{OutputClosed, clean};
use std::process::ExitCode;

/// A misuse of the command line.
const USAGE: u8 = 2;

/// Coordinates jobs: exact live progress, every result counted once, restarts that lose nothing.
#[derive(Debug, Parser)]
#[command(
    name = "tallykeeper",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = EXAMPLES
)]
struct Cli {
    #[command(flatten)]
    log: LogArgs,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  Count the lines of every Rust file, four at a time, keeping results and progress in ./tallykeeper.db:
    find . -name '*.rs' | tallykeeper run -j 4 -- wc -l {}
  After an interruption, go on where it stopped:
    find . -name '*.rs' | tallykeeper run -j 4 --resume -- wc -l {}

  Run a node, give it a job, and work on it from anywhere:
    tallykeeper serve
    ls images/* | tallykeeper submit --name thumbnails --queue images --lines
    tallykeeper work --queue images -j 4 --exec 'convert {} -resize 200x200 {}.thumb.png'
    tallykeeper jobs
    tallykeeper watch 1

Exit codes: 0 success, 1 failure (a task failed, or the command did), 2 wrong usage, 3 canceled (watch), 130 interrupted.
Options may also come from the environment (TALLYKEEPER_*) or, for serve, from a file (--config).";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a command for every line of standard input, without a server of your own
    #[command(after_help = RUN_HELP)]
    Run(run::RunArgs),
    /// Run a node: the HTTP API, on an embedded store or PostgreSQL
    #[command(after_help = SERVE_HELP)]
    Serve(serve::ServeArgs),
    /// Submit a job: one task per line of a file or of standard input
    #[command(after_help = SUBMIT_HELP)]
    Submit(submit::SubmitArgs),
    /// Take tasks from queues and run a command for each
    #[command(after_help = WORK_HELP)]
    Work(work::WorkArgs),
    /// List jobs, newest first
    Jobs(jobs::ListArgs),
    /// Show one job
    Show(jobs::ShowArgs),
    /// Follow jobs live until they end; the exit code tells what came of them
    #[command(after_help = WATCH_HELP)]
    Watch(watch::WatchArgs),
    /// Stop handing out tasks of jobs; what is under way goes on
    Pause(jobs::ControlArgs),
    /// Hand out tasks of paused jobs again
    Resume(jobs::ControlArgs),
    /// End jobs without doing the rest
    Cancel(jobs::CancelArgs),
    /// Start the next run of finished jobs
    Retry(jobs::RetryArgs),
    /// Manage access tokens
    #[command(subcommand, after_help = TOKEN_HELP)]
    Token(token::TokenCommand),
    /// List the nodes that share a store
    Nodes(nodes::NodesArgs),
    /// Ask a node to give up its queues and to end; others take over at once
    Drain(nodes::DrainArgs),
    /// Bring a store's schema up to date
    Migrate(migrate::MigrateArgs),
    /// Measure this machine, beside the naive ways of doing the same, and check exactness
    #[command(after_help = BENCH_HELP)]
    Bench(bench::BenchArgs),
}

const RUN_HELP: &str = "\
Each line is one task; {} in the command stands for it, always as part of one argument: no shell is involved.
For pipes or variables, name a shell yourself:
    ls *.csv | tallykeeper run -- sh -c 'sort \"$1\" | uniq | wc -l' sh {}

What a command prints is forwarded in one piece when it ends. A task fails if its command exits with anything but 0.
A command that cannot be started fails no task: short of memory or file handles, run waits; without the program, it ends.
--resume goes on with an unfinished run; of a finished one it does again what did not succeed. --retries stays as it was.
The exit code is 0 only if every task succeeded and all that was to be printed could be written (a closed pipe is no error).
Ctrl-C, SIGTERM, SIGHUP and SIGQUIT end the commands, too, after the grace. kill -9 of run itself does not: they run on, unheard.
Progress, results and the tally are kept in the store; the node's address is printed for looking at them meanwhile.";

const SERVE_HELP: &str = "\
Examples:
    tallykeeper serve
    tallykeeper serve --listen 0.0.0.0:8080 --store postgres://tally@db/tally --advertise http://node1:8080

Without a stored token only a loopback address may be listened on (see `tallykeeper token create`).
Nodes on one PostgreSQL share its queues; each must be reached by the others at the address it advertises.
The first line on standard output is `listening on http://ADDR:PORT`. SIGTERM drains and exits with 0.";

const SUBMIT_HELP: &str = "\
Examples:
    tallykeeper submit --name nightly --queue etl --file tasks.ndjson
    find . -name '*.wav' | tallykeeper submit --name speech --queue asr --lines --label team=audio

Each line is a task's payload as JSON, or with --lines as plain text. The job's number is printed.
A line that is refused leaves the job open, to be canceled, or completed by submitting again under the same --idempotency-key.
Under the key of a complete job only as many lines as it has are accepted, and nothing is sent.";

const WORK_HELP: &str = "\
Examples:
    tallykeeper work --queue images -j 4 --exec 'convert {} -resize 200x200 {}.thumb.png'
    tallykeeper work --queue asr --once -- transcribe {}

{} stands for the task's payload: a string as it is, anything else as JSON. Without {} it becomes the last argument.
The result is {\"exit\", \"stdout\", \"stderr\"}, at most 64 KiB of each. Ctrl-C, SIGTERM, SIGHUP and SIGQUIT finish what
runs, for the grace, and leave. kill -9 of work itself ends no command: those run on, and their tasks are done again.
A command that cannot be started fails no task: short of memory or file handles, work waits; without the program, it ends.";

const WATCH_HELP: &str = "\
Examples:
    tallykeeper watch 42
    tallykeeper watch 42 43 && echo all succeeded
    tallykeeper watch --json 42 | jq -c 'select(.type == \"final\") | .job.progress'

Bars on a terminal, a line now and then elsewhere, both on standard error; the tallies on standard output.
With --json, standard output holds the node's messages instead: snapshot, progress, state and, at last, final.
A lost connection is opened again, however long that takes, and numbers never go back.

Exit codes: 0 every job succeeded, 1 one failed, wholly or in part, or cannot be watched, 2 wrong usage,
3 one was canceled (and none failed), 130 interrupted: the job goes on.";

const BENCH_HELP: &str = "\
Examples:
    tallykeeper bench
    tallykeeper bench --store postgres://tally@/scratch?host=/run/postgresql --rounds 5

Every run is checked: what workers were told, the tally, a summed counter and the stored results must agree.
Compare only figures of one invocation; `ours is` is the median of the ratios of each round.";

const TOKEN_HELP: &str = "\
Examples:
    tallykeeper token create --name gpu-workers --scope work --queue images --expires 90d
    tallykeeper token list --server http://127.0.0.1:8080

The first token turns authentication on at once, for every node on the store.";

/// The command line was used wrongly; the exit code is 2.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
struct Usage(anyhow::Error);

impl Usage {
    fn because(error: anyhow::Error) -> anyhow::Error {
        Usage(error).into()
    }
}

/// Everything `main` does.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nobody may be reading; the code is the answer then.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE));
        }
    };
    match start(cli) {
        Ok(code) => code,
        Err(error) if error.is::<OutputClosed>() => ExitCode::SUCCESS,
        Err(error) => {
            output::note(&clean(&format!("error: {error:#}")));
            ExitCode::from(if error.is::<Usage>() { USAGE } else { 1 })
        }
    }
}

fn start(cli: Cli) -> Result<ExitCode> {
    let quiet_level = match cli.command {
        Command::Serve(_) | Command::Work(_) => "info",
        _ => "warn",
    };
    logging::start(&cli.log, quiet_level).map_err(Usage::because)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(dispatch(cli.command));
    // A read of standard input may still be blocked; nobody waits for it.
    runtime.shutdown_background();
    outcome
}

async fn dispatch(command: Command) -> Result<ExitCode> {
    match command {
        Command::Run(args) => run::run(args).await,
        Command::Serve(args) => serve::serve(args).await,
        Command::Submit(args) => submit::submit(args).await,
        Command::Work(args) => work::work(args).await,
        Command::Jobs(args) => jobs::list(args).await,
        Command::Show(args) => jobs::show(args).await,
        Command::Watch(args) => watch::watch(args).await,
        Command::Pause(args) => jobs::control(args, "pause").await,
        Command::Resume(args) => jobs::control(args, "resume").await,
        Command::Cancel(args) => jobs::cancel(args).await,
        Command::Retry(args) => jobs::retry(args).await,
        Command::Token(command) => token::token(command).await,
        Command::Nodes(args) => nodes::nodes(args).await,
        Command::Drain(args) => nodes::drain(args).await,
        Command::Migrate(args) => migrate::migrate(args).await,
        Command::Bench(args) => bench::bench(args).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    fn refused(line: &[&str]) -> i32 {
        Cli::try_parse_from(line).unwrap_err().exit_code()
    }

    #[test]
    fn wrong_usage_exits_with_two_and_help_with_zero() {
        for line in [
            &["tallykeeper", "run"][..],
            &["tallykeeper", "run", "-j", "0", "--", "wc"],
            &["tallykeeper", "work", "--queue", "q"],
            &["tallykeeper", "work", "--queue", "q", "--exec", "a", "--", "b"],
            &["tallykeeper", "jobs", "--state", "done"],
            &["tallykeeper", "watch"],
            &["tallykeeper", "watch", "0"],
            &["tallykeeper", "token", "create", "--name", "n", "--scope", "root"],
            &["tallykeeper", "migrate", "--store", "mysql://x"],
        ] {
            assert_eq!(refused(line), 2, "{line:?}");
        }
        assert_eq!(refused(&["tallykeeper", "run", "--help"]), 0);
        assert_eq!(refused(&["tallykeeper", "--version"]), 0);
    }

    #[test]
    fn the_command_follows_two_dashes_untouched() {
        let cli = Cli::try_parse_from(["tallykeeper", "run", "-j", "4", "--", "wc", "-l", "--resume", "{}"]).unwrap();
        assert!(matches!(cli.command, Command::Run(_)));
    }
}
