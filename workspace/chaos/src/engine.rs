//! The broker of a run: a process that can be killed and goes on with its data.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::Value;
use testkit::{Launch, Running, get};
use tokio::process::Command;

use crate::plan::{EngineName, Injection};
use crate::ports;

/// Starting takes a second at most, a real Kafka up to half a minute on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(60);
const ASK_INTERVAL: Duration = Duration::from_millis(20);

/// Where the programs of a run are, and where it may write.
#[derive(Clone, Debug)]
pub struct Places {
    /// The checkout, for `scripts/kafka` and deploy/topics.toml.
    pub root: PathBuf,
    /// The program `orderflow`.
    pub orderflow: PathBuf,
    /// A folder of its own for each run.
    pub work: PathBuf,
}

/// The broker of a run.
#[derive(Debug)]
pub struct Broker {
    places: Places,
    address: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Devbroker {
        port: u16,
        admin_port: u16,
        running: Option<Box<Running>>,
    },
    /// Its process belongs to `scripts/kafka`.
    Kafka,
}

impl Broker {
    /// Starts a broker with an empty data folder.
    ///
    /// # Errors
    /// It does not come up.
    pub async fn start(engine: EngineName, places: &Places) -> anyhow::Result<Self> {
        match engine {
            EngineName::Devbroker => {
                let [port, admin_port] = ports::free()?;
                let mut broker = Self {
                    places: places.clone(),
                    address: format!("127.0.0.1:{port}"),
                    kind: Kind::Devbroker {
                        port,
                        admin_port,
                        running: None,
                    },
                };
                broker.rise().await?;
                Ok(broker)
            }
            EngineName::Kafka => {
                let printed = kafka(places, "start").await?;
                let address = printed
                    .lines()
                    .find_map(|line| line.strip_prefix("KAFKA_BROKERS="));
                Ok(Self {
                    places: places.clone(),
                    address: address.context("`scripts/kafka` printed no address")?.to_owned(),
                    kind: Kind::Kafka,
                })
            }
        }
    }

    /// Where clients find it, also after a crash.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Kills it and starts it again with its data.
    ///
    /// # Errors
    /// It does not come up again.
    pub async fn crash(&mut self) -> anyhow::Result<()> {
        match &mut self.kind {
            Kind::Devbroker { running, .. } => {
                if let Some(running) = running.take() {
                    running.kill();
                    running.wait(START_LIMIT).await;
                }
            }
            Kind::Kafka => {
                kafka(&self.places, "crash").await?;
            }
        }
        self.rise().await
    }

    /// Ends it, with its data.
    ///
    /// # Errors
    /// It does not end.
    pub async fn stop(self) -> anyhow::Result<()> {
        match self.kind {
            Kind::Devbroker { running, .. } => {
                if let Some(running) = running {
                    running.terminate();
                    let ended = running.wait(START_LIMIT).await;
                    if ended.code() != Some(0) {
                        bail!("the broker ended with {}", ended.status);
                    }
                }
            }
            Kind::Kafka => {
                kafka(&self.places, "stop").await?;
            }
        }
        Ok(())
    }

    async fn rise(&mut self) -> anyhow::Result<()> {
        match &mut self.kind {
            Kind::Devbroker {
                port,
                admin_port,
                running,
            } => {
                let launch = Launch::new(&self.places.orderflow)
                    .arg("broker")
                    .arg("--port")
                    .arg(port.to_string())
                    .arg("--admin-port")
                    .arg(admin_port.to_string())
                    .arg("--data")
                    .arg(self.places.work.join("broker"))
                    // A killed process loses nothing that the kernel has.
                    .arg("--flush")
                    .arg("never")
                    .env("ORDERFLOW__ADMIN__LISTEN", "off")
                    .log_to(&self.places.work.join("broker.log"));
                let started = running.insert(Box::new(launch.start()));
                let deadline = Instant::now() + START_LIMIT;
                while get(&format!("http://127.0.0.1:{admin_port}/stats"))
                    .await
                    .is_err()
                {
                    if let Some(status) = started.ended() {
                        bail!("the broker ended with {status} before it served");
                    }
                    if Instant::now() > deadline {
                        bail!("the broker does not serve after {START_LIMIT:?}");
                    }
                    tokio::time::sleep(ASK_INTERVAL).await;
                }
            }
            Kind::Kafka => {
                kafka(&self.places, "resume").await?;
            }
        }
        Ok(())
    }

