//! Headless Chromium through chromedriver: W3C WebDriver is a few JSON calls over HTTP.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use base64::Engine;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

const DEADLINE: Duration = Duration::from_secs(20);

/// A browser window. Close it: the driver ends when this is dropped, the browser does not.
pub struct Browser {
    _driver: Child,
    session: String,
    client: reqwest::Client,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// `None` where chromedriver is not installed.
    pub async fn start() -> Option<Self> {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .ok()?;
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = loop {
            let line = lines.next_line().await.unwrap().expect("chromedriver ended");
            if let Some((_, port)) = line.split_once("started successfully on port ") {
                break port.trim_end_matches('.').to_owned();
            }
        };
        let profile = tempfile::tempdir().unwrap();
        let mut arguments: Vec<String> = [
            "headless",
            "no-sandbox",
            "disable-gpu",
            "disable-quic",
            "no-first-run",
        ]
        .iter()
        .chain(&[
            "disable-background-networking",
            "disable-component-update",
            "disable-sync",
        ])
        .chain(&["disable-dev-shm-usage", "hide-scrollbars"])
        .map(|flag| format!("--{flag}"))
        .collect();
        arguments.push(format!("--user-data-dir={}", profile.path().display()));
        let capabilities = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let client = testkit::http();
        let base = format!("http://127.0.0.1:{port}/session");
        let answer: Value = client
            .post(&base)
            .json(&capabilities)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        let id = answer["value"]["sessionId"]
            .as_str()
            .unwrap_or_else(|| panic!("no session: {answer}"));
        Some(Self {
            _driver: driver,
            session: format!("{base}/{id}"),
            client,
            _profile: profile,
        })
    }

    async fn call(&self, path: &str, body: Value) -> Value {
        let url = format!("{}/{path}", self.session);
        let answer: Value = self
            .client
            .post(url)
            .json(&body)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        assert!(answer["value"]["error"].is_null(), "{path}: {answer}");
        answer["value"].clone()
    }

    async fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.call("goog/cdp/execute", json!({"cmd": command, "params": parameters}))
            .await
    }

    pub async fn open(&self, url: &str) {
        self.call("url", json!({"url": url})).await;
    }

    /// Runs a function body in the page and gives what it returns.
    pub async fn run(&self, script: &str) -> Value {
        self.call("execute/sync", json!({"script": script, "args": []}))
            .await
    }

    /// Waits until the expression is true in the page.
    pub async fn until(&self, expression: &str) {
        let start = Instant::now();
        while self.run(&format!("return !!({expression})")).await != json!(true) {
            if start.elapsed() > DEADLINE {
                let text = self.run("return document.body.innerText").await;
                panic!("`{expression}` did not come true; the page says: {text}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub async fn size(&self, width: u32, height: u32) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500});
        self.devtools("Emulation.setDeviceMetricsOverride", size).await;
    }

    pub async fn scheme(&self, scheme: &str) {
        let feature = json!({"name": "prefers-color-scheme", "value": scheme});
        self.devtools("Emulation.setEmulatedMedia", json!({"features": [feature]}))
            .await;
    }

    /// A picture of the page from its top, as high as it is, at most `height`.
    pub async fn screenshot(&self, file: &Path, width: u32, height: u32) {
        let clip = json!({"x": 0, "y": 0, "width": width, "height": height, "scale": 1});
        let options = json!({"format": "png", "captureBeyondViewport": true, "clip": clip});
        let picture = self.devtools("Page.captureScreenshot", options).await;
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(picture["data"].as_str().unwrap())
            .unwrap();
        std::fs::write(file, bytes).unwrap();
        println!("screenshot {}", file.display());
    }

    /// What the console said since the last call, errors only.
    pub async fn console_errors(&self) -> Vec<String> {
        let entries = self.call("se/log", json!({"type": "browser"})).await;
        let severe = |entry: &&Value| entry["level"] == "SEVERE";
        entries
            .as_array()
            .unwrap()
            .iter()
            .filter(severe)
            .map(|entry| entry["message"].to_string())
            .collect()
    }

    /// Ends the browser.
    pub async fn close(&self) {
        drop(self.client.delete(&self.session).send().await);
    }
}
