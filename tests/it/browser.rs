//! A headless Chromium, driven over WebDriver: JSON over HTTP, spoken directly.
//!
//! Owns: the driver's and the browser's processes, their profile, and waiting for what a page shows. Never: knows the page. Invariant:
//! a browser is gone with its handle, and where Chromium is missing a test fails and says what to install.

use crate::app::TempDir;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Longest wait for something on a page. Only a failing test comes near it.
const PATIENCE_MS: u64 = 60_000;

/// The keys tests press, as WebDriver names them.
pub(crate) const TAB: &str = "\u{e004}";
pub(crate) const ENTER: &str = "\u{e007}";
pub(crate) const ESCAPE: &str = "\u{e00c}";

/// One browser window with an empty profile.
pub(crate) struct Browser {
    driver: Child,
    port: u16,
    session: String,
    client: reqwest::Client,
    dir: TempDir,
}

impl Browser {
    pub(crate) async fn open(width: u32, height: u32) -> Browser {
        let chromium = program(&["chromium", "chromium-browser", "google-chrome"]);
        let mut driver = Command::new(program(&["chromedriver"]))
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver starts");
        let port = port_of(&mut driver);
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .timeout(Duration::from_millis(2 * PATIENCE_MS))
            .build();
        let mut browser = Browser {
            driver,
            port,
            session: String::new(),
            client: client.expect("a client can be made"),
            dir: TempDir::new(),
        };
        let profile = browser.dir.0.join("profile");
        let args = json!([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            format!("--user-data-dir={}", profile.display()),
            format!("--window-size={width},{height}"),
        ]);
        let capabilities = json!({"capabilities": {"alwaysMatch": {
            "goog:loggingPrefs": {"browser": "ALL"},
            "goog:chromeOptions": {"binary": chromium, "args": args},
        }}});
        let made = browser.ask("POST", "/session", capabilities).await;
        browser.session = made["sessionId"].as_str().expect("a session has an id").to_owned();
        browser.post("/timeouts", json!({"script": PATIENCE_MS})).await;
        // The window's size counts its frame; a page at phone width has to be told.
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        browser.devtools("Emulation.setDeviceMetricsOverride", metrics).await;
        browser
    }

    async fn ask(&self, method: &str, path: &str, body: Value) -> Value {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let mut request = self.client.request(method.parse().unwrap(), url);
        if method == "POST" {
            request = request.json(&body);
        }
        let response = request.send().await.expect("the driver answers");
        let status = response.status();
        let mut answer: Value = response.json().await.expect("the driver speaks JSON");
        assert!(
            status.is_success(),
            "{method} {path} {body}: {}",
            answer["value"]["message"]
        );
        answer["value"].take()
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        self.ask("POST", &format!("/session/{}{path}", self.session), body)
            .await
    }

