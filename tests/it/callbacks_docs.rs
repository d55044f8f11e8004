//! The receiver that `docs/callbacks.md` offers to copy, against a node and the command line.
//!
//! Owns: that what is documented works. Never: repeats the receiver. Invariant: the program that runs is the text of the document.

use crate::app::Place;
use crate::callbacks_receiver::{OTHER_SECRET, SECRET};
use crate::process::{Launch, PATIENCE};
use serde_json::Value;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

const DOCUMENT: &str = include_str!("../../docs/callbacks.md");

/// Starts the documented receiver on a port of its own.
fn receiver(port: u16, secret: &str) -> Child {
    let (_, rest) = DOCUMENT.split_once("```python\n").expect("the document has a receiver");
    let (program, _) = rest.split_once("```").expect("it ends");
    let program = program.replace("9000", &port.to_string());
    assert!(program.contains(&port.to_string()), "{program}");
    Command::new("python3")
        .args(["-c", &program])
        .env("SECRET", secret)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("python runs")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documented_receiver_takes_what_a_node_sends_and_nothing_else() {
    let launch = Launch::new(Place::sqlite())
        .set("CALLBACKS__SECRETS", format!("{OTHER_SECRET},{SECRET}"))
        .set("CALLBACKS__ALLOW", "127.0.0.1")
        .set("CALLBACKS__RETRY_FIRST_S", 1);
    let mut node = launch.start().await;
    let port = Launch::new(Place::sqlite()).port();
    let url = format!("http://127.0.0.1:{port}/hook");
    let mut submit = launch.program();
    submit.args(["submit", "--server", &launch.url(), "--name", "n", "--queue", "q"]);
    let submitted = submit.args(["--callback-url", &url]).output();
    let submitted = submitted.await.expect("the program runs");
    assert!(submitted.status.success(), "{submitted:?}");
    let job: i64 = String::from_utf8_lossy(&submitted.stdout)
        .trim()
        .parse()
        .expect("a number");
    // The node calls until somebody is there.
    let mut there = receiver(port, SECRET);
    let mut lines = BufReader::new(there.stdout.take().expect("piped")).lines();
    let line = timeout(PATIENCE, lines.next_line())
        .await
        .expect("it is called in time");
    let said: Value = serde_json::from_str(&line.expect("text").expect("a line")).expect("a call's body");
    assert_eq!(said["type"], "job.completed");
    assert_eq!(
        (&said["data"]["id"], &said["data"]["state"]),
        (&job.into(), &"succeeded".into())
    );
    let forged = reqwest::Client::new()
        .post(&url)
        .header("webhook-id", said["id"].as_str().expect("text"))
        .header("webhook-timestamp", "1700000000")
        .header("webhook-signature", "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=")
        .body("{}");
    assert_eq!(forged.send().await.expect("an answer").status(), 401);
    let shown = crate::process::until("it is shown as delivered", async || {
        let mut show = launch.program();
        show.args(["show", "--server", &launch.url(), &job.to_string()]);
        let shown = show.output().await.expect("the program runs");
        let text = String::from_utf8_lossy(&shown.stdout).into_owned();
        text.contains("callback  delivered").then_some(text)
    })
    .await;
    assert!(
        shown.contains(&format!("callback  delivered to {url} after ")),
        "{shown}"
    );
    assert!(node.terminate().await.success());
}
