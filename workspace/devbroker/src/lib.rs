//! An embedded Kafka broker for development and tests.
//!
//! It speaks Kafka's wire protocol, so that production code runs unchanged against it, and it
//! starts in milliseconds inside any tokio process. It guarantees what the protocol promises of one
//! healthy broker: dense offsets in each partition, idempotent producing without repeats,
//! transactions that are seen whole or not at all, long polls that wake on append, consumer groups
//! with generations, clients that are known and do what they may. It is honest about the rest: one
//! process, records in memory up to [`Options::retention_bytes`] and in a data folder if
//! [`Options::data`] names one, no replication. Never for production; where it differs from Apache
//! Kafka, it is wrong.
//!
//! `testkit` and the `orderflow` command may depend on it; it depends on no other crate of ours.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), devbroker::BrokerError> {
//! use devbroker::{Broker, Options};
//!
//! let broker = Broker::start(Options::default()).await?;
//! broker.create_topic("orders", 6)?;
//! println!("KAFKA_BROKERS={}", broker.address());
//! broker.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! - `broker`, `options`, `stats`: the API of this crate.
//! - `server`, `frame`, `shape`, `versions`: connections, frames, and what is let into the decoder.
//! - `api`: one module per family of requests; decodes, asks the parts below, encodes.
//! - `topics`, `topic_config`, `config_changes`, `partition`, `retention`: what exists, and what is kept
//!   of it.
//! - `log`, `batch`, `records`, `codec`, `record_times`, `producers`, `transaction_index`, `compaction`:
//!   pure; the log of a partition, what is in it, and what of it may go.
//! - `transactions`: a pure state machine of all transactional ids, and what makes its decisions true.
//! - `groups`, `offsets`: consumer groups; a pure state machine, committed positions, and the tasks that
//!   drive them.
//! - [`security`]: who may connect, and what they may do.
//! - `admin`: the admin port, off by default.
//! - `faults`: what a test lets go wrong, and how it is carried out.
//! - `storage`, `recovery`, `producer_ids`: the data folder; files of record batches, a journal for
//!   everything else, one sync for many; what a start makes of it; ids that are never given out twice.
//! - `core`, `clock`, `sync`: what everything shares.

mod admin;
mod api;
mod batch;
mod broker;
mod clock;
mod codec;
mod compaction;
mod config_changes;
#[cfg(test)]
mod conformance;
mod core;
mod faults;
mod frame;
#[cfg(test)]
mod fuzzing;
mod groups;
mod log;
mod offsets;
mod options;
mod partition;
mod producer_ids;
mod producers;
mod record_times;
mod records;
mod recovery;
mod retention;
#[cfg(test)]
mod samples;
pub mod security;
mod server;
mod shape;
mod stats;
mod storage;
mod sync;
mod topic_config;
mod topics;
mod transaction_index;
mod transactions;
mod versions;

pub use broker::Broker;
pub use faults::{Fault, FaultHandle, Injection};
pub use kafka_protocol::error::ResponseError;
pub use kafka_protocol::messages::ApiKey;
pub use options::{BrokerError, Options};
pub use stats::Stats;
pub use storage::{DataOptions, Flush, StorageError};
