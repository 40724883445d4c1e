//! The same scenarios on devbroker and on a real Apache Kafka, with the same outcome.
//!
//! A scenario is a list of requests and what a client sees of the answers: names of errors, offsets,
//! epochs relative to the first, records. Nothing accidental is in an outcome (ids, times), so that
//! it is the same in each run. Kafka is the judge: `recorded/` holds its outcomes, made by
//!
//! ```text
//! ORDERFLOW_RECORD=1 ORDERFLOW_TEST_BROKER=127.0.0.1:9092 cargo test -p devbroker --test conformance
//! ```
//!
//! on a broker that `scripts/kafka start` runs, and both engines are compared to them: devbroker
//! always, Kafka where `ORDERFLOW_TEST_BROKER` names one. `ORDERFLOW_SCENARIO` runs only the scenarios
//! whose names contain it. Where devbroker differs on purpose, the scenario says so and why.
//!
//! - `stage`, `engine`, `record`, `documentation`: what a scenario is, runs on, is compared to, and where
//!   it is told of.
//! - `client`, `batches`: the protocol in the words of the scenarios.
//! - the others: the scenarios, one module per family.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod admin;
mod batches;
mod client;
mod compaction;
mod documentation;
mod engine;
mod fetch;
mod groups;
mod isolation;
mod listings;
mod offsets;
mod produce;
mod rebalances;
mod record;
mod stage;
mod transaction_answers;
mod transaction_offsets;
mod transactional_produce;
mod transactions;
#[path = "../support/wire.rs"]
mod wire;

use stage::Scenario;

/// The families in the order of the documentation, and a test for each, so that a failure names it.
macro_rules! families {
    ($($family:ident),* $(,)?) => {
        const FAMILIES: &[(&str, &[Scenario])] = &[$((stringify!($family), $family::SCENARIOS)),*];

        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $family() {
                record::compare(stringify!($family), $crate::$family::SCENARIOS).await;
            }
        )*
    };
}

families!(
    produce,
    fetch,
    offsets,
    groups,
    rebalances,
    transactions,
    transaction_answers,
    transactional_produce,
    transaction_offsets,
    isolation,
    compaction,
    admin,
    listings,
);

#[test]
fn the_documentation_has_every_scenario() {
    documentation::check(FAMILIES);
}
