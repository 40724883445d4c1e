//! Brings orders into the topic `orders`: from files (`replay`), made up (`generate`), over HTTP (`serve`).
//!
//! Guarantees: an order is reported as taken only after the broker acknowledged it with `acks=all`; a replay ends
//! only when everything sent is acknowledged, or with the cause of what is not; a bad line or order is reported with
//! a stable code, counted, and stops nothing else; memory is bounded whatever the input.
//!
//! Called by its own `main` and by `orderflow`, which runs it in the demo.
//!
//! - [`cli`] is the command line,
//! - [`config`] its settings,
//! - [`source`] where orders come from,
//! - [`outlet`] where they go,
//! - [`intake`] the HTTP API,
//! - [`metrics`] what is measured,
//! - [`summary`] what came of a replay,
//! - `reading`, `sending`, `pace` and `progress` are the parts of a replay.

pub mod cli;
pub mod config;
pub mod intake;
pub mod metrics;
pub mod outlet;
mod pace;
mod progress;
mod reading;
mod sending;
pub mod source;
pub mod summary;

use std::sync::Arc;

use domain::EventTime;
use service::{Exit, Process, ServiceInfo};
use tokio::time::Instant;

pub use config::Config;

use cli::{Command, GenerateArgs, ReplayArgs, SendArgs};
use metrics::ProducerMetrics;
use outlet::{OrdersTopic, Outlet};
use progress::{Measure, Progress};
use sending::{Manner, send_all};
use source::{GeneratedTime, Generator, Source, SourceError};

/// Milliseconds between the times of generated orders where no rate says otherwise.
const STEP_MS: f64 = 20.0;

/// What this process is. Commands that come and go have no admin server unless one is configured.
pub fn info(command: &Command) -> ServiceInfo {
    let admin_port = if matches!(command, Command::Serve(_)) {
        9461
    } else {
        0
    };
    ServiceInfo {
        name: "producer",
        version: env!("CARGO_PKG_VERSION"),
        admin_port,
    }
}

/// Runs one of the ways in to its end.
///
/// # Errors
/// With the exit code: 1 for a replay that was stopped or that `--strict` ended, 64 for a file of unknown layout,
/// 69 when Kafka can not be reached or does not take the orders.
pub async fn run(config: Config, command: Command, process: Process) -> Result<(), Exit> {
    let metrics = ProducerMetrics::register(&process.metrics)
        .map_err(|error| Exit::bug(format!("the metrics of the producer: {error}")))?;
    // A file that can not be used is told before Kafka is asked for.
    let job = match &command {
        Command::Serve(_) => None,
        Command::Replay(args) => Some(replay_job(&config, args)?),
        Command::Generate(args) => Some(generate_job(args)),
    };
    let Some(outlet) = OrdersTopic::open(&config, &process).await? else {
        tracing::info!("stopped before Kafka and its topics were there");
        return if matches!(command, Command::Replay(_)) {
            Err(Exit::failed("stopped before anything was sent"))
        } else {
            Ok(())
        };
    };
    match job {
        None => {
            intake::serve(
                &config.intake,
                config.orders.default_currency,
                outlet,
                metrics,
                &process,
            )
            .await
        }
        Some(job) => {
            process.health.ready();
            send(job, &config, &outlet, &metrics, &process).await
        }
    }
}

struct Job {
    source: Box<dyn Source>,
    name: String,
    measure: Measure,
    send: SendArgs,
    strict: bool,
    endless: bool,
}

fn replay_job(config: &Config, args: &ReplayArgs) -> Result<Job, Exit> {
    let open = source::open(
        &args.file,
        args.format,
        args.map.as_ref(),
        config.orders.default_currency,
    );
    let file = open.map_err(|error| match error {
        SourceError::Layout(message) | SourceError::Unreadable(message) => Exit::config(message),
    })?;
    let name = args.file.display().to_string();
    tracing::info!(file = name, layout = file.layout, "replay");
    Ok(Job {
        source: file.source,
        name,
        measure: file.total.map_or(Measure::Open, |total| Measure::Bytes {
            read: Arc::clone(&file.read),
            total,
        }),
        send: args.send.clone(),
        strict: args.strict,
        endless: false,
    })
}

fn generate_job(args: &GenerateArgs) -> Job {
    let step_ms = args.send.rate.map_or(STEP_MS, |rate| 1000.0 / rate) as i64;
    let time = args
        .start_time
        .map_or(GeneratedTime::Now, |start| GeneratedTime::From { start, step_ms });
    Job {
        source: Box::new(Generator::new(args.seed, args.first_id, args.count, time)),
        name: "generator".to_owned(),
        measure: args.count.map_or(Measure::Open, Measure::Orders),
        send: args.send.clone(),
        strict: true,
        endless: args.count.is_none(),
    }
}

async fn send(
    job: Job,
    config: &Config,
    outlet: &impl Outlet,
    metrics: &ProducerMetrics,
    process: &Process,
) -> Result<(), Exit> {
    let manner = Manner {
        rate: job.send.rate,
        strict: job.strict,
        endless: job.endless,
        flush_timeout: config.producer.flush_timeout(),
    };
    let progress = Progress::new(job.measure, Instant::now());
    let batches = reading::spawn(job.source, job.send.rate, now);
    let (summary, result) = send_all(
        batches,
        outlet,
        metrics,
        manner,
        progress,
        job.name,
        &process.shutdown,
    )
    .await;
    eprintln!("{summary}");
    if job.send.json {
        println!("{}", summary.json());
    }
    if let Some(path) = &job.send.report_file {
        summary.write(path).map_err(|error| {
            Exit::failed(format!(
                "`--report-file {}` can not be written: {error}",
                path.display()
            ))
        })?;
    }
    result
}

/// The clock, read at the edge: for orders that bring no time.
pub(crate) fn now() -> EventTime {
    EventTime(service::now_ms())
}
