//! The command line.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use service::CommonArgs;

use crate::broker::{FlushArg, TopicArg};
use crate::dlq::State;

/// The operator's command of orderflow.
#[derive(Debug, Parser)]
#[command(name = "orderflow", version, about = "Operate the order pipeline")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the whole pipeline on this machine and watch it
    Demo(DemoArgs),
    /// Run the embedded broker alone, for development and tests
    Broker(BrokerArgs),
    /// Run one service, configured as its own binary is
    #[command(subcommand)]
    Run(RunCommand),
    /// The topics of the pipeline
    #[command(subcommand)]
    Topics(TopicsCommand),
    /// The brakes that stop a group before it drains its topic into the dead letters
    #[command(subcommand)]
    Brake(BrakeCommand),
    /// Look at dead letters, have them tried again, or mark them as dealt with
    #[command(subcommand)]
    Dlq(DlqCommand),
    /// Judge a run: every order has its payment, its alert and its document once, and nothing is left
    Verify(VerifyArgs),
}

/// `orderflow demo`.
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// File with orders, CSV or NDJSON, plain or zstd [default: orders are made up]
    #[arg(long, value_name = "FILE")]
    pub orders: Option<PathBuf>,
    /// How many orders to make up [default: until you stop it]
    #[arg(long, value_name = "N", conflicts_with = "orders")]
    pub count: Option<u64>,
    /// Orders per second [default: 50 when orders are made up, else as fast as possible]
    #[arg(long, value_name = "N")]
    pub rate: Option<f64>,
    /// Use this Kafka instead of the embedded broker
    #[arg(long, value_name = "HOST:PORT")]
    pub brokers: Option<String>,
    /// Keep documents and logs in this folder [default: a temporary one, removed at the end]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Port of the page and its API; when it is taken, the next free one
    #[arg(long, value_name = "PORT", default_value_t = 8000)]
    pub port: u16,
    /// Port of the embedded broker; when it is taken, the next free one
    #[arg(long, value_name = "PORT", default_value_t = 9092)]
    pub broker_port: u16,
    /// End when every order has its payment and its document
    #[arg(long)]
    pub exit_when_done: bool,
    /// End with success although there are dead letters
    #[arg(long)]
    pub allow_dead_letters: bool,
    /// Print the result as one line of JSON on standard output
    #[arg(long)]
    pub json: bool,
}

/// `orderflow broker`.
#[derive(Clone, Debug, Args)]
pub struct BrokerArgs {
    /// Where to listen; anything but loopback opens the broker to other hosts, without passwords
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub listen: IpAddr,
    /// Port of the broker, 0 for a free one
    #[arg(long, value_name = "PORT", default_value_t = 9092)]
    pub port: u16,
    /// Port for faults, clock and figures over HTTP, on loopback [default: off]
    #[arg(long, value_name = "PORT")]
    pub admin_port: Option<u16>,
    /// Topics to begin with, as in `orders:6,payments:6`
    #[arg(long, value_name = "NAME:PARTITIONS", value_delimiter = ',')]
    pub topics: Vec<TopicArg>,
    /// Create a topic when a client asks for one that does not exist
    #[arg(long)]
    pub auto_create_topics: bool,
    /// Keep everything in this folder [default: in memory, gone when the broker ends]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// When an answer is sent: what it tells of is on the disk (`always`), will be within so many
    /// milliseconds (a number), or when the operating system finds it right (`never`)
    #[arg(
        long,
        value_name = "always|MS|never",
        default_value = "always",
        requires = "data"
    )]
    pub flush: FlushArg,
    /// What every process understands.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// `orderflow run`.
#[derive(Debug, Subcommand)]
pub enum RunCommand {
    /// Screen orders
    Fraud(CommonArgs),
    /// Settle orders
    Payment(CommonArgs),
    /// Keep documents
    Analytics(CommonArgs),
    /// Serve the API and the page
    Report(CommonArgs),
    /// Bring orders in
    Producer(Box<ProducerArgs>),
}

/// `orderflow run producer`: the producer's own command line.
#[derive(Debug, Args)]
pub struct ProducerArgs {
    /// What every process understands.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Which way in.
    #[command(subcommand)]
    pub command: producer::cli::Command,
}

/// `orderflow brake`.
#[derive(Debug, Subcommand)]
pub enum BrakeCommand {
    /// Show which brakes are pulled; ends with 1 where any is
    Show(BrakeArgs),
    /// Let the group go on; the release is kept as an event
    Release(BrakeArgs),
}

