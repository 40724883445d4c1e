//! The operator's command: the whole pipeline in one process tree, and the tools around it.
//!
//! - [`cli`]: the command line.
//! - [`topics`]: the topics as they should be, and creating them.
//! - [`demo`]: everything at once, on the embedded broker or on a Kafka of your own.
//! - [`broker`]: the embedded broker alone.
//! - [`brake`]: which brakes are pulled, and releasing them.
//! - `cluster`, `event`: what the commands that ask a cluster share, and what they say in the topic of events.
//! - [`run`]: one service, as the demo starts it.
//! - [`dlq`]: looking at dead letters, having them tried again, and marking them as dealt with.
//! - [`verify`]: a verdict over a whole run.

pub mod brake;
pub mod broker;
pub mod cli;
mod cluster;
pub mod demo;
pub mod dlq;
mod event;
pub mod run;
pub mod topics;
pub mod verify;
