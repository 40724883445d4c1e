//! The shell as a real process: exit codes, signals, the admin server.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Child, ChildStderr, Command, Output, Stdio};

/// The example, which cargo builds beside this test.
fn probe() -> Command {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    let mut command = Command::new(path.join("examples/shell_probe"));
    command
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn output(command: &mut Command) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

struct Running {
    child: Child,
    lines: BufReader<ChildStderr>,
}

impl Running {
    /// Starts the probe and waits for its line "started" and, where it gets that far, "ready".
    fn start(command: &mut Command) -> (Self, String) {
        let mut child = command
            .env("ORDERFLOW__ADMIN__LISTEN", "127.0.0.1:0")
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap());
        let mut running = Self { child, lines };
        let started = running.line_with("started");
        let address = started
            .split("admin=")
            .nth(1)
            .unwrap()
            .split_whitespace()
            .next()
            .unwrap()
            .to_owned();
        running.line_with("ready");
        (running, address)
    }

    fn line_with(&mut self, text: &str) -> String {
        let mut line = String::new();
        while self.lines.read_line(&mut line).unwrap() > 0 {
            if line.contains(text) {
                return line;
            }
            line.clear();
        }
        panic!("the process ended without `{text}`");
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", name, &id])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Exit code and the rest of standard error.
    fn end(mut self) -> (i32, String) {
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code().unwrap(), rest)
    }
}

async fn get(address: &str, path: &str) -> (u16, String) {
    let response = reqwest::get(format!("http://{address}{path}")).await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

#[test]
fn five_mistakes_are_listed_with_their_places_and_end_with_64() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.toml");
    std::fs::write(
        &file,
        "[kafka]\nbrokrs = \"x:1\"\napi_key = \"k\"\n[fraud]\nscore_min = \"many\"\nlimits.JPY = \"a lot\"\n[fruad]\n",
    )
    .unwrap();
    let (code, stdout, stderr) = output(probe().arg("--check-config").arg("--config").arg(&file));
    let stderr = stderr.replace(&format!("{}/", folder.path().display()), "");
    assert_eq!((code, stdout.as_str()), (64, ""));
    assert_eq!(
        stderr,
        "shell_probe: configuration refused, 5 problems:\n  \
         bad.toml:2: `kafka.brokrs` is not a known key, did you mean `kafka.brokers`?\n  \
         bad.toml:5: `fraud.score_min` is `many`, expected an integer from 0 to 255\n  \
         bad.toml:6: `fraud.limits.JPY` is `a lot`, expected an integer from 0 to 18446744073709551615\n  \
         bad.toml:7: `fruad` is not a known section, did you mean `fraud`?\n  \
         default: `kafka.api_key` and `kafka.api_secret` go together, set both\n"
    );
}

#[test]
fn a_good_configuration_is_called_ok_and_nothing_starts() {
    let (code, stdout, stderr) = output(probe().arg("--check-config"));
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (0, "config ok\n", ""));
}

#[test]
fn the_version_is_printed() {
    let (code, stdout, _) = output(probe().arg("--version"));
    assert_eq!((code, stdout.as_str()), (0, "shell_probe 1.2.3\n"));
}

#[test]
fn an_unknown_argument_ends_with_64() {
    let (code, _, stderr) = output(probe().arg("--confg"));
    assert_eq!(code, 64);
    assert!(stderr.contains("--config"), "{stderr}");
}

#[test]
fn a_busy_port_names_the_key_and_the_remedy() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap().to_string();
    let (code, _, stderr) = output(probe().env("ORDERFLOW__ADMIN__LISTEN", &address));
    assert_eq!(code, 69);
    assert!(
        stderr.contains(&format!(
            "`admin.listen` is `{address}`, which is in use by another process: stop what holds it, or set \
             another address, as in `ORDERFLOW__ADMIN__LISTEN=127.0.0.1:0` (any free port) or `off`"
        )),
        "{stderr}"
    );
}

