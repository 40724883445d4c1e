//! What goes wrong in a run, and when: all of it follows from the seed. Pure.
//!
//! A strike waits for progress, not for a time: it comes when a worker's group has committed a drawn
//! share of the records, while more are coming in. So it meets work in flight on slow and on fast
//! machines.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::random::Random;

/// Processes of each worker.
pub const INSTANCES: u64 = 4;
/// One strike for so many orders: twenty thousand meet every fault of their engine.
const ORDERS_PER_STRIKE: u64 = 1_250;
/// The same in a storm, whose strikes hit all processes of a worker.
const ORDERS_PER_STORM_STRIKE: u64 = 2_000;
const STRIKES_MIN: u64 = 3;
/// The session time-out of the workers under test. A frozen process sleeps longer.
pub const SESSION_TIMEOUT_MS: u64 = 4_000;

/// The broker of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum EngineName {
    /// The embedded broker, as a process with a data folder.
    Devbroker,
    /// A real Apache Kafka.
    Kafka,
}

impl fmt::Display for EngineName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Devbroker => "devbroker",
            Self::Kafka => "kafka",
        })
    }
}

/// The workers of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Worker {
    /// Screens orders.
    Fraud,
    /// Settles orders.
    Payment,
    /// Keeps documents.
    Analytics,
}

impl Worker {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Fraud, Self::Payment, Self::Analytics];

    /// What `orderflow run` calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fraud => "fraud",
            Self::Payment => "payment",
            Self::Analytics => "analytics",
        }
    }

    /// Its consumer group.
    #[must_use]
    pub const fn group(self) -> &'static str {
        match self {
            Self::Fraud => "fraud-group",
            Self::Payment => "payments-group",
            Self::Analytics => "analytics-group",
        }
    }
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// These processes get the signal, one after another, and start again: some as who they were, some
    /// under a new name.
    Stop {
        /// SIGKILL, else SIGTERM.
        kill: bool,
        /// Number of the process, and whether its successor has a new name.
        instances: Vec<(u64, bool)>,
    },
    /// A process sleeps for so long.
    Freeze {
        /// Number of the process.
        instance: u64,
        /// How long.
        ms: u64,
    },
    /// The broker is killed and starts again.
    CrashBroker,
    /// The broker treats requests of this worker badly.
    Inject(Injection),
    /// The broker's disk is full for so long.
    FillBrokerDisk {
        /// How long.
        ms: u64,
    },
    /// The store can not grow for so long.
    FillStoreDisk {
        /// How long.
        ms: u64,
    },
    /// The gateway treats some charges badly.
    DisturbGateway(Disturbance),
    /// The gateway refuses connections and breaks those that are there, for so long.
    LeaveGateway {
        /// How long.
        ms: u64,
    },
}

/// How the gateway treats some charges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disturbance {
    /// What it does with them.
    pub manner: Manner,
    /// Which share of them it does it with.
    pub per_mille: u32,
    /// It goes on until so many were met.
    pub times: u64,
}

/// What the gateway does with a charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Charges, and ends the connection without an answer.
    LosesAnswer,
    /// Charges after so long.
    TakesLong {
        /// How long.
        ms: u64,
    },
    /// Answers 500 and charges nothing.
    Fails,
    /// Answers 429 and charges nothing.
    Throttles {
        /// What `Retry-After` says.
        retry_after_s: u64,
    },
}

/// How the embedded broker treats some requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Injection {
    /// As the admin port calls it.
    pub fault: &'static str,
    /// The request.
    pub api: &'static str,
    /// For refusals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'static str>,
    /// For late answers and requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// How many requests.
    pub times: u64,
}

impl Injection {
    /// Whether only a process that starts sends this request.
    #[must_use]
    pub fn is_for_a_start(&self) -> bool {
        self.api == "InitProducerId"
    }
}

/// One thing that goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strike {
    /// What kind it is.
    pub fault: Fault,
    /// Whose progress it waits for, and whom it strikes.
    pub worker: Worker,
    /// It comes when so many of a thousand records are committed.
    pub at_per_mille: u64,
    /// What is done.
    pub action: Action,
}

