//! The API over a store in a temporary file, asked over HTTP.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod common;

use std::sync::Arc;

use async_trait::async_trait;
use common::{Sample, Server, store};
use docstore::{
    Arrivals, Collection, DocumentStore, OrderRecord, Outcome, StoreError, StoredDocument, Summary,
    VersionedDocument,
};
use report::ReportSettings;
use serde_json::Value;

async fn get(url: String) -> (u16, String) {
    let response = testkit::fetch(url).await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[tokio::test]
async fn analytics_answers_the_newest_orders_byte_for_byte_with_payment_and_alert_beside_them() {
    let (_folder, store) = store();
    let samples: Vec<_> = (1..=25)
        .map(|n| Sample {
            id: n,
            ..Sample::default()
        })
        .collect();
    common::write(&store, &samples).await;
    let server = Server::start(report::router(Arc::clone(&store))).await;

    let (status, text) = get(server.url("/api/analytics")).await;
    assert_eq!(status, 200);
    let answer = json(&text);
    assert_eq!(answer["orders"].as_array().unwrap().len(), 10);
    assert_eq!(answer["orders"][0]["order_id"], 25);
    assert_eq!(answer["orders"][9]["order_id"], 16);
    assert_eq!(answer["details"][0]["order_id"], "25");
    assert_eq!(answer["details"][0]["payment"]["status"], "PAID");
    assert_eq!(answer["details"][0]["alert"], Value::Null);
    let stored = store.order("25").await.unwrap().unwrap().order.body;
    assert!(text.contains(&stored), "an order goes out as it is stored");
    // Neither number survives a float.
    assert!(stored.contains("\"amount\":249.9900") && stored.contains("\"note\":90071992547409931.10"));

    let (_, text) = get(server.url("/api/analytics?limit=1000&unknown=1")).await;
    assert_eq!(json(&text)["orders"].as_array().unwrap().len(), 25);
    let (_, text) = get(server.url("/api/analytics?limit=1")).await;
    assert_eq!(json(&text)["orders"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn an_empty_store_answers_empty_lists_and_zeros() {
    let (_folder, store) = store();
    let server = Server::start(report::router(store)).await;
    assert_eq!(
        get(server.url("/api/analytics")).await.1,
        r#"{"orders":[],"details":[]}"#
    );
    let summary = json(&get(server.url("/api/summary")).await.1);
    assert_eq!(summary["orders"], serde_json::json!({"count": 0, "amounts": {}}));
    assert_eq!(summary["newest_order_time_ms"], Value::Null);
    assert_eq!(json(&get(server.url("/api/health")).await.1)["status"], "ok");
}

#[tokio::test]
async fn a_limit_that_is_not_1_to_1000_is_a_problem_that_names_it() {
    let (_folder, store) = store();
    let server = Server::start(report::router(store)).await;
    for bad in [
        "0",
        "1001",
        "-1",
        "ten",
        "",
        "1.0",
        "99999999999999999999",
        "%3Cb%3E",
        "1&limit=2",
        "%ff",
    ] {
        let response = testkit::fetch(server.url(&format!("/api/analytics?limit={bad}")))
            .await
            .unwrap();
        assert_eq!(response.status(), 400, "{bad}");
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let problem = json(&response.text().await.unwrap());
        assert_eq!(problem["status"], 400);
        assert_eq!(problem["title"], "Bad Request");
        assert_eq!(problem["code"], "bad_parameter", "{bad}");
        assert!(
            problem["detail"].as_str().unwrap().contains("`limit`"),
            "{problem}"
        );
    }
    assert_eq!(get(server.url("/api/arrivals?minutes=1441")).await.0, 400);
}

#[tokio::test]
async fn an_order_is_found_under_any_text_that_an_id_can_have() {
    let (_folder, store) = store();
    for (number, text) in ["a/b", "100%", "payment::1", "?#&", "..", "\"quoted\""]
        .into_iter()
        .enumerate()
    {
        let sample = Sample {
            id: number as i64,
            text_id: Some(text.to_owned()),
            ..Sample::default()
        };
        common::write(&store, &[sample]).await;
        let server = Server::start(report::router(Arc::clone(&store))).await;
        let encoded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
        // A URL library folds `..` even when it is encoded; the list still shows such an order.
        if text != ".." {
            let (status, body) = get(server.url(&format!("/api/orders/{encoded}"))).await;
            assert_eq!(status, 200, "{text}: {body}");
            assert_eq!(json(&body)["order"]["order_id"], text);
            assert_eq!(json(&body)["payment"]["status"], "PAID");
        }
        let (_, list) = get(server.url("/api/analytics?limit=1")).await;
        assert_eq!(json(&list)["details"][0]["order_id"], text);
    }
}

#[tokio::test]
async fn what_is_not_there_is_a_404_problem() {
    let (_folder, store) = store();
    let server = Server::start(report::router(store)).await;
    for path in [
        "/api/orders/404",
        "/api/orders/%ff",
        "/api/nothing",
        "/nothing",
        "/api/orders/1/x",
    ] {
        let response = testkit::fetch(server.url(path)).await.unwrap();
        assert_eq!(response.status(), 404, "{path}");
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json",
            "{path}"
        );
    }
    let posted = testkit::http()
        .post(server.url("/api/summary"))
        .send()
        .await
        .unwrap();
    assert_eq!(posted.status(), 405);
    assert_eq!(posted.headers()["content-type"], "application/problem+json");
}

#[tokio::test]
async fn the_summary_has_exact_sums_as_text() {
    let (_folder, store) = store();
    let samples = [
        Sample {
            id: 1,
            currency: "USD",
            minor: i64::MAX,
            country: "US",
            ..Sample::default()
        },
        Sample {
            id: 2,
            currency: "USD",
            minor: i64::MAX,
            country: "US",
            status: Some("DECLINED"),
            ..Sample::default()
        },
        Sample {
            id: 3,
            currency: "JPY",
            minor: 500,
            country: "JP",
            level: Some("High"),
            ..Sample::default()
        },
        Sample {
            id: 4,
            currency: "KWD",
            minor: 1_234,
            country: "KW",
            status: None,
            ..Sample::default()
        },
    ];
    common::write(&store, &samples).await;
    let server = Server::start(report::router(store)).await;
    let summary = json(&get(server.url("/api/summary")).await.1);
    // 2 * 9223372036854775807 = 18446744073709551614 cents
    assert_eq!(
        summary["by_currency"]["USD"]["amounts"]["USD"],
        "184467440737095516.14"
    );
    assert_eq!(summary["orders"]["amounts"]["JPY"], "500");
    assert_eq!(summary["by_country"]["KW"]["amounts"]["KWD"], "1.234");
    assert_eq!(summary["by_status"]["DECLINED"]["count"], 1);
    assert_eq!(summary["by_status"]["PAID"]["count"], 2);
    assert_eq!(summary["by_risk_level"]["High"]["count"], 1);
    assert_eq!(summary["orders"]["count"], 4);
    assert_eq!(summary["payments"]["count"], 3);
    assert_eq!(summary["newest_order_time_ms"], 4_000);
}

#[tokio::test]
async fn an_unchanged_answer_is_304_and_a_change_is_seen() {
    let (_folder, store) = store();
    common::write(
        &store,
        &[Sample {
            id: 1,
            ..Sample::default()
        }],
    )
    .await;
    let server = Server::start(report::router(Arc::clone(&store))).await;
    let client = testkit::http();
    for path in [
        "/api/analytics",
        "/api/summary",
        "/api/orders/1",
        "/",
        "/page.js",
        "/page.css",
    ] {
        let first = client.get(server.url(path)).send().await.unwrap();
        assert_eq!(first.headers()["cache-control"], "no-cache", "{path}");
        let tag = first.headers()["etag"].to_str().unwrap().to_owned();
        let ask = |tag: String| client.get(server.url(path)).header("if-none-match", tag).send();
        let again = ask(format!("\"other\", W/{tag}")).await.unwrap();
        assert_eq!(
            (again.status().as_u16(), again.content_length().unwrap_or(0)),
            (304, 0),
            "{path}"
        );
        assert_eq!(ask("\"other\"".into()).await.unwrap().status(), 200);
    }
    let tag = client
        .get(server.url("/api/summary"))
        .send()
        .await
        .unwrap()
        .headers()["etag"]
        .clone();
    common::write(
        &store,
        &[Sample {
            id: 2,
            ..Sample::default()
        }],
    )
    .await;
    let changed = client
        .get(server.url("/api/summary"))
        .header("if-none-match", tag)
        .send()
        .await
        .unwrap();
    assert_eq!(changed.status(), 200);
}

#[tokio::test]
async fn every_answer_has_the_security_headers() {
    let (_folder, store) = store();
    let server = Server::start(report::router(store)).await;
    for path in ["/", "/page.js", "/api/summary", "/api/orders/none", "/nothing"] {
        let response = testkit::fetch(server.url(path)).await.unwrap();
        let headers = response.headers();
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(
            policy.contains("default-src 'none'") && policy.contains("script-src 'self'"),
            "{path}"
        );
        assert!(
            policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"),
            "{path}"
        );
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert_eq!(headers["x-frame-options"], "DENY");
        assert_eq!(headers["referrer-policy"], "no-referrer");
    }
}

/// A store that never answers, or answers with an error.
struct Broken(Option<StoreError>);

impl Broken {
    async fn fail<T>(&self) -> Result<T, StoreError> {
        match &self.0 {
            Some(error) => Err(error.clone()),
            None => std::future::pending().await,
        }
    }
}

#[async_trait]
impl DocumentStore for Broken {
    async fn upsert_newer(&self, _: Collection, _: &[VersionedDocument]) -> Result<Outcome, StoreError> {
        self.fail().await
    }
    async fn insert_first(&self, _: Collection, _: &[VersionedDocument]) -> Result<Outcome, StoreError> {
        self.fail().await
    }
    async fn recent_orders(&self, _: usize) -> Result<Vec<OrderRecord>, StoreError> {
        self.fail().await
    }
    async fn order(&self, _: &str) -> Result<Option<OrderRecord>, StoreError> {
        self.fail().await
    }
    async fn summary(&self) -> Result<Summary, StoreError> {
        self.fail().await
    }
    async fn alerts(&self, _: usize) -> Result<Vec<StoredDocument>, StoreError> {
        self.fail().await
    }
    async fn page(
        &self,
        _: Collection,
        _: Option<&str>,
        _: usize,
    ) -> Result<Vec<StoredDocument>, StoreError> {
        self.fail().await
    }
    async fn arrivals(&self, _: i64) -> Result<Vec<Arrivals>, StoreError> {
        self.fail().await
    }
    async fn ping(&self) -> Result<(), StoreError> {
        self.fail().await
    }
    fn describe(&self) -> String {
        "broken".into()
    }
}

#[tokio::test]
async fn a_store_that_fails_is_503_with_retry_after_and_without_its_path() {
    let error = StoreError::transient("locked", "`/secret/place/orderflow.db` is locked");
    let server = Server::start(report::router(Arc::new(Broken(Some(error))))).await;
    for path in ["/api/analytics", "/api/summary", "/api/orders/1", "/api/arrivals"] {
        let response = testkit::fetch(server.url(path)).await.unwrap();
        assert_eq!(response.status(), 503, "{path}");
        assert_eq!(response.headers()["retry-after"], "1");
        let text = response.text().await.unwrap();
        assert_eq!(json(&text)["code"], "locked");
        assert!(!text.contains("secret"), "{text}");
    }
    let (status, text) = get(server.url("/api/health")).await;
    assert_eq!(
        (status, json(&text)["status"].as_str()),
        (503, Some("unavailable"))
    );
    assert_eq!(
        get(server.url("/")).await.0,
        200,
        "the page itself does not need the store"
    );
}

#[tokio::test]
async fn a_store_that_hangs_is_given_up_and_too_many_requests_are_turned_away() {
    let settings = ReportSettings {
        request_timeout_ms: 400,
        max_concurrent_requests: 2,
        ..ReportSettings::default()
    };
    let router = report::router_with(Arc::new(Broken(None)), &settings, Default::default());
    let server = Server::start(router).await;
    let asked: Vec<_> = (0..5)
        .map(|_| tokio::spawn(get(server.url("/api/summary"))))
        .collect();
    let mut codes = Vec::new();
    for answer in asked {
        let (status, text) = answer.await.unwrap();
        assert_eq!(status, 503);
        codes.push(json(&text)["code"].as_str().unwrap().to_owned());
    }
    codes.sort();
    assert_eq!(
        codes,
        ["timed_out", "timed_out", "too_busy", "too_busy", "too_busy"]
    );
    assert_eq!(get(server.url("/")).await.0, 200);
}
