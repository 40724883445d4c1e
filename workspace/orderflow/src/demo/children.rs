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
}

impl Children {
    /// Starts all services but the producer.
    pub fn start(plan: &Plan, kafka: &KafkaSettings, embedded: bool) -> Result<Self, Exit> {
        let mut children = Self::default();
        for name in WORKERS {
            let mut command = command(plan, kafka, &[name.to_owned()])?;
            command
                .env("ORDERFLOW__STORE__SQLITE__PATH", plan.store().sqlite.path)
                .env("ORDERFLOW__REPORT__LISTEN", plan.page.to_string());
            if embedded {
                command.env("ORDERFLOW__ANALYTICS__GENERATION", plan.generation.to_string());
            }
            children.spawn(name, command, plan)?;
        }
        Ok(children)
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
        let command = command(plan, kafka, &arguments)?;
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
            Some(service) => Exit::failed(format!("{exit}; its log ends with\n{}", last_lines(&service.log))),
            None => exit,
        }
    }

    /// Lets all services shut down: the producer first, so that nothing new comes in.
    pub async fn end(&mut self) {
        for service in self.services.iter_mut().rev() {
            // Standard input that ends is the signal; see `--exit-with-stdin`.
            drop(service.child.stdin.take());
        }
        for service in &mut self.services {
            if tokio::time::timeout(END_LIMIT, service.child.wait())
                .await
                .is_err()
            {
                tracing::warn!(service = service.name, "did not shut down in time, killed");
                if let Err(error) = service.child.kill().await {
                    tracing::warn!(service = service.name, %error, "killing");
                }
            }
        }
    }
}

fn command(plan: &Plan, kafka: &KafkaSettings, arguments: &[String]) -> Result<Command, Exit> {
    let executable =
        std::env::current_exe().map_err(|error| Exit::bug(format!("finding the executable: {error}")))?;
    let mut command = Command::new(executable);
    let Some((service, own)) = arguments.split_first() else {
        return Err(Exit::bug("no service to start"));
    };
    command
        .args(["run", service, "--exit-with-stdin"])
        .args(own)
        .env("KAFKA_BROKERS", &kafka.brokers)
        .env_remove("KAFKA_BOOTSTRAP_SERVERS")
        // Several demos on one machine must not meet; the parent watches its children itself.
        .env("ORDERFLOW__ADMIN__LISTEN", "127.0.0.1:0")
        .env(
            "ORDERFLOW__SERVICE__INSTANCE",
            format!("demo-{service}-{}", plan.generation),
        );
    Ok(command)
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