    /// Where faults are injected.
    ///
    /// # Errors
    /// A real Kafka has no such place.
    pub fn admin(&self) -> anyhow::Result<Admin> {
        match &self.kind {
            Kind::Devbroker { admin_port, .. } => Ok(Admin {
                url: format!("http://127.0.0.1:{admin_port}"),
            }),
            Kind::Kafka => bail!("only the embedded broker has an admin port"),
        }
    }
}

/// Ends what a failed run has left of its broker; its log stays beside those of the workers.
///
/// # Errors
/// It does not end.
pub async fn clear_away(engine: EngineName, places: &Places) -> anyhow::Result<()> {
    let folder = kafka_folder(&places.work);
    // The embedded broker is a child of this process and has ended with the run.
    if engine == EngineName::Kafka && folder.exists() {
        for (name, source) in [
            ("kafka.log", folder.clone()),
            ("controller.log", folder.join("controller")),
        ] {
            let log = places.work.join(name);
            std::fs::copy(source.join("server.log"), &log).with_context(|| log.display().to_string())?;
        }
        kafka(places, "stop").await?;
    }
    Ok(())
}

/// The admin port of the embedded broker.
#[derive(Clone, Debug)]
pub struct Admin {
    url: String,
}

impl Admin {
    /// Lets requests of a client go wrong; the answer names the fault.
    ///
    /// # Errors
    /// The broker refuses it.
    pub async fn inject(&self, injection: &Injection, client_id: &str) -> anyhow::Result<u64> {
        let mut body = serde_json::to_value(injection)?;
        if let Value::Object(fields) = &mut body {
            fields.insert("client_id".to_owned(), client_id.into());
        }
        let answer = self.post("/faults", &body).await?;
        answer
            .get("id")
            .and_then(Value::as_u64)
            .with_context(|| format!("no fault was made: {answer}"))
    }

    /// How often a fault has struck.
    ///
    /// # Errors
    /// The broker does not answer, or does not know the fault (any more).
    pub async fn struck(&self, id: u64) -> anyhow::Result<u64> {
        let (_, body) = get(&format!("{}/faults", self.url))
            .await
            .map_err(anyhow::Error::msg)?;
        let all: Vec<Value> = serde_json::from_str(&body)?;
        let found = all
            .iter()
            .find(|fault| fault.get("id").and_then(Value::as_u64) == Some(id));
        let struck = found
            .and_then(|fault| fault.get("struck"))
            .and_then(Value::as_u64);
        struck.with_context(|| format!("the broker does not know fault {id}"))
    }

    /// Removes a fault.
    ///
    /// # Errors
    /// The broker does not answer.
    pub async fn remove(&self, id: u64) -> anyhow::Result<()> {
        let url = format!("{}/faults/{id}", self.url);
        let answer = reqwest::Client::new().delete(url).send().await?;
        answer.error_for_status()?;
        Ok(())
    }

    /// Fills the disk of the data folder, or frees it.
    ///
    /// # Errors
    /// The broker does not answer.
    pub async fn disk(&self, is_full: bool) -> anyhow::Result<()> {
        let path = if is_full { "/disk/fill" } else { "/disk/free" };
        self.post(path, &Value::Object(serde_json::Map::new())).await?;
        Ok(())
    }

    async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let url = format!("{}{path}", self.url);
        let answer = reqwest::Client::new().post(&url).json(body).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        if !status.is_success() {
            bail!("{url}: {status}: {text}");
        }
        Ok(serde_json::from_str(&text).unwrap_or_default())
    }
}

/// Runs a verb of `scripts/kafka` and returns what it printed.
async fn kafka(places: &Places, verb: &str) -> anyhow::Result<String> {
    let mut command = Command::new(places.root.join("scripts/kafka"));
    command.arg(verb).arg("--dir").arg(kafka_folder(&places.work));
    if verb == "start" {
        // The broker is what is killed; its controller lives on, as in any cluster of several nodes.
        command.arg("--apart");
        // As for the embedded broker: it keeps its port over its crashes.
        let [port] = ports::free()?;
        command.arg("--port").arg(port.to_string());
    }
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .await;
    let output = output.context("scripts/kafka")?;
    if !output.status.success() {
        bail!("`scripts/kafka {verb}` ended with {}", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn kafka_folder(work: &Path) -> PathBuf {
    work.join("kafka")
}
