//! The smallest process on this shell. The tests of the crate run it as a real process; it is also
//! what a new binary starts from.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use service::{Exit, Problems, Process, ServiceInfo, Settings};

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Config {
    kafka: Kafka,
    fraud: Fraud,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(default)]
struct Kafka {
    brokers: String,
    api_key: Option<String>,
    api_secret: Option<String>,
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            brokers: "localhost:9092".to_owned(),
            api_key: None,
            api_secret: None,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(default)]
struct Fraud {
    score_min: u8,
    limits: BTreeMap<String, u64>,
    /// What the process does, for the tests: `wait`, `hang`, `die`, `panic` or `fail`.
    mode: String,
}

impl Default for Fraud {
    fn default() -> Self {
        Self {
            score_min: 25,
            limits: BTreeMap::from([("USD".to_owned(), 300)]),
            mode: "wait".to_owned(),
        }
    }
}

impl Settings for Config {
    fn check(&self, problems: &mut Problems) {
        if self.fraud.score_min > 100 {
            problems.add(
                "fraud.score_min",
                format!("`{}`, must be at most 100", self.fraud.score_min),
            );
        }
        if self.kafka.api_key.is_some() != self.kafka.api_secret.is_some() {
            problems.say(
                "kafka.api_secret",
                "`kafka.api_key` and `kafka.api_secret` go together, set both",
            );
        }
    }

    fn open_tables() -> &'static [&'static str] {
        &["fraud.limits"]
    }
}

async fn run(config: Config, process: Process) -> Result<(), Exit> {
    let heartbeat = process.health.task("worker", Duration::from_secs(60));
    process.health.ready();
    match config.fraud.mode.as_str() {
        "die" => drop(heartbeat),
        "fail" => {
            return Err(Exit::unavailable(
                "the broker at `localhost:9092` can not be reached",
            ));
        }
        #[expect(clippy::panic, reason = "the test looks at what a panic does")]
        "panic" => panic!("on purpose"),
        "hang" => std::future::pending().await,
        _ => {}
    }
    process.shutdown.requested().await;
    Ok(())
}

fn main() -> std::process::ExitCode {
    service::start(
        ServiceInfo {
            name: "shell_probe",
            version: "1.2.3",
            admin_port: 0,
        },
        run,
    )
}