/// The steps of a transaction: what the client asks for, and how a broker may refuse it.
const STEPS: [(&str, &[&str]); 6] = [
    (
        "InitProducerId",
        &[
            "COORDINATOR_LOAD_IN_PROGRESS",
            "NOT_COORDINATOR",
            "CONCURRENT_TRANSACTIONS",
        ],
    ),
    (
        "AddPartitionsToTxn",
        &[
            "COORDINATOR_NOT_AVAILABLE",
            "NOT_COORDINATOR",
            "CONCURRENT_TRANSACTIONS",
        ],
    ),
    ("Produce", &["NOT_LEADER_OR_FOLLOWER", "NOT_ENOUGH_REPLICAS"]),
    (
        "AddOffsetsToTxn",
        &["COORDINATOR_LOAD_IN_PROGRESS", "NOT_COORDINATOR"],
    ),
    (
        "TxnOffsetCommit",
        &[
            "COORDINATOR_LOAD_IN_PROGRESS",
            "NOT_COORDINATOR",
            "ILLEGAL_GENERATION",
        ],
    ),
    (
        "EndTxn",
        &[
            "COORDINATOR_NOT_AVAILABLE",
            "NOT_COORDINATOR",
            "COORDINATOR_LOAD_IN_PROGRESS",
        ],
    ),
];

/// The strikes of a run, in their order.
#[must_use]
pub fn draw(seed: u64, engine: EngineName, orders: u64, only: &[Fault]) -> Vec<Strike> {
    let mut random = Random::new(seed, "plan");
    let possible = Fault::of(engine);
    let mut kinds: Vec<Fault> = possible
        .into_iter()
        .filter(|fault| only.is_empty() || only.contains(fault))
        .collect();
    let is_storm = kinds
        .iter()
        .all(|fault| matches!(fault, Fault::Kill | Fault::Terminate));
    let orders_per_strike = if is_storm {
        ORDERS_PER_STORM_STRIKE
    } else {
        ORDERS_PER_STRIKE
    };
    let count = (orders / orders_per_strike).max(STRIKES_MIN);
    let mut strikes = Vec::new();
    // Each round deals every kind once: a run with enough strikes meets all that there are.
    let mut dealt = Vec::new();
    // A storm deals its workers too, so that each is hit as often as the others.
    let mut workers = Vec::new();
    for number in 0..count {
        if dealt.is_empty() {
            random.shuffle(&mut kinds);
            dealt.clone_from(&kinds);
        }
        let Some(fault) = dealt.pop() else {
            break;
        };
        let span = 900 / count;
        let at_per_mille = 50 + number * span + random.within(0, span / 2);
        let (mut worker, action) = action(fault, is_storm, &mut random);
        if is_storm {
            if workers.is_empty() {
                workers.extend(Worker::ALL);
                random.shuffle(&mut workers);
            }
            worker = workers.pop().unwrap_or(worker);
        }
        strikes.push(Strike {
            fault,
            worker,
            at_per_mille,
            action,
        });
    }
    strikes
}

fn action(fault: Fault, is_storm: bool, random: &mut Random) -> (Worker, Action) {
    let any = random.pick(&Worker::ALL).copied().unwrap_or(Worker::Payment);
    let in_transactions = if random.per_mille(700) {
        Worker::Payment
    } else {
        Worker::Fraud
    };
    match fault {
        Fault::Kill | Fault::Terminate => {
            let least = if is_storm { INSTANCES } else { 1 };
            let mut numbers: Vec<u64> = (0..INSTANCES).collect();
            random.shuffle(&mut numbers);
            numbers.truncate(usize::try_from(random.within(least, INSTANCES)).unwrap_or(1));
            let instances = numbers
                .into_iter()
                .map(|number| (number, random.per_mille(500)))
                .collect();
            let kill = fault == Fault::Kill;
            (any, Action::Stop { kill, instances })
        }
        Fault::Freeze => {
            let instance = random.within(0, INSTANCES - 1);
            let ms = SESSION_TIMEOUT_MS + random.within(1_500, 4_000);
            (any, Action::Freeze { instance, ms })
        }
        Fault::Broker => (any, Action::CrashBroker),
        Fault::LostAnswer | Fault::LateAnswer | Fault::LateRequest | Fault::Refusal => {
            (in_transactions, Action::Inject(injection(fault, random)))
        }
        Fault::BrokerDisk => {
            let ms = random.within(500, 3_000);
            (any, Action::FillBrokerDisk { ms })
        }
        Fault::StoreDisk => {
            let ms = random.within(1_000, 5_000);
            (Worker::Analytics, Action::FillStoreDisk { ms })
        }
        Fault::GatewayAway => {
            // As a restart does, or as an outage that opens the circuit.
            let ms = if random.per_mille(500) {
                random.within(50, 400)
            } else {
                random.within(2_000, 8_000)
            };
            (Worker::Payment, Action::LeaveGateway { ms })
        }
        Fault::GatewayLost | Fault::GatewaySlow | Fault::GatewayFailure | Fault::GatewayThrottle => {
            let disturbance = disturbance(fault, random);
            (Worker::Payment, Action::DisturbGateway(disturbance))
        }
    }
}

