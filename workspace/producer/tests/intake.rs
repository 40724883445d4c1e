//! The HTTP intake over a real socket, with an outlet in memory.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

use std::pin::Pin;
use std::sync::{Arc, Mutex};

use domain::{AdmittedOrder, Currency};
use producer::config::IntakeSettings;
use producer::intake::{MAX_BODY_BYTES, MAX_ORDERS, router};
use producer::metrics::ProducerMetrics;
use producer::outlet::Outlet;
use prometheus::Registry;
use serde_json::{Value, json};
use stream::publisher::Acknowledged;
use stream::{Offset, Partition, StreamError};

type Answer = Result<Acknowledged, StreamError>;

#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Acknowledges,
    Silent,
    Refuses,
    /// Acknowledges orders with an even number, never answers for the others.
    SilentForOdd,
}

#[derive(Clone)]
struct Memory {
    mood: Mood,
    sent: Arc<Mutex<Vec<AdmittedOrder>>>,
}

impl Outlet for Memory {
    type Delivery = Pin<Box<dyn Future<Output = Answer> + Send>>;

    async fn send(&self, order: &AdmittedOrder) -> Result<Self::Delivery, StreamError> {
        let mut sent = self.sent.lock().unwrap();
        sent.push(order.clone());
        let odd = order.key.ends_with(['1', '3', '5', '7', '9']);
        let at = Acknowledged {
            partition: Partition(2),
            offset: Offset(sent.len() as i64 + 40),
        };
        Ok(match self.mood {
            Mood::Acknowledges => Box::pin(std::future::ready(Ok(at))),
            Mood::SilentForOdd if !odd => Box::pin(std::future::ready(Ok(at))),
            Mood::Silent | Mood::SilentForOdd => Box::pin(std::future::pending()),
            Mood::Refuses => Box::pin(std::future::ready(Err(StreamError::Delivery {
                topic: "orders".to_owned(),
                failed: 1,
                cause: "broker: secret.internal:9092".to_owned(),
            }))),
        })
    }

    fn topic(&self) -> &str {
        "orders"
    }

    fn trouble(&self) -> Option<String> {
        None
    }
}

struct Intake {
    url: String,
    sent: Arc<Mutex<Vec<AdmittedOrder>>>,
    client: reqwest::Client,
}

struct Answered {
    status: u16,
    content_type: String,
    retry_after: Option<String>,
    body: Value,
}

impl Intake {
    async fn start(mood: Mood, max_concurrent_requests: usize) -> Self {
        let sent = Arc::default();
        let outlet = Memory {
            mood,
            sent: Arc::clone(&sent),
        };
        let settings = IntakeSettings {
            acknowledge_timeout_ms: if mood == Mood::Acknowledges { 60_000 } else { 300 },
            max_concurrent_requests,
            ..IntakeSettings::default()
        };
        let metrics = ProducerMetrics::register(&Registry::new()).unwrap();
        let router = router(&settings, Currency::USD, outlet, metrics);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/api/orders", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self {
            url,
            sent,
            client: testkit::http(),
        }
    }

    async fn post(&self, body: impl Into<reqwest::Body>) -> Answered {
        self.send(
            self.client
                .post(&self.url)
                .header("content-type", "application/json")
                .body(body),
        )
        .await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Answered {
        let response = request.send().await.unwrap();
        let header = |name: &str| {
            response
                .headers()
                .get(name)
                .map(|value| value.to_str().unwrap().to_owned())
        };
        let (content_type, retry_after) = (header("content-type").unwrap_or_default(), header("retry-after"));
        Answered {
            status: response.status().as_u16(),
            content_type,
            retry_after,
            body: response.json().await.unwrap_or_default(),
        }
    }
}

