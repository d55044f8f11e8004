//! The built program as real processes: nodes, workers and runs that can be killed.
//!
//! Owns: starting them, their signals and limits, and what they said. Never: calls one. Invariant: no process outlives its handle, and a test
//! that fails shows the last lines its node said.
#![allow(
    clippy::print_stderr,
    reason = "the log of a node belongs to the failure of its test"
)]

use crate::app::{Place, TempDir};
use crate::cluster;
pub(crate) use crate::plain_client::{Body, Client, Heard};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};
use std::collections::VecDeque;
use std::net::TcpListener;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};

/// Longest wait for a process to serve or to end, and for a call that insists. Only a failing test comes near it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at something that tells nobody when it changes.
pub(crate) const GLANCE: Duration = Duration::from_millis(10);
const LOG_LINES: usize = 60;
const PROGRAM: &str = env!("CARGO_BIN_EXE_tallykeeper");

/// Looks again and again until something is there.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let wait = Wait::begin();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        wait.a_moment(what).await;
    }
}

/// A bounded wait in a loop.
pub(crate) struct Wait(Instant);

impl Wait {
    pub(crate) fn begin() -> Wait {
        Wait(Instant::now() + PATIENCE)
    }

    /// Lets a moment pass; panics when there were too many.
    pub(crate) async fn a_moment(&self, what: &str) {
        assert!(Instant::now() < self.0, "waited in vain: {what}");
        tokio::time::sleep(GLANCE).await;
    }
}

/// How to start the same node again and again.
#[derive(Clone)]
pub(crate) struct Launch {
    pub(crate) place: Place,
    /// Working directory, so that no settings file of this repository is read.
    dir: Arc<TempDir>,
    pub(crate) node_id: String,
    port: u16,
    settings: Vec<(String, String)>,
    /// What a shell does before the program takes its place.
    before: &'static str,
}

impl Launch {
    pub(crate) fn new(place: Place) -> Launch {
        Launch {
            place,
            dir: Arc::new(TempDir::new()),
            node_id: "node-under-test".into(),
            port: free_port(),
            settings: Vec::new(),
            before: "",
        }
    }

    /// Another node on the same store.
    pub(crate) fn sibling(&self, node_id: &str) -> Launch {
        Launch {
            node_id: node_id.into(),
            port: free_port(),
            ..self.clone()
        }
    }

    /// A setting by its name in the environment, without the prefix.
    pub(crate) fn set(mut self, name: &str, value: impl ToString) -> Launch {
        self.settings.push((format!("TALLYKEEPER_{name}"), value.to_string()));
        self
    }

    /// A variable of the environment that is no setting.
    pub(crate) fn env(mut self, name: &str, value: impl ToString) -> Launch {
        self.settings.push((name.into(), value.to_string()));
        self
    }