fn disturbance(fault: Fault, random: &mut Random) -> Disturbance {
    let manner = match fault {
        // Below the worker's time-out for one call (5 s), and above.
        Fault::GatewaySlow => Manner::TakesLong {
            ms: random.within(500, 7_000),
        },
        Fault::GatewayFailure => Manner::Fails,
        Fault::GatewayThrottle => Manner::Throttles {
            retry_after_s: random.within(1, 2),
        },
        _ => Manner::LosesAnswer,
    };
    // From a few that are asked again at once to so many that the circuit opens.
    let per_mille: u32 = random.pick(&[100, 300, 700]).copied().unwrap_or(300);
    Disturbance {
        manner,
        per_mille,
        // Over 50 to 100 charges.
        times: u64::from(per_mille) * random.within(50, 100) / 1_000,
    }
}

fn injection(fault: Fault, random: &mut Random) -> Injection {
    let (api, errors) = random.pick(&STEPS).copied().unwrap_or(("EndTxn", &[]));
    let error = random.pick(errors).copied();
    // Past the worker's patience (5 s), and sometimes past the client's own for one request (6 s).
    let delay_ms = random.within(4_800, 8_000);
    let times = random.within(1, 4);
    match fault {
        Fault::LateAnswer | Fault::LateRequest => Injection {
            fault: if fault == Fault::LateAnswer {
                "delay_answer"
            } else {
                "delay"
            },
            api,
            error: None,
            delay_ms: Some(delay_ms),
            times: times.min(2),
        },
        Fault::Refusal => Injection {
            fault: "answer_error",
            api,
            error,
            delay_ms: None,
            times,
        },
        _ => Injection {
            fault: "drop_after",
            api,
            error: None,
            delay_ms: None,
            times,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_gives_the_same_plan_again_and_another_seed_another() {
        let plan = |seed| draw(seed, EngineName::Devbroker, 20_000, &[]);
        assert_eq!(plan(1), plan(1));
        assert_ne!(plan(1), plan(2));
    }

    #[test]
    fn a_run_meets_every_fault_of_its_engine_in_the_order_of_progress() {
        for engine in [EngineName::Devbroker, EngineName::Kafka] {
            let strikes = draw(5, engine, 20_000, &[]);
            let met: BTreeSet<Fault> = strikes.iter().map(|strike| strike.fault).collect();
            assert_eq!(met, Fault::of(engine).into_iter().collect());
            assert!(strikes.is_sorted_by_key(|strike| strike.at_per_mille));
            assert!(
                strikes
                    .iter()
                    .all(|strike| (50..950).contains(&strike.at_per_mille))
            );
        }
    }

    #[test]
    fn a_storm_restarts_each_process_sixteen_times_in_a_hundred_thousand_orders() {
        let strikes = draw(1, EngineName::Kafka, 100_000, &[Fault::Kill, Fault::Terminate]);
        let stopped: usize = strikes
            .iter()
            .map(|strike| match &strike.action {
                Action::Stop { instances, .. } => instances.len(),
                other => panic!("{other:?}"),
            })
            .sum();
        assert!(stopped >= 16 * 12, "{stopped}");
        for worker in Worker::ALL {
            let strikes = strikes.iter().filter(|strike| strike.worker == worker);
            assert!(
                strikes.count() >= 16,
                "{worker:?}: each hits all of its processes"
            );
        }
    }

    #[test]
    fn only_what_is_asked_for_is_drawn() {
        let strikes = draw(1, EngineName::Devbroker, 20_000, &[Fault::Freeze]);
        assert!(strikes.iter().all(|strike| strike.fault == Fault::Freeze));
        assert_eq!(strikes.len(), 16);
        let none = draw(1, EngineName::Kafka, 20_000, &[Fault::LostAnswer]);
        assert_eq!(none, []);
    }
}
