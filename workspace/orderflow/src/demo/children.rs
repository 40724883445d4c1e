//! Starting, watching and ending the services.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use service::Exit;
use stream::KafkaSettings;
use tokio::process::{Child, Command};

use crate::cli::DemoArgs;
use crate::demo::plan::Plan;

const WORKERS: [&str; 4] = ["fraud", "payment", "analytics", "report"];
/// Above the longest shutdown of a worker.
const END_LIMIT: Duration = Duration::from_secs(40);
/// Orders per second that are made up, when nobody says how many.
const DEFAULT_RATE: f64 = 50.0;
/// Lines of a service's log that explain its death.
const LAST_LINES: usize = 8;

/// What the producer has to do.
pub struct ProducerJob {
    arguments: Vec<String>,
}

impl ProducerJob {
    /// The producer's arguments for this run.
    pub fn new(args: &DemoArgs, first_id: i64) -> Self {
        let mut arguments = Vec::new();
        match &args.orders {
            Some(file) => arguments.extend(["replay".to_owned(), file.display().to_string()]),
            None => {
                arguments.extend([
                    "generate".to_owned(),
                    "--first-id".to_owned(),
                    first_id.to_string(),
                ]);
                if let Some(count) = args.count {
                    arguments.extend(["--count".to_owned(), count.to_string()]);
                }
            }
        }
        let endless = args.orders.is_none() && args.count.is_none();
        if let Some(rate) = args.rate.or(endless.then_some(DEFAULT_RATE)) {
            arguments.extend(["--rate".to_owned(), rate.to_string()]);
        }
        Self { arguments }
    }
}

struct Service {
    name: &'static str,
    log: PathBuf,
    child: Child,
    ended: Option<ExitStatus>,
}

/// The child processes of one run.
#[derive(Default)]
pub struct Children {
    services: Vec<Service>,
    dead: Option<&'static str>,
    embedded: bool,
    bad_lines_told: usize,
}

impl Children {
    /// Starts all services but the producer.
    pub fn start(plan: &Plan, kafka: &KafkaSettings, embedded: bool) -> Result<Self, Exit> {
        let mut children = Self {
            embedded,
            ..Self::default()
        };
        for name in WORKERS {
            children.start_worker(name, plan, kafka)?;
        }
        Ok(children)
    }

    fn start_worker(&mut self, name: &'static str, plan: &Plan, kafka: &KafkaSettings) -> Result<(), Exit> {
        let mut command = command(plan, kafka, &[name.to_owned()])?;
        command
            .env("ORDERFLOW__STORE__SQLITE__PATH", plan.store().sqlite.path)
            .env("ORDERFLOW__REPORT__LISTEN", plan.page.to_string());
        if self.embedded {
            without_login(&mut command);
            command.env("ORDERFLOW__ANALYTICS__GENERATION", plan.generation.to_string());
        }
        self.spawn(name, command, plan)
    }

    /// Starts the report once more, after it found its port taken.
    pub fn restart_report(&mut self, plan: &Plan, kafka: &KafkaSettings) -> Result<(), Exit> {
        self.services.retain(|service| service.name != "report");
        self.dead = None;
        self.start_worker("report", plan, kafka)
    }

    /// What a service has logged so far.
    pub fn log_of(&self, name: &str) -> String {
        let service = self.services.iter().find(|service| service.name == name);
        service
            .and_then(|service| std::fs::read_to_string(&service.log).ok())
            .unwrap_or_default()
    }

    /// The bad lines that the producer has told of and that were not passed on yet.
    pub fn bad_lines(&mut self) -> Vec<String> {
        let log = self.log_of("producer");
        let told: Vec<String> = log
            .lines()
            .filter(|line| line.contains(": rejected ("))
            .map(str::to_owned)
            .collect();
        let new = told.get(self.bad_lines_told..).unwrap_or_default().to_vec();
        self.bad_lines_told = told.len();
        new
    }

    /// Starts the producer.
    pub fn start_producer(
        &mut self,
        plan: &Plan,
        kafka: &KafkaSettings,
        job: &ProducerJob,
    ) -> Result<(), Exit> {
        let mut arguments = vec!["producer".to_owned()];
        arguments.extend(job.arguments.iter().cloned());
        arguments.extend([
            "--report-file".to_owned(),
            plan.producer_report().display().to_string(),
        ]);
        let mut command = command(plan, kafka, &arguments)?;
        if self.embedded {
            without_login(&mut command);
        }
        self.spawn("producer", command, plan)
    }

    fn spawn(&mut self, name: &'static str, mut command: Command, plan: &Plan) -> Result<(), Exit> {
        let log = plan.folder.join("logs").join(format!("{name}.log"));
        let failed = |error: std::io::Error| Exit::bug(format!("starting `{name}`: {error}"));
        let file = File::create(&log).map_err(failed)?;
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(file)
            .kill_on_drop(true);
        let child = command.spawn().map_err(failed)?;
        self.services.push(Service {
            name,
            log,
            child,
            ended: None,
        });
        Ok(())
    }

