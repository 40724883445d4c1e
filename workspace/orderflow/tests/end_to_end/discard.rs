//! `orderflow dlq discard`, and what it leaves to `replay`.

use serde_json::{Value, json};

use crate::common::{DEADLINE, Worker, last_error};
use crate::replay::{dlq, events, letters_topic, pipeline, retry_topic, told, told_lines};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_discarded_is_shown_so_kept_with_its_reason_and_not_replayed() {
    let pipeline = pipeline().await;
    let observer = pipeline.broker.observer();
    let topic = letters_topic(&pipeline);
    let fraud = pipeline.dead_letters(Worker::Fraud).remove(0);
    for (to, worker, code) in [
        (&topic, Worker::Payment, "missing_field"),
        (&topic, Worker::Payment, "conflicting_repeat"),
        (&topic, Worker::Payment, "invalid_json"),
        (&fraud, Worker::Fraud, "invalid_json"),
    ] {
        let group = pipeline.group(worker);
        let headers: [(&str, &[u8]); 7] = [
            ("dlq-topic", pipeline.orders.as_bytes()),
            ("dlq-partition", b"1"),
            ("dlq-offset", b"0"),
            ("dlq-timestamp", b"5"),
            ("dlq-group", group.as_bytes()),
            ("dlq-error-code", code.as_bytes()),
            ("dlq-error", b"why"),
        ];
        observer
            .produce_with_headers(to, Some(1), b"key", b"the body", &headers)
            .await;
    }
    let run = |arguments: &[&str]| dlq(&pipeline, arguments).run(DEADLINE);

    // Why is not left out, and one place is of one topic.
    assert_eq!(run(&["discard"]).await.code(), Some(64));
    assert_eq!(run(&["replay", "--at", "1@0"]).await.code(), Some(64));
    let one = [
        "discard",
        "--topic",
        &topic,
        "--at",
        "1@2",
        "--reason",
        "a broken client",
    ];
    let dry = run(&one).await;
    assert_eq!(dry.code(), Some(0), "{}", dry.stderr);
    assert!(
        dry.stdout.contains("1@2  invalid_json  key key"),
        "{}",
        dry.stdout
    );
    assert!(
        dry.stdout
            .contains("1  dead letters would be discarded; nothing was done"),
        "{}",
        dry.stdout
    );
    assert!(pipeline.read(&pipeline.events).await.is_empty());
    let done = told(dlq(
        &pipeline,
        &[&one[..], &["--yes", "--by", "ops@desk"]].concat(),
    ))
    .await;
    assert_eq!((&done["done"], &done["transactions"]), (&json!(1), &json!(1)));

    let events = events(&pipeline).await;
    let data = json!({"topic": topic, "count": 1, "by": "ops@desk", "reason": "a broken client",
        "letters": [{"partition": 1, "offset": 2, "code": "invalid_json", "key": "key"}]});
    assert_eq!(
        (&events[0]["eventType"], &events[0]["data"]),
        (&json!("dlq.discarded"), &data)
    );
    assert_eq!(events.len(), 1);
    let listed = told_lines(dlq(&pipeline, &["list", "--topic", &topic])).await;
    assert!(
        listed.last().unwrap().contains("3  dead letters"),
        "a mark is none: {listed:?}"
    );
    let states: Vec<&str> = listed[..3]
        .iter()
        .map(|line| line.split_whitespace().nth(1).unwrap())
        .collect();
    assert_eq!(states, ["open", "open", "discarded"], "{listed:?}");
    let shown = told_lines(dlq(&pipeline, &["show", "1@2", "--topic", &topic])).await;
    let state = shown.iter().find(|line| line.starts_with("state")).unwrap();
    assert!(
        state.contains("discarded by ops@desk at 2") && state.ends_with(": a broken client"),
        "{state}"
    );
    let exported = told_lines(dlq(&pipeline, &["export", "--state", "discarded"])).await;
    let exported: Value = serde_json::from_str(&exported[0]).unwrap();
    assert_eq!(
        (&exported["offset"], &exported["state"]),
        (&json!(2), &json!("discarded"))
    );

    // Of the others one can be replayed.
    let replay = told(dlq(&pipeline, &["replay", "--yes"])).await;
    assert_eq!((&replay["chosen"], &replay["done"]), (&json!(1), &json!(1)));
    assert_eq!(
        replay["left_out"],
        json!({"conflicting_repeat": 1, "no_retry_topics": 1})
    );
    let waiting = pipeline.read(&retry_topic(&pipeline)).await;
    let [waiting] = waiting.as_slice() else {
        panic!("{waiting:?}")
    };
    assert_eq!(
        (waiting.partition, waiting.value.as_deref()),
        (1, Some(&b"the body"[..]))
    );
    let of_fraud = run(&["replay", "--topic", &fraud]).await;
    assert_eq!(of_fraud.code(), Some(1), "{}", of_fraud.stderr);
    let why = last_error(&of_fraud);
    assert!(
        why.contains(pipeline.group(Worker::Fraud)) && why.contains("has no retry topics"),
        "{why}"
    );
}
