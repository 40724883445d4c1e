//! What the tests of all crates share. Never a dependency of what ships.
//!
//! It guarantees that a test waits for the event itself, with a deadline, and that what a test
//! started ends with it. Everything here panics where a test should fail, with the reason.
//!
//! * [`TestBroker`] is the broker of a test: the embedded one, or the real Kafka that
//!   `$ORDERFLOW_TEST_BROKER` names; a test is written once and runs on both,
//! * [`Observer`] creates topics on it, writes and reads records, and reads groups' offsets, with a
//!   client that is not the code under test,
//! * [`Launch`] and [`Running`] run a built binary as a real process,
//! * [`FakeGateway`] is a payment gateway with faults, whose ledger tells what was charged twice; also a
//!   binary, `fake_gateway`,
//! * [`http`] and [`fetch`] ask over HTTP,
//! * [`eventually`] polls with a deadline,
//! * [`data_file`] finds public data sets.
#![expect(
    clippy::panic,
    clippy::expect_used,
    reason = "a helper of tests fails the test, with the reason"
)]

mod broker;
mod eventually;
mod gateway;
mod http;
mod observer;
mod process;

pub use broker::TestBroker;
/// The embedded broker: its options, and what tests let go wrong in it.
pub use devbroker;
pub use eventually::{Check, eventually};
pub use gateway::{Charged, FakeGateway, GatewayFaults, Outcome, charged_twice};
pub use http::{fetch, http};
pub use observer::{Observer, Record};
pub use process::{Ended, Launch, Running, get};

pub use rustix::process::Signal;

use std::path::PathBuf;

/// The file of a public data set in the folder `$ORDERFLOW_DATA`. `None`, with a line that says so,
/// where the folder or the file is absent: the test then has nothing to judge and returns.
pub fn data_file(name: &str) -> Option<PathBuf> {
    let file = variable("ORDERFLOW_DATA").map(|folder| PathBuf::from(folder).join(name));
    match file {
        Some(file) if file.exists() => Some(file),
        _ => {
            eprintln!("skipped: `{name}` is not in the folder that ORDERFLOW_DATA names");
            None
        }
    }
}

/// A variable that steers the tests themselves; empty counts as not set.
#[expect(
    clippy::disallowed_methods,
    reason = "it steers the tests and is no configuration of a service"
)]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
