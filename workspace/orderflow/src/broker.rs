//! The embedded broker alone, for development and tests.
//!
//! Standard output is for programs: `KAFKA_BROKERS=...` once the broker serves and the topics exist,
//! and the admin port where there is one. What the broker is, and is not, goes to standard error.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use devbroker::{Broker, BrokerError, DataOptions, Flush, Options};
use serde::{Deserialize, Serialize};
use service::{Exit, Problems, Process, ServiceInfo, Settings, launch};

use crate::cli::BrokerArgs;

const INFO: ServiceInfo = ServiceInfo {
    name: "broker",
    version: env!("CARGO_PKG_VERSION"),
    admin_port: 0,
};

/// What it is, and is not; `kept` says where its records are.
fn what_it_is(data: Option<&Path>) -> String {
    let kept = match data {
        None => "in memory: records and offsets are gone when it ends".to_owned(),
        Some(folder) => format!("records and offsets kept in `{}`", folder.display()),
    };
    format!(
        "orderflow broker: speaks Kafka's protocol, for development and tests\n  \
         it is      one process, {kept}\n  \
         it is not  Apache Kafka; no replication, never for production"
    )
}

/// The broker is configured on its command line alone.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Config {}

impl Settings for Config {
    fn check(&self, _: &mut Problems) {}
}

/// A topic of `--topics`: `orders:6`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicArg {
    name: String,
    partitions: i32,
}

impl FromStr for TopicArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("`{text}` must be a name and a count of partitions, as in `orders:6`");
        let (name, partitions) = text.rsplit_once(':').ok_or_else(wrong)?;
        let partitions: i32 = partitions.parse().map_err(|_| wrong())?;
        if name.is_empty() || partitions < 1 {
            return Err(wrong());
        }
        Ok(Self {
            name: name.to_owned(),
            partitions,
        })
    }
}

/// The value of `--flush`: `always`, `never`, or milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlushArg(Flush);

impl FromStr for FlushArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("`{text}` must be `always`, `never`, or milliseconds of 1 or more");
        Ok(Self(match text {
            "always" => Flush::Always,
            "never" => Flush::Never,
            number => match number.parse().map_err(|_| wrong())? {
                0 => return Err(wrong()),
                ms => Flush::Interval(Duration::from_millis(ms)),
            },
        }))
    }
}

/// Runs the broker until it is told to stop.
pub fn main(args: BrokerArgs) -> ExitCode {
    let common = args.common.clone();
    launch(INFO, &common, &[], |_: Config, process| run(args, process))
}

async fn run(args: BrokerArgs, process: Process) -> Result<(), Exit> {
    if !args.listen.is_loopback() {
        tracing::warn!(
            listen = %args.listen,
            "the broker is open to other hosts, without passwords or encryption: whoever reaches it may \
             read, write and delete everything"
        );
    }
    let broker = start(&args).await?;
    for topic in &args.topics {
        create(&broker, topic, args.data.is_some())?;
    }
    eprintln!("{}", what_it_is(args.data.as_deref()));
    println!("KAFKA_BROKERS={}", reachable(broker.address()));
    if let Some(admin) = broker.admin_address() {
        println!("DEVBROKER_ADMIN=http://{admin}");
    }
    process.shutdown.requested().await;
    broker.stop().await;
    Ok(())
}

/// Creates a topic of `--topics`. An earlier run may have left it in the data folder already.
fn create(broker: &Broker, topic: &TopicArg, may_exist: bool) -> Result<(), Exit> {
    let TopicArg { name, partitions } = topic;
    match broker.partition_count(name).filter(|_| may_exist) {
        Some(count) if count == *partitions => Ok(()),
        Some(count) => Err(Exit::config(format!(
            "`--topics`: topic `{name}` has {count} partitions in the data folder, not {partitions}"
        ))),
        None => {
            let created = broker.create_topic(name, *partitions);
            created.map_err(|error| Exit::config(format!("`--topics`: {error}")))
        }
    }
}

async fn start(args: &BrokerArgs) -> Result<Broker, Exit> {
    let listen = SocketAddr::new(args.listen, args.port);
    let admin = args
        .admin_port
        .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let options = Options {
        listen,
        admin,
        auto_create_topics: args.auto_create_topics,
        data: args.data.as_ref().map(|folder| DataOptions {
            flush: args.flush.0,
            ..DataOptions::new(folder)
        }),
        ..Options::default()
    };
    Broker::start(options).await.map_err(|error| match error {
        BrokerError::Listen { address, source } => {
            let flag = if address == listen {
                "--port"
            } else {
                "--admin-port"
            };
            Exit::unavailable(format!(
                "can not listen on `{address}`: {source}; stop what holds it, or choose another `{flag}` \
                 (0 takes a free one)"
            ))
        }
        BrokerError::Data(error) => Exit::unavailable(format!("`--data`: {error}")),
        other => Exit::bug(other.to_string()),
    })
}

/// The address as a client on this machine can use it: "all addresses" is none that can be dialled.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_a_name_and_a_count() {
        let orders = TopicArg {
            name: "orders".to_owned(),
            partitions: 6,
        };
        assert_eq!("orders:6".parse(), Ok(orders));
        for wrong in [
            "orders",
            "orders:",
            "orders:0",
            "orders:-1",
            "orders:six",
            ":6",
            "",
        ] {
            let error = wrong.parse::<TopicArg>().expect_err(wrong);
            assert!(error.contains("as in `orders:6`"), "{error}");
        }
    }

    #[test]
    fn a_flush_is_a_word_or_milliseconds() {
        let flush = |text: &str| text.parse().map(|FlushArg(flush)| flush);
        assert_eq!(flush("always"), Ok(Flush::Always));
        assert_eq!(flush("never"), Ok(Flush::Never));
        assert_eq!(flush("50"), Ok(Flush::Interval(Duration::from_millis(50))));
        for wrong in ["", "0", "-1", "sometimes", "50ms"] {
            let error = flush(wrong).expect_err(wrong);
            assert!(error.contains("must be `always`"), "{error}");
        }
    }

    #[test]
    fn a_client_is_told_an_address_that_it_can_dial() {
        let told = |address: &str| reachable(address.parse().expect("address")).to_string();
        assert_eq!(told("0.0.0.0:9092"), "127.0.0.1:9092");
        assert_eq!(told("[::]:9092"), "[::1]:9092");
        assert_eq!(told("192.0.2.1:9092"), "192.0.2.1:9092");
    }
}
