//! `orderflow dlq`: looking at dead letters (`list`, `show`, `export`), having them tried again (`replay`), and
//! marking them as dealt with (`discard`).
//!
//! The topics are those that begin with one of our topics and end in `.dlq`, or those that were named. Each is
//! read twice: for the marks, which say what became of which letter, and for the letters. What is told is
//! bounded: `list` keeps the newest dead letters alone, `export` writes while it reads, and `replay` and
//! `discard` keep one batch.
//!
//! - `letter`, `mark`, `choice`, `batch`: one dead letter, what became of it, whether and where to it can be
//!   replayed, and what is written for some of them together; pure.
//! - `acting`: replaying and discarding.

mod acting;
mod batch;
mod choice;
mod letter;
pub(crate) mod mark;

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use service::{Environment, Exit, Problems, Process, ServiceInfo, Settings, launch};
use stream::offsets::{NamedPartition, partition_ends};
use stream::reader::read_until;
use stream::settings::Delays;
use stream::transactions::TransactionalPublisher;
use stream::{KafkaSettings, Offset, Partition, Record, StreamError, StreamSettings, TopicNames, admin};

use crate::cli::{ActArgs, DlqArgs, DlqCommand};
use crate::cluster::{CONNECT_LIMIT, brokers_flag};
use acting::{Acting, Deed, Manner, transactional_id};
use choice::Retries;
use letter::{Filter, Letter, Rank};
pub use mark::State;
use mark::{Marks, is_mark};

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

/// A transaction of a worker is open for 10 s at most, and Kafka looks for such every 10 s.
const STABLE_LIMIT: Duration = Duration::from_secs(40);
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// The sections that are read. `stream` says which retry topic is the first.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Config {
    kafka: KafkaSettings,
    topics: TopicNames,
    stream: StreamSettings,
}

impl Settings for Config {
    fn check(&self, problems: &mut Problems) {
        let sections = [
            self.kafka.problems(),
            self.topics.problems(),
            self.stream.problems(),
        ];
        for (key, message) in sections.into_iter().flatten() {
            problems.add(key, message);
        }
    }
}

/// What becomes of the dead letters that are wanted.
trait Reading: Send + 'static {
    /// Takes one; reading ends where it wants no more.
    fn take(&mut self, letter: Letter) -> ControlFlow<()>;
}

/// `list`: the newest, and how many there are of each code.
struct Listing {
    most: usize,
    newest: BTreeMap<Rank, Letter>,
    counts: BTreeMap<(String, String), u64>,
}

impl Reading for Listing {
    fn take(&mut self, letter: Letter) -> ControlFlow<()> {
        let mut of = (letter.topic.clone(), letter.code());
        if !self.counts.contains_key(&of) && self.counts.len() >= MOST_CODES {
            of.1 = "other codes".to_owned();
        }
        *self.counts.entry(of).or_default() += 1;
        self.newest.insert(letter.rank(), letter);
        if self.newest.len() > self.most {
            self.newest.pop_first();
        }
        ControlFlow::Continue(())
    }
}

/// `export`: a line of JSON each, as they come.
struct Export {
    left: u64,
    written: u64,
    failure: Option<std::io::Error>,
}

impl Reading for Export {
    fn take(&mut self, letter: Letter) -> ControlFlow<()> {
        if self.left == 0 || self.failure.is_some() {
            return ControlFlow::Break(());
        }
        match writeln!(std::io::stdout().lock(), "{}", letter.to_json()) {
            Ok(()) => {
                self.left -= 1;
                self.written += 1;
            }
            Err(error) => self.failure = Some(error),
        }
        ControlFlow::Continue(())
    }
}

/// Lists, shows, exports, replays or discards.
pub fn main(command: DlqCommand) -> ExitCode {
    let args = command.args().clone();
    let flags = brokers_flag(args.brokers.as_ref());
    let common = args.common.clone();
    launch(
        INFO,
        &common,
        &flags,
        |config: Config, process: Process| async move {
            if let Some(acting) = acting_of(&command) {
                return act(&config, command.args(), acting, &process).await;
            }
            tokio::select! {
                told = run(&command, &config) => told,
                () = process.shutdown.requested() => Err(Exit::failed("stopped before the end")),
            }
        },
    )
}

fn filter(args: &DlqArgs) -> Filter {
    Filter {
        from_ms: args.from,
        to_ms: args.to,
        codes: args.code.clone(),
        keys: args.key.clone(),
        at: args.places.clone(),
        states: args.state.clone(),
    }
}