    /// Has a shell do something before the program takes its place.
    pub(crate) fn after(mut self, before: &'static str) -> Launch {
        self.before = before;
        self
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn dir(&self) -> &std::path::Path {
        &self.dir.0
    }

    /// The store as `--store` takes it.
    pub(crate) fn store(&self) -> String {
        match &self.place {
            Place::Sqlite(dir) => format!("sqlite:{}", dir.0.join("tally.db").display()),
            Place::Postgres(url) => url.clone(),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.url())
    }

    /// The program with nothing of this process' environment but the path.
    pub(crate) fn program(&self) -> Command {
        // Whoever runs the tests in the background, or under nohup, ignores signals that a program started by hand would hear.
        let mut program = Command::new("/usr/bin/env");
        program.arg("--default-signal=HUP,INT,QUIT");
        match self.before {
            "" => program.arg(PROGRAM),
            before => program.args(["/bin/sh", "-c", &format!("{before}; exec \"$0\" \"$@\""), PROGRAM]),
        };
        program
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("TALLYKEEPER_LOG", "info")
            .envs(self.settings.iter().cloned())
            .current_dir(&self.dir.0)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        program
    }

    /// Starts the node; returns once it says that it listens.
    pub(crate) async fn start(&self) -> Process {
        match self.try_start().await {
            Ok(node) => node,
            Err((status, log)) => panic!("the node does not start, {status}:\n{log}"),
        }
    }

    /// Starts the node; its exit status and log if it ends before it listens.
    pub(crate) async fn try_start(&self) -> Result<Process, (ExitStatus, String)> {
        let mut program = self.program();
        program
            .args(["serve", "--store", &self.store(), "--node-id", &self.node_id])
            .args(["--listen", &format!("127.0.0.1:{}", self.port)]);
        let mut node = Process::spawn(program);
        let said = until("the node listens or ends", async || {
            let first = node.said.lock().unwrap().front().cloned();
            first
                .map(Ok)
                .or_else(|| node.child.try_wait().expect("our child").map(Err))
        });
        match said.await {
            Ok(line) => {
                assert_eq!(line, format!("listening on {}", self.url()));
                Ok(node)
            }
            Err(status) => Err((status, node.whole_log().await)),
        }
    }

    /// A look into the store's tables behind the node's back; on SQLite only while no node has it open.
    pub(crate) async fn count(&self, sql: &str) -> i64 {
        match &self.place {
            Place::Sqlite(dir) => {
                let db = rusqlite::Connection::open(dir.0.join("tally.db")).expect("the database opens");
                db.query_row(sql, [], |row| row.get(0))
                    .unwrap_or_else(|why| panic!("{sql}: {why}"))
            }
            Place::Postgres(url) => {
                let row = cluster::connect(url).await.query_one(sql, &[]).await;
                row.unwrap_or_else(|why| panic!("{sql}: {why:?}")).get(0)
            }
        }
    }
}

/// A port that is free, below those from which the system picks for outgoing connections: it stays free while its node is dead.
fn free_port() -> u16 {
    (0..1000)
        .map(|_| 10_000 + rand::random::<u16>() % 20_000)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("some port is free")
}

/// A process of the program.
pub(crate) struct Process {
    child: Child,
    pid: Pid,
    said: Arc<Mutex<VecDeque<String>>>,
    logged: Arc<Mutex<VecDeque<String>>>,
    logged_all: Option<tokio::task::JoinHandle<()>>,
}

impl Process {
    pub(crate) fn spawn(mut program: Command) -> Process {
        let mut child = program
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let pid = child
            .id()
            .and_then(|id| Pid::from_raw(id as i32))
            .expect("it has not ended");
        let (said, logged) = (Arc::default(), Arc::default());
        tokio::spawn(keep(child.stdout.take().expect("piped"), Arc::clone(&said)));
        let logged_all = tokio::spawn(keep(child.stderr.take().expect("piped"), Arc::clone(&logged)));
        Process {
            child,
            pid,
            said,
            logged,
            logged_all: Some(logged_all),
        }
    }

    /// kill -9. Returns when the process is gone.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.expect("our own child may be killed");
    }

    /// Asks it to end; answers how it did.
    pub(crate) async fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended().await
    }

    /// The longest that a file of it may become from now on; none: as long as before.
    pub(crate) fn limit_files(&self, bytes: Option<u64>) {
        let maximum = getrlimit(Resource::Fsize).maximum;
        let limit = Rlimit {
            current: bytes.or(maximum),
            maximum,
        };
        prlimit(Some(self.pid), Resource::Fsize, limit).expect("our own child takes limits");
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).expect("our own child takes signals");
    }

    async fn ended(&mut self) -> ExitStatus {
        self.ended_within(PATIENCE).await
    }

    pub(crate) async fn ended_within(&mut self, patience: Duration) -> ExitStatus {
        let ended = tokio::time::timeout(patience, self.child.wait()).await;
        ended.expect("the process ends").expect("our child")
    }

    /// The last lines on standard error, once it has closed it.
    pub(crate) async fn whole_log(&mut self) -> String {
        let read = self.logged_all.take().expect("taken once");
        tokio::time::timeout(PATIENCE, read)
            .await
            .expect("it ends")
            .expect("the reader ends");
        self.log()
    }

    /// The last lines on standard error.
    pub(crate) fn log(&self) -> String {
        Vec::from_iter(self.logged.lock().unwrap().iter().cloned()).join("\n")
    }

    /// Peak of the memory it had resident, in bytes.
    pub(crate) fn peak_bytes(&self) -> u64 {
        self.memory("VmHWM:")
    }

    /// The memory it has resident now, in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.memory("VmRSS:")
    }

    fn memory(&self, what: &str) -> u64 {
        let path = format!("/proc/{}/status", self.pid.as_raw_nonzero());
        let status = std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{path}: {why}"));
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(what))
            .expect("the figure is there");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number of kB");
        kib * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "--- the last lines of process {}:\n{}",
                self.pid.as_raw_nonzero(),
                self.log()
            );
        }
    }
}

/// Reads to the end, so that the pipe never fills. Keeps the first line and the last ones.
async fn keep(from: impl AsyncRead + Unpin, lines: Arc<Mutex<VecDeque<String>>>) {
    let mut from = BufReader::new(from).lines();
    while let Ok(Some(line)) = from.next_line().await {
        let mut lines = lines.lock().unwrap();
        lines.push_back(line);
        if lines.len() > LOG_LINES {
            lines.remove(1);
        }
    }
}
