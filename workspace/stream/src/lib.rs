//! Moving records: the only crate that knows librdkafka.
//!
//! What it guarantees: a record that was read is ended exactly once, as done, as a dead letter or parked
//! for a later attempt, and a group's offset never passes a record that has not ended. Outputs and the offsets of their inputs are
//! committed in one transaction (or, at least once, the outputs before the offsets). Work of a partition that was taken away is dropped, not published.
//! Everything is bounded: records and bytes in work, attempts, and every wait.
//!
//! Who may call it: the workers, with a handler, a concurrent handler or a sink (see [`handler`]); the
//! intake, with a [`publisher::Publisher`]; and the operator's command, with [`admin`], [`offsets`], [`reader`], [`replay`]
//! and [`transactions`].
//! The crate knows nothing of orders.
//!
//! - [`worker`]: running a worker: topics checked, pumps started, one way to end.
//! - [`handler`], [`record`], [`failure`]: what a worker supplies, sees and answers.
//! - `pump`: the consume loop; `source` is the seam behind which records come from, `stage` the three
//!   shapes of work, `unit_of_work` what is sent and committed together, `takeover` what a dead worker
//!   left open, `lookout` what the cluster is asked beside the work, `restore` what a new owner has to know of repeats, `release` the word that releases a brake, `dead_letter` the headers of one, `parking` the records that wait
//!   for a later attempt.
//! - [`ledger`], [`budget`], [`brake`], [`seen`], [`backoff`], [`position`]: the pure parts.
//! - [`publisher`], [`admin`], [`offsets`], [`reader`]: publishing with an answer, questions to a cluster,
//!   where topics end and groups stand, whole topics.
//! - [`replay`], [`transactions`]: what a dead letter is when it is tried again, and publishing many records or none.
//! - [`settings`], [`error`], [`metrics`]: configuration, what can go wrong, what is counted.
//! - `ffi`: the client, and all unsafe code.

pub mod admin;
pub mod backoff;
pub mod brake;
pub mod budget;
pub mod error;
pub mod failure;
pub mod handler;
pub mod ledger;
pub mod metrics;
pub mod offsets;
pub mod position;
pub mod publisher;
pub mod reader;
pub mod record;
pub mod replay;
pub mod seen;
pub mod settings;
pub mod transactions;
pub mod worker;

mod dead_letter;
mod deadlines;
#[allow(unsafe_code)]
mod ffi;
mod lookout;
mod parking;
mod pump;
mod release;
mod restore;
mod retired;
mod source;
mod stage;
mod takeover;
mod unit_of_work;

pub use error::StreamError;
pub use failure::Failure;
pub use handler::{
    ConcurrentHandler, Handler, LastWord, NamesByKey, OutputRecord, OutputTopic, Outputs, Repeats, Sink,
};
pub use position::{Offset, Partition, TopicIndex, TopicPartition};
pub use record::{OwnedRecord, Record};
pub use release::release_key;
pub use settings::{KafkaSettings, StreamSettings, TopicNames};