async fn run(command: &DlqCommand, config: &Config) -> Result<(), Exit> {
    admin::connect(&config.kafka, INFO.name, CONNECT_LIMIT).await?;
    let args = command.args();
    let mut filter = filter(args);
    let topics = topics(config, args).await?;
    let ends = last_stable(config, &topics).await?;
    match command {
        DlqCommand::Replay { .. } | DlqCommand::Discard { .. } => Err(Exit::bug("an act that only looks")),
        DlqCommand::List { limit, .. } => {
            let listing = Listing {
                most: *limit as usize,
                newest: BTreeMap::new(),
                counts: BTreeMap::new(),
            };
            list(&read(config, &topics, &ends, filter, listing).await?);
            Ok(())
        }
        DlqCommand::Show { at, .. } => {
            filter.at = vec![*at];
            let found = Listing {
                most: 16,
                newest: BTreeMap::new(),
                counts: BTreeMap::new(),
            };
            show(&read(config, &topics, &ends, filter, found).await?, *at)
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
            } = read(config, &topics, &ends, filter, export).await?;
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

/// Up to where partitions are read.
type Ends = BTreeMap<NamedPartition, Offset>;

/// What is to be done, and how.
struct ToDo<'a> {
    args: &'a ActArgs,
    /// Replays of what was dealt with before are meant.
    is_again: bool,
    reason: Option<&'a str>,
}

fn acting_of(command: &DlqCommand) -> Option<ToDo<'_>> {
    match command {
        DlqCommand::Replay { act, again, .. } => Some(ToDo {
            args: act,
            is_again: *again,
            reason: None,
        }),
        DlqCommand::Discard { act, reason, .. } => Some(ToDo {
            args: act,
            is_again: false,
            reason: Some(reason),
        }),
        DlqCommand::List { .. } | DlqCommand::Show { .. } | DlqCommand::Export { .. } => None,
    }
}

/// Which letters an act is about: open ones, unless told otherwise.
fn states_of(args: &DlqArgs, to_do: &ToDo<'_>) -> Result<Vec<State>, Exit> {
    let is_replay = to_do.reason.is_none();
    let has_dealt_with = args.state.iter().any(|state| *state != State::Open);
    match args.state.as_slice() {
        [] if to_do.is_again => Ok(Vec::new()),
        [] => Ok(vec![State::Open]),
        _ if is_replay && has_dealt_with && !to_do.is_again => Err(Exit::config(
            "`--state`: what was replayed or discarded is replayed with `--again` only",
        )),
        states => Ok(states.to_vec()),
    }
}

/// Replays or discards, or says what would be.
async fn act(config: &Config, args: &DlqArgs, to_do: ToDo<'_>, process: &Process) -> Result<(), Exit> {
    let mut filter = filter(args);
    filter.states = states_of(args, &to_do)?;
    admin::connect(&config.kafka, INFO.name, CONNECT_LIMIT).await?;
    let there = admin::topics(&config.kafka, INFO.name).await?;
    let events = &config.topics.order_events;
    if !there.contains_key(events) {
        let topic = events.clone();
        return Err(StreamError::MissingTopic { topic }.into());
    }
    let delays = Delays::parse(&config.stream.retry_delays).map_err(Exit::config)?;
    if to_do.reason.is_none() && config.stream.ordering == stream::settings::Ordering::PerKey {
        return Err(Exit::config(
            "with `stream.ordering = \"per_key\"` a group reads no retry topics, and nobody would find what is replayed",
        ));
    }
    let deed = match to_do.reason {
        None => Deed::Replay(Retries {
            topics: there,
            delays,
        }),
        Some(reason) => Deed::Discard {
            reason: reason.to_owned(),
        },
    };
    let manner = Manner {
        by: to_do
            .args
            .by
            .clone()
            .unwrap_or_else(|| Environment::of_process().operator()),
        limit: to_do.args.limit,
        rate: to_do.args.rate,
        events: events.clone(),
    };
    let stop = Arc::new(AtomicBool::new(false));
    let mut acting = Acting::new(deed, manner, !to_do.args.yes, Arc::clone(&stop));
    for topic in topics(config, args).await? {
        let work = act_on(config, topic, filter.clone(), acting);
        acting = stopping(&stop, process, work).await?;
        if acting.is_over() {
            break;
        }
    }
    acting.tell(to_do.args.json)
}

/// Acts on the letters of one topic.
async fn act_on(config: &Config, topic: String, filter: Filter, mut acting: Acting) -> Result<Acting, Exit> {
    let topics = [topic];
    let mut ends = last_stable(config, &topics).await?;
    if ends.is_empty() {
        return Ok(acting);
    }
    if !acting.is_dry() {
        acting.begin(open(config, &topics).await?);
        ends = settled_ends(config, &topics).await?;
    }
    let mut acting = read(config, &topics, &ends, filter, acting).await?;
    let ended = tokio::task::spawn_blocking(move || {
        acting.end();
        acting
    });
    ended.await.map_err(|error| Exit::bug(error.to_string()))
}

/// Waits for the work, and has it stop between two batches when the process is told to.
async fn stopping<T>(stop: &AtomicBool, process: &Process, work: impl Future<Output = T>) -> T {
    tokio::pin!(work);
    tokio::select! {
        done = &mut work => done,
        () = process.shutdown.requested() => {
            stop.store(true, Ordering::Release);
            work.await
        }
    }
}

