//! The whole worker against a gateway with faults: on the embedded broker, and on real Kafka where
//! `ORDERFLOW_TEST_BROKER` names one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod support;

use std::time::Duration;

use domain::{PaymentStatus, Secret};
use payment::metrics::{OPENINGS, WAITING};
use support::{Bench, LIMIT};
use testkit::{FakeGateway, GatewayFaults, charged_twice, eventually};

const NOBODY: [&str; 0] = [];

#[tokio::test(flavor = "multi_thread")]
async fn each_order_is_charged_once_through_everything_that_a_gateway_does_wrong() {
    let bench = Bench::new().await;
    let run = bench.run().await;
    let faults = GatewayFaults {
        seed: 7,
        delay: Duration::from_millis(20),
        // Slower than anybody waits for: whoever asks again meets 409, and then the first one's echo.
        slow_delay: Duration::from_millis(1_500),
        declined: 0.1,
        lost: 0.15,
        slow: 0.03,
        failed: 0.1,
        throttled: 0.03,
        ..GatewayFaults::default()
    };
    let gateway = FakeGateway::start(faults).await;
    let count = 600;
    bench.order(count).await;
    let mut config = bench.config(&run, &gateway);
    config.stream.retry_deadline_ms = 60_000;
    let worker = bench.start(config);
    bench.all_committed(&run).await;
    worker.stop().await;

    assert_eq!(bench.letters(&run).await, NOBODY);
    let payments = bench.payments(&run).await;
    assert_eq!(payments.len(), count);
    let ledger = gateway.charges();
    assert_eq!(charged_twice(&ledger), NOBODY);
    assert_eq!(ledger.len(), count);
    for charged in &ledger {
        assert_eq!(charged.amount, format!("{}.07", charged.order_id));
        let (wanted, times) = match charged.outcome.unwrap() {
            testkit::Outcome::Paid => (PaymentStatus::Paid, 1),
            testkit::Outcome::Declined => (PaymentStatus::Declined, 0),
        };
        assert_eq!(charged.charged, times, "{charged:?}");
        assert_eq!(payments[&charged.order_id], [wanted], "{charged:?}");
    }
    let declined = payments
        .values()
        .filter(|statuses| statuses[0] == PaymentStatus::Declined)
        .count();
    assert!(declined > 0);
    let asked_again = ledger.iter().filter(|charged| charged.asked > 1).count();
    assert!(asked_again > count / 10, "{asked_again} orders met a fault");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_down_for_a_while_delays_orders_and_fails_none() {
    let bench = Bench::new().await;
    let run = bench.run().await;
    let gateway = FakeGateway::start(GatewayFaults {
        delay: Duration::from_millis(5),
        ..GatewayFaults::default()
    })
    .await;
    let mut config = bench.config(&run, &gateway);
    config.payment.gateway.max_in_flight = 20;
    config.stream.budget_records = 60;
    config.stream.batch_records = 10;
    // Attempts in place are over long before the gateway is back.
    config.stream.retry_deadline_ms = 300;
    let worker = bench.start(config);
    let count = 1_000;
    bench.order(count).await;
    eventually(LIMIT, || async { gateway.asked() > 50 }).await;
    gateway.go_down();
    let openings = || worker.metric(OPENINGS, None);
    // 50, 100, 200, 400 and 400 ms: it is down for more than a second.
    eventually(LIMIT, || async { openings() >= 6.0 }).await;
    assert_eq!(worker.metric(WAITING, Some("outage")), 1.0);
    let paused = worker.metric("orderflow_partition_pauses_total", None);
    assert!(paused > 0.0, "the budget is full and reading pauses");
    assert!(gateway.charges().len() < count, "orders wait");
    gateway.come_up();
    bench.all_committed(&run).await;
    assert_eq!(worker.metric(WAITING, None), 0.0);
    worker.stop().await;

    assert_eq!(bench.letters(&run).await, NOBODY);
    let payments = bench.payments(&run).await;
    assert_eq!(payments.len(), count);
    assert!(
        payments
            .values()
            .all(|statuses| statuses == &[PaymentStatus::Paid])
    );
    assert_eq!(charged_twice(&gateway.charges()), NOBODY);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_ends_in_time_while_its_gateway_is_away_and_the_next_one_goes_on() {
    let bench = Bench::new().await;
    let run = bench.run().await;
    let gateway = FakeGateway::start(GatewayFaults::default()).await;
    gateway.go_down();
    let mut config = bench.config(&run, &gateway);
    config.stream.drain_timeout_ms = 300;
    bench.order(50).await;
    let worker = bench.start(config.clone());
    eventually(LIMIT, || async { worker.metric(WAITING, Some("outage")) > 0.0 }).await;
    worker.stop().await;
    gateway.come_up();
    let next = bench.start(config);
    bench.all_committed(&run).await;
    next.stop().await;
    assert_eq!(bench.letters(&run).await, NOBODY);
    assert_eq!(bench.payments(&run).await.len(), 50);
    assert_eq!(charged_twice(&gateway.charges()), NOBODY);
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_credentials_stop_the_start_and_are_waited_for_afterwards() {
    let bench = Bench::new().await;
    let run = bench.run().await;
    let gateway = FakeGateway::start(GatewayFaults::default()).await;
    gateway.want_token("new");
    let mut config = bench.config(&run, &gateway);
    config.payment.gateway.bearer_token = Some(Secret::new("old"));
    let refused = tokio::time::timeout(LIMIT, bench.start(config.clone()).task).await;
    let exit = refused.unwrap().unwrap().expect_err("the start is refused");
    assert_eq!(exit.code(), 69, "{exit}");
    assert!(exit.to_string().contains("check `payment.gateway`"), "{exit}");

    gateway.want_token("old");
    let worker = bench.start(config);
    bench.order(20).await;
    bench.all_committed(&run).await;
    gateway.want_token("new");
    bench.order(40).await;
    eventually(LIMIT, || async {
        worker.metric(WAITING, Some("configuration")) > 0.0
    })
    .await;
    gateway.want_token("old");
    bench.all_committed(&run).await;
    worker.stop().await;
    assert_eq!(bench.letters(&run).await, NOBODY);
    assert_eq!(
        bench.payments(&run).await.len(),
        40,
        "20 came twice and had one effect"
    );
}

/// Gives up on an order at once, with these faults.
async fn give_up(faults: GatewayFaults) -> (Bench, support::Run, FakeGateway) {
    let bench = Bench::new().await;
    let run = bench.run().await;
    let gateway = FakeGateway::start(faults).await;
    let mut config = bench.config(&run, &gateway);
    config.stream.retry_deadline_ms = 1;
    // The circuit stays closed: it would wait instead.
    config.payment.gateway.circuit_failures = 32;
    bench.order(1).await;
    let worker = bench.start(config);
    bench.all_committed(&run).await;
    worker.stop().await;
    (bench, run, gateway)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_whose_answers_were_lost_is_found_before_anybody_gives_up() {
    let lost = GatewayFaults {
        lost: 1.0,
        ..GatewayFaults::default()
    };
    let (bench, run, gateway) = give_up(lost).await;
    assert_eq!(bench.payments(&run).await["1"], [PaymentStatus::Paid]);
    assert_eq!(bench.letters(&run).await, NOBODY);
    assert_eq!(gateway.charges()[0].charged, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_whose_outcome_nobody_tells_is_a_dead_letter_and_not_called_failed() {
    let failed = GatewayFaults {
        failed: 1.0,
        ..GatewayFaults::default()
    };
    let (bench, run, _gateway) = give_up(failed).await;
    assert!(bench.payments(&run).await.is_empty());
    assert_eq!(bench.letters(&run).await, ["outcome_unknown"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_that_are_older_than_their_keys_are_not_charged_again() {
    let bench = Bench::new().await;
    let gateway = FakeGateway::start(GatewayFaults::default()).await;
    bench.order(100).await;
    // Two groups settle the same orders, as after a reset to the beginning; the keys are gone between.
    for _ in 0..2 {
        let run = bench.run().await;
        let mut config = bench.config(&run, &gateway);
        config.payment.gateway.key_lifetime_ms = 0;
        let worker = bench.start(config);
        bench.all_committed(&run).await;
        worker.stop().await;
        assert_eq!(bench.payments(&run).await.len(), 100);
        gateway.forget_keys();
    }
    assert_eq!(charged_twice(&gateway.charges()), NOBODY);
}
