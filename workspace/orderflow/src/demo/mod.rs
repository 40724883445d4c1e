//! The whole pipeline in one process tree.
//!
//! The parent holds the embedded broker and watches; every service is a child process of the same
//! executable, as in production. Children end with their parent: they shut down when their standard
//! input ends.
//!
//! - `plan`: ports, folders and addresses of one run.
//! - `children`: starting, watching and ending the services.
//! - `watch`: how far the groups are, and the live status.
//! - `result`: the counts, read back from topics and store.

mod children;
mod plan;
mod result;
mod watch;

use std::process::ExitCode;
use std::time::Duration;

use devbroker::{Broker, Options};
use serde::{Deserialize, Serialize};
use service::{CommonArgs, Exit, Flag, Problems, Process, ServiceInfo, Settings, launch};
use stream::KafkaSettings;
use stream::admin;

use crate::cli::DemoArgs;
use crate::cluster::brokers_flag;
use crate::demo::children::{Children, ProducerJob};
use crate::demo::plan::Plan;
use crate::demo::watch::{Progress, Status};
use crate::topics;

const INFO: ServiceInfo = ServiceInfo {
    name: "demo",
    version: env!("CARGO_PKG_VERSION"),
    admin_port: 0,
};

/// The demo ends with an error when nothing moves for so long.
const STALL_LIMIT: Duration = Duration::from_secs(60);
/// How often the groups' positions are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
const CONNECT_LIMIT: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Config {
    kafka: KafkaSettings,
}

impl Settings for Config {
    fn check(&self, problems: &mut Problems) {
        for (key, message) in self.kafka.problems() {
            problems.add(key, message);
        }
    }
}

/// Runs the demo.
pub fn main(args: DemoArgs) -> ExitCode {
    if args.exit_when_done && args.orders.is_none() && args.count.is_none() {
        eprintln!(
            "demo: `--exit-when-done` needs `--orders FILE` or `--count N`: made-up orders never end by themselves"
        );
        return ExitCode::from(64);
    }
    // The demo speaks to a person; what its parts log goes to files.
    let level = Flag {
        key: "log.level",
        value: "warn,rdkafka=off".to_owned(),
        name: "demo",
    };
    let mut flags = vec![level];
    flags.extend(brokers_flag(args.brokers.as_ref()));
    launch(INFO, &CommonArgs::default(), &flags, |config: Config, process| {
        run(args, config, process)
    })
}

async fn run(args: DemoArgs, mut config: Config, process: Process) -> Result<(), Exit> {
    let mut plan = Plan::new(&args)?;
    let broker = match &args.brokers {
        Some(_) => None,
        None => Some(start_broker(args.broker_port).await?),
    };
    if let Some(broker) = &broker {
        config.kafka = KafkaSettings {
            brokers: broker.address().to_string(),
            ..KafkaSettings::default()
        };
    }
    admin::connect(&config.kafka, INFO.name, CONNECT_LIMIT).await?;
    let specs = topics::built_in().map_err(|error| Exit::bug(format!("{error:#}")))?;
    admin::create_topics(&config.kafka, INFO.name, &specs).await?;

    let first_id = result::next_order_id(&config.kafka, &plan).await?;
    let mut children = Children::start(&plan, &config.kafka, broker.is_some())?;
    plan.wait_for_page(&mut children, &config.kafka, &process).await?;
    plan.greet(&config.kafka, broker.is_some());
    let started = std::time::Instant::now();
    children.start_producer(&plan, &config.kafka, &ProducerJob::new(&args, first_id))?;

    let outcome = watch_until_the_end(&args, &config, &process, &mut children).await;
    let seconds = started.elapsed().as_secs_f64();
    let judged = match outcome {
        Ok(()) => report(&args, &config, &plan, seconds).await,
        Err(exit) => Err(children.explain(exit)),
    };
    let ended = children.end().await;
    if let Some(broker) = broker {
        broker.stop().await;
    }
    judged.and(ended)
}

async fn start_broker(port: u16) -> Result<Broker, Exit> {
    let listen = plan::free_port(port).ok_or_else(|| {
        Exit::unavailable(format!(
            "no free port from {port} on; give another one with `--broker-port`"
        ))
    })?;
    let options = Options {
        listen,
        ..Options::default()
    };
    Broker::start(options)
        .await
        .map_err(|error| Exit::unavailable(format!("the embedded broker: {error}")))
}

/// Looks at the groups until everything is done, somebody stops the demo, a service dies or nothing
/// moves any more.
async fn watch_until_the_end(
    args: &DemoArgs,
    config: &Config,
    process: &Process,
    children: &mut Children,
) -> Result<(), Exit> {
    let mut status = Status::new();
    let mut progress = Progress::new(STALL_LIMIT);
    loop {
        let produced = children.check()?;
        for line in children.bad_lines() {
            status.say(&line);
        }
        match watch::look(&config.kafka).await {
            Ok(look) => {
                status.show(&look);
                if args.exit_when_done && produced && look.is_done() {
                    status.finish();
                    return Ok(());
                }
                progress.saw(look);
            }
            Err(error) if error.is_retriable() => tracing::warn!(%error, "looking at the groups"),
            Err(error) => return Err(error.into()),
        }
        if args.exit_when_done && progress.has_stalled() {
            return Err(Exit::failed(format!(
                "nothing moved for {} s: {progress}",
                STALL_LIMIT.as_secs()
            )));
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
            () = process.shutdown.requested() => {
                status.finish();
                return if args.exit_when_done {
                    Err(Exit::failed("stopped before every order was done"))
                } else {
                    Ok(())
                };
            }
        }
    }
}

/// Reads the result back and judges it.
async fn report(args: &DemoArgs, config: &Config, plan: &Plan, seconds: f64) -> Result<(), Exit> {
    if !args.exit_when_done && !args.json {
        return Ok(());
    }
    eprintln!("reading the result back from topics and store");
    let result = result::count(&config.kafka, plan, seconds).await?;
    if args.json {
        println!("{}", result.to_json());
    } else {
        eprintln!("{result}");
    }
    if result.dead_letters > 0 && !args.allow_dead_letters {
        return Err(Exit::failed(format!(
            "{} records became dead letters (`--allow-dead-letters` accepts them)",
            result.dead_letters
        )));
    }
    Ok(())
}
