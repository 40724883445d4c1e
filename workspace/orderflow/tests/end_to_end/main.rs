//! The pipeline from end to end: real processes of the built binary, on devbroker or on the real Kafka
//! of `ORDERFLOW_TEST_BROKER`. One test binary, because linking it is what costs.
//!
//! - `common`: a pipeline with topics, groups and files of its own.
//! - `pipeline`: what becomes of good and of bad input.
//! - `restart`: workers that stop, die and share their work.
//! - `refusal`: outputs that Kafka refuses.
//! - `retention`: old orders on topics that keep little.
//! - `brake`: a group that would drain its topic into the dead letters.
//! - `broker`: the embedded broker alone.
//! - `verify`: the verdict over a run.
//! - `demo`: everything from one command.
//! - `dlq`, `replay`, `discard`: looking at dead letters, and dealing with them.
//! - `errors`: what a person reads when something is wrong.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod brake;
mod broker;
mod common;
mod demo;
mod discard;
mod dlq;
mod errors;
mod growth;
mod members;
mod pipeline;
mod refusal;
mod replay;
mod restart;
mod retention;
mod verify;
