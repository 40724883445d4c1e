//! Looking at dead letters: `orderflow dlq list`, `show` and `export`. Nothing here changes anything.
//!
//! The topics are those that begin with one of our topics and end in `.dlq`, or those that were named. What
//! is told is bounded: `list` keeps the newest dead letters alone, and `export` writes while it reads.
//!
//! - `letter`: one dead letter, pure.

mod letter;

use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use service::{Exit, Process, ServiceInfo, launch};
use stream::offsets::partition_ends;
use stream::reader::read_to_end;
use stream::{Record, admin};

use crate::cli::{DlqArgs, DlqCommand};
use crate::cluster::{CONNECT_LIMIT, ClusterConfig, brokers_flag};
use letter::{Filter, Letter, Rank};

const INFO: ServiceInfo = ServiceInfo {
    name: "dlq",
    version: env!("CARGO_PKG_VERSION"),
    admin_port: 0,
};

/// Nothing may come for so long before a topic's end is reached.
const IDLE_LIMIT: Duration = Duration::from_secs(30);
/// Different codes that are counted; codes are few, but they come from headers.
const MOST_CODES: usize = 1_000;
/// What `show` shows of a value.
const MOST_SHOWN_BYTES: usize = 4_096;

/// What becomes of the dead letters that are wanted.
trait Reading: Send + 'static {
    fn take(&mut self, letter: Letter);
}

/// `list`: the newest, and how many there are of each code.
struct Listing {
    most: usize,
    newest: BTreeMap<Rank, Letter>,
    counts: BTreeMap<(String, String), u64>,
}

impl Reading for Listing {
    fn take(&mut self, letter: Letter) {
        let mut of = (letter.topic.clone(), letter.code());
        if !self.counts.contains_key(&of) && self.counts.len() >= MOST_CODES {
            of.1 = "other codes".to_owned();
        }
        *self.counts.entry(of).or_default() += 1;
        self.newest.insert(letter.rank(), letter);
        if self.newest.len() > self.most {
            self.newest.pop_first();
        }
    }
}

/// `export`: a line of JSON each, as they come.
struct Export {
    left: u64,
    written: u64,
    failure: Option<std::io::Error>,
}

impl Reading for Export {
    fn take(&mut self, letter: Letter) {
        if self.left == 0 || self.failure.is_some() {
            return;
        }
        match writeln!(std::io::stdout().lock(), "{}", letter.to_json()) {
            Ok(()) => {
                self.left -= 1;
                self.written += 1;
            }
            Err(error) => self.failure = Some(error),
        }
    }
}

/// Lists, shows or exports.
pub fn main(command: DlqCommand) -> ExitCode {
    let args = command.args().clone();
    let flags = brokers_flag(args.brokers.as_ref());
    let common = args.common.clone();
    launch(
        INFO,
        &common,
        &flags,
        |config: ClusterConfig, process: Process| async move {
            tokio::select! {
                told = run(&command, &config) => told,
                () = process.shutdown.requested() => Err(Exit::failed("stopped before the end")),
            }
        },
    )
}

async fn run(command: &DlqCommand, config: &ClusterConfig) -> Result<(), Exit> {
    admin::connect(&config.kafka, INFO.name, CONNECT_LIMIT).await?;
    let args = command.args();
    let mut filter = Filter {
        from_ms: args.from,
        to_ms: args.to,
        codes: args.code.clone(),
        keys: args.key.clone(),
        at: None,
    };
    match command {
        DlqCommand::List { limit, .. } => {
            let listing = Listing {
                most: *limit as usize,
                newest: BTreeMap::new(),
                counts: BTreeMap::new(),
            };
            list(&read(config, args, filter, listing).await?);
            Ok(())
        }
        DlqCommand::Show { at, .. } => {
            filter.at = Some(*at);
            let found = Listing {
                most: 16,
                newest: BTreeMap::new(),
                counts: BTreeMap::new(),
            };
            show(&read(config, args, filter, found).await?, *at)
        }
        DlqCommand::Export { limit, .. } => {
            let export = Export {
                left: *limit,
                written: 0,
                failure: None,
            };
            let Export {
                left,
                written,
                failure,
            } = read(config, args, filter, export).await?;
            if let Some(error) = failure {
                return Err(Exit::failed(format!(
                    "standard output, after {written} lines: {error}"
                )));
            }
            if left == 0 {
                eprintln!("{written} exported; there may be more (`--limit`)");
            }
            Ok(())
        }
    }
}

fn list(listing: &Listing) {
    for letter in listing.newest.values() {
        println!("{}", letter.line());
    }
    let total: u64 = listing.counts.values().sum();
    for ((topic, code), count) in &listing.counts {
        println!("{count:>12}  {topic}  {}", code.escape_debug());
    }
    println!(
        "{total:>12}  dead letters, the newest {} shown",
        listing.newest.len()
    );
}

fn show(found: &Listing, at: (i32, i64)) -> Result<(), Exit> {
    if found.newest.is_empty() {
        let (partition, offset) = at;
        return Err(Exit::failed(format!(
            "there is no such dead letter at {partition}@{offset}"
        )));
    }
    for letter in found.newest.values() {
        println!("{}", letter.text(MOST_SHOWN_BYTES));
    }
    Ok(())
}

/// Reads every dead letter that is wanted.
async fn read<R: Reading>(
    config: &ClusterConfig,
    args: &DlqArgs,
    filter: Filter,
    reading: R,
) -> Result<R, Exit> {
    let topics = topics(config, args).await?;
    let ends = partition_ends(&config.kafka, INFO.name, &topics).await?;
    let shared = Arc::new(Mutex::new(reading));
    let filter = Arc::new(filter);
    for topic in topics {
        let is_empty = |((name, _), ends): (&(String, _), &stream::offsets::PartitionEnds)| {
            *name != topic || ends.begin >= ends.last_stable
        };
        if ends.iter().all(is_empty) {
            continue;
        }
        let (taking, filter, name) = (Arc::clone(&shared), Arc::clone(&filter), topic.clone());
        let each = move |record: &Record<'_>| {
            if filter.wants(record) {
                lock(&taking).take(Letter::new(&name, record));
            }
        };
        read_to_end(&config.kafka, &topic, IDLE_LIMIT, each).await?;
    }
    let reading = Arc::into_inner(shared).ok_or_else(|| Exit::bug("a reader has not ended"))?;
    Ok(reading.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn lock<R>(reading: &Mutex<R>) -> MutexGuard<'_, R> {
    reading.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The topics to read, in the order of their names.
async fn topics(config: &ClusterConfig, args: &DlqArgs) -> Result<Vec<String>, Exit> {
    let there = admin::topics(&config.kafka, INFO.name).await?;
    if let Some(missing) = args.topic.iter().find(|topic| !there.contains_key(*topic)) {
        return Err(Exit::config(format!("`--topic`: there is no topic `{missing}`")));
    }
    if !args.topic.is_empty() {
        return Ok(args.topic.clone());
    }
    let names = &config.topics;
    let sources = [&names.orders, &names.payments, &names.fraud_alerts];
    let is_ours = |topic: &&String| {
        let mut behind = sources
            .iter()
            .filter_map(|source| topic.strip_prefix(source.as_str()));
        topic.ends_with(".dlq") && behind.any(|rest| rest.starts_with('.'))
    };
    Ok(there.keys().filter(is_ours).cloned().collect())
}
