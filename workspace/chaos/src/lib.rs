//! The chaos suite: the whole pipeline as real processes, faults drawn from a seed, and a verdict.
//!
//! It guarantees that a seed gives the same plan again (orders, faults, places in the run), that every
//! fault is counted only after it was done, and that a run passes only when every process ended as it
//! was asked to, every group caught up, and `orderflow verify` found nothing wrong.
//!
//! For tests alone; `scripts/chaos` builds what it needs and runs it.
//!
//! - [`cli`]: the command line.
//! - [`random`], [`orders`], [`fault`], [`plan`]: what follows from the seed, pure.
//! - [`ports`], [`engine`]: the broker, and faults in it.
//! - [`gateway`]: who charges, and faults in it.
//! - [`fleet`], [`ending`]: the worker processes, and which of their ends are allowed.
//! - [`sender`], [`progress`]: orders in, and how far the groups have come.
//! - [`strike`]: one fault, done.
//! - [`run`]: one seed, from start to verdict.
//! - [`verdict`]: what `orderflow verify` says.
//! - [`suite`]: the seeds of a command line.
//! - [`record`], [`report`]: what is kept of a run, and the page that is made of it.

pub mod cli;
pub mod ending;
pub mod engine;
pub mod fault;
pub mod fleet;
pub mod gateway;
pub mod orders;
pub mod plan;
pub mod ports;
pub mod progress;
pub mod random;
pub mod record;
pub mod report;
pub mod run;
pub mod sender;
pub mod strike;
pub mod suite;
pub mod verdict;
