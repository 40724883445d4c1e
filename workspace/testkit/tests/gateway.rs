//! The fake gateway: what it loses, it has charged; what it refuses, it has not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

use std::time::Duration;

use testkit::{FakeGateway, GatewayFaults, Launch, Outcome, charged_twice, eventually, get};

const DEADLINE: Duration = Duration::from_secs(20);

/// Status and body, or what the client says when there is none.
async fn charge(url: &str, key: &str) -> Result<(u16, String), String> {
    let request = testkit::http()
        .post(url)
        .header("Idempotency-Key", key)
        .body(r#"{"order_id":1,"amount":10.000000000000000001}"#);
    let answer = async {
        let response = request.send().await?;
        Ok((response.status().as_u16(), response.text().await?))
    };
    answer.await.map_err(|error: reqwest::Error| error.to_string())
}

fn paid() -> Result<(u16, String), String> {
    Ok((200, r#"{"status":"PAID"}"#.to_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_charge_whose_answer_is_lost_is_done_and_told_when_asked_again() {
    let lost = GatewayFaults {
        lost: 1.0,
        ..GatewayFaults::default()
    };
    let gateway = FakeGateway::start(lost).await;
    charge(&gateway.url(), "k").await.expect_err("no answer");
    assert_eq!(gateway.struck(), 1);
    gateway.set_faults(GatewayFaults::default());
    assert_eq!(charge(&gateway.url(), "k").await, paid());
    let charges = gateway.charges();
    assert_eq!((charges[0].asked, charges[0].charged), (2, 1));
    assert_eq!(charges[0].amount, "10.000000000000000001");
    assert_eq!(charges[0].outcome, Some(Outcome::Paid));
    assert!(charged_twice(&charges).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_hangs_up_does_not_undo_a_charge_and_who_asks_meanwhile_is_told_to_wait() {
    let gateway = FakeGateway::start(GatewayFaults {
        delay: Duration::from_millis(500),
        ..GatewayFaults::default()
    })
    .await;
    let first = tokio::time::timeout(Duration::from_millis(100), charge(&gateway.url(), "k")).await;
    assert!(first.is_err(), "hung up");
    assert_eq!(charge(&gateway.url(), "k").await.unwrap().0, 409);
    eventually(DEADLINE, || async {
        charge(&gateway.url(), "k").await.unwrap() == paid().unwrap()
    })
    .await;
    assert_eq!(gateway.charges()[0].charged, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_not_charged() {
    let gateway = FakeGateway::start(GatewayFaults {
        failed: 1.0,
        ..GatewayFaults::default()
    })
    .await;
    assert_eq!(charge(&gateway.url(), "k").await.unwrap().0, 500);
    gateway.set_faults(GatewayFaults {
        throttled: 1.0,
        ..GatewayFaults::default()
    });
    assert_eq!(charge(&gateway.url(), "k").await.unwrap().0, 429);
    assert_eq!(gateway.struck(), 2);
    gateway.refuse_all(Some(503));
    assert_eq!(charge(&gateway.url(), "k").await.unwrap().0, 503);
    gateway.refuse_all(None);
    gateway.set_faults(GatewayFaults::default());
    assert_eq!(get(&format!("{}/k", gateway.url())).await.unwrap().0, 404);
    assert_eq!(gateway.charges()[0].charged, 0);
    let without_key = testkit::http().post(gateway.url()).send().await.unwrap();
    assert_eq!(without_key.status(), 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_is_down_nobody_gets_through_and_then_it_is_there_again() {
    let gateway = FakeGateway::start(GatewayFaults::default()).await;
    let client = testkit::http();
    let list = || client.get(gateway.url()).send();
    assert_eq!(list().await.unwrap().status(), 200);
    gateway.go_down();
    // Neither over the connection that is there nor over a new one.
    for _ in 0..3 {
        list().await.expect_err("down");
    }
    gateway.come_up();
    eventually(DEADLINE, list).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn as_a_process_it_says_where_it_listens_and_lists_what_it_charged() {
    let gateway = Launch::new(env!("CARGO_BIN_EXE_fake_gateway"))
        .arg("--declined")
        .arg("1")
        .start();
    let line = gateway.wait_for_line("listening on", DEADLINE).await;
    let url = format!("http://{}/charges", line.split(' ').next_back().unwrap());
    let declined = charge(&url, "k").await.unwrap();
    assert_eq!(declined, (200, r#"{"status":"DECLINED"}"#.to_owned()));
    assert_eq!(
        get(&url).await.unwrap().1,
        "{\"amount\":\"10.000000000000000001\",\"asked\":1,\"charged\":0,\"key\":\"k\",\"order_id\":\"1\",\"status\":\"DECLINED\"}\n"
    );
}
