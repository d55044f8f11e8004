//! The image pipeline of `examples/images`, run as its readers run it.
//!
//! Owns: that it ends exactly, disturbed or not. Never: installs Pillow (`tests/run` does). Invariant: what it prints is the last word: it
//! compares what was kept and counted with what was drawn.

use std::path::Path;
use std::time::Duration;
use tokio::process::Command;

/// Runs the example; answers what it printed.
async fn run(options: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/images/run");
    let mut example = Command::new(script);
    example
        .args(options)
        .kill_on_drop(true)
        .env("TALLYKEEPER", env!("CARGO_BIN_EXE_tallykeeper"));
    let ended = tokio::time::timeout(Duration::from_secs(240), example.output()).await;
    let output = ended.expect("the example ends").expect("it starts");
    let (said, complained) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{}\n{said}\n{complained}", output.status);
    said.into_owned()
}

#[tokio::test]
async fn the_image_pipeline_counts_every_moth() {
    let said = run(&["--images", "40", "--workers", "2"]).await;
    assert!(said.contains("the page is at http://127.0.0.1:"), "{said}");
    assert!(
        said.contains("40 of 40 images") && said.contains("; 0 images were handed out again"),
        "{said}"
    );
    assert!(said.contains(": exact"), "{said}");
}

#[tokio::test]
async fn the_image_pipeline_counts_every_moth_though_one_worker_is_killed_and_one_sleeps() {
    let said = run(&["--images", "120", "--workers", "3", "--chaos"]).await;
    assert!(
        said.contains("killed a worker") && said.contains("woke it up: it posted duplicate"),
        "{said}"
    );
    assert!(
        !said.contains("; 0 images were handed out again"),
        "what the two held came back: {said}"
    );
    assert!(said.contains("120 of 120 images") && said.contains(": exact"), "{said}");
}
