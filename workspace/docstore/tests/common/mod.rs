//! Documents and stores for the tests.
#![allow(dead_code)]

use std::path::Path;
use std::sync::Arc;

use docstore::{DocumentStore, SqliteSettings, StoreSettings, Synchronous, Version, VersionedDocument};

pub fn settings(folder: &Path) -> StoreSettings {
    StoreSettings {
        sqlite: SqliteSettings {
            path: folder.join("data").join("orderflow.db"),
            busy_timeout_ms: 2_000,
            synchronous: Synchronous::Normal,
            cache_mb: 8,
            ..SqliteSettings::default()
        },
    }
}

pub fn open(folder: &Path) -> Arc<dyn DocumentStore> {
    docstore::open(&settings(folder)).unwrap()
}

pub fn document(key: &str, version: (i64, i64), body: String) -> VersionedDocument {
    VersionedDocument {
        key: key.into(),
        body,
        version: Version {
            generation: version.0,
            offset: version.1,
        },
    }
}

pub struct Money<'a>(pub &'a str, pub i64);

pub fn order(
    key: &str,
    version: (i64, i64),
    record_time: i64,
    country: &str,
    money: Money<'_>,
) -> VersionedDocument {
    let (offset, Money(currency, minor)) = (version.1, money);
    let body = format!(
        r#"{{"order_id":"{key}","amount":"{minor}e-2","country":"{country}","_orderflow":{{"type":"order","topic":"orders","partition":0,"offset":{offset},"record_time":{record_time},"event_time":null,"currency":"{currency}","amount_minor":{minor}}}}}"#
    );
    document(key, version, body)
}

pub fn payment(key: &str, version: (i64, i64), status: &str, money: Money<'_>) -> VersionedDocument {
    let Money(currency, minor) = money;
    let body = format!(
        r#"{{"order_id":"{key}","status":"{status}","_orderflow":{{"record_time":5,"currency":"{currency}","amount_minor":{minor}}}}}"#
    );
    document(key, version, body)
}

pub fn alert(key: &str, version: (i64, i64), record_time: i64, level: &str) -> VersionedDocument {
    let body = format!(
        r#"{{"alertId":"ALERT-{key}","orderId":"{key}","riskLevel":"{level}","_orderflow":{{"record_time":{record_time}}}}}"#
    );
    document(key, version, body)
}
