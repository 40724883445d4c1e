//! The admin port, as a test in another language uses it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod support;

use std::time::{Duration, Instant};

use devbroker::{Broker, DataOptions, Options};
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::FutureRecord;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use support::*;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};

/// A client. None can be made before somebody has said whose cryptography TLS stands on.
fn http() -> Client {
    if CryptoProvider::get_default().is_none() {
        // Another test of this process was first, and chose the same.
        let _installed = ring::default_provider().install_default().is_ok();
    }
    Client::new()
}

struct Port {
    broker: Broker,
    client: Client,
}

impl Port {
    async fn open() -> Self {
        Self::of(Options::default()).await
    }

    async fn of(options: Options) -> Self {
        let admin = Some(([127, 0, 0, 1], 0).into());
        let broker = Broker::start(Options { admin, ..options });
        Self {
            broker: broker.await.unwrap(),
            client: http(),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.broker.admin_address().unwrap())
    }

    /// Status and body; an empty body is null.
    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let request = self.client.request(method, self.url(path));
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or_default())
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = self.call(Method::GET, path, None).await;
        assert_eq!(status, 200, "{body}");
        body
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_off_unless_it_is_asked_for() {
    assert_eq!(broker().await.admin_address(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_what_it_is_and_what_the_broker_counts() {
    let port = Port::open().await;
    let guide = port.client.get(port.url("/")).send().await.unwrap();
    let guide = guide.text().await.unwrap();
    assert!(guide.contains("never for production"), "{guide}");
    port.broker.create_topic("orders", 1).unwrap();
    assert_eq!(port.get("/stats").await["topics"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_is_injected_seen_and_removed() {
    let port = Port::open().await;
    port.broker.create_topic("orders", 1).unwrap();
    let fault =
        json!({"fault": "answer_error", "error": "POLICY_VIOLATION", "api": "Produce", "topic": "orders"});
    let (status, body) = port.call(Method::POST, "/faults", Some(fault.clone())).await;
    assert_eq!((status, &body), (201, &json!({"id": 1})));
    let producer = producer(&port.broker, &[]);
    let record = FutureRecord::to("orders").key("key").payload("value");
    let sent = producer.send(record, Duration::ZERO).await;
    let refused = KafkaError::MessageProduction(RDKafkaErrorCode::PolicyViolation);
    assert_eq!(sent.unwrap_err().0, refused);

    let known = port.get("/faults").await;
    let expected = json!([{
        "id": 1, "struck": 1, "armed": false, "fault": "answer_error", "error": "POLICY_VIOLATION",
        "api": "Produce", "topic": "orders", "after": 0, "times": 1
    }]);
    assert_eq!(known, expected);
    assert_eq!(port.call(Method::DELETE, "/faults/1", None).await.0, 204);
    assert_eq!(port.call(Method::DELETE, "/faults/1", None).await.0, 404);
    port.call(Method::POST, "/faults", Some(fault)).await;
    let cleared = port.call(Method::DELETE, "/faults", None).await;
    assert_eq!(cleared, (200, json!({"removed": 1})));
    assert_eq!(port.get("/faults").await, json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn coordinators_forget_and_the_clock_moves() {
    let port = Port::open().await;
    port.broker.create_topic("orders", 1).unwrap();
    let _silent = silent_member(&port.broker, "pay/ment", "orders").await;
    let observer = consumer(&port.broker, &[("group.id", "observer")]);
    let members = |group: &str| {
        let list = observer.fetch_group_list(Some(group), DEADLINE).unwrap();
        let members = list.groups().iter().flat_map(|group| group.members());
        members.map(|member| member.id().to_owned()).collect::<Vec<_>>()
    };
    let member = members("pay/ment").pop().unwrap();
    let forget = |member: &str| format!("/groups/pay%2Fment/members/{member}/forget");
    let (status, body) = port.call(Method::POST, &forget("nobody"), None).await;
    assert_eq!(status, 404);
    assert_eq!(body["error"], "there is no member `nobody` in a group `pay/ment`");
    assert_eq!(port.call(Method::POST, &forget(&member), None).await.0, 204);
    assert_eq!(members("pay/ment").len(), 0);
    let forgotten = port.call(Method::POST, "/groups/pay%2Fment/forget", None).await;
    assert_eq!(forgotten.0, 204);

    // A second one, whose session the clock ends.
    let _second = silent_member(&port.broker, "fraud", "orders").await;
    let step = json!({"ms": 600_000});
    assert_eq!(port.call(Method::POST, "/clock/advance", Some(step)).await.0, 204);
    poll_until(&[], || members("fraud").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_fills_and_has_room_again() {
    let folder = tempfile::tempdir().unwrap();
    let port = Port::of(Options {
        data: Some(DataOptions::new(folder.path())),
        ..Options::default()
    })
    .await;
    port.broker.create_topic("orders", 1).unwrap();
    let producer = producer(&port.broker, &[("retries", "0")]);
    let send = async || {
        let record = FutureRecord::to("orders").key("key").payload("value");
        producer
            .send(record, Duration::ZERO)
            .await
            .map_err(|(error, _)| error)
    };
    send().await.unwrap();
    assert_eq!(port.call(Method::POST, "/disk/fill", None).await.0, 204);
    let full = KafkaError::MessageProduction(RDKafkaErrorCode::KafkaStorageError);
    assert_eq!(send().await.unwrap_err(), full);
    assert_eq!(port.call(Method::POST, "/disk/free", None).await.0, 204);
    assert_eq!(send().await.unwrap().offset, 1);

    let (status, body) = Port::open().await.call(Method::POST, "/disk/fill", None).await;
    assert_eq!(status, 409);
    assert!(
        body["error"].as_str().unwrap().contains("no data folder"),
        "{body}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_request_is_said_with_its_field() {
    let port = Port::open().await;
    let post = Method::POST;
    let too_much = "x".repeat(20_000);
    let cases = [
        (
            &post,
            "/faults",
            json!({"fault": "drop_after", "times": "x"}),
            422,
            "times: invalid type",
        ),
        (
            &post,
            "/faults",
            json!({"fault": "drop_after", "times": -1}),
            422,
            "times: invalid value",
        ),
        (
            &post,
            "/faults",
            json!({"fault": "drop_after", "times": 0}),
            400,
            "`times` is `0`",
        ),
        (
            &post,
            "/faults",
            json!({"fault": "drop_after", "tims": 1}),
            422,
            "unknown field `tims`",
        ),
        (
            &post,
            "/faults",
            json!({"api": "Produce"}),
            422,
            "missing field `fault`",
        ),
        (
            &post,
            "/faults",
            json!({"fault": "drop_after", "topic": too_much}),
            413,
            "length limit",
        ),
        (
            &post,
            "/faults",
            json!({"fault": "drop_after", "topic": "x".repeat(2_000)}),
            400,
            "`topic` is longer",
        ),
        (
            &post,
            "/faults",
            json!({"fault": "delay", "delay_ms": 4_000_000}),
            400,
            "delay",
        ),
        (&post, "/clock/advance", json!({"ms": 0}), 400, "`ms` is `0`"),
        (
            &post,
            "/clock/advance",
            json!({"ms": "1 h"}),
            422,
            "ms: invalid type",
        ),
        (&post, "/clock/advance", json!({}), 422, "missing field `ms`"),
        (
            &Method::PUT,
            "/faults",
            json!({}),
            404,
            "there is no `PUT /faults`",
        ),
        (&Method::DELETE, "/faults/one", json!({}), 400, "`id` is `one`"),
        (&Method::GET, "/fault", json!({}), 404, "there is no `GET /fault`"),
    ];
    for (method, path, body, expected, sentence) in cases {
        let (status, answer) = port.call(method.clone(), path, Some(body)).await;
        let error = answer["error"].as_str().unwrap_or_default();
        assert_eq!(status, expected, "{method} {path}: {answer}");
        assert!(error.contains(sentence), "{method} {path}: {error}");
    }
    // What a page in a browser could send to another origin.
    let request = port
        .client
        .post(port.url("/faults"))
        .body(r#"{"fault":"drop_after"}"#);
    assert_eq!(request.send().await.unwrap().status(), 415);
    assert_eq!(
        port.get("/faults").await,
        json!([]),
        "nothing of this was injected"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_in_a_browser_are_kept_out() {
    let port = Port::open().await;
    port.broker.create_topic("orders", 1).unwrap();
    let send = async |header: &str, value: &str| {
        let request = port.client.post(port.url("/groups/readers/forget"));
        let response = request.header(header, value).send().await.unwrap();
        let status = response.status().as_u16();
        let body: Value = response.json().await.unwrap();
        (status, body["error"].as_str().unwrap().to_owned())
    };
    for origin in ["https://example.com", "http://localhost", "null"] {
        let (status, error) = send("origin", origin).await;
        assert_eq!(status, 403, "{origin}: {error}");
        assert!(error.contains("`Origin`"), "{error}");
    }
    for host in [
        "example.com",
        "example.com:80",
        "localhost.example.com",
        "127.0.0.1.example.com",
        "[",
        "",
    ] {
        let (status, error) = send("host", host).await;
        assert_eq!(status, 403, "{host}: {error}");
        assert!(error.contains("`localhost`"), "{error}");
    }
    for host in [
        "localhost",
        "LocalHost:1",
        "127.0.0.1",
        "127.0.0.1:1",
        "[::1]",
        "[::1]:1",
    ] {
        let (status, error) = send("host", host).await;
        assert_eq!(
            (status, error.as_str()),
            (404, "there is no group `readers`"),
            "{host}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_with_the_broker_also_while_a_client_keeps_its_connection() {
    let port = Port::open().await;
    port.get("/stats").await;
    let Port { broker, client } = port;
    let address = broker.admin_address().unwrap();
    let started = Instant::now();
    broker.stop().await;
    assert!(started.elapsed() < Duration::from_secs(5));
    let url = format!("http://{address}/stats");
    assert!(client.get(&url).send().await.is_err(), "it answers no more");
}
