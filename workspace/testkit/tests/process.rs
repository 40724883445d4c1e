//! The process harness against the shell, which every system has.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

use std::time::Duration;

use testkit::Launch;

const DEADLINE: Duration = Duration::from_secs(20);

fn shell(script: &str) -> Launch {
    Launch::new("/bin/sh").arg("-c").arg(script)
}

#[tokio::test]
async fn code_and_output_are_collected() {
    let ended = shell("echo out; echo \"err $NAME\" >&2; exit 3")
        .env("NAME", "x")
        .run(DEADLINE)
        .await;
    assert_eq!(ended.code(), Some(3));
    assert_eq!(
        (ended.stdout.as_str(), ended.stderr.as_str()),
        ("out\n", "err x\n")
    );
}

#[tokio::test]
async fn a_terminated_process_may_clean_up() {
    let running = shell("trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done").start();
    running.wait_for_line("up", DEADLINE).await;
    running.terminate();
    let ended = running.wait(DEADLINE).await;
    assert_eq!((ended.code(), ended.stdout.as_str()), (Some(0), "up\nbye\n"));
}

#[tokio::test]
async fn a_killed_process_has_no_code() {
    let running = shell("echo up; exec sleep 600").start();
    running.wait_for_line("up", DEADLINE).await;
    running.kill();
    assert_eq!(running.wait(DEADLINE).await.code(), None);
}

#[tokio::test]
async fn a_process_sees_the_end_of_its_standard_input() {
    let mut running = shell("cat; echo end").with_stdin().start();
    running.close_stdin();
    assert_eq!(running.wait(DEADLINE).await.stdout, "end\n");
}

#[tokio::test]
async fn the_environment_of_the_developer_does_not_leak() {
    let ended = shell("env").run(DEADLINE).await;
    assert!(!ended.stdout.contains("CARGO"), "{}", ended.stdout);
    assert!(
        ended.stdout.contains("ORDERFLOW__ADMIN__LISTEN=127.0.0.1:0"),
        "{}",
        ended.stdout
    );
}

#[tokio::test]
#[should_panic(expected = "did not end within")]
async fn waiting_has_a_deadline() {
    shell("exec sleep 600").run(Duration::from_millis(100)).await;
}