/// Shuts out whoever else acts on the topic.
async fn open(config: &Config, [topic]: &[String; 1]) -> Result<TransactionalPublisher, Exit> {
    let (kafka, id) = (config.kafka.clone(), transactional_id(topic));
    let opened = tokio::task::spawn_blocking(move || {
        TransactionalPublisher::open(&kafka, INFO.name, &id, CONNECT_LIMIT)
    });
    let opened = opened.await.map_err(|error| Exit::bug(error.to_string()))?;
    Ok(opened?)
}

async fn last_stable(config: &Config, topics: &[String]) -> Result<Ends, Exit> {
    let ends = partition_ends(&config.kafka, INFO.name, topics).await?;
    let filled = ends.into_iter().filter(|(_, ends)| ends.begin < ends.last_stable);
    Ok(filled.map(|(at, ends)| (at, ends.last_stable)).collect())
}

/// Where topics end, once everything before that can be read.
async fn settled_ends(config: &Config, topics: &[String]) -> Result<Ends, Exit> {
    let first = partition_ends(&config.kafka, INFO.name, topics).await?;
    let (began, mut is_told) = (Instant::now(), false);
    loop {
        let now = partition_ends(&config.kafka, INFO.name, topics).await?;
        let stable = |at: &NamedPartition| now.get(at).map(|ends| ends.last_stable);
        let Some(((topic, partition), _)) = first.iter().find(|(at, ends)| stable(at) < Some(ends.end))
        else {
            let filled = first.into_iter().filter(|(_, ends)| ends.begin < ends.end);
            return Ok(filled.map(|(at, ends)| (at, ends.end)).collect());
        };
        if began.elapsed() > STABLE_LIMIT {
            return Err(Exit::unavailable(format!(
                "a transaction is open in `{topic}[{partition}]` and hides what became of its dead letters; nothing \
                 was done, try again when it has ended"
            )));
        }
        if !std::mem::replace(&mut is_told, true) {
            let (partition, limit_s) = (partition.0, STABLE_LIMIT.as_secs());
            tracing::info!(
                topic,
                partition,
                limit_s,
                "waiting, a transaction is open among the dead letters"
            );
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// A reading, and whether it wants no more.
struct Taking<R> {
    reading: R,
    is_over: bool,
}

/// Reads every dead letter that is wanted.
async fn read<R: Reading>(
    config: &Config,
    topics: &[String],
    ends: &Ends,
    filter: Filter,
    reading: R,
) -> Result<R, Exit> {
    let shared = Arc::new(Mutex::new(Taking {
        reading,
        is_over: false,
    }));
    let filter = Arc::new(filter);
    for topic in topics {
        let of_topic = ends.iter().filter(|((name, _), _)| name == topic);
        let ends: BTreeMap<Partition, Offset> =
            of_topic.map(|((_, partition), end)| (*partition, *end)).collect();
        let marks = marks(config, topic, &ends).await?;
        if lock(&shared).is_over {
            break;
        }
        let (taking, filter, name) = (Arc::clone(&shared), Arc::clone(&filter), topic.clone());
        let each = move |record: &Record<'_>| {
            let (partition, offset) = (record.at.partition.0, record.offset.0);
            if is_mark(record) || !filter.wants(record, marks.state(partition, offset)) {
                return ControlFlow::Continue(());
            }
            let (act, replays) = (
                marks.last_act(partition, offset),
                marks.replays(partition, offset),
            );
            let mut taking = lock(&taking);
            let next = taking.reading.take(Letter::new(&name, record, act, replays));
            taking.is_over = next.is_break();
            next
        };
        read_until(&config.kafka, topic, &ends, IDLE_LIMIT, each).await?;
    }
    let shared = Arc::into_inner(shared).ok_or_else(|| Exit::bug("a reader has not ended"))?;
    Ok(shared
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
        .reading)
}

/// What became of the dead letters of a topic.
async fn marks(config: &Config, topic: &str, ends: &BTreeMap<Partition, Offset>) -> Result<Marks, Exit> {
    let shared = Arc::new(Mutex::new(Marks::default()));
    let taking = Arc::clone(&shared);
    let each = move |record: &Record<'_>| {
        if is_mark(record) {
            lock(&taking).take(record);
        }
        ControlFlow::Continue(())
    };
    read_until(&config.kafka, topic, ends, IDLE_LIMIT, each).await?;
    let marks = std::mem::take(&mut *lock(&shared));
    match marks.unreadable() {
        None => Ok(marks),
        Some((partition, offset)) => Err(Exit::failed(format!(
            "the mark at {partition}@{offset} of `{topic}` can not be read, so nobody knows what became of which \
             dead letter; it may be of a newer version of orderflow: use that one"
        ))),
    }
}

fn lock<R>(reading: &Mutex<R>) -> MutexGuard<'_, R> {
    reading.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The topics to read, in the order of their names.
async fn topics(config: &Config, args: &DlqArgs) -> Result<Vec<String>, Exit> {
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
