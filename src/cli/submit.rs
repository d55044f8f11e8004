//! `submit`: makes a job from lines of a file or of standard input.
//!
//! Owns: reading lines within bounds and making each one a task. Never: holds more than a chunk of them. Invariant: either every line
//! is a task of the job, or the exit code and a message say that it is not.

use super::Usage;
use super::client::Client;
use super::client::retry::within;
use super::jobs::PATIENCE;
use super::output;
use super::server::ServerArgs;
use super::upload::{self, Chunk};
use crate::domain::counted::counted;
use crate::http::wire::{CreateJob, Job, Json, TaskIn, Timestamp};
use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Args;
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::path::PathBuf;
use std::process::ExitCode;

/// Longest line that is read at all; the server's own limit on a payload is smaller.
const LINE_MAX_BYTES: u64 = 1 << 20;

/// Arguments of `submit`.
#[derive(Debug, Args)]
pub(crate) struct SubmitArgs {
    /// The job's name, for people
    #[arg(long, value_name = "NAME")]
    name: String,
    /// The queue its tasks go to; workers ask for work by this name
    #[arg(long, value_name = "QUEUE")]
    queue: String,
    /// File with one task per line; `-` is standard input
    #[arg(long, value_name = "FILE", default_value = "-")]
    file: PathBuf,
    /// Take each line as a text instead of as JSON
    #[arg(long)]
    lines: bool,
    /// Leave the job open for more tasks (see the API's append and seal)
    #[arg(long)]
    open: bool,
    /// Larger goes first
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    priority: i32,
    /// A label; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Where the server posts the job's tally once it has ended (see docs/callbacks.md)
    #[arg(long, value_name = "URL")]
    callback_url: Option<String>,
    /// How often a task is tried before it counts as failed
    #[arg(long, value_name = "N", help_heading = "Policy")]
    max_attempts: Option<u32>,
    /// Seconds a worker may keep a task without a sign of life
    #[arg(long, value_name = "SECONDS", help_heading = "Policy")]
    lease_timeout_s: Option<u32>,
    /// Start at this time instead of at once, such as 2026-03-01T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = moment, help_heading = "Policy")]
    start_at: Option<Timestamp>,
    /// Submitting again with the same key and arguments goes on with the same job
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Print the job as JSON instead of its number
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Reads `KEY=VALUE`.
fn label(text: &str) -> Result<(String, String)> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => bail!("expected KEY=VALUE"),
    }
}

fn moment(text: &str) -> Result<Timestamp> {
    text.parse()
        .map_err(|_| anyhow!("expected a time such as 2026-03-01T12:00:00Z"))
}

/// `submit`
pub(crate) async fn submit(args: SubmitArgs) -> Result<ExitCode> {
    let client = args.server.client()?;
    // Read before anything is made: an input that is wrong from the start leaves no job behind.
    let input = Input::open(&args)?.read(0).await?;
    let key = args.idempotency_key.clone().unwrap_or_else(random_key);
    let request = request(&args);
    let job = within(PATIENCE, || client.create_job(&request, &key)).await?;
    let job = fill(&client, job, input, &args).await?;
    output::print(&if args.json {
        output::json(&job)?
    } else {
        job.id.to_string()
    })?;
    Ok(ExitCode::SUCCESS)
}

/// A key nobody else uses: it makes the call safe to repeat within this process.
pub(crate) fn random_key() -> String {
    format!("{:032x}", rand::random::<u128>())
}

fn request(args: &SubmitArgs) -> CreateJob {
    let mut job = CreateJob::named(&args.name, &args.queue);
    job.open = true;
    job.priority = args.priority;
    job.labels = args.labels.iter().cloned().collect();
    job.start_at = args.start_at;
    job.callback_url = args.callback_url.clone();
    if let Some(max_attempts) = args.max_attempts {
        job.policy.max_attempts = max_attempts;
    }
    if let Some(lease_timeout_s) = args.lease_timeout_s {
        job.policy.lease_timeout_s = lease_timeout_s;
    }
    job
}

/// Appends what the job does not hold yet, and seals it.
async fn fill(client: &Client, job: Job, input: Input, args: &SubmitArgs) -> Result<Job> {
    let id = job.id;
    if !job.open {
        let (there, lines) = (job.progress.total, input.count().await?);
        ensure!(
            lines == u64::from(there),
            "job {id} was submitted before under this key and takes no more: it holds {}, the input {lines}; submit what is new under \
             another key",
            counted(there, "task")
        );
        output::note(&format!("job {id} was submitted before and is complete"));
        return Ok(job);
    }
    let sent = send(client, id, input, job.progress.total).await;
    let sent = sent.with_context(|| left_open(id, args))?;
    tracing::info!(job = id, tasks = sent, "every line is submitted");
    if args.open {
        return Ok(within(PATIENCE, || client.job(id)).await?);
    }
    let sealed = within(PATIENCE, || client.control(id, "seal")).await;
    sealed.with_context(|| format!("job {id} holds every task, {sent} in all, but is not sealed"))
}

/// Where a job stands whose input broke off, and the ways on.
fn left_open(id: i64, args: &SubmitArgs) -> String {
    let again = match args.idempotency_key {
        Some(_) => "submit again under the same key to go on, or ",
        None => "",
    };
    format!("job {id} is left open and incomplete ({again}`tallykeeper cancel {id}` to give it up)")
}

