//! `orderflow dlq` as a process.

use serde_json::{Value, json};
use testkit::Ended;

use crate::common::{DEADLINE, Pipeline, Worker};

/// Three dead letters of fraud and one of payment.
async fn with_dead_letters() -> Pipeline {
    let pipeline = Pipeline::new(2).await;
    let observer = pipeline.broker.observer();
    for (worker, partition, key, value, code) in [
        (Worker::Fraud, 0, "1", &b"{"[..], "invalid_json"),
        (Worker::Fraud, 0, "2", b"\xff\x00", "invalid_utf8"),
        (Worker::Fraud, 1, "3", b"{", "invalid_json"),
        (Worker::Payment, 1, "1", b"{}", "missing_field"),
    ] {
        let topic = &pipeline.dead_letters(worker)[0];
        let headers: [(&str, &[u8]); 2] = [("dlq-error-code", code.as_bytes()), ("dlq-error", b"why")];
        observer
            .produce_with_headers(topic, Some(partition), key.as_bytes(), value, &headers)
            .await;
    }
    pipeline
}

async fn dlq(pipeline: &Pipeline, arguments: &[&str]) -> Ended {
    let launch = pipeline.launch(&["dlq"]);
    let launch = arguments
        .iter()
        .fold(launch, |launch, argument| launch.arg(argument));
    launch.run(DEADLINE).await
}

fn lines(ended: &Ended) -> Vec<&str> {
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    ended.stdout.lines().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_listed_newest_last_and_counted_by_code() {
    let pipeline = with_dead_letters().await;
    let topic = &pipeline.dead_letters(Worker::Fraud)[0];
    let all = dlq(&pipeline, &["list"]).await;
    let all = lines(&all);
    assert!(
        all[0].contains(&format!("{topic} 0@0  invalid_json  key 1  why")),
        "{all:?}"
    );
    assert!(all[3].contains("missing_field  key 1"), "{all:?}");
    assert!(
        all.contains(&format!("{:>12}  {topic}  invalid_json", 2).as_str()),
        "{all:?}"
    );
    assert!(
        all.last()
            .unwrap()
            .ends_with("4  dead letters, the newest 4 shown"),
        "{all:?}"
    );

    let newest = dlq(&pipeline, &["list", "--limit", "1"]).await;
    let newest = lines(&newest);
    assert!(newest[0].contains("missing_field"), "{newest:?}");
    assert!(
        newest
            .last()
            .unwrap()
            .contains("4  dead letters, the newest 1 shown"),
        "{newest:?}"
    );

    for (arguments, count) in [
        (&["--code", "invalid_json"][..], 2),
        (&["--key", "1"], 2),
        (&["--key", "1", "--code", "invalid_json"], 1),
        (&["--topic", topic], 3),
        (&["--to", "2001-01-01T00:00:00Z"], 0),
        (
            &[
                "--from",
                "2001-01-01T00:00:00Z",
                "--code",
                "invalid_utf8",
                "--code",
                "missing_field",
            ],
            2,
        ),
    ] {
        let found = dlq(&pipeline, &[&["list"], arguments].concat()).await;
        let wanted = format!("{count}  dead letters, the newest {count} shown");
        assert!(
            lines(&found).last().unwrap().ends_with(&wanted),
            "{arguments:?}: {}",
            found.stdout
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_dead_letter_is_shown_and_all_are_exported_with_every_byte() {
    let pipeline = with_dead_letters().await;
    let topic = &pipeline.dead_letters(Worker::Fraud)[0];
    let shown = dlq(&pipeline, &["show", "0@1", "--topic", topic]).await;
    let shown = lines(&shown);
    assert!(
        shown.contains(&"header     dlq-error-code: invalid_utf8"),
        "{shown:?}"
    );
    assert!(shown.contains(&"value      2 bytes"), "{shown:?}");
    let nothing = dlq(&pipeline, &["show", "0@500"]).await;
    assert_eq!(nothing.code(), Some(1), "{}", nothing.stderr);
    let unknown = dlq(&pipeline, &["list", "--topic", "no-such-topic"]).await;
    assert_eq!(unknown.code(), Some(64), "{}", unknown.stderr);

    let exported = dlq(&pipeline, &["export", "--code", "invalid_utf8"]).await;
    let exported = lines(&exported);
    let line: Value = serde_json::from_str(exported[0]).unwrap();
    assert_eq!(exported.len(), 1);
    assert_eq!(
        (
            &line["key"],
            &line["value_base64"],
            &line["partition"],
            &line["offset"]
        ),
        (&json!("2"), &json!("/wA="), &json!(0), &json!(1))
    );
    let some = dlq(&pipeline, &["export", "--limit", "2"]).await;
    assert_eq!(lines(&some).len(), 2);
    assert!(some.stderr.contains("there may be more"), "{}", some.stderr);
}
