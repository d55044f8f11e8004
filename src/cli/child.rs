//! One child process: started without a shell, read within bounds, and never left behind.
//!
//! Owns: the process group and its pipes. Never: judges what an exit means for a task. Invariant: when the future ends or is dropped, no
//! process of the child's group that it did not detach itself is left running.

use super::capture::{Capture, Keep, RESULT_STREAM_BYTES, Spool};
use super::stop::{Phase, Stop};
use rustix::process::{Pid, Signal, kill_process_group};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

/// After the child's exit, its pipes are read until they have been silent for so long: a process it left in the background may keep
/// them open for ever.
const SILENCE_AFTER_EXIT: Duration = Duration::from_millis(500);
/// Between asking a group to end and killing it.
const TERM_TO_KILL: Duration = Duration::from_secs(2);
/// Most of a failed command's last lines that its error quotes.
const ERROR_LINES: usize = 10;
const ERROR_LINES_BYTES: usize = 4 * 1024;

/// How a child ended.
#[derive(Debug)]
pub(crate) enum Ended {
    Exited(Finished),
    /// It was told to go, because the worker stops.
    Killed,
    /// It never ran.
    NotStarted(io::Error),
    /// It ran; the system does not say what came of it.
    Unknown(io::Error),
}

/// What a child that ran to its own end left.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    /// The first part of its standard output.
    pub(crate) stdout: String,
    /// The last part of its standard error.
    pub(crate) stderr: String,
    /// All of both, if it was asked for.
    pub(crate) whole: Option<(Spool, Spool)>,
}

impl Finished {
    /// Why this is a failure, in words, with the last lines the child wrote to its standard error; none if it succeeded.
    pub(crate) fn failure(&self) -> Option<String> {
        let what = match (self.status.code(), self.status.signal()) {
            (Some(0), _) => return None,
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("killed by signal {signal}"),
            (None, None) => "ended without an exit code".to_owned(),
        };
        let tail = last_lines(&self.stderr);
        Some(if tail.is_empty() {
            what
        } else {
            format!("{what}: {tail}")
        })
    }
}

