//! `orderflow broker` as a process.

use std::net::TcpListener;
use std::process::{Command, Stdio};

use testkit::{Observer, Running, Signal};

use crate::common::{DEADLINE, last_error, orderflow};

/// What a line of standard output says: `NAME=value`.
async fn printed(running: &Running, name: &str) -> String {
    let line = running.wait_for_line(&format!("{name}="), DEADLINE).await;
    line.split_once('=').unwrap().1.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_what_it_is_serves_and_stops_when_it_is_told() {
    for signal in [Signal::TERM, Signal::INT] {
        let topics = ["broker", "--port", "0", "--topics", "orders:3,payments:1"];
        let running = orderflow(&topics).start();
        let observer = Observer::new(&printed(&running, "KAFKA_BROKERS").await);
        assert_eq!(observer.end_offsets("orders").await.len(), 3);
        assert_eq!(observer.end_offsets("payments").await.len(), 1);
        observer.produce("payments", &[(b"1", b"paid")]).await;
        let read = observer.read_all("payments").await;
        assert_eq!(read[0].value.as_deref(), Some(&b"paid"[..]));

        running.signal(signal);
        let ended = running.wait(DEADLINE).await;
        assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
        assert!(ended.stderr.contains("never for production"), "{}", ended.stderr);
        assert!(!ended.stderr.contains("WARN"), "{}", ended.stderr);
        assert_eq!(ended.stdout.lines().count(), 1, "no admin port unless asked for");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kcat_creates_a_topic_by_writing_to_it_where_that_is_allowed() {
    let has_kcat = Command::new("kcat")
        .arg("-V")
        .output()
        .is_ok_and(|output| output.status.success());
    if !has_kcat {
        eprintln!("skipped: kcat is not installed");
        return;
    }
    let running = orderflow(&["broker", "--port", "0", "--auto-create-topics"]).start();
    let brokers = printed(&running, "KAFKA_BROKERS").await;
    let kcat = |arguments: &[&str]| {
        let mut command = Command::new("timeout");
        command.args(["30", "kcat", "-q", "-b", &brokers]).args(arguments);
        command
    };
    let mut writer = kcat(&["-P", "-t", "new"]).stdin(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut writer.stdin.take().unwrap(), b"one\ntwo\n").unwrap();
    assert!(writer.wait().unwrap().success());
    let read = kcat(&["-C", "-t", "new", "-o", "beginning", "-e"])
        .output()
        .unwrap();
    let mut lines: Vec<&str> = std::str::from_utf8(&read.stdout).unwrap().lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["one", "two"]);
    running.terminate();
    assert_eq!(running.wait(DEADLINE).await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn its_admin_port_is_there_when_asked_for() {
    let running = orderflow(&["broker", "--port", "0", "--admin-port", "0"]).start();
    let admin = printed(&running, "DEVBROKER_ADMIN").await;
    let (status, faults) = testkit::get(&format!("{admin}/faults")).await.unwrap();
    assert_eq!((status, faults.as_str()), (200, "[]"));
    running.terminate();
    assert_eq!(running.wait(DEADLINE).await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_folder_has_everything_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let data = data.to_str().unwrap();
    let arguments = |topics, flush| {
        let arguments = [
            "--port", "0", "--data", data, "--topics", topics, "--flush", flush,
        ];
        ["broker"].into_iter().chain(arguments).collect::<Vec<&str>>()
    };
    for (run, flush) in ["always", "50", "never"].into_iter().enumerate() {
        let running = orderflow(&arguments("orders:3", flush)).start();
        let observer = Observer::new(&printed(&running, "KAFKA_BROKERS").await);
        assert_eq!(observer.read_all("orders").await.len(), run);
        observer.produce("orders", &[(b"1", b"paid")]).await;
        running.terminate();
        let ended = running.wait(DEADLINE).await;
        assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
        assert!(ended.stderr.contains(data), "{}", ended.stderr);
    }
    let ended = orderflow(&arguments("orders:4", "always")).run(DEADLINE).await;
    assert_eq!(ended.code(), Some(64), "{}", ended.stderr);
    assert!(
        last_error(&ended).contains("has 3 partitions"),
        "{}",
        ended.stderr
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_folder_that_is_in_use_ends_it_with_who_uses_it() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let running = orderflow(&["broker", "--port", "0", "--data", data]).start();
    printed(&running, "KAFKA_BROKERS").await;
    let ended = orderflow(&["broker", "--port", "0", "--data", data])
        .run(DEADLINE)
        .await;
    assert_eq!(ended.code(), Some(69), "{}", ended.stderr);
    assert!(
        last_error(&ended).contains("is in use by process"),
        "{}",
        ended.stderr
    );
    running.terminate();
    assert_eq!(running.wait(DEADLINE).await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_ends_it_with_the_remedy() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().port().to_string();
    for (arguments, flag) in [
        (vec!["broker", "--port", &taken], "`--port`"),
        (
            vec!["broker", "--port", "0", "--admin-port", &taken],
            "`--admin-port`",
        ),
    ] {
        let ended = orderflow(&arguments).run(DEADLINE).await;
        assert_eq!(ended.code(), Some(69), "{}", ended.stderr);
        let error = last_error(&ended);
        assert!(error.contains(&taken) && error.contains(flag), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_topic_ends_it_with_what_is_wrong() {
    for (topics, sentence) in [
        ("orders", "as in `orders:6`"),
        ("or/ders:6", "or/ders"),
        ("orders:6,orders:3", "orders"),
    ] {
        let ended = orderflow(&["broker", "--port", "0", "--topics", topics])
            .run(DEADLINE)
            .await;
        assert_eq!(ended.code(), Some(64), "{}", ended.stderr);
        assert!(ended.stderr.contains(sentence), "{}", ended.stderr);
        assert!(ended.stdout.is_empty(), "{}", ended.stdout);
    }
}
