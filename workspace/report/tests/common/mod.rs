//! A store with documents, and a served router.
#![allow(dead_code)]

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use docstore::{
    Collection, DocumentStore, SqliteSettings, StoreSettings, Synchronous, Version, VersionedDocument,
};
use serde_json::json;
use tokio::sync::oneshot;

pub fn store() -> (tempfile::TempDir, Arc<dyn DocumentStore>) {
    let folder = tempfile::tempdir().unwrap();
    let sqlite = SqliteSettings {
        path: folder.path().join("orderflow.db"),
        synchronous: Synchronous::Normal,
        ..SqliteSettings::default()
    };
    let store = docstore::open(&StoreSettings { sqlite }).unwrap();
    (folder, store)
}

/// One order with what the workers made of it.
pub struct Sample {
    pub id: i64,
    pub text_id: Option<String>,
    pub record_time: Option<i64>,
    pub country: &'static str,
    pub currency: &'static str,
    pub minor: i64,
    pub amount: &'static str,
    pub customer: String,
    pub status: Option<&'static str>,
    pub level: Option<&'static str>,
    pub score: i64,
}

impl Default for Sample {
    fn default() -> Self {
        Self {
            id: 1,
            text_id: None,
            record_time: None,
            country: "GB",
            currency: "GBP",
            minor: 24_999,
            amount: "249.9900",
            customer: "17850".into(),
            status: Some("PAID"),
            level: None,
            score: 0,
        }
    }
}

pub fn decimal(minor: i64) -> String {
    format!("{}.{:02}", minor / 100, minor % 100)
}

/// Writes the orders with their payments and alerts, as analytics does.
pub async fn write(store: &Arc<dyn DocumentStore>, samples: &[Sample]) {
    let (mut orders, mut payments, mut alerts) = (Vec::new(), Vec::new(), Vec::new());
    for sample in samples {
        let key = sample.text_id.clone().unwrap_or_else(|| sample.id.to_string());
        let id = sample
            .text_id
            .as_ref()
            .map_or_else(|| sample.id.to_string(), |text| json!(text).to_string());
        let version = Version {
            generation: 0,
            offset: sample.id,
        };
        let time = sample.record_time.unwrap_or(sample.id * 1_000);
        let (currency, minor) = (sample.currency, sample.minor);
        let ours = |kind: &str| {
            json!({"type": kind, "topic": "orders", "partition": 0, "offset": sample.id, "record_time": time,
                "event_time": null, "currency": currency, "amount_minor": minor, "amount": decimal(minor)})
        };
        let body = format!(
            r#"{{"order_id":{id},"amount":{},"country":"{}","note":90071992547409931.10,"customer_id":{},"_orderflow":{}}}"#,
            sample.amount,
            sample.country,
            json!(sample.customer),
            ours("order")
        );
        orders.push(VersionedDocument {
            key: key.clone(),
            body,
            version,
        });
        if let Some(status) = sample.status {
            let body = json!({"order_id": key, "status": status, "_orderflow": ours("payment")}).to_string();
            payments.push(VersionedDocument {
                key: key.clone(),
                body,
                version,
            });
        }
        if let Some(level) = sample.level {
            let body = json!({"orderId": key, "riskLevel": level, "riskScore": sample.score, "_orderflow": ours("alert")});
            alerts.push(VersionedDocument {
                key,
                body: body.to_string(),
                version,
            });
        }
    }
    let written = [
        store.insert_first(Collection::Orders, &orders).await.unwrap(),
        store.upsert_newer(Collection::Payments, &payments).await.unwrap(),
        store.upsert_newer(Collection::Alerts, &alerts).await.unwrap(),
    ];
    for outcome in written {
        assert!(outcome.refused.is_empty(), "{outcome:?}");
    }
}

/// A router on a port of its own; stops when dropped.
pub struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    served: tokio::task::JoinHandle<()>,
}

impl Server {
    pub async fn start(router: Router) -> Self {
        Self::start_at(router, "127.0.0.1:0".parse().unwrap()).await
    }

    pub async fn start_at(router: Router, address: SocketAddr) -> Self {
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let serve = axum::serve(listener, router).with_graceful_shutdown(async { drop(stopped.await) });
        let served = tokio::spawn(async move { serve.await.unwrap() });
        Self {
            address,
            stop: Some(stop),
            served,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Stops listening; connections that are open end after their answer.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        self.served.await.unwrap();
    }
}
