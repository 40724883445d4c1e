//! The shell as a real process: exit codes, signals, the admin server.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use testkit::{Launch, Running, Signal, get};

const DEADLINE: Duration = Duration::from_secs(20);

/// The example, which `cargo test` builds beside this test.
fn probe() -> Launch {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    let path: PathBuf = path.join("examples/shell_probe");
    assert!(
        path.exists(),
        "build it first: cargo build -p service --example shell_probe"
    );
    Launch::new(path)
}

async fn output(launch: Launch) -> (i32, String, String) {
    let ended = launch.run(DEADLINE).await;
    (ended.code().unwrap(), ended.stdout, ended.stderr)
}

/// Starts the probe in a mode and waits until it is ready.
async fn ready(launch: Launch) -> (Running, String) {
    let running = launch.start();
    let address = running.wait_ready(DEADLINE).await;
    (running, address)
}

/// Exit code and standard error.
async fn end(running: Running) -> (i32, String) {
    let ended = running.wait(DEADLINE).await;
    (ended.code().unwrap(), ended.stderr)
}

#[tokio::test]
async fn five_mistakes_are_listed_with_their_places_and_end_with_64() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.toml");
    std::fs::write(
        &file,
        "[kafka]\nbrokrs = \"x:1\"\napi_key = \"k\"\n[fraud]\nscore_min = \"many\"\nlimits.JPY = \"a lot\"\n[fruad]\n",
    )
    .unwrap();
    let (code, stdout, stderr) = output(probe().arg("--check-config").arg("--config").arg(&file)).await;
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

#[tokio::test]
async fn a_good_configuration_is_called_ok_and_nothing_starts() {
    let (code, stdout, stderr) = output(probe().arg("--check-config")).await;
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (0, "config ok\n", ""));
}

#[tokio::test]
async fn the_version_is_printed() {
    let (code, stdout, _) = output(probe().arg("--version")).await;
    assert_eq!((code, stdout.as_str()), (0, "shell_probe 1.2.3\n"));
}

#[tokio::test]
async fn an_unknown_argument_ends_with_64() {
    let (code, _, stderr) = output(probe().arg("--confg")).await;
    assert_eq!(code, 64);
    assert!(stderr.contains("--config"), "{stderr}");
}

#[tokio::test]
async fn a_busy_port_names_the_key_and_the_remedy() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap().to_string();
    let (code, _, stderr) = output(probe().env("ORDERFLOW__ADMIN__LISTEN", &address)).await;
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
    let (running, address) = ready(probe()).await;
    assert_eq!(
        get(&format!("http://{address}/live")).await,
        Ok((200, "live\n".to_owned()))
    );
    assert_eq!(
        get(&format!("http://{address}/ready")).await,
        Ok((200, "ready\n".to_owned()))
    );
    let (code, metrics) = get(&format!("http://{address}/metrics")).await.unwrap();
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
    running.terminate();
    let (code, stderr) = end(running).await;
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("shutting down reason=\"SIGTERM\""), "{stderr}");
}

#[tokio::test]
async fn readiness_is_withdrawn_while_the_process_shuts_down_and_a_second_signal_ends_it() {
    let (running, address) = ready(probe().env("ORDERFLOW__FRAUD__MODE", "hang")).await;
    running.signal(Signal::INT);
    running.wait_for_line("shutting down", DEADLINE).await;
    assert_eq!(get(&format!("http://{address}/live")).await.unwrap().0, 200);
    let answer = get(&format!("http://{address}/ready")).await;
    assert_eq!(
        answer,
        Ok((503, "not ready: shutting down (SIGINT)\n".to_owned()))
    );
    running.terminate();
    let (code, stderr) = end(running).await;
    assert_eq!(code, 128 + 15);
    assert!(
        stderr.ends_with("shell_probe: SIGTERM during the shutdown, ending at once\n"),
        "{stderr}"
    );
}

#[tokio::test]
async fn a_shutdown_that_takes_too_long_ends_with_70() {
    let launch = probe()
        .env("ORDERFLOW__FRAUD__MODE", "hang")
        .env("ORDERFLOW__SERVICE__SHUTDOWN_TIMEOUT_MS", "1000");
    let (running, _) = ready(launch).await;
    running.terminate();
    let (code, stderr) = end(running).await;
    assert_eq!(code, 70);
    assert!(
        stderr.contains("the shutdown did not finish within 1000 ms"),
        "{stderr}"
    );
}

#[tokio::test]
async fn a_component_that_dies_ends_the_process_with_70() {
    let (code, _, stderr) = output(probe().env("ORDERFLOW__FRAUD__MODE", "die")).await;
    assert_eq!(code, 70);
    assert!(stderr.contains("`worker` ended without saying so"), "{stderr}");
}

#[tokio::test]
async fn a_panic_is_logged_and_ends_with_70() {
    let (code, _, stderr) = output(probe().env("ORDERFLOW__FRAUD__MODE", "panic")).await;
    assert_eq!(code, 70);
    assert!(
        stderr.contains("panicked") && stderr.contains("on purpose"),
        "{stderr}"
    );
}

#[tokio::test]
async fn the_code_of_a_failure_is_the_exit_code_and_logs_can_be_json() {
    let launch = probe()
        .env("ORDERFLOW__FRAUD__MODE", "fail")
        .env("ORDERFLOW__LOG__FORMAT", "json");
    let (code, _, stderr) = output(launch).await;
    assert_eq!(code, 69);
    let last: serde_json::Value = serde_json::from_str(stderr.lines().last().unwrap()).unwrap();
    assert_eq!(last["level"], "ERROR");
    assert_eq!(last["error"], "the broker at `localhost:9092` can not be reached");
    assert_eq!(last["exit_code"], 69);
}

#[tokio::test]
async fn a_child_ends_with_its_standard_input_and_leaves_ctrl_c_to_its_parent() {
    let (mut running, _) = ready(probe().arg("--exit-with-stdin").with_stdin()).await;
    running.signal(Signal::INT);
    running
        .wait_for_line("SIGINT is left to the parent process", DEADLINE)
        .await;
    running.close_stdin();
    let (code, stderr) = end(running).await;
    assert_eq!(code, 0);
    assert!(stderr.contains("standard input ended"), "{stderr}");
}