fn order(id: usize) -> String {
    format!(r#"{{"order_id":{id},"amount":1.50,"country":"FR"}}"#)
}

#[tokio::test]
async fn a_good_order_is_answered_with_its_place_in_the_topic() {
    let intake = Intake::start(Mood::Acknowledges, 10).await;
    let answer = intake.post(order(7)).await;
    assert_eq!(
        (answer.status, answer.content_type.as_str()),
        (201, "application/json")
    );
    assert_eq!(
        answer.body,
        json!({"order_id": 7, "topic": "orders", "partition": 2, "offset": 41})
    );
    let answer = intake
        .post(r#" {"order_id":"A-1","amount":"2","country":"FR"} "#)
        .await;
    assert_eq!(answer.body["order_id"], "A-1");
    let sent = intake.sent.lock().unwrap();
    assert_eq!((sent[0].key.as_str(), sent[1].key.as_str()), ("7", "A-1"));
    // What is sent is the order as it came, with the time of intake.
    let value = String::from_utf8(sent[0].value.clone()).unwrap();
    assert!(
        value.starts_with(r#"{"order_id":7,"amount":1.50,"country":"FR","timestamp":"20"#),
        "{value}"
    );
}

#[tokio::test]
async fn bad_orders_are_problems_with_code_and_sentence() {
    let intake = Intake::start(Mood::Acknowledges, 10).await;
    let large = format!(
        r#"{{"order_id":1,"amount":1,"country":"US","x":"{}"}}"#,
        "x".repeat(domain::MAX_ORDER_BYTES)
    );
    for (body, status, code, detail) in [
        (
            r#"{"order_id":1,"amount":-3.10,"country":"US"}"#,
            422,
            "amount_not_positive",
            "`amount` is `-3.10`, must be more than 0",
        ),
        (
            r#"{"order_id":1,"amount":1,"country":"US","_orderflow":1}"#,
            422,
            "reserved_field",
            "`_orderflow` is reserved",
        ),
        (
            r#"{"order_id":1,"amount":1}"#,
            422,
            "missing_field",
            "`country` is missing",
        ),
        (r#"{"order_id":1,"#, 400, "invalid_json", "it ends at byte 14"),
        ("", 400, "invalid_json", "it ends at byte 0"),
        ("[1,", 400, "invalid_json", "it ends at byte 3"),
        ("[]", 422, "no_orders", "the array is empty"),
        ("\"order\"", 422, "not_an_object", "must be a JSON object"),
        (large.as_str(), 413, "too_large", "must have at most 262144"),
    ] {
        let answer = intake.post(body.to_owned()).await;
        assert_eq!(
            (answer.status, answer.content_type.as_str()),
            (status, "application/problem+json"),
            "{code}"
        );
        assert_eq!(
            (&answer.body["code"], &answer.body["status"]),
            (&json!(code), &json!(status))
        );
        assert!(
            answer.body["detail"].as_str().unwrap().contains(detail),
            "{}",
            answer.body
        );
        assert!(answer.body["title"].is_string() && answer.body["type"] == "about:blank");
    }
    assert!(intake.sent.lock().unwrap().is_empty());
}

#[tokio::test]
async fn arrays_are_answered_per_order() {
    let intake = Intake::start(Mood::Acknowledges, 10).await;
    let answer = intake.post(format!("[{},{}]", order(1), order(2))).await;
    assert_eq!(answer.status, 201);
    assert_eq!(
        answer.body[1],
        json!({"order_id": 2, "topic": "orders", "partition": 2, "offset": 42})
    );

    let answer = intake
        .post(format!(r#"[{},{{"order_id":4}},{}]"#, order(3), order(5)))
        .await;
    assert_eq!(
        (answer.status, answer.content_type.as_str()),
        (207, "application/json")
    );
    let statuses: Vec<_> = answer
        .body
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["index"].clone(), one["status"].clone()))
        .collect();
    assert_eq!(
        statuses,
        [
            (json!(0), json!(201)),
            (json!(1), json!(422)),
            (json!(2), json!(201))
        ]
    );
    assert_eq!(answer.body[1]["code"], "missing_field");
    assert_eq!(answer.body[2]["order_id"], 5);

    let answer = intake.post(r#"[{"order_id":4},7]"#).await;
    assert_eq!(
        (answer.status, answer.content_type.as_str()),
        (422, "application/problem+json")
    );
    assert_eq!(answer.body["problems"][1]["code"], "not_an_object");
    assert_eq!(answer.body["problems"].as_array().unwrap().len(), 2);
    assert_eq!(intake.sent.lock().unwrap().len(), 4);
}

#[tokio::test]
async fn requests_that_are_too_large_are_refused_as_a_whole() {
    let intake = Intake::start(Mood::Acknowledges, 10).await;
    let orders = |count: usize| format!("[{}]", (0..count).map(order).collect::<Vec<_>>().join(","));
    assert_eq!(intake.post(orders(MAX_ORDERS)).await.status, 201);
    intake.sent.lock().unwrap().clear();
    let answer = intake.post(orders(MAX_ORDERS + 1)).await;
    assert_eq!(
        (answer.status, &answer.body["code"]),
        (413, &json!("too_many_orders"))
    );
    let answer = intake.post(vec![b' '; MAX_BODY_BYTES + 1]).await;
    assert_eq!((answer.status, &answer.body["code"]), (413, &json!("too_large")));
    assert!(intake.sent.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_is_no_json_request_is_told_so() {
    let intake = Intake::start(Mood::Acknowledges, 10).await;
    let form = intake
        .client
        .post(&intake.url)
        .header("content-type", "text/plain")
        .body(order(1));
    let answer = intake.send(form).await;
    assert_eq!((answer.status, &answer.body["code"]), (415, &json!("not_json")));
    assert_eq!(intake.send(intake.client.get(&intake.url)).await.status, 405);
    let elsewhere = intake.client.post(intake.url.replace("orders", "order")).body("");
    assert_eq!(intake.send(elsewhere).await.status, 404);
    assert!(intake.sent.lock().unwrap().is_empty());
}

#[tokio::test]
async fn no_acknowledgement_is_503_and_never_201() {
    for mood in [Mood::Silent, Mood::Refuses] {
        let intake = Intake::start(mood, 10).await;
        for body in [order(1), format!("[{},{}]", order(1), order(2))] {
            let answer = intake.post(body).await;
            assert_eq!((answer.status, answer.retry_after.as_deref()), (503, Some("5")));
            assert_eq!(answer.body["code"], "not_acknowledged");
            // Names of brokers are no business of a client.
            assert!(!answer.body.to_string().contains("9092"), "{}", answer.body);
        }
    }
    let intake = Intake::start(Mood::SilentForOdd, 10).await;
    let answer = intake.post(format!("[{},{}]", order(1), order(2))).await;
    assert_eq!(answer.status, 207);
    assert_eq!(
        (&answer.body[0]["status"], &answer.body[1]["status"]),
        (&json!(503), &json!(201))
    );
}

#[tokio::test]
async fn more_requests_than_there_are_places_are_told_to_come_again() {
    let intake = Intake::start(Mood::Silent, 1).await;
    let (first, second) = tokio::join!(intake.post(order(1)), intake.post(order(2)));
    let mut codes = [
        first.body["code"].as_str().unwrap(),
        second.body["code"].as_str().unwrap(),
    ];
    codes.sort_unstable();
    assert_eq!(codes, ["not_acknowledged", "too_many_requests"]);
    assert_eq!((first.status, second.status), (503, 503));
}
