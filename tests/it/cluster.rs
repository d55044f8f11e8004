//! A private PostgreSQL for tests.
//!
//! Owns: initdb, start, kill -9, restart and databases. Never: touches a server it did not start, or listens on TCP. Invariant: the server
//! does not outlive the test process, however that ends: a watchdog holds its standard input open and stops the server when it closes.

use rustix::process::{Pid, Signal, geteuid, kill_process, test_kill_process};
use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, mpsc};
use std::time::{Duration, Instant};
use tallykeeper::store::NodeStore;
use tallykeeper::store::postgres::{Postgres, Settings};
use tokio::sync::OnceCell;

/// Longest wait for the server to accept connections.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Lines of the server's log kept for a failure's message.
const LOG_LINES: usize = 60;

/// Starts the server, reports its pid, and stops it when standard input closes. `$1` binaries, `$2` directory, `$3` whether to remove it.
const WATCHDOG: &str = r#"
trap '' INT TERM HUP
"$1/postgres" -D "$2/data" -k "$2" -c listen_addresses='' -c unix_socket_permissions=0777 -c max_connections=200 \
    -c log_min_messages=warning -c lc_messages=C >&2 </dev/null &
pid=$!
echo "$pid"
exec >/dev/null
read -r order
kill -QUIT "$pid" 2>/dev/null
wait "$pid"
[ "$order" = keep ] || rm -rf "$2"
"#;

/// A server of one's own, for tests that kill it.
pub(crate) struct Cluster {
    binaries: PathBuf,
    dir: PathBuf,
    server: Mutex<Option<Server>>,
    databases: AtomicU32,
    template: OnceCell<()>,
}

struct Server {
    pid: Pid,
    watchdog: Child,
    /// Closing it is the order to stop.
    stdin: Option<ChildStdin>,
}

/// The server all tests of this process share.
pub(crate) fn shared() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(Cluster::start)
}

/// A migrated database of one's own on the shared server.
pub(crate) async fn fresh_database() -> String {
    shared().fresh_database().await
}

impl Cluster {
    /// Makes and starts a server; panics with the reason if that fails.
    pub(crate) fn start() -> Cluster {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let binaries = find_binaries();
        let name = format!("tk-pg-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        // Sockets have short paths at most, so the directory is right under the temporary one.
        let dir = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).unwrap_or_else(|why| panic!("cannot create {}: {why}", dir.display()));
        if let Some((uid, gid)) = unprivileged() {
            std::os::unix::fs::chown(&dir, Some(uid), Some(gid)).expect("root may give a directory away");
        }
        init(&binaries, &dir);
        let cluster = Cluster {
            binaries,
            dir,
            server: Mutex::new(None),
            databases: AtomicU32::new(0),
            template: OnceCell::new(),
        };
        cluster.restart();
        cluster
    }

    /// URL of one of its databases.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://tally@/{database}?host={}", self.dir.display())
    }

    /// A program of the server's version, such as pg_dump.
    pub(crate) fn tool(&self, name: &str) -> Command {
        // What stands in the path may be a link to one program alone.
        let initdb = self.binaries.join("initdb").canonicalize().expect("it was found");
        Command::new(initdb.with_file_name(name))
    }

    /// Kills the server as a crash would: no shutdown, no checkpoint. Returns when its process is gone.
    pub(crate) fn kill(&self) {
        let mut server = self.server.lock().unwrap();
        let mut running = server.take().expect("the server runs");
        kill_process(running.pid, Signal::KILL).expect("our own server may be killed");
        running.stop("keep\n");
    }

    /// Starts the server again on the same data.
    pub(crate) fn restart(&self) {
        let mut server = self.server.lock().unwrap();
        assert!(server.is_none(), "the server already runs");
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            match launch(&self.binaries, &self.dir) {
                Ok(running) => {
                    *server = Some(running);
                    return;
                }
                // Backends of a killed server need a moment to notice; until then their shared memory keeps the next one out.
                Err(log) if log.contains("still in use") && Instant::now() < deadline => continue,
                Err(log) => panic!("postgres does not start:\n{log}"),
            }
        }
    }

    /// Stops the server and its backends as if the machine hung: it answers nothing, and nothing is closed.
    pub(crate) fn freeze(&self) {
        self.signal_all(Signal::STOP);
    }

    /// Lets a frozen server go on.
    pub(crate) fn thaw(&self) {
        self.signal_all(Signal::CONT);
    }

    fn signal_all(&self, signal: Signal) {
        let server = self.server.lock().unwrap();
        let postmaster = server.as_ref().expect("the server runs").pid;
        for pid in std::iter::once(postmaster).chain(children(postmaster)) {
            // A backend may end in between; the server itself is our own.
            let _ = kill_process(pid, signal);
        }
    }

    /// An empty database, not migrated.
    pub(crate) async fn empty_database(&self) -> String {
        let name = self.next_name();
        self.admin(&format!("CREATE DATABASE {name}")).await;
        self.url(&name)
    }

    /// A migrated database, copied from a template.
    pub(crate) async fn fresh_database(&self) -> String {
        self.template.get_or_init(|| self.make_template()).await;
        let name = self.next_name();
        self.admin(&format!("CREATE DATABASE {name} TEMPLATE migrated")).await;
        self.url(&name)
    }

    async fn make_template(&self) {
        self.admin("CREATE DATABASE migrated").await;
        let store = Postgres::connect(&self.url("migrated"), Settings::default())
            .await
            .expect("the template database answers");
        store.migrate().await.expect("migrations run on an empty database");
    }

    fn next_name(&self) -> String {
        format!("t{}", self.databases.fetch_add(1, Ordering::Relaxed))
    }

    async fn admin(&self, sql: &str) {
        connect(&self.url("postgres"))
            .await
            .batch_execute(sql)
            .await
            .unwrap_or_else(|why| panic!("{sql}: {why:?}"));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut running) = self.server.get_mut().unwrap().take() {
            running.stop("");
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Server {
    /// Tells the watchdog to end, and waits for it.
    fn stop(&mut self, order: &str) {
        use std::io::Write as _;
        if let Some(mut stdin) = self.stdin.take() {
            // The watchdog may be gone already; then there is nothing to tell.
            let _ = stdin.write_all(order.as_bytes());
        }
        self.watchdog.wait().expect("the watchdog is our child");
        debug_assert!(test_kill_process(self.pid).is_err(), "the server outlived its watchdog");
    }
}

/// Processes whose parent is the given one.
fn children(parent: Pid) -> Vec<Pid> {
    let listed = Command::new("ps")
        .args(["-o", "pid=", "--ppid", &parent.as_raw_nonzero().to_string()])
        .output()
        .expect("ps lists processes");
    String::from_utf8_lossy(&listed.stdout)
        .split_whitespace()
        .filter_map(|pid| Pid::from_raw(pid.parse().ok()?))
        .collect()
}

/// A plain connection beside the store, for what a test must see or do behind its back.
pub(crate) async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, link) = tokio_postgres::connect(url, tokio_postgres::NoTls)
        .await
        .unwrap_or_else(|why| panic!("{url}: {why:?}"));
    tokio::spawn(link);
    client
}