/// Sends everything but the `there` tasks that an earlier submission under the same key has sent.
async fn send(client: &Client, id: i64, mut input: Input, there: u32) -> Result<u32> {
    let mut next = there;
    if there > 0 {
        input = input.read(there).await?;
    }
    while !input.chunk.is_empty() {
        next = upload::append(client, id, next, &input.chunk).await?;
        input.chunk = Chunk::default();
        input = input.read(0).await?;
    }
    Ok(next)
}

/// The lines with the next chunk of them.
struct Input {
    lines: Lines,
    chunk: Chunk,
}

impl Input {
    fn open(args: &SubmitArgs) -> Result<Self> {
        let lines = Lines::open(args)?;
        let chunk = Chunk::default();
        Ok(Input { lines, chunk })
    }

    /// Drops the next `skip` tasks, then reads until the chunk is full or the input ends. Reading may block for as long as whoever
    /// writes takes, so it has a thread of its own.
    async fn read(mut self, skip: u32) -> Result<Self> {
        let read = tokio::task::spawn_blocking(move || {
            let rest = self.chunk.drop_first(skip as usize);
            for _ in 0..rest {
                ensure!(
                    self.lines.next()?.is_some(),
                    "it holds {} already, more than the input has lines",
                    counted(skip, "task")
                );
            }
            while !self.chunk.is_full() {
                match self.lines.next()? {
                    Some(task) => self.chunk.push(self.lines.number, serde_json::to_string(&task)?),
                    None => break,
                }
            }
            Ok(self)
        });
        read.await?
    }

    /// Reads to the end; says how many tasks there were, those of the chunk among them.
    async fn count(mut self) -> Result<u64> {
        let count = tokio::task::spawn_blocking(move || {
            let mut tasks = self.chunk.len() as u64;
            while self.lines.next()?.is_some() {
                tasks += 1;
            }
            Ok(tasks)
        });
        count.await?
    }
}

/// The input, line by line.
struct Lines {
    from: Box<dyn BufRead + Send>,
    as_text: bool,
    number: u64,
}

impl Lines {
    fn open(args: &SubmitArgs) -> Result<Self> {
        let from: Box<dyn BufRead + Send> = if args.file.as_os_str() == "-" {
            if io::stdin().is_terminal() {
                output::note("reading tasks from the terminal, one per line; end with Ctrl-D");
            }
            Box::new(BufReader::new(io::stdin()))
        } else {
            let file = File::open(&args.file);
            let file = file
                .with_context(|| format!("cannot open {}", args.file.display()))
                .map_err(Usage::because)?;
            Box::new(BufReader::with_capacity(1 << 16, file))
        };
        Ok(Lines {
            from,
            as_text: args.lines,
            number: 0,
        })
    }

    /// The next line as a task. Blank lines mean nothing where JSON is expected.
    fn next(&mut self) -> Result<Option<TaskIn>> {
        loop {
            let Some(line) = self.line()? else { return Ok(None) };
            if self.as_text {
                return Ok(Some(task(serde_json::value::to_raw_value(&line)?)));
            }
            if line.trim().is_empty() {
                continue;
            }
            let payload = serde_json::from_str::<Json>(&line);
            let payload = payload
                .with_context(|| format!("line {} is not JSON (--lines takes plain text)", self.number))
                .map_err(Usage::because)?;
            return Ok(Some(task(payload)));
        }
    }

    fn line(&mut self) -> Result<Option<String>> {
        let mut bytes = Vec::new();
        self.number += 1;
        let read = (&mut self.from).take(LINE_MAX_BYTES + 1).read_until(b'\n', &mut bytes);
        if read.context("cannot read the tasks")? == 0 {
            return Ok(None);
        }
        if bytes.len() as u64 > LINE_MAX_BYTES {
            let why = anyhow!("line {} is longer than {LINE_MAX_BYTES} bytes", self.number);
            return Err(Usage::because(why));
        }
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
        }
        let line = String::from_utf8(bytes);
        line.map(Some)
            .with_context(|| format!("line {} is not UTF-8", self.number))
            .map_err(Usage::because)
    }
}

fn task(payload: Json) -> TaskIn {
    TaskIn { key: None, payload }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &'static str, as_text: bool) -> Lines {
        Lines {
            from: Box::new(text.as_bytes()),
            as_text,
            number: 0,
        }
    }

    fn payloads(mut lines: Lines) -> Result<Vec<String>> {
        let mut all = Vec::new();
        while let Some(task) = lines.next()? {
            all.push(task.payload.get().to_owned());
        }
        Ok(all)
    }

    #[test]
    fn json_lines_are_kept_verbatim_and_blank_ones_skipped() {
        let text = "{\"a\": 1.0}\n\n  [1,  2] \n\"x\"";
        assert_eq!(
            payloads(lines(text, false)).unwrap(),
            ["{\"a\": 1.0}", "[1,  2]", "\"x\""]
        );
    }

    #[test]
    fn text_lines_become_strings() {
        assert_eq!(
            payloads(lines("a \"b\"\n\nc\n", true)).unwrap(),
            [r#""a \"b\"""#, r#""""#, r#""c""#]
        );
    }

    #[test]
    fn a_bad_line_is_named() {
        let error = payloads(lines("1\nnope\n", false)).unwrap_err();
        assert!(error.to_string().starts_with("line 2 is not JSON"), "{error}");
        assert!(error.is::<Usage>(), "a wrong input is wrong usage");
        let inside = error.context("job 1 is left open");
        assert!(inside.is::<Usage>(), "however far it was read");
    }

    #[test]
    fn labels_need_a_key() {
        assert_eq!(label("a=b=c").unwrap(), ("a".into(), "b=c".into()));
        assert!(label("=b").is_err() && label("a").is_err());
    }
}
