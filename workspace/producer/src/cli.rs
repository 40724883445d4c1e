//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use domain::EventTime;
use service::{CommonArgs, Flag};

use crate::source::{ColumnMap, Format};

/// Brings orders into the topic `orders`.
#[derive(Debug, Parser)]
#[command(
    name = "producer",
    version,
    about = "Bring orders into Kafka: from files, made up, or over HTTP"
)]
pub struct Cli {
    /// What every process understands.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Which way in.
    #[command(subcommand)]
    pub command: Command,
}

/// The ways in.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Send the orders of a file, and end when all are acknowledged
    Replay(ReplayArgs),
    /// Make orders up and send them
    Generate(GenerateArgs),
    /// Serve `POST /api/orders`
    Serve(ServeArgs),
}

/// What sending has in common.
#[derive(Debug, Clone, Default, Args)]
pub struct SendArgs {
    /// Orders per second, evenly spaced; without it as fast as Kafka takes them
    #[arg(long, value_name = "N", value_parser = parse_rate)]
    pub rate: Option<f64>,
    /// Print the summary as one line of JSON on standard output
    #[arg(long)]
    pub json: bool,
    /// Write the summary as JSON to this file
    #[arg(long, value_name = "PATH")]
    pub report_file: Option<PathBuf>,
    /// Kafka brokers, `host:port` (the setting `kafka.brokers`)
    #[arg(long, value_name = "HOST:PORT")]
    pub brokers: Option<String>,
}

/// `replay`.
#[derive(Debug, Clone, Args)]
pub struct ReplayArgs {
    /// CSV or NDJSON, plain or zstd; `-` is standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The layout of the file
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// Columns of a CSV file: `order_id=COL,amount=COL,country=COL` and, where there are such,
    /// `currency=COL,customer_id=COL,vendor=COL,timestamp=COL`
    #[arg(long, value_name = "MAP")]
    pub map: Option<ColumnMap>,
    /// Stop with exit code 1 at the first bad line
    #[arg(long)]
    pub strict: bool,
    /// How to send.
    #[command(flatten)]
    pub send: SendArgs,
}

/// `generate`.
#[derive(Debug, Clone, Args)]
pub struct GenerateArgs {
    /// How many orders; without it until the signal to stop
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// Orders of one seed are always the same, apart from their time
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// The id of the first order
    #[arg(long, value_name = "ID", default_value_t = 1)]
    pub first_id: i64,
    /// Fixed time of the first order instead of the clock, RFC 3339; the next ones follow at `--rate`, or 20 ms apart
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub start_time: Option<EventTime>,
    /// How to send.
    #[command(flatten)]
    pub send: SendArgs,
}

/// `serve`.
#[derive(Debug, Clone, Default, Args)]
pub struct ServeArgs {
    /// Address and port of the API (the setting `intake.listen`)
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,
    /// Kafka brokers, `host:port` (the setting `kafka.brokers`)
    #[arg(long, value_name = "HOST:PORT")]
    pub brokers: Option<String>,
}

impl Command {
    /// The settings that the command line gives, for [`service::launch`].
    pub fn flags(&self) -> Vec<Flag> {
        let (brokers, listen) = match self {
            Self::Replay(args) => (&args.send.brokers, &None),
            Self::Generate(args) => (&args.send.brokers, &None),
            Self::Serve(args) => (&args.brokers, &args.listen),
        };
        let flag = |key, name, value: &Option<String>| value.clone().map(|value| Flag { key, value, name });
        flag("kafka.brokers", "--brokers", brokers)
            .into_iter()
            .chain(flag("intake.listen", "--listen", listen))
            .collect()
    }
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && (0.001..=10_000_000.0).contains(&rate) => Ok(rate),
        _ => Err("must be a number of orders per second from 0.001 to 10000000".to_owned()),
    }
}

fn parse_time(text: &str) -> Result<EventTime, String> {
    EventTime::parse(text).map_err(|rejection| rejection.message)
}