    /// Whether the producer has finished its work.
    ///
    /// # Errors
    /// When a service has ended that should not have.
    pub fn check(&mut self) -> Result<bool, Exit> {
        let mut produced = false;
        for service in &mut self.services {
            if service.ended.is_none() {
                let ended = service.child.try_wait();
                service.ended =
                    ended.map_err(|error| Exit::bug(format!("watching `{}`: {error}", service.name)))?;
            }
            match service.ended {
                None => {}
                Some(status) if service.name == "producer" && status.success() => produced = true,
                Some(status) => {
                    self.dead = Some(service.name);
                    return Err(Exit::failed(format!("`{}` ended ({status})", service.name)));
                }
            }
        }
        Ok(produced)
    }

    /// Adds the last words of the service that died, because its log may be gone in a moment.
    pub fn explain(&self, exit: Exit) -> Exit {
        let dead = self
            .services
            .iter()
            .find(|service| Some(service.name) == self.dead);
        match dead {
            Some(service) => with_last_words(&exit.to_string(), &service.log),
            None => exit,
        }
    }

    /// Lets all services shut down: the producer first, so that nothing new comes in.
    ///
    /// # Errors
    /// The first service that did not end well, with the last words of its log.
    pub async fn end(&mut self) -> Result<(), Exit> {
        for service in self.services.iter_mut().rev() {
            // Standard input that ends is the signal; see `--exit-with-stdin`.
            drop(service.child.stdin.take());
        }
        let mut result = Ok(());
        for service in &mut self.services {
            let already_told = service.ended.is_some();
            let ended = match tokio::time::timeout(END_LIMIT, service.child.wait()).await {
                Ok(Ok(status)) if status.success() || already_told => Ok(()),
                Ok(Ok(status)) => Err(format!("`{}` ended ({status})", service.name)),
                Ok(Err(error)) => Err(format!("watching `{}`: {error}", service.name)),
                Err(_) => {
                    let killed = service.child.kill().await;
                    let how = killed.map_or_else(|error| error.to_string(), |()| "killed".to_owned());
                    Err(format!(
                        "`{}` did not shut down within {} s ({how})",
                        service.name,
                        END_LIMIT.as_secs()
                    ))
                }
            };
            if let Err(sentence) = ended
                && result.is_ok()
            {
                result = Err(with_last_words(&sentence, &service.log));
            }
        }
        result
    }
}

fn with_last_words(sentence: &str, log: &Path) -> Exit {
    Exit::failed(format!("{sentence}; its log ends with\n{}", last_lines(log)))
}

fn command(plan: &Plan, kafka: &KafkaSettings, arguments: &[String]) -> Result<Command, Exit> {
    let executable =
        std::env::current_exe().map_err(|error| Exit::bug(format!("finding the executable: {error}")))?;
    let mut command = Command::new(executable);
    let Some((service, own)) = arguments.split_first() else {
        return Err(Exit::bug("no service to start"));
    };
    command.args(["run", service, "--exit-with-stdin"]).args(own);
    // What the demo decides itself must not come from elsewhere.
    for name in [
        "TOPICS__ORDERS",
        "TOPICS__PAYMENTS",
        "TOPICS__FRAUD_ALERTS",
        "TOPICS__ORDER_EVENTS",
    ] {
        command.env_remove(format!("ORDERFLOW__{name}"));
    }
    for name in [
        "FRAUD__GROUP",
        "PAYMENT__GROUP",
        "ANALYTICS__GROUP",
        "KAFKA__BROKERS",
    ] {
        command.env_remove(format!("ORDERFLOW__{name}"));
    }
    command.env_remove("KAFKA_BOOTSTRAP_SERVERS");
    command
        .env("KAFKA_BROKERS", &kafka.brokers)
        // Several demos on one machine must not meet; the parent watches its children itself.
        .env("ORDERFLOW__ADMIN__LISTEN", "127.0.0.1:0")
        .env(
            "ORDERFLOW__SERVICE__INSTANCE",
            format!("demo-{service}-{}", plan.generation),
        );
    Ok(command)
}

/// The embedded broker knows no passwords: a login that is set for another Kafka would be refused.
fn without_login(command: &mut Command) {
    for (name, key) in service::config::NAMES {
        if key.starts_with("kafka.") && *key != "kafka.brokers" {
            command.env_remove(name).env_remove(format!("{name}_FILE"));
        }
    }
    for name in [
        "API_KEY",
        "API_SECRET",
        "SASL_MECHANISM",
        "CA_FILE",
        "CERTIFICATE_FILE",
        "KEY_FILE",
    ] {
        command.env_remove(format!("ORDERFLOW__KAFKA__{name}"));
    }
    command.env("ORDERFLOW__KAFKA__SECURITY_PROTOCOL", "PLAINTEXT");
}

fn last_lines(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let first = lines.len().saturating_sub(LAST_LINES);
    lines
        .get(first..)
        .unwrap_or_default()
        .iter()
        .map(|line| format!("    {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}
