//! What a broker is started with, and why starting can fail.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::security::Security;
use crate::storage::{DataOptions, StorageError};

/// Settings of a [`Broker`](crate::Broker). The defaults suit tests: a free port on loopback,
/// topics only by request, no delay before the first rebalance of a group.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen; port 0 takes a free one. Clients are told the address that they reached.
    pub listen: SocketAddr,
    /// Where the admin port listens: faults, clock and figures over HTTP, without a password. Off by
    /// default; it belongs on loopback.
    pub admin: Option<SocketAddr>,
    /// Where records, offsets and transactions are kept when the process ends; without it, in memory
    /// only.
    pub data: Option<DataOptions>,
    /// Bytes of records that are kept in memory over all topics. Beyond it the oldest batches go,
    /// whoever's they are, with a WARN line and a count in [`Stats`](crate::Stats).
    pub retention_bytes: u64,
    /// Partitions of a topic that is created without a count.
    pub default_partitions: i32,
    /// Whether asking for the metadata of an unknown topic creates it, where the client allows it.
    pub auto_create_topics: bool,
    /// How long an empty group waits for more members before its first generation.
    pub group_initial_rebalance_delay: Duration,
    /// The shortest session time-out that a group member may ask for.
    pub group_min_session_timeout: Duration,
    /// The longest session time-out that a group member may ask for.
    pub group_max_session_timeout: Duration,
    /// Members that one group may have.
    pub group_max_size: usize,
    /// Groups that may exist at the same time.
    pub max_groups: usize,
    /// How long after its outcome is decided a transaction gets its markers. Until then the producer's
    /// next transaction is answered with CONCURRENT_TRANSACTIONS, as real Kafka does.
    pub transaction_marker_delay: Duration,
    /// The longest time-out that a transactional producer may ask for.
    pub transaction_max_timeout: Duration,
    /// Transactional ids that are remembered; the one that was silent longest is forgotten first.
    pub max_transactional_ids: usize,
    /// Partitions that may exist at the same time, over all topics.
    pub max_partitions: usize,
    /// The largest record batch of a topic that does not set `max.message.bytes`.
    pub max_message_bytes: u32,
    /// The largest request; a longer length prefix closes the connection before a byte is stored.
    pub max_frame_bytes: u32,
    /// Memory for requests that are being read or handled and are longer than 64 KiB, over all
    /// connections. At least `max_frame_bytes` is used.
    pub max_request_memory_bytes: u32,
    /// The most records that one Fetch answer carries, in bytes.
    pub max_fetch_bytes: u32,
    /// Connections that may be open at the same time; more are closed at once with a log line.
    pub max_connections: usize,
    /// How long a connection may be silent, or may take over one request, before it is closed.
    pub connection_idle_timeout: Duration,
    /// What clients must show, and what they may do.
    pub security: Security,
    /// How often `retention.ms` and what is to be compacted are looked at.
    pub retention_check_interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            admin: None,
            data: None,
            retention_bytes: 1 << 30,
            default_partitions: 3,
            auto_create_topics: false,
            group_initial_rebalance_delay: Duration::ZERO,
            group_min_session_timeout: Duration::from_secs(1),
            group_max_session_timeout: Duration::from_secs(1_800),
            group_max_size: 1_000,
            max_groups: 10_000,
            max_partitions: 20_000,
            transaction_marker_delay: Duration::from_millis(2),
            transaction_max_timeout: Duration::from_secs(900),
            max_transactional_ids: 10_000,
            // Kafka's own defaults from here on: 1 MiB plus a batch overhead, 100 MiB, 55 MiB.
            max_message_bytes: 1_048_588,
            max_frame_bytes: 104_857_600,
            max_request_memory_bytes: 268_435_456,
            max_fetch_bytes: 57_671_680,
            max_connections: 2_000,
            connection_idle_timeout: Duration::from_secs(600),
            security: Security::default(),
            retention_check_interval: Duration::from_secs(1),
        }
    }
}

/// Why the broker could not do what its owner asked of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// The address can not be listened on.
    #[error("can not listen on `{address}`: {source}; choose another port, or 0 for a free one")]
    Listen {
        /// The address of [`Options::listen`] or [`Options::admin`].
        address: SocketAddr,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The settings of [`Options::security`] do not work, or forbid what was asked.
    #[error("security: {0}")]
    Security(String),
    /// A fault can not be injected.
    #[error("can not inject the fault: {reason}")]
    Fault {
        /// What is wrong with it.
        reason: String,
    },
    /// The data folder can not be used.
    #[error(transparent)]
    Data(#[from] StorageError),
    /// A topic could not be created.
    #[error("can not create topic `{topic}`: {reason}")]
    Topic {
        /// The name that was asked for.
        topic: String,
        /// What is wrong with it.
        reason: String,
    },
}
