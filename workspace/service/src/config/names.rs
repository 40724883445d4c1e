//! The names that the configuration of all services is made of.

/// The top-level sections of all services. One file serves every service, so a binary passes over
/// the sections of the others; a name that is not in this list is an error.
pub const SECTIONS: &[&str] = &[
    "service",
    "admin",
    "log",
    "kafka",
    "orders",
    "topics",
    "stream",
    "orders",
    "store",
    "intake",
    "producer",
    "fraud",
    "payment",
    "analytics",
    "report",
];

/// Variables that people and cloud secrets already use, with the key that each one sets. Names of
/// keys that a binary does not have are passed over. Each is also read as `<NAME>_FILE`, the path
/// of a file that holds the value.
pub const NAMES: &[(&str, &str)] = &[
    ("KAFKA_BROKERS", "kafka.brokers"),
    ("KAFKA_BOOTSTRAP_SERVERS", "kafka.brokers"),
    ("KAFKA_CLIENT_ID", "kafka.client_id"),
    ("KAFKA_API_KEY", "kafka.api_key"),
    ("KAFKA_API_SECRET", "kafka.api_secret"),
    ("KAFKA_TOPIC", "topics.order_events"),
    ("RETRY_INTERVAL", "producer.spool.retry_interval_ms"),
    ("MAX_RETRIES", "producer.spool.max_retries"),
    ("QUEUE_PERSIST", "producer.spool.persist"),
    ("COUCHBASE_HOST", "store.couchbase.host"),
    ("COUCHBASE_BUCKET", "store.couchbase.bucket"),
    ("COUCHBASE_USERNAME", "store.couchbase.username"),
    ("COUCHBASE_PASSWORD", "store.couchbase.password"),
    ("RUST_LOG", "log.level"),
];

/// What a variable of ours starts with.
pub(super) const PREFIX: &str = "ORDERFLOW__";
/// What separates section and key in a variable.
pub(super) const SEPARATOR: &str = "__";

/// Whether the value of this key must never be shown.
pub(super) fn is_secret(key: &str) -> bool {
    const MARKS: [&str; 7] = [
        "secret",
        "password",
        "passphrase",
        "token",
        "credential",
        "api_key",
        "private_key",
    ];
    let key = key.to_ascii_lowercase();
    MARKS.iter().any(|mark| key.contains(mark))
}
