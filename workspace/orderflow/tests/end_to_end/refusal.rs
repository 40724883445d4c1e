//! Outputs that Kafka refuses.

use std::collections::BTreeSet;

use crate::common::{DEADLINE, Pipeline, Worker};

#[tokio::test(flavor = "multi_thread")]
async fn an_order_whose_output_is_refused_for_good_ends_the_worker_and_is_not_passed_over() {
    let pipeline = Pipeline::without_topics().await;
    let observer = pipeline.broker.observer();
    for topic in pipeline.topics() {
        // No output fits into its topic, as when someone has set a limit too low.
        let limited = topic == pipeline.payments || topic == pipeline.alerts;
        let limit = if limited { "100" } else { "1048588" };
        observer
            .create_topic_with(&topic, 1, &[("max.message.bytes", limit)])
            .await;
    }
    let text: String = (1..=50)
        .map(|id| format!("{{\"order_id\":{id},\"amount\":500,\"country\":\"FR\"}}\n"))
        .collect();
    let file = pipeline.file("orders.ndjson", text.as_bytes());
    let replayed = pipeline.replay(&file).run(DEADLINE).await;
    assert_eq!(replayed.code(), Some(0), "{}", replayed.stderr);

    let outputs = [
        (Worker::Fraud, "ORDERFLOW__TOPICS__FRAUD_ALERTS"),
        (Worker::Payment, "ORDERFLOW__TOPICS__PAYMENTS"),
    ];
    for (worker, variable) in outputs {
        // No new attempt would help, so the worker ends and says what to look at.
        let ended = pipeline.worker(worker).run(DEADLINE).await;
        assert_eq!(ended.code(), Some(69), "{}", ended.stderr);
        assert!(
            ended.stderr.contains("refuses a record for good"),
            "{}",
            ended.stderr
        );
        assert_eq!(
            pipeline.committed_orders(worker).await,
            0,
            "{worker:?} has passed orders over"
        );

        let roomy = pipeline.broker.name("roomy");
        observer.create_topic(&roomy, 1).await;
        let running = pipeline.worker(worker).env(variable, &roomy).start();
        pipeline.caught_up(worker, &pipeline.orders).await;
        let keys: BTreeSet<_> = pipeline
            .read(&roomy)
            .await
            .into_iter()
            .map(|record| record.key)
            .collect();
        assert_eq!(keys.len(), 50, "{worker:?}: an output for each order");
        running.terminate();
        let ended = running.wait(DEADLINE).await;
        assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    }
}
