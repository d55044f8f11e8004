//! `run`, by the real program: its tally, its exit codes, and going on after it was interrupted or killed.
//!
//! Owns: processes and a directory per test. Never: waits for a time; a fifo that the commands write to says how far they are. Invariant:
//! no process of a test outlives it.

use crate::scratch::Scratch;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

struct Runner {
    _scratch: Scratch,
    directory: PathBuf,
}

impl Runner {
    fn new() -> Self {
        let scratch = Scratch::new();
        let directory = scratch
            .path()
            .parent()
            .expect("the store lies in a directory")
            .to_owned();
        Runner {
            _scratch: scratch,
            directory,
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tallykeeper"));
        command.args(arguments).current_dir(&self.directory);
        for name in [
            "TALLYKEEPER_STORE",
            "TALLYKEEPER_SERVER",
            "TALLYKEEPER_TOKEN",
            "TALLYKEEPER_LOG",
        ] {
            command.env_remove(name);
        }
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn start(&self, items: &str, arguments: &[&str]) -> Child {
        let mut child = self.command(arguments).spawn().expect("the program is built");
        let mut stdin = child.stdin.take().expect("stdin is piped");
        // A program that refuses its arguments reads nothing.
        let _ = stdin.write_all(items.as_bytes());
        child
    }

    fn run(&self, items: &str, arguments: &[&str]) -> Ran {
        let child = self.start(items, arguments);
        Ran::from(child.wait_with_output().expect("it can be waited for"))
    }

    /// A fifo that stays open for reading, so that writers never wait for a reader and it never reads as ended.
    fn fifo(&self, name: &str) -> BufReader<File> {
        let path = self.directory.join(name);
        assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo").success());
        BufReader::new(
            OpenOptions::new()
                .read(true)
                .write(true)
                .open(path)
                .expect("the fifo opens"),
        )
    }
}

struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Ran {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("text"),
            stderr: String::from_utf8(output.stderr).expect("text"),
        }
    }
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn every_line_is_one_task_and_success_exits_with_zero() {
    let runner = Runner::new();
    let ran = runner.run(
        "a\nsame\nsame\nx y; exit 3\n",
        &["run", "-j", "3", "--", "echo", "<{}>"],
    );
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(sorted(&ran.stdout), ["<a>", "<same>", "<same>", "<x y; exit 3>"]);
    assert!(ran.stderr.contains("4 tasks: 4 succeeded, 0 failed"), "{}", ran.stderr);
}

#[test]
fn a_failing_command_exits_with_one_and_is_named() {
    let runner = Runner::new();
    let script = [
        "run",
        "-q",
        "--",
        "sh",
        "-c",
        "echo $1; echo why >&2; [ $1 != 2 ]",
        "sh",
        "{}",
    ];
    let ran = runner.run("1\n2\n3\n", &script);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("item 2 (2) failed: exit code 1: why"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("3 tasks: 2 succeeded, 1 failed"), "{}", ran.stderr);
}

#[test]
fn resuming_a_run_that_failed_does_what_failed_again() {
    let runner = Runner::new();
    let command = ["--", "sh", "-c", "echo $1; [ $1 != 2 ] || [ -e go ]", "sh", "{}"];
    let run = |options: &[&'static str]| runner.run("1\n2\n3\n", &[&["run"], options, &command].concat());
    assert_eq!(run(&[]).code, Some(1));
    let again = run(&["--resume"]);
    assert_eq!(
        (again.code, again.stdout.as_str()),
        (Some(1), "2\n"),
        "{}",
        again.stderr
    );
    let_go(&runner.directory);
    let mended = run(&["--resume"]);
    assert_eq!(
        (mended.code, mended.stdout.as_str()),
        (Some(0), "2\n"),
        "{}",
        mended.stderr
    );
    assert!(
        mended.stderr.contains("3 tasks: 3 succeeded, 0 failed"),
        "{}",
        mended.stderr
    );
    // All is done now: saying so is all there is to do.
    let over = run(&["--resume"]);
    assert_eq!((over.code, over.stdout.as_str()), (Some(0), ""), "{}", over.stderr);
    assert!(over.stderr.contains("is finished already"), "{}", over.stderr);
}

#[test]
fn a_resumed_run_says_that_it_keeps_its_retries() {
    let runner = Runner::new();
    let command = ["--", "false"];
    let run = |options: &[&'static str]| runner.run("1\n", &[&["run"], options, &command].concat()).stderr;
    run(&["--retries", "1"]);
    let kept = "keeps --retries 1, with which it was started";
    assert!(run(&["--resume", "--retries", "3"]).contains(kept));
    for same in [&["--resume", "--retries", "1"][..], &["--resume"]] {
        let stderr = run(same);
        assert!(!stderr.contains("keeps --retries"), "{stderr}");
    }
}

#[test]
fn output_that_cannot_be_written_is_no_success() {
    let runner = Runner::new();
    let run = |stdout: Stdio, options: &[&str]| {
        let mut command = runner.command(&[&["run"], options, &["--", "echo"]].concat());
        let mut child = command.stdout(stdout).spawn().expect("the program is built");
        let mut stdin = child.stdin.take().expect("stdin is piped");
        stdin.write_all(b"1\n2\n3\n").expect("it reads");
        drop(stdin);
        Ran::from(child.wait_with_output().expect("it can be waited for"))
    };
    let full = || OpenOptions::new().write(true).open("/dev/full").expect("there is one");
    let ran = run(full().into(), &[]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stderr.contains("3 tasks: 3 succeeded, 0 failed"), "{}", ran.stderr);
    assert!(ran.stderr.contains("cannot write to standard output"), "{}", ran.stderr);
    // Nothing was to be written, or whoever reads has had enough.
    assert_eq!(run(full().into(), &["-q"]).code, Some(0));
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    assert_eq!(run(writer.into(), &[]).code, Some(0));
}

#[test]
fn a_retry_gets_a_failing_command_through() {
    let runner = Runner::new();
    let ran = runner.run(
        "1\n",
        &["run", "--retries", "1", "--", "sh", "-c", "mkdir made && exit 1; true"],
    );
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
}

#[test]
fn wrong_usage_exits_with_two() {
    let runner = Runner::new();
    for arguments in [
        &["run"][..],
        &["run", "--", ""],
        &["run", "--store", "nowhere", "--", "true"],
    ] {
        let ran = runner.run("1\n", arguments);
        assert_eq!(
            (ran.code, ran.stdout.as_str()),
            (Some(2), ""),
            "{arguments:?} {}",
            ran.stderr
        );
    }
    assert!(!runner.directory.join("tallykeeper.db").exists());
}

/// Says in `started` that it runs, and from the third item on waits until a file `go` is there.
const SCRIPT: &str = "echo $1 > started; if [ $1 -ge 3 ]; then until [ -e go ]; do sleep 0.05; done; fi; echo $1";
const COMMAND: [&str; 6] = ["--", "sh", "-c", SCRIPT, "sh", "{}"];
const ITEMS: &str = "1\n2\n3\n4\n5\n6\n";

fn arguments(options: &[&'static str]) -> Vec<&'static str> {
    [&["run", "-j", "2"], options, &COMMAND].concat()
}

/// Returns once both workers are at an item that waits; what came before is acknowledged then.
fn until_both_wait(started: &mut impl BufRead) {
    let mut waiting = 0;
    while waiting < 2 {
        let mut line = String::new();
        started.read_line(&mut line).expect("the fifo reads");
        waiting += usize::from(line.trim().parse::<u32>().expect("an item") >= 3);
    }
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(child.id() as i32).expect("a process has a number");
    kill_process(pid, signal).expect("it was not waited for yet");
}

fn let_go(directory: &Path) {
    File::create(directory.join("go")).expect("the directory is writable");
}

/// The first two lines are done, and the others are not.
fn assert_resumes_the_rest(runner: &Runner) {
    let resumed = runner.run(ITEMS, &arguments(&["--resume"]));
    assert_eq!(resumed.code, Some(0), "{}", resumed.stderr);
    // Neither done twice nor left out; nothing was spent by the interruption, since one attempt is all there is.
    assert_eq!(sorted(&resumed.stdout), ["3", "4", "5", "6"]);
    assert!(
        resumed.stderr.contains("6 tasks: 6 succeeded, 0 failed"),
        "{}",
        resumed.stderr
    );
}

#[test]
fn an_interrupted_run_gives_its_tasks_back_and_resumes() {
    let runner = Runner::new();
    let mut started = runner.fifo("started");
    let child = runner.start(ITEMS, &arguments(&["--grace-s", "0"]));
    until_both_wait(&mut started);
    signal(&child, Signal::INT);
    let interrupted = Ran::from(child.wait_with_output().expect("it can be waited for"));
    assert_eq!(interrupted.code, Some(130), "{}", interrupted.stderr);
    assert!(
        interrupted.stderr.contains("6 tasks: 2 succeeded, 0 failed"),
        "{}",
        interrupted.stderr
    );
    assert_eq!(sorted(&interrupted.stdout), ["1", "2"]);
    let_go(&runner.directory);
    assert_resumes_the_rest(&runner);
}

#[test]
fn a_killed_run_resumes_without_repeating_what_was_acknowledged() {
    let runner = Runner::new();
    let mut started = runner.fifo("started");
    let mut child = runner.start(ITEMS, &arguments(&[]));
    until_both_wait(&mut started);
    child.kill().expect("it was not waited for yet");
    child.wait().expect("it can be waited for");
    let_go(&runner.directory);
    assert_resumes_the_rest(&runner);
}

#[test]
fn a_store_in_use_is_refused_with_its_name() {
    let runner = Runner::new();
    let mut started = runner.fifo("started");
    let child = runner.start(ITEMS, &arguments(&[]));
    until_both_wait(&mut started);
    let second = runner.run("1\n", &["run", "--", "true"]);
    assert_eq!(second.code, Some(1));
    assert!(
        second.stderr.contains("is in use by another process"),
        "{}",
        second.stderr
    );
    let_go(&runner.directory);
    let first = Ran::from(child.wait_with_output().expect("it can be waited for"));
    assert_eq!(first.code, Some(0), "{}", first.stderr);
}

#[test]
fn a_wrong_line_is_wrong_usage() {
    let runner = Runner::new();
    // Read before anything is asked of a server, which does not exist.
    let server = ["--server", "http://127.0.0.1:9"];
    let arguments = [&["submit", "--name", "n", "--queue", "q"][..], &server].concat();
    for line in ["{\"n\":1}\nnot JSON\n", "\u{0}\n"] {
        let ran = runner.run(line, &arguments);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{}", ran.stderr);
        assert!(ran.stderr.contains("is not JSON"), "{}", ran.stderr);
    }
}

#[test]
fn nothing_is_made_for_a_node_that_cannot_start() {
    let runner = Runner::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    let ran = runner.run("", &["serve", "--listen", &address, "--store", "sqlite:./never.db"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(
        ran.stderr.contains(&format!("cannot listen on {address}")),
        "{}",
        ran.stderr
    );
    std::fs::create_dir(runner.directory.join("folder")).expect("a new directory");
    let ran = runner.run("", &["serve", "--listen", "127.0.0.1:0", "--store", "sqlite:./folder"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stderr.contains("folder is a directory"), "{}", ran.stderr);
    let mut left: Vec<_> = std::fs::read_dir(&runner.directory)
        .expect("the directory is there")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
        .collect();
    left.sort();
    assert_eq!(left, ["folder"]);
}