/// Returns once a session of this database waits for a lock; panics if none ever does.
pub(crate) async fn somebody_waits(db: &tokio_postgres::Client) {
    let waiting = "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) \
                   WHERE NOT l.granted AND a.datname = current_database()";
    let poll = async {
        while db.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(START_TIMEOUT, poll)
        .await
        .expect("nobody waits for a lock");
}

fn init(binaries: &Path, dir: &Path) {
    let made = as_unprivileged(Command::new(binaries.join("initdb")))
        .arg("-D")
        .arg(dir.join("data"))
        .args(["-U", "tally", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"])
        .current_dir(dir)
        .output()
        .unwrap_or_else(|why| panic!("cannot run initdb: {why}"));
    assert!(
        made.status.success(),
        "initdb failed:\n{}{}",
        String::from_utf8_lossy(&made.stdout),
        String::from_utf8_lossy(&made.stderr)
    );
}

/// Starts the watchdog and waits until the server accepts connections; the server's log if it does not.
fn launch(binaries: &Path, dir: &Path) -> Result<Server, String> {
    let mut watchdog = as_unprivileged(Command::new("/bin/sh"))
        .args(["-c", WATCHDOG, "watchdog"])
        .arg(binaries)
        .arg(dir)
        .current_dir(dir)
        // A group of its own: an interrupt from the terminal must not stop the watchdog before the server.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("/bin/sh runs");
    let log = follow(watchdog.stderr.take().expect("piped"));
    let mut line = String::new();
    BufReader::new(watchdog.stdout.take().expect("piped"))
        .read_line(&mut line)
        .expect("the watchdog reports a pid");
    let pid = line.trim().parse().ok().and_then(Pid::from_raw).expect("a pid");
    let mut server = Server {
        pid,
        stdin: watchdog.stdin.take(),
        watchdog,
    };
    match log.recv_timeout(START_TIMEOUT) {
        Ok(Event::Ready) => Ok(server),
        Ok(Event::Ended(text)) => {
            server.stop("keep\n");
            Err(text)
        }
        Err(_) => {
            server.stop("keep\n");
            Err(format!("not ready within {START_TIMEOUT:?}"))
        }
    }
}

enum Event {
    Ready,
    /// With the last lines of the log.
    Ended(String),
}

/// Reads the server's log to its end, so that the pipe never fills.
fn follow(stderr: std::process::ChildStderr) -> mpsc::Receiver<Event> {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let mut tail = VecDeque::new();
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if line.contains("ready to accept connections") {
                let _ = tell.send(Event::Ready);
            }
            // The server is on its way out; its watchdog would keep the pipe open.
            let refused = line.contains("FATAL:") && !line.contains("the database system is");
            tail.push_back(line);
            if tail.len() > LOG_LINES {
                tail.pop_front();
            }
            if refused {
                let _ = tell.send(Event::Ended(Vec::from_iter(tail.clone()).join("\n")));
            }
        }
        let _ = tell.send(Event::Ended(Vec::from(tail).join("\n")));
    });
    told
}

/// The directory of initdb and postgres, the newest version first.
fn find_binaries() -> PathBuf {
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .collect();
    versions.sort_by_key(|path| std::cmp::Reverse(version(path)));
    std::env::split_paths(&on_path)
        .chain(versions)
        .find(|dir| dir.join("initdb").is_file() && dir.join("postgres").is_file())
        .expect(
            "these tests need PostgreSQL 14 or newer: initdb and postgres are neither in PATH nor in /usr/lib/postgresql/*/bin \
             (Debian: apt install postgresql)",
        )
}

fn version(bin: &Path) -> u32 {
    bin.parent()
        .and_then(Path::file_name)
        .and_then(|name| name.to_str()?.parse().ok())
        .unwrap_or(0)
}

/// PostgreSQL refuses to run as root.
fn as_unprivileged(mut command: Command) -> Command {
    if let Some((uid, gid)) = unprivileged() {
        command.uid(uid).gid(gid);
    }
    command
}

/// Whom to run as: nobody in particular unless this is root.
fn unprivileged() -> Option<(u32, u32)> {
    if !geteuid().is_root() {
        return None;
    }
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let find = |name: &str| {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next()? == name).then_some(())?;
            Some((fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?))
        })
    };
    Some(find("nobody").or_else(|| find("postgres")).unwrap_or((65534, 65534)))
}