#[tokio::test]
async fn probes_and_metrics_are_answered_and_sigterm_ends_with_0() {
    let (running, address) = Running::start(&mut probe());
    assert_eq!(get(&address, "/live").await, (200, "live\n".to_owned()));
    assert_eq!(get(&address, "/ready").await, (200, "ready\n".to_owned()));
    let (code, metrics) = get(&address, "/metrics").await;
    assert_eq!(code, 200);
    for line in [
        "orderflow_build_info{service=\"shell_probe\",version=\"1.2.3\"} 1",
        "orderflow_ready_state 1",
        "orderflow_heartbeat_age_seconds{task=\"worker\"} ",
    ] {
        assert!(metrics.contains(line), "{line} is missing in\n{metrics}");
    }
    if cfg!(target_os = "linux") {
        assert!(metrics.contains("process_resident_memory_bytes "), "{metrics}");
    }
    running.signal("TERM");
    let (code, rest) = running.end();
    assert_eq!(code, 0, "{rest}");
    assert!(
        rest.contains("shutting down") && rest.contains("SIGTERM"),
        "{rest}"
    );
}

#[tokio::test]
async fn readiness_is_withdrawn_while_the_process_shuts_down_and_a_second_signal_ends_it() {
    let (mut running, address) = Running::start(probe().env("ORDERFLOW__FRAUD__MODE", "hang"));
    running.signal("INT");
    running.line_with("shutting down");
    assert_eq!(get(&address, "/live").await.0, 200);
    assert_eq!(
        get(&address, "/ready").await,
        (503, "not ready: shutting down (SIGINT)\n".to_owned())
    );
    running.signal("TERM");
    let (code, rest) = running.end();
    assert_eq!(code, 128 + 15);
    assert_eq!(rest, "shell_probe: SIGTERM during the shutdown, ending at once\n");
}

#[test]
fn a_shutdown_that_takes_too_long_ends_with_70() {
    let (running, _) = Running::start(
        probe()
            .env("ORDERFLOW__FRAUD__MODE", "hang")
            .env("ORDERFLOW__SERVICE__SHUTDOWN_TIMEOUT_MS", "1000"),
    );
    running.signal("TERM");
    let (code, rest) = running.end();
    assert_eq!(code, 70);
    assert!(
        rest.contains("the shutdown did not finish within 1000 ms"),
        "{rest}"
    );
}

#[test]
fn a_component_that_dies_ends_the_process_with_70() {
    let (running, _) = Running::start(probe().env("ORDERFLOW__FRAUD__MODE", "die"));
    let (code, rest) = running.end();
    assert_eq!(code, 70);
    assert!(rest.contains("`worker` ended without saying so"), "{rest}");
}

#[test]
fn a_panic_is_logged_and_ends_with_70() {
    let (code, _, stderr) = output(probe().env("ORDERFLOW__FRAUD__MODE", "panic"));
    assert_eq!(code, 70);
    assert!(
        stderr.contains("panicked") && stderr.contains("on purpose"),
        "{stderr}"
    );
}

#[test]
fn the_code_of_a_failure_is_the_exit_code_and_logs_can_be_json() {
    let (code, _, stderr) = output(
        probe()
            .env("ORDERFLOW__FRAUD__MODE", "fail")
            .env("ORDERFLOW__LOG__FORMAT", "json"),
    );
    assert_eq!(code, 69);
    let last: serde_json::Value = serde_json::from_str(stderr.lines().last().unwrap()).unwrap();
    assert_eq!(last["level"], "ERROR");
    assert_eq!(last["error"], "the broker at `localhost:9092` can not be reached");
    assert_eq!(last["exit_code"], 69);
}

#[test]
fn a_child_ends_when_its_parent_closes_its_standard_input() {
    let mut command = probe();
    command.arg("--exit-with-stdin").stdin(Stdio::piped());
    let (mut running, _) = Running::start(&mut command);
    drop(running.child.stdin.take());
    let (code, rest) = running.end();
    assert_eq!(code, 0);
    assert!(rest.contains("standard input ended"), "{rest}");
}
