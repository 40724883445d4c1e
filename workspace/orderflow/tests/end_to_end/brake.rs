//! A group that would drain its topic into the dead letters.

use testkit::eventually;

use crate::common::{DEADLINE, Pipeline, Worker};

#[tokio::test(flavor = "multi_thread")]
async fn a_brake_is_pulled_shown_and_released_by_the_operator() {
    let pipeline = Pipeline::new(3).await;
    let observer = pipeline.broker.observer();
    observer.create_topic(&pipeline.events, 3).await;
    let keys: Vec<String> = (0..300).map(|number| format!("key-{number}")).collect();
    let poison: Vec<(&[u8], &[u8])> = keys
        .iter()
        .map(|key| (key.as_bytes(), &b"not an order"[..]))
        .collect();
    observer.produce(&pipeline.orders, &poison).await;
    let group = pipeline.group(Worker::Fraud).to_owned();
    let brake = |word: &'static str| pipeline.launch(&["brake", word, "--group", &group]).run(DEADLINE);

    let none = brake("show").await;
    assert_eq!(none.code(), Some(0), "{}", none.stderr);
    let running = pipeline
        .worker(Worker::Fraud)
        .env("ORDERFLOW__STREAM__BRAKE_IN_A_ROW", "20")
        .start();
    running.wait_for_line("the brake is pulled", DEADLINE).await;
    eventually(DEADLINE, || async { brake("show").await.code() == Some(1) }).await;
    let letters = &pipeline.dead_letters(Worker::Fraud)[0];
    assert!(pipeline.read(letters).await.len() <= 20);
    let shown = brake("show").await;
    assert!(
        shown.stdout.contains(&format!("{}[", pipeline.orders)),
        "{}",
        shown.stdout
    );
    assert!(shown.stderr.contains("brake release --group"), "{}", shown.stderr);

    let released = brake("release").await;
    assert_eq!(released.code(), Some(0), "{}", released.stderr);
    running.wait_for_line("the brake was released", DEADLINE).await;
    // Nothing was mended: it is pulled once more, under another name.
    eventually(DEADLINE, || async {
        let again = brake("show").await;
        again.code() == Some(1) && again.stdout != shown.stdout
    })
    .await;
    assert!(pipeline.read(letters).await.len() <= 40);
    let events = pipeline.read(&pipeline.events).await;
    let [event] = events.as_slice() else {
        panic!("{events:?}")
    };
    let event: serde_json::Value = serde_json::from_slice(event.value.as_deref().unwrap()).unwrap();
    assert_eq!(event["eventType"], "brake.released");
    assert_eq!(event["data"]["group"], group.as_str());
    running.terminate();
    let ended = running.wait(DEADLINE).await;
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
}
