//! The broker that the scenarios of a family run on.

use devbroker::{Broker, Options};

/// Names a real Kafka as `host:port`, as for all tests of the project.
const VARIABLE: &str = "ORDERFLOW_TEST_BROKER";

pub enum Engine {
    Kafka(String),
    Devbroker(Broker),
}

impl Engine {
    pub async fn start() -> Self {
        match variable(VARIABLE) {
            Some(address) => Self::Kafka(address),
            None => Self::Devbroker(Broker::start(Options::default()).await.unwrap()),
        }
    }

    pub fn is_kafka(&self) -> bool {
        matches!(self, Self::Kafka(_))
    }

    pub fn address(&self) -> String {
        match self {
            Self::Kafka(address) => address.clone(),
            Self::Devbroker(broker) => broker.address().to_string(),
        }
    }
}

/// A variable of the environment, unless it is empty.
#[allow(
    clippy::disallowed_methods,
    reason = "tests are configured by the environment"
)]
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