/// The last lines of a text, bounded in number and bytes.
fn last_lines(text: &str) -> &str {
    let text = text.trim_end();
    let by_lines = text
        .rmatch_indices('\n')
        .nth(ERROR_LINES - 1)
        .map_or(0, |(at, _)| at + 1);
    let mut start = by_lines.max(text.len().saturating_sub(ERROR_LINES_BYTES));
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

/// Kills the group unless the child was reaped in peace.
struct Group(Option<Pid>);

impl Group {
    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.0 {
            // It may be gone already, which is what we want.
            let _ = kill_process_group(pid, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Runs one command to its end, or to the stop's [`Phase::Abort`]. `whole` keeps all output for forwarding.
pub(crate) async fn run(argv: &[String], whole: bool, stop: &Stop) -> Ended {
    let (mut child, mut group) = match start(argv) {
        Ok(started) => started,
        Err(error) => return Ended::NotStarted(error),
    };
    let mut stdout = Stream::new(child.stdout.take(), Keep::First, whole);
    let mut stderr = Stream::new(child.stderr.take(), Keep::Last, whole);
    let mut status = None;
    loop {
        let exited = status.is_some();
        tokio::select! {
            ended = child.wait(), if !exited => match ended {
                Ok(ended) => {
                    // Reaped: its number may be given to another process from now on.
                    group.0 = None;
                    status = Some(ended);
                }
                Err(error) => return Ended::Unknown(error),
            },
            () = stdout.read(), if stdout.is_open() => {}
            () = stderr.read(), if stderr.is_open() => {}
            () = tokio::time::sleep(SILENCE_AFTER_EXIT), if exited => break,
            () = stop.reached(Phase::Abort), if !exited => {
                group.signal(Signal::TERM);
                let _ = tokio::time::timeout(TERM_TO_KILL, child.wait()).await;
                // What the leader left behind goes with it.
                group.signal(Signal::KILL);
                group.0 = None;
                return Ended::Killed;
            }
        }
        if status.is_some() && !stdout.is_open() && !stderr.is_open() {
            break;
        }
    }
    let status = status.expect("the loop is left only after the exit");
    let whole = stdout.spool.zip(stderr.spool);
    Ended::Exited(Finished {
        status,
        stdout: stdout.capture.into_text(),
        stderr: stderr.capture.into_text(),
        whole,
    })
}

fn start(argv: &[String]) -> io::Result<(Child, Group)> {
    let (program, arguments) = argv
        .split_first()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no command"))?;
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        // A group of its own: the terminal's Ctrl-C reaches only us, and we can end whatever the child started.
        .process_group(0)
        .spawn()?;
    let pid = child.id().and_then(|id| Pid::from_raw(id as i32));
    Ok((child, Group(pid)))
}

/// One pipe of a child with what was read from it.
struct Stream<R> {
    pipe: Option<R>,
    buffer: Box<[u8]>,
    capture: Capture,
    spool: Option<Spool>,
}

impl<R: AsyncRead + Unpin> Stream<R> {
    fn new(pipe: Option<R>, keep: Keep, whole: bool) -> Self {
        Stream {
            pipe,
            buffer: vec![0; 16 * 1024].into_boxed_slice(),
            capture: Capture::new(keep, RESULT_STREAM_BYTES),
            spool: whole.then(Spool::default),
        }
    }

    fn is_open(&self) -> bool {
        self.pipe.is_some()
    }

    /// Reads once; closes at the end of the stream. Losing a `select!` loses no byte.
    async fn read(&mut self) {
        let Some(pipe) = &mut self.pipe else { return };
        let read = pipe.read(&mut self.buffer).await.unwrap_or(0);
        if read == 0 {
            self.pipe = None;
            return;
        }
        let chunk = &self.buffer[..read];
        self.capture.push(chunk);
        if let Some(spool) = &mut self.spool
            && let Err(error) = spool.push(chunk)
        {
            tracing::warn!(%error, "cannot keep a command's output; what follows of it will not be shown");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::stop::channel;
    use super::*;

    fn sh(script: &str) -> Vec<String> {
        ["sh", "-c", script].map(str::to_owned).to_vec()
    }

    async fn finished(script: &str) -> Finished {
        let (_stopper, stop) = channel();
        match run(&sh(script), true, &stop).await {
            Ended::Exited(finished) => finished,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn output_is_bounded_in_the_result_and_whole_for_forwarding() {
        let finished = finished("head -c 300000 /dev/zero | tr '\\0' x; echo oops >&2").await;
        assert_eq!(finished.failure(), None);
        assert_eq!(finished.stdout.len(), RESULT_STREAM_BYTES);
        assert_eq!(finished.stderr, "oops\n");
        let mut all = Vec::new();
        let (mut stdout, _) = finished.whole.unwrap();
        stdout.copy_to(&mut all).unwrap();
        assert_eq!(all.len(), 300_000);
    }

    #[tokio::test]
    async fn failures_name_the_cause_and_the_last_lines() {
        let failed = finished("seq 1 30 >&2; exit 3").await;
        let text = failed.failure().unwrap();
        assert!(text.starts_with("exit code 3: 21\n22\n"), "{text}");
        assert!(text.ends_with("\n30"), "{text}");
        let killed = finished("kill -9 $$").await;
        assert_eq!(killed.failure().as_deref(), Some("killed by signal 9"));
    }

    #[tokio::test]
    async fn a_missing_program_is_not_started() {
        let (_stopper, stop) = channel();
        let ended = run(&["/no/such/program".to_owned()], false, &stop).await;
        assert!(matches!(ended, Ended::NotStarted(error) if error.kind() == io::ErrorKind::NotFound));
    }

    #[tokio::test]
    async fn an_abort_ends_the_whole_group() {
        let (stopper, stop) = channel();
        let fifo = std::env::temp_dir().join(format!("tallykeeper-test-{:016x}", rand::random::<u64>()));
        assert!(
            std::process::Command::new("mkfifo")
                .arg(&fifo)
                .status()
                .unwrap()
                .success()
        );
        // A grandchild that ignores SIGTERM holds the fifo's writing end: opening it for reading waits for the start, and it reads
        // as ended only once nobody of the group is left.
        let script = format!("(trap '' TERM; exec sleep 1000) >{} & wait", fifo.display());
        let waiting = tokio::spawn(async move { run(&sh(&script), false, &stop).await });
        let path = fifo.clone();
        let mut reader = tokio::task::spawn_blocking(move || std::fs::File::open(path))
            .await
            .unwrap()
            .unwrap();
        stopper.reach(Phase::Abort);
        assert!(matches!(waiting.await.unwrap(), Ended::Killed));
        let read = tokio::task::spawn_blocking(move || io::Read::read_to_end(&mut reader, &mut Vec::new()));
        assert_eq!(read.await.unwrap().unwrap(), 0);
        std::fs::remove_file(&fifo).unwrap();
    }
}
