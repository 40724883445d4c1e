//! What a person reads when something is wrong: each text names what, and the remedy, and each end has
//! the exit code that tells an orchestrator what to do.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use testkit::{Ended, Launch};

use crate::common::{DEADLINE, Pipeline, Worker, last_error, orderflow, topics_file};

async fn refused(launch: Launch, code: i32) -> Ended {
    let ended = launch.run(DEADLINE).await;
    assert_eq!(ended.code(), Some(code), "{}", ended.stderr);
    ended
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_key_names_the_nearest_one_as_it_would_be_written() {
    let ended = refused(
        orderflow(&["run", "fraud"]).env("ORDERFLOW__STREAM__BATCH_RECORD", "5"),
        64,
    )
    .await;
    assert_eq!(
        ended.stderr,
        "fraud: configuration refused, 1 problem:\n  \
         ORDERFLOW__STREAM__BATCH_RECORD: `stream.batch_record` is not a known key, did you mean `ORDERFLOW__STREAM__BATCH_RECORDS`?\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_of_the_wrong_type_says_what_is_expected() {
    let launch = orderflow(&["run", "payment"]).env("ORDERFLOW__PAYMENT__SIMULATED__DELAY_MS", "long");
    assert_eq!(
        refused(launch, 64).await.stderr,
        "payment: configuration refused, 1 problem:\n  \
         ORDERFLOW__PAYMENT__SIMULATED__DELAY_MS: `payment.simulated.delay_ms` is `long`, expected an integer from 0 to 18446744073709551615\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn five_mistakes_in_a_file_are_listed_at_once_with_their_places() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("orderflow.toml");
    let text = "[kafka]\nbrokers = \"localhost\"\n[fraud]\nlimit = \"-1\"\ngruop = \"fraud\"\n[stream]\npumps = \"two\"\n[stroe]\n";
    std::fs::write(&file, text).unwrap();
    let ended = refused(
        orderflow(&["run", "fraud", "--check-config", "--config"]).arg(&file),
        64,
    )
    .await;
    assert_eq!(ended.stdout, "");
    assert_eq!(
        ended.stderr.replace(&format!("{}/", folder.path().display()), ""),
        "fraud: configuration refused, 5 problems:\n  \
         orderflow.toml:2: `kafka.brokers` is `localhost`, must be `host:port` (several separated by commas)\n  \
         orderflow.toml:4: `fraud.limit` is `-1`, must be more than 0\n  \
         orderflow.toml:5: `fraud.gruop` is not a known key, did you mean `fraud.group`?\n  \
         orderflow.toml:7: `stream.pumps` is `two`, expected an integer from 0 to 65535\n  \
         orderflow.toml:8: `stroe` is not a known section, did you mean `store`?\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_variables_that_name_different_brokers_are_both_named() {
    let launch = orderflow(&["run", "analytics"])
        .env("KAFKA_BROKERS", "one:9092")
        .env("KAFKA_BOOTSTRAP_SERVERS", "two:9092");
    assert_eq!(
        refused(launch, 64).await.stderr,
        "analytics: configuration refused, 1 problem:\n  \
         KAFKA_BOOTSTRAP_SERVERS: `KAFKA_BROKERS` and `KAFKA_BOOTSTRAP_SERVERS` both set `kafka.brokers` and differ, unset one of them\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_without_its_secret_names_the_variable() {
    let launch = orderflow(&["run", "fraud"]).env("KAFKA_API_KEY", "key");
    assert_eq!(
        refused(launch, 64).await.stderr,
        "fraud: configuration refused, 1 problem:\n  \
         default: `kafka.api_secret` is missing, and SASL_SSL needs it (KAFKA_API_SECRET)\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_file_that_is_missing_is_named_with_its_key() {
    let launch = orderflow(&["run", "fraud"])
        .env("ORDERFLOW__KAFKA__SECURITY_PROTOCOL", "SSL")
        .env("ORDERFLOW__KAFKA__CA_FILE", "/nowhere/ca.pem");
    let ended = refused(launch, 64).await;
    assert!(
        ended.stderr.contains("kafka.ca_file") && ended.stderr.contains("/nowhere/ca.pem"),
        "{}",
        ended.stderr
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_port_names_the_key_and_another_way() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap().to_string();
    let admin = refused(
        orderflow(&["run", "fraud"]).env("ORDERFLOW__ADMIN__LISTEN", &address),
        69,
    )
    .await;
    assert_eq!(
        last_error(&admin),
        format!(
            "`admin.listen` is `{address}`, which is in use by another process: stop what holds it, or set another \
             address, as in `ORDERFLOW__ADMIN__LISTEN=127.0.0.1:0` (any free port) or `off`"
        )
    );
    let folder = tempfile::tempdir().unwrap();
    let report = orderflow(&["run", "report"])
        .env(
            "ORDERFLOW__STORE__SQLITE__PATH",
            folder.path().join("orderflow.db"),
        )
        .env("ORDERFLOW__REPORT__LISTEN", &address);
    let report = refused(report, 69).await;
    assert_eq!(
        last_error(&report)
            .replace(" (os error 98)", "")
            .replace(" (os error 48)", ""),
        format!(
            "can not listen on `{address}`: Address already in use: stop what uses it, or set `report.listen` \
             (ORDERFLOW__REPORT__LISTEN) to another address or port"
        )
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demo_that_finds_no_free_port_names_the_option() {
    // The last port has no next one. Where another process holds it, it is as busy.
    let _holder = TcpListener::bind("127.0.0.1:65535");
    let page = refused(orderflow(&["demo", "--port", "65535"]), 69).await;
    assert_eq!(
        last_error(&page),
        "no free port from 65535 on; give another one with `--port`"
    );
    let broker = refused(orderflow(&["demo", "--port", "0", "--broker-port", "65535"]), 69).await;
    assert_eq!(
        last_error(&broker),
        "no free port from 65535 on; give another one with `--broker-port`"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_is_given_up_after_its_time_with_the_variable_to_check() {
    // Nobody listens on port 1. The limit of 30 s is not configurable, so all wait at once.
    let away = |arguments: &[&str]| {
        orderflow(arguments)
            .env("KAFKA_BROKERS", "127.0.0.1:1")
            .run(DEADLINE)
    };
    let ends = tokio::join!(
        away(&["run", "fraud"]),
        away(&["topics", "apply"]),
        away(&["run", "producer", "generate", "--count", "1"]),
        orderflow(&["demo", "--port", "0", "--brokers", "127.0.0.1:1"]).run(DEADLINE),
    );
    for ended in [ends.0, ends.1, ends.2, ends.3] {
        assert_eq!(ended.code(), Some(69), "{}", ended.stderr);
        let error = last_error(&ended);
        let (start, cause) = error.split_once(": ").unwrap();
        assert_eq!(start, "no Kafka broker answers at `127.0.0.1:1`");
        assert!(cause.contains("Connection refused"), "{error}");
        assert!(
            cause.ends_with("; check `kafka.brokers` (KAFKA_BROKERS) and that the broker is running"),
            "{error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_waits_for_topics_that_are_missing_and_its_line_names_the_command_that_helps() {
    let pipeline = Pipeline::without_topics().await;
    let running = pipeline.worker(Worker::Fraud).start();
    let line = running.wait_for_line("waiting for topics", DEADLINE).await;
    let missing = [
        vec![pipeline.orders.clone(), pipeline.alerts.clone()],
        pipeline.dead_letters(Worker::Fraud),
    ]
    .concat();
    let told = line.split_once("waiting for").unwrap().1;
    assert_eq!(
        told,
        format!(
            " topics that do not exist; create them with `orderflow topics apply` topics=\"{}\"",
            missing.join(" ")
        )
    );
    let file = pipeline.file("topics.toml", topics_file(&pipeline.topics(), 2).as_bytes());
    let apply = || {
        pipeline
            .launch(&["topics", "apply", "--file"])
            .arg(&file)
            .run(DEADLINE)
    };
    let applied = apply().await;
    assert_eq!(applied.code(), Some(0), "{}", applied.stderr);
    assert_eq!(
        applied
            .stdout
            .lines()
            .filter(|line| line.starts_with("created  "))
            .count(),
        pipeline.topics().len()
    );
    running.wait_ready(DEADLINE).await;

    let again = apply().await;
    assert_eq!(again.code(), Some(0), "{}", again.stderr);
    assert!(
        again.stdout.lines().all(|line| line.starts_with("exists   ")),
        "{}",
        again.stdout
    );
    running.terminate();
    let ended = running.wait(DEADLINE).await;
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_waits_for_topics_can_be_told_to_stop() {
    let pipeline = Pipeline::without_topics().await;
    let running = pipeline.worker(Worker::Analytics).start();
    running.wait_for_line("waiting for topics", DEADLINE).await;
    running.terminate();
    let ended = running.wait(DEADLINE).await;
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_with_fewer_partitions_than_its_source_is_refused_before_anything_is_read() {
    let pipeline = Pipeline::without_topics().await;
    let observer = pipeline.broker.observer();
    for topic in pipeline.topics() {
        let partitions = if topic == pipeline.alerts { 1 } else { 3 };
        observer.create_topic(&topic, partitions).await;
    }
    let ended = refused(pipeline.worker(Worker::Fraud), 69).await;
    assert_eq!(
        last_error(&ended),
        format!(
            "topic `{}` has 1 partitions and its source `{}` has 3: outputs keep the partition of their input; \
             grow it with `orderflow topics apply`",
            pipeline.alerts, pipeline.orders
        )
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_missing_is_named_before_kafka_is_asked_for() {
    let away = |arguments: &[&str]| orderflow(arguments).env("KAFKA_BROKERS", "127.0.0.1:1");
    let demo = refused(away(&["demo", "--orders", "nothing.csv"]), 64).await;
    assert_eq!(
        last_error(&demo),
        "`--orders nothing.csv`: there is no such file; give the path of a CSV or NDJSON file, plain or zstd"
    );
    let replay = refused(away(&["run", "producer", "replay", "nothing.csv"]), 64).await;
    assert_eq!(
        last_error(&replay),
        "`nothing.csv` can not be read: No such file or directory (os error 2); give the path of a CSV or NDJSON file, plain or zstd, or `-` for standard input"
    );
    let topics = refused(away(&["topics", "apply", "--file", "nothing.toml"]), 64).await;
    assert_eq!(
        last_error(&topics),
        "`--file nothing.toml` can not be read; leave it out for the built-in topics: No such file or directory (os error 2)"
    );
    let config = refused(away(&["run", "fraud", "--config", "nothing.toml"]), 64).await;
    assert_eq!(
        config.stderr,
        "fraud: configuration refused, 1 problem:\n  \
         --config: can not read `nothing.toml`: No such file or directory (os error 2)\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_can_not_be_used_names_the_path_the_key_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let occupied = folder.path().join("occupied");
    std::fs::write(
        &occupied,
        "this is not a database, and not a folder either; it is long enough to be read as one ".repeat(20),
    )
    .unwrap();
    for service in ["analytics", "report"] {
        let run = |path: &Path| orderflow(&["run", service]).env("ORDERFLOW__STORE__SQLITE__PATH", path);
        let no_folder = refused(run(&occupied.join("orderflow.db")), 69).await;
        let error = last_error(&no_folder);
        assert!(
            error.starts_with(&format!("can not make the folder `{}`: ", occupied.display())),
            "{error}"
        );
        assert!(
            error.ends_with(
                ": make it and allow this user to write in it, or set `store.sqlite.path` to another place"
            ),
            "{error}"
        );
        let no_database = refused(run(&occupied), 69).await;
        let error = last_error(&no_database);
        assert!(
            error.starts_with(&format!("`{}` is not an SQLite database: ", occupied.display())),
            "{error}"
        );
        assert!(
            error.contains("set `store.sqlite.path` to another file, or move this one away"),
            "{error}"
        );
    }
}

/// A Kafka with passwords, from the project's own script. It ends with this value.
struct KafkaWithPasswords {
    folder: tempfile::TempDir,
    brokers: String,
}

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/kafka");

impl KafkaWithPasswords {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let properties = format!("{SCRIPT}.d/sasl-plaintext.properties");
        let started = Launch::new(SCRIPT)
            .arg("start")
            .arg("--properties")
            .arg(properties)
            .arg("--dir")
            .arg(folder.path().join("kafka"))
            .run(3 * DEADLINE)
            .await;
        let brokers = started
            .stdout
            .lines()
            .find_map(|line| line.strip_prefix("KAFKA_BROKERS="));
        let brokers = brokers.unwrap_or_else(|| panic!("{}", started.stderr)).to_owned();
        Self { folder, brokers }
    }

    fn as_user(&self, arguments: &[&str], user: &str, password: &str) -> Launch {
        orderflow(arguments)
            .env("KAFKA_BROKERS", &self.brokers)
            .env("ORDERFLOW__KAFKA__SECURITY_PROTOCOL", "SASL_PLAINTEXT")
            .env("KAFKA_API_KEY", user)
            .env("KAFKA_API_SECRET", password)
    }
}

impl Drop for KafkaWithPasswords {
    fn drop(&mut self) {
        let stop = std::process::Command::new(SCRIPT)
            .arg("stop")
            .arg("--dir")
            .arg(self.folder.path().join("kafka"))
            .output();
        // A failure here would hide the one of the test.
        let _stopped = stop.is_ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_at_once_and_a_right_without_is_told_with_what_it_is_for() {
    // devbroker knows no passwords.
    if testkit::TestBroker::start().await.engine() != "kafka" {
        eprintln!("skipped: needs a real Kafka, set ORDERFLOW_TEST_BROKER");
        return;
    }
    let kafka = KafkaWithPasswords::start().await;
    let started = std::time::Instant::now();
    let wrong = refused(kafka.as_user(&["run", "fraud"], "app", "not-the-password"), 69).await;
    assert!(
        started.elapsed() < Duration::from_secs(15),
        "told after {:?}",
        started.elapsed()
    );
    let error = last_error(&wrong);
    assert!(
        error.starts_with(&format!("Kafka at `{}` refuses the credentials: ", kafka.brokers)),
        "{error}"
    );
    assert!(
        error.ends_with("; check `kafka.api_key` and `kafka.api_secret` (KAFKA_API_KEY, KAFKA_API_SECRET)"),
        "{error}"
    );
    assert!(!wrong.stderr.contains("not-the-password"), "{}", wrong.stderr);

    let forbidden = refused(kafka.as_user(&["topics", "apply"], "eve", "eve-secret"), 69).await;
    let error = last_error(&forbidden);
    assert!(
        error.starts_with("Kafka does not allow creating topic"),
        "{error}"
    );
    assert!(
        error.contains("grant it to the principal of this service"),
        "{error}"
    );
    let allowed = kafka
        .as_user(&["topics", "apply"], "admin", "admin-secret")
        .run(DEADLINE)
        .await;
    assert_eq!(allowed.code(), Some(0), "{}", allowed.stderr);
}