/// `orderflow brake show` and `orderflow brake release`.
#[derive(Debug, Args)]
pub struct BrakeArgs {
    /// The consumer group
    #[arg(long, value_name = "GROUP")]
    pub group: String,
    /// Where Kafka is (the setting `kafka.brokers`)
    #[arg(long, value_name = "HOST:PORT")]
    pub brokers: Option<String>,
    /// What every process understands.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// `orderflow topics`.
#[derive(Debug, Subcommand)]
pub enum TopicsCommand {
    /// Create the topics that are missing, and grow those that have too few partitions; nothing is taken away
    Apply(TopicsArgs),
}

/// `orderflow topics apply`.
#[derive(Debug, Args)]
pub struct TopicsArgs {
    /// The topics as they should be [default: those built in, deploy/topics.toml]
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Where Kafka is (the setting `kafka.brokers`)
    #[arg(long, value_name = "HOST:PORT")]
    pub brokers: Option<String>,
    /// What every process understands.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// `orderflow dlq`.
#[derive(Clone, Debug, Subcommand)]
pub enum DlqCommand {
    /// A line for each of the newest dead letters, and how many there are of each code
    List {
        /// How many are shown at most
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(..=100_000))]
        limit: u32,
        /// Which ones.
        #[command(flatten)]
        args: DlqArgs,
    },
    /// One dead letter with its headers and its value
    Show {
        /// Partition and offset of the dead letter, as `list` shows them: `2@41`
        #[arg(value_name = "PARTITION@OFFSET", value_parser = parse_place)]
        at: (i32, i64),
        /// Which ones.
        #[command(flatten)]
        args: DlqArgs,
    },
    /// A line of JSON for each dead letter, with everything in it: bytes that are no text in base64
    Export {
        /// How many at most
        #[arg(long, value_name = "N", default_value_t = 1_000_000)]
        limit: u64,
        /// Which ones.
        #[command(flatten)]
        args: DlqArgs,
    },
    /// Have dead letters tried again by the group that gave up; says what it would do unless `--yes`
    #[command(after_help = REPLAY_EXAMPLES)]
    Replay {
        /// Also those that were replayed or discarded before
        #[arg(long)]
        again: bool,
        /// How.
        #[command(flatten)]
        act: ActArgs,
        /// Which ones.
        #[command(flatten)]
        args: DlqArgs,
    },
    /// Mark dead letters as dealt with, so that no replay takes them; says what it would do unless `--yes`
    #[command(after_help = DISCARD_EXAMPLES)]
    Discard {
        /// Why, for whoever looks later
        #[arg(long, value_name = "TEXT", value_parser = parse_words)]
        reason: String,
        /// How.
        #[command(flatten)]
        act: ActArgs,
        /// Which ones.
        #[command(flatten)]
        args: DlqArgs,
    },
}

const REPLAY_EXAMPLES: &str = "\
Examples:
  What would be done:
    orderflow dlq replay --code gateway_unavailable --from 2026-11-21T08:00:00Z
  Do it, no faster than the gateway takes it:
    orderflow dlq replay --code gateway_unavailable --from 2026-11-21T08:00:00Z --rate 50 --yes
  One dead letter, although it was replayed before:
    orderflow dlq replay --topic orders.payments-group.dlq --at 2@41 --again --yes";

const DISCARD_EXAMPLES: &str = "\
Examples:
  What would be done:
    orderflow dlq discard --code invalid_json --reason 'sent by a broken client, ticket 812'
  Do it:
    orderflow dlq discard --code invalid_json --reason 'sent by a broken client, ticket 812' --yes";

impl DlqCommand {
    /// Which dead letters.
    #[must_use]
    pub const fn args(&self) -> &DlqArgs {
        match self {
            Self::List { args, .. }
            | Self::Show { args, .. }
            | Self::Export { args, .. }
            | Self::Replay { args, .. }
            | Self::Discard { args, .. } => args,
        }
    }
}

/// How `orderflow dlq replay` and `orderflow dlq discard` act.
#[derive(Clone, Debug, Args)]
pub struct ActArgs {
    /// Do it; without, it is only said what would be done
    #[arg(long)]
    pub yes: bool,
    /// Who does it, for the audit [default: your name at this host]
    #[arg(long, value_name = "NAME", value_parser = parse_words)]
    pub by: Option<String>,
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = u64::MAX, hide_default_value = true)]
    pub limit: u64,
    /// How many a second at most [default: as fast as possible]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: Option<u32>,
    /// Print the result as one line of JSON on standard output, and the rest on standard error
    #[arg(long)]
    pub json: bool,
}

