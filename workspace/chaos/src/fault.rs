//! The kinds of fault: what they are called, and where they can be done.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::plan::EngineName;

/// The kinds of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// SIGKILL of one to four processes of a worker.
    Kill,
    /// SIGTERM of one to four processes of a worker.
    Terminate,
    /// SIGSTOP past the session time-out, then SIGCONT.
    Freeze,
    /// SIGKILL of the broker, which starts again with its data.
    Broker,
    /// The broker does what it is asked, and the connection closes without an answer.
    LostAnswer,
    /// The broker does what it is asked, and its answer comes after the client has given up.
    LateAnswer,
    /// The broker does what it is asked long after the client has given up.
    LateRequest,
    /// The broker refuses requests.
    Refusal,
    /// The broker's disk is full for a while.
    BrokerDisk,
    /// The store of analytics can not grow for a while.
    StoreDisk,
    /// The gateway charges, and its answer is lost.
    GatewayLost,
    /// The gateway takes its time.
    GatewaySlow,
    /// The gateway answers 500.
    GatewayFailure,
    /// The gateway answers 429 with `Retry-After`.
    GatewayThrottle,
    /// The gateway is away for a while.
    GatewayAway,
}

impl Fault {
    /// What can be done on any broker.
    const EVERYWHERE: [Self; 10] = [
        Self::Kill,
        Self::Terminate,
        Self::Freeze,
        Self::Broker,
        Self::StoreDisk,
        Self::GatewayLost,
        Self::GatewaySlow,
        Self::GatewayFailure,
        Self::GatewayThrottle,
        Self::GatewayAway,
    ];
    /// What needs the embedded broker.
    const EMBEDDED: [Self; 5] = [
        Self::LostAnswer,
        Self::LateAnswer,
        Self::LateRequest,
        Self::Refusal,
        Self::BrokerDisk,
    ];

    /// What is done, for people.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Kill => {
                "SIGKILL of one to four processes of a worker, which start again under the old or a new name"
            }
            Self::Terminate => "the same with SIGTERM; each has to end with code 0",
            Self::Freeze => {
                "SIGSTOP of a process until its session is over and its partitions are others', then SIGCONT"
            }
            Self::Broker => "SIGKILL of the broker, which starts again with its data",
            Self::StoreDisk => "no file of analytics may grow for a while, so that its store can not write",
            Self::LostAnswer => {
                "the broker does what one of the steps of a transaction asks, and closes the connection without an answer"
            }
            Self::LateAnswer => "the same, and the answer comes after the worker's time-out",
            Self::LateRequest => {
                "the broker comes to a step of a transaction only after the worker's time-out, and does it then"
            }
            Self::Refusal => {
                "the broker refuses a step of a transaction with an error that passes, or with one of a lost membership"
            }
            Self::BrokerDisk => "the broker's disk is full for a while",
            Self::GatewayLost => "the gateway charges and closes the connection without an answer",
            Self::GatewaySlow => {
                "the gateway answers a share of the charges late, some after the worker's time-out"
            }
            Self::GatewayFailure => "the gateway answers a share of the charges with 500",
            Self::GatewayThrottle => "the same with 429 and `Retry-After`",
            Self::GatewayAway => {
                "the gateway breaks its connections and refuses new ones, for a moment as at a restart, or for seconds; its ledger stays"
            }
        }
    }

    /// The faults that can be done on an engine.
    #[must_use]
    pub fn of(engine: EngineName) -> Vec<Self> {
        let embedded: &[Self] = match engine {
            EngineName::Devbroker => &Self::EMBEDDED,
            EngineName::Kafka => &[],
        };
        [&Self::EVERYWHERE, embedded].concat()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Kill => "kill",
            Self::Terminate => "terminate",
            Self::Freeze => "freeze",
            Self::Broker => "broker",
            Self::LostAnswer => "lost-answer",
            Self::LateAnswer => "late-answer",
            Self::LateRequest => "late-request",
            Self::Refusal => "refusal",
            Self::BrokerDisk => "broker-disk",
            Self::StoreDisk => "store-disk",
            Self::GatewayLost => "gateway-lost",
            Self::GatewaySlow => "gateway-slow",
            Self::GatewayFailure => "gateway-failure",
            Self::GatewayThrottle => "gateway-throttle",
            Self::GatewayAway => "gateway-away",
        })
    }
}