    async fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.post("/goog/cdp/execute", json!({"cmd": command, "params": parameters}))
            .await
    }

    /// From here on the page is told that its reader likes it dark.
    pub(crate) async fn prefer_dark(&self) {
        let features = json!([{"name": "prefers-color-scheme", "value": "dark"}]);
        self.devtools("Emulation.setEmulatedMedia", json!({"features": features}))
            .await;
    }

    pub(crate) async fn go(&self, url: &str) {
        self.post("/url", json!({"url": url})).await;
    }

    /// Runs the body of a function in the page; answers what it returns.
    pub(crate) async fn js(&self, body: &str) -> Value {
        self.post("/execute/sync", json!({"script": body, "args": []})).await
    }

    /// Waits in the page until an expression is truthy; answers its value.
    pub(crate) async fn until(&self, expression: &str) -> Value {
        let script = format!(
            "const done = arguments[0]; \
             const look = () => {{ let found = null; try {{ found = {expression}; }} catch {{ }} \
             if (found) done(found); else setTimeout(look, 20); }}; look();"
        );
        let path = format!("/session/{}/execute/async", self.session);
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let request = self.client.post(url).json(&json!({"script": script, "args": []}));
        let response = request.send().await.expect("the driver answers");
        let status = response.status();
        let mut answer: Value = response.json().await.expect("the driver speaks JSON");
        if !status.is_success() {
            let shown = self.js("return document.body.innerText").await;
            panic!(
                "waited in vain for {expression}; the page shows:\n{}",
                shown.as_str().unwrap_or("")
            );
        }
        answer["value"].take()
    }

    /// Clicks what a selector finds, with the mouse, once it is there.
    pub(crate) async fn click(&self, selector: &str) {
        self.until(&format!("document.querySelector({})", json!(selector)))
            .await;
        let found = self
            .post("/element", json!({"using": "css selector", "value": selector}))
            .await;
        let id = found
            .as_object()
            .and_then(|ids| ids.values().next())
            .and_then(Value::as_str);
        let id = id.expect("an element has an id");
        self.post(&format!("/element/{id}/click"), json!({})).await;
    }

    /// Presses keys one after another, wherever the focus is.
    pub(crate) async fn press(&self, keys: &str) {
        let strokes: Vec<Value> = keys
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({"type": kind, "value": key.to_string()})))
            .collect();
        self.post(
            "/actions",
            json!({"actions": [{"type": "key", "id": "keys", "actions": strokes}]}),
        )
        .await;
    }

    /// What the console said since it was last asked: (level, message).
    pub(crate) async fn console(&self) -> Vec<(String, String)> {
        let lines = self.post("/se/log", json!({"type": "browser"})).await;
        let text = |line: &Value, name: &str| line[name].as_str().unwrap_or("").to_owned();
        let lines = lines.as_array().expect("a log is a list").iter();
        lines.map(|line| (text(line, "level"), text(line, "message"))).collect()
    }

    /// Fails if the console holds an error or a warning.
    pub(crate) async fn expect_quiet_console(&self) {
        let console = self.console().await;
        let loud: Vec<_> = console
            .iter()
            .filter(|(level, _)| level == "SEVERE" || level == "WARNING")
            .collect();
        assert!(loud.is_empty(), "{loud:#?}");
    }

    /// A picture of the whole page. It is kept where `TALLYKEEPER_TEST_PICTURES` names a directory, else with the test's own files.
    pub(crate) async fn picture(&self, name: &str) {
        let size = self
            .js("return [document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
            .await;
        let clip = json!({"x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1});
        let shot = json!({"format": "png", "captureBeyondViewport": true, "clip": clip});
        let shot = self.devtools("Page.captureScreenshot", shot).await;
        let bytes = decode(shot["data"].as_str().expect("a picture is text"));
        assert_eq!(&bytes[..4], b"\x89PNG");
        let dir = std::env::var_os("TALLYKEEPER_TEST_PICTURES").map_or_else(|| self.dir.0.clone(), PathBuf::from);
        std::fs::write(dir.join(format!("{name}.png")), bytes).expect("the picture can be written");
    }

    /// Nothing on the page is wider than the window.
    pub(crate) async fn expect_no_sideways_scroll(&self) {
        let wide = self
            .js("return [document.documentElement.scrollWidth, innerWidth]")
            .await;
        assert!(
            wide[0].as_f64() <= wide[1].as_f64(),
            "the page is wider than its window: {wide}"
        );
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The browser is the driver's to close; killing the driver first would leave it behind.
        if let Ok(mut line) = TcpStream::connect(("127.0.0.1", self.port)) {
            let _ = line.set_read_timeout(Some(Duration::from_secs(10)));
            let ask = format!(
                "DELETE /session/{} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n",
                self.session
            );
            let _ = line.write_all(ask.as_bytes());
            let _ = line.read(&mut [0; 512]);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

fn program(names: &[&str]) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .find_map(|dir| names.iter().map(|name| dir.join(name)).find(|file| file.is_file()));
    found.unwrap_or_else(|| {
        panic!(
            "none of {names:?} is in PATH: the tests of the page need Chromium and its driver (Debian: apt-get install chromium \
             chromium-driver; tests/run does it)"
        )
    })
}

/// The port that the driver says it took.
fn port_of(driver: &mut Child) -> u16 {
    let mut said = BufReader::new(driver.stdout.take().expect("stdout is piped")).lines();
    let port = said.by_ref().map_while(Result::ok).find_map(|line| {
        let rest = line.split("on port ").nth(1)?;
        rest.trim_end_matches('.').parse().ok().filter(|&port| port != 0)
    });
    // What it says later has to go somewhere, or the pipe fills.
    std::thread::spawn(move || said.for_each(drop));
    port.expect("chromedriver says which port it took")
}

/// Base64, as pictures come.
fn decode(text: &str) -> Vec<u8> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let digits: Vec<u32> = text
        .bytes()
        .filter(|&byte| byte != b'=')
        .map(|byte| u32::from(value(byte)))
        .collect();
    let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
    for group in digits.chunks(4) {
        let bits = group.iter().fold(0, |bits, digit| bits << 6 | digit) << (6 * (4 - group.len()));
        bytes.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    bytes
}