/// Words for an audit: some, of one line.
fn parse_words(text: &str) -> Result<String, String> {
    let text = text.trim();
    if (1..=500).contains(&text.len()) && !text.chars().any(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err("must be 1 to 500 bytes of text in one line".to_owned())
    }
}

/// Which dead letters, for every command of `orderflow dlq`.
#[derive(Clone, Debug, Args)]
pub struct DlqArgs {
    /// Where Kafka is (the setting `kafka.brokers`)
    #[arg(long, value_name = "HOST:PORT")]
    pub brokers: Option<String>,
    /// This topic of dead letters; may be repeated [default: all of the pipeline's]
    #[arg(long, value_name = "TOPIC")]
    pub topic: Vec<String>,
    /// Those that became dead letters at this time or later (RFC 3339 or milliseconds)
    #[arg(long, value_name = "TIME", value_parser = crate::verify::parse_time)]
    pub from: Option<i64>,
    /// Those that became dead letters at this time or earlier
    #[arg(long, value_name = "TIME", value_parser = crate::verify::parse_time)]
    pub to: Option<i64>,
    /// Those with this code (`dlq-error-code`); may be repeated
    #[arg(long, value_name = "CODE")]
    pub code: Vec<String>,
    /// Those with this key, for an order its id; may be repeated
    #[arg(long, value_name = "KEY")]
    pub key: Vec<String>,
    /// The one at this partition and offset of the topic, as `list` shows them; may be repeated
    #[arg(long = "at", value_name = "PARTITION@OFFSET", value_parser = parse_place, requires = "topic")]
    pub places: Vec<(i32, i64)>,
    /// Those of which this became; may be repeated [default: all; for replay and discard: open]
    #[arg(long, value_name = "STATE", value_enum)]
    pub state: Vec<State>,
    /// What every process understands.
    #[command(flatten)]
    pub common: CommonArgs,
}

fn parse_place(text: &str) -> Result<(i32, i64), String> {
    let place = text
        .split_once('@')
        .and_then(|(partition, offset)| Some((partition.parse().ok()?, offset.parse().ok()?)));
    place.ok_or_else(|| "must be a partition and an offset, as in `2@41`".to_owned())
}

/// A worker, for the choice of what is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Judged {
    /// Alerts.
    Fraud,
    /// Payments.
    Payment,
    /// Documents.
    Analytics,
}

/// `orderflow verify`.
#[derive(Clone, Debug, Args)]
pub struct VerifyArgs {
    /// Where Kafka is (the setting `kafka.brokers`)
    #[arg(long, value_name = "HOST:PORT")]
    pub brokers: Option<String>,
    /// Judge orders that were sent at this time or later (RFC 3339 or milliseconds, record time)
    #[arg(long, value_name = "TIME", value_parser = crate::verify::parse_time)]
    pub from: Option<i64>,
    /// Judge orders that were sent at this time or earlier; offsets and open transactions are not judged
    /// then, because the pipeline may go on
    #[arg(long, value_name = "TIME", value_parser = crate::verify::parse_time)]
    pub to: Option<i64>,
    /// Wait so long at most until every group has caught up and no transaction is open
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=86_400))]
    pub wait: u64,
    /// Judge the work of these workers only
    #[arg(long, value_name = "WORKER", value_delimiter = ',', default_values_t = [Judged::Fraud, Judged::Payment, Judged::Analytics], value_enum)]
    pub only: Vec<Judged>,
    /// Leave the document store out
    #[arg(long)]
    pub no_store: bool,
    /// Ask this gateway what it charged: GET URL/charges has to answer a line of JSON for each
    /// idempotency key, {"key":"pay_...","order_id":"1","charged":1}
    #[arg(long, value_name = "URL")]
    pub gateway: Option<String>,
    /// How many examples of each violation are told
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(..=1_000))]
    pub examples: u16,
    /// Print the verdict as one line of JSON on standard output, and the table on standard error
    #[arg(long)]
    pub json: bool,
    /// What every process understands.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Prints what clap has to say. A wrong command line is a wrong configuration: 64.
pub fn usage(error: &clap::Error) -> ExitCode {
    // Nowhere to report that standard output is closed.
    let _printed = error.print().is_ok();
    if error.use_stderr() {
        ExitCode::from(64)
    } else {
        ExitCode::SUCCESS
    }
}
