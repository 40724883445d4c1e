//! One unit of work: outputs, dead letters and input offsets that belong together.
//!
//! A unit is `Ready` (nothing was sent), `Open` (outputs are on their way) or `Indefinite` (nobody
//! knows what arrived). A commit leads from `Open` back to `Ready`, and so does an abort. From
//! `Indefinite` the only way is to destroy the producer and open a new one: after a time-out nothing may
//! be sent through the old one, because a late answer to an old request must never meet new work.
//!
//! Exactly once, a unit is a Kafka transaction: it begins at its first output or offset, its offsets go
//! into it together with who their owner is in the group at that moment, and an abort takes it all back.
//! A new producer with the same transactional id aborts what the old one left open.
//!
//! At least once, a commit is: every output acknowledged by all in-sync replicas, then the offsets
//! committed. Nothing can be taken back, so what can not be committed is indefinite.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::types::RDKafkaErrorCode;
use service::{Heartbeat, Throttle};

use crate::brake::Note;
use crate::dead_letter::{self, Cause};
use crate::deadlines::Deadlines;
use crate::error::StreamError;
use crate::ffi::{Outgoing, ProduceError, Producer, Topic, TransactionError, Verdict};
use crate::handler::OutputTopic;
use crate::ledger::Commit;
use crate::metrics::StreamMetrics;
use crate::parking::{Parked, RetryPlan};
use crate::position::{Offset, TopicPartition};
use crate::record::Record;
use crate::seen::Digest;
use crate::settings::{CALL_OVERRUN, COMMIT_TIMEOUT, TRANSACTION_TIMEOUT, transaction_properties};
use crate::source::Source;

/// Outputs must be acknowledged within the client's own `message.timeout.ms` (30 s); a little later the
/// unit is given up.
pub(crate) const FLUSH_LIMIT: Duration = Duration::from_secs(35);
/// How long a full local queue is waited for at a time.
const QUEUE_STEP: Duration = Duration::from_millis(50);
/// A producer that does not know a new partition yet learns of it within this time, step by step.
const GROWTH_LIMIT: Duration = Duration::from_secs(2);
const GROWTH_STEP: Duration = Duration::from_millis(500);
/// Between two attempts of a transactional call that may be made again.
const AGAIN_PAUSE: Duration = Duration::from_millis(5);
/// One attempt to take over the transactional id.
const OPEN_STEP: Duration = Duration::from_secs(1);
/// When a pump ends in an error, taking its transaction back may take so long; else its time-out does it.
const ABANDON_TIMEOUT: Duration = Duration::from_secs(2);

static DEAD_LETTER_LINES: Throttle = Throttle::every_seconds(1);

/// What every unit of one worker is made with.
#[derive(Clone)]
pub(crate) struct UnitConfig {
    /// With an id a unit is a transaction.
    pub transactional_id: Option<String>,
    pub brokers: String,
    pub producer_properties: Vec<(String, String)>,
    pub group: String,
    /// The sources, and behind them their retry topics.
    pub inputs: Vec<String>,
    pub plan: RetryPlan,
    pub outputs: Vec<String>,
    /// By source.
    pub dead_letter_topics: Vec<String>,
    pub metrics: StreamMetrics,
}

/// What was sent in a unit, counted when it is acknowledged.
#[derive(Default)]
struct Tally {
    /// By output.
    outputs: Vec<u64>,
    /// By input and code.
    dead_letters: BTreeMap<(usize, String), u64>,
    /// By input.
    parked: BTreeMap<usize, u64>,
}

impl Tally {
    fn add_output(&mut self, index: usize) {
        if self.outputs.len() <= index {
            self.outputs.resize(index + 1, 0);
        }
        if let Some(count) = self.outputs.get_mut(index) {
            *count += 1;
        }
    }

    fn count(&mut self, config: &UnitConfig) {
        for (topic, count) in config.outputs.iter().zip(std::mem::take(&mut self.outputs)) {
            config.metrics.outputs.with_label_values(&[topic]).inc_by(count);
        }
        for ((index, code), count) in std::mem::take(&mut self.dead_letters) {
            let topic = config.inputs.get(index).map_or("", String::as_str);
            config
                .metrics
                .dead_letters
                .with_label_values(&[topic, &code])
                .inc_by(count);
        }
        for (index, count) in std::mem::take(&mut self.parked) {
            let topic = config.inputs.get(index).map_or("", String::as_str);
            config.metrics.parked.with_label_values(&[topic]).inc_by(count);
        }
    }
}

/// The producer and the topics that it writes to.
struct Outbox {
    config: Arc<UnitConfig>,
    heartbeat: Heartbeat,
    deadlines: Deadlines,
    producer: Producer,
    outputs: Vec<Topic>,
    dead_letters: Vec<Topic>,
    retries: Vec<Topic>,
    tally: Tally,
}

/// Nothing was sent since the last commit.
pub(crate) struct Ready(Outbox);

/// Outputs may be on their way.
pub(crate) struct Open {
    outbox: Outbox,
    begun: Instant,
}

/// Nobody knows what arrived.
pub(crate) struct Indefinite {
    config: Arc<UnitConfig>,
    heartbeat: Heartbeat,
    deadlines: Deadlines,
    /// `None` where there was no unit before.
    cause: Option<StreamError>,
    /// What was to be committed in the transaction: the group knows whether it was.
    tried: Vec<Commit>,
}

/// A new producer that may not send yet.
pub(crate) struct Opening(Outbox);

/// What came of an attempt to open.
pub(crate) enum Opened {
    Ready(Ready),
    /// The brokers do not answer, or a former producer's transaction is still being ended.
    NotYet(Opening, StreamError),
}

/// What became of a commit.
pub(crate) enum Committed {
    /// Outputs and offsets are in.
    Yes(Ready),
    /// The outputs are in, the offsets are not, as during a rebalance: they may be committed later, or
    /// the next owner does the work again.
    OutputsOnly(Ready, StreamError),
    /// All was taken back.
    Aborted(Ready, StreamError),
    /// Nobody knows.
    Indefinite(Indefinite),
    /// The producer is fenced or was refused: going on is impossible.
    Halted(StreamError),
}

impl Outbox {
    fn is_transactional(&self) -> bool {
        self.config.transactional_id.is_some()
    }

    /// Makes a transactional call until it succeeds or fails for good.
    fn call(
        &self,
        limit: Duration,
        call: impl Fn(&Producer, Duration) -> Result<(), TransactionError>,
    ) -> Result<(), TransactionError> {
        let usual = Instant::now() + limit;
        let mut last = None;
        loop {
            self.heartbeat.beat();
            let left = self
                .deadlines
                .of_calls(usual)
                .saturating_duration_since(Instant::now());
            if left.is_zero() {
                // Nobody says whether the last attempt had its effect.
                return Err(TransactionError {
                    verdict: Verdict::Indefinite,
                    error: last.unwrap_or_else(no_time_left),
                });
            }
            match call(&self.producer, left) {
                Err(failed) if failed.verdict == Verdict::Again => {
                    last = Some(failed.error);
                    std::thread::park_timeout(AGAIN_PAUSE);
                }
                result => return result,
            }
        }
    }

    /// When a call that began at `started` is left behind: only a shutdown can not wait for it.
    fn give_up_at(&self, started: Instant) -> Option<Instant> {
        self.heartbeat.beat();
        if started.elapsed() > COMMIT_TIMEOUT {
            self.config.metrics.set_waiting("broker", true);
        }
        let end = self.deadlines.of_calls(started + COMMIT_TIMEOUT) + CALL_OVERRUN;
        self.deadlines.is_stopping().then_some(end)
    }

    /// What whoever owns the partitions next has to know: which transactional id to end, and the brake.
    fn note(&self, brake: Option<&str>) -> CString {
        let note = Note {
            transactional_id: self.config.transactional_id.as_deref().unwrap_or_default(),
            brake,
        };
        CString::new(note.to_string()).unwrap_or_default()
    }

    fn fenced(&self, error: &StreamError) -> StreamError {
        StreamError::Fenced {
            id: self.config.transactional_id.clone().unwrap_or_default(),
            cause: error.to_string(),
        }
    }

    fn indefinite(self, cause: StreamError, tried: &[Commit]) -> Indefinite {
        Indefinite {
            config: self.config,
            heartbeat: self.heartbeat,
            deadlines: self.deadlines,
            cause: Some(cause),
            tried: tried.to_vec(),
        }
    }
}

impl Ready {
    /// Begins a unit, at its first output or offset.
    fn begin(self) -> Result<Open, Box<Indefinite>> {
        if self.0.is_transactional()
            && let Err(failed) = self.0.producer.begin_transaction()
        {
            return Err(Box::new(self.0.indefinite(failed.error, &[])));
        }
        Ok(Open {
            outbox: self.0,
            begun: Instant::now(),
        })
    }
}

impl Opening {
    /// Takes the transactional id over, which ends what a former producer with it left open.
    pub fn open(self) -> Result<Opened, StreamError> {
        if !self.0.is_transactional() {
            return Ok(Opened::Ready(Ready(self.0)));
        }
        match self.0.producer.init_transactions(OPEN_STEP) {
            Ok(()) => Ok(Opened::Ready(Ready(self.0))),
            Err(failed) => match failed.verdict {
                Verdict::Refused => Err(failed.error),
                Verdict::Fenced => Err(self.0.fenced(&failed.error)),
                // The call itself goes on after a time-out, and is only asked again.
                Verdict::Again | Verdict::Indefinite | Verdict::Abort => {
                    Ok(Opened::NotYet(self, failed.error))
                }
            },
        }
    }
}

/// The header of an output that tells the offset of its input, and the one that tells its fingerprint.
pub(crate) const SOURCE_OFFSET: &str = "source-offset";
pub(crate) const SOURCE_DIGEST: &str = "source-digest";

/// The record that an output is of.
#[derive(Clone, Copy)]
pub(crate) struct SourceMark {
    pub at: TopicPartition,
    pub offset: Offset,
    /// Where the output is the record's effect for good: a repeat of it has none.
    pub digest: Option<Digest>,
}

impl Open {
    /// Sends one output into the partition of its input.
    pub fn send(
        &mut self,
        source: SourceMark,
        topic: OutputTopic,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), StreamError> {
        let undeclared = || StreamError::Halted {
            message: format!("output topic {} was not declared", topic.0),
        };
        let handle = self.outbox.outputs.get(topic.0).ok_or_else(undeclared)?;
        let name = self.outbox.config.outputs.get(topic.0).ok_or_else(undeclared)?;
        let offset = source.offset.to_string();
        let digest = source.digest.map(Digest::to_bytes);
        let all: [(&str, &[u8]); 2] = [
            (SOURCE_OFFSET, offset.as_bytes()),
            (
                SOURCE_DIGEST,
                digest.as_ref().map_or(&[], |digest| digest.as_slice()),
            ),
        ];
        let headers = if digest.is_some() { &all[..] } else { &all[..1] };
        let outgoing = Outgoing {
            topic: handle,
            partition: Some(source.at.partition),
            key: Some(key),
            value: Some(value),
            headers,
        };
        self.produce(name, &outgoing)?;
        self.outbox.tally.add_output(topic.0);
        Ok(())
    }

    /// Sends a record to the dead letters of its topic, bytes unchanged.
    pub fn send_dead_letter(&mut self, record: &Record<'_>, cause: &Cause) -> Result<(), StreamError> {
        let config = &self.outbox.config;
        let origin = config.plan.origin_or_place(record);
        let index = usize::from(origin.at.topic.0);
        let undeclared = || undeclared_input(index);
        // A stray record of a retry topic goes to the dead letters of its source, too.
        let letters = usize::from(config.plan.source(record.at).topic.0);
        let handle = self.outbox.dead_letters.get(letters).ok_or_else(undeclared)?;
        let source = config.inputs.get(index).ok_or_else(undeclared)?;
        let name = config.dead_letter_topics.get(letters).ok_or_else(undeclared)?;
        let headers = dead_letter::headers(record, &origin, source, &config.group, cause);
        self.send_on(name, handle, record, &headers)?;
        if let Some(suppressed) = DEAD_LETTER_LINES.allow() {
            let (partition, offset) = (origin.at.partition.0, origin.offset.0);
            tracing::warn!(
                topic = %source, partition, offset, code = %cause.code, error = %cause.message, suppressed,
                "record becomes a dead letter"
            );
        }
        *self
            .outbox
            .tally
            .dead_letters
            .entry((index, cause.code.clone()))
            .or_default() += 1;
        Ok(())
    }

    /// Sends a record to the retry topic where it waits for its next attempt, bytes unchanged.
    pub fn send_parked(&mut self, record: &Record<'_>, parked: &Parked) -> Result<(), StreamError> {
        let index = usize::from(parked.to.0);
        let undeclared = || undeclared_input(index);
        let config = &self.outbox.config;
        let behind = index.checked_sub(config.plan.sources()).ok_or_else(undeclared)?;
        let handle = self.outbox.retries.get(behind).ok_or_else(undeclared)?;
        let name = config.inputs.get(index).ok_or_else(undeclared)?;
        self.send_on(name, handle, record, &parked.headers)?;
        *self.outbox.tally.parked.entry(index).or_default() += 1;
        Ok(())
    }

    /// Sends a record into its partition of another topic, with other headers.
    fn send_on(
        &self,
        name: &str,
        topic: &Topic,
        record: &Record<'_>,
        headers: &[(String, Vec<u8>)],
    ) -> Result<(), StreamError> {
        let headers: Vec<(&str, &[u8])> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()))
            .collect();
        let outgoing = Outgoing {
            topic,
            partition: Some(record.at.partition),
            key: record.key,
            value: record.value,
            headers: &headers,
        };
        self.produce(name, &outgoing)
    }

    fn produce(&self, topic: &str, record: &Outgoing<'_>) -> Result<(), StreamError> {
        let usual = Instant::now() + FLUSH_LIMIT;
        let learns_until = Instant::now() + GROWTH_LIMIT;
        loop {
            match self.outbox.producer.produce(record, None) {
                Ok(()) => return Ok(()),
                // The topic has grown since this producer heard of it.
                Err(ProduceError::Refused {
                    code: RDKafkaErrorCode::UnknownPartition,
                    ..
                }) if Instant::now() < learns_until => {
                    self.outbox.heartbeat.beat();
                    if let Err(error) = self.outbox.producer.refresh(record.topic, GROWTH_STEP) {
                        tracing::debug!(%error, topic, "the producer does not know this partition yet");
                    }
                }
                Err(ProduceError::Refused {
                    code: RDKafkaErrorCode::UnknownPartition,
                    message,
                }) => {
                    return Err(StreamError::Delivery {
                        topic: topic.to_owned(),
                        failed: 1,
                        cause: message,
                    });
                }
                Err(ProduceError::QueueFull) if Instant::now() < self.outbox.deadlines.of_delivery(usual) => {
                    self.outbox.heartbeat.beat();
                    self.outbox.producer.poll(QUEUE_STEP);
                }
                Err(ProduceError::QueueFull) => {
                    return Err(StreamError::Timeout {
                        what: format!("queueing a record for `{topic}`"),
                        limit_ms: FLUSH_LIMIT.as_millis(),
                        cause: "the local queue stays full".to_owned(),
                    });
                }
                // Not this record, but the producer or its transaction is broken.
                Err(ProduceError::Refused {
                    code: RDKafkaErrorCode::Fatal | RDKafkaErrorCode::State,
                    message,
                }) => {
                    return Err(StreamError::Delivery {
                        topic: topic.to_owned(),
                        failed: 1,
                        cause: message,
                    });
                }
                // No new producer would take this record either.
                Err(ProduceError::Refused { code, message }) => {
                    let message = format!("a record for `{topic}` can not be produced: {message} ({code})");
                    return Err(StreamError::Fatal { message });
                }
            }
        }
    }

    /// Waits until all outputs are acknowledged, then commits the offsets. `brake` is the name of one that is
    /// to be noted.
    pub fn commit(mut self, source: &impl Source, commits: &[Commit], brake: Option<&str>) -> Committed {
        let (heartbeat, metrics) = (self.outbox.heartbeat.clone(), self.outbox.config.metrics.clone());
        let usual = Instant::now() + FLUSH_LIMIT;
        let deadline = || self.outbox.deadlines.of_delivery(usual);
        let waiting = || {
            heartbeat.beat();
            metrics.set_waiting("broker", true);
        };
        let delivered = self
            .outbox
            .producer
            .flush(deadline, waiting)
            .and_then(|()| self.outbox.producer.take_failures());
        if let Err(cause) = delivered {
            return self.undo(cause, &[]);
        }
        let offsets: Vec<_> = commits.iter().map(|commit| (commit.at, commit.next)).collect();
        let committed = if self.outbox.is_transactional() {
            self.commit_transaction(source, &offsets, commits, brake)
        } else {
            self.outbox.tally.count(&self.outbox.config);
            let note = self.outbox.note(brake);
            match source.commit(&offsets, &note, COMMIT_TIMEOUT) {
                Ok(()) => Committed::Yes(Ready(self.outbox)),
                Err(error) => Committed::OutputsOnly(Ready(self.outbox), error),
            }
        };
        if let Committed::Yes(_) = &committed {
            metrics.set_waiting("broker", false);
        }
        committed
    }

    fn commit_transaction(
        mut self,
        source: &impl Source,
        offsets: &[(TopicPartition, Offset)],
        commits: &[Commit],
        brake: Option<&str>,
    ) -> Committed {
        let mut group_offsets = match source.group_offsets(offsets) {
            Ok(group_offsets) if group_offsets.are_of_a_member() => group_offsets,
            Ok(_) => {
                let error = no_member(&self.outbox.config.group);
                return self.undo(error, &[]);
            }
            Err(error) => return self.halt(error),
        };
        group_offsets.note(&self.outbox.note(brake));
        let group_offsets = Arc::new(group_offsets);
        let started = Instant::now();
        let sent = self.outbox.call(COMMIT_TIMEOUT, |producer, left| {
            producer.send_offsets(&group_offsets, left, || self.outbox.give_up_at(started))
        });
        // Before the commit was asked for, whatever happens ends in an abort.
        if let Err(failed) = sent {
            return self.failed(failed, &[]);
        }
        let committed = self.outbox.call(COMMIT_TIMEOUT, Producer::commit_transaction);
        match committed {
            Ok(()) => {
                self.outbox.tally.count(&self.outbox.config);
                Committed::Yes(Ready(self.outbox))
            }
            Err(failed) => self.failed(failed, commits),
        }
    }

    fn failed(self, failed: TransactionError, tried: &[Commit]) -> Committed {
        match failed.verdict {
            Verdict::Abort => self.undo(failed.error, tried),
            Verdict::Refused => self.halt(failed.error),
            // The coordinator fences a producer whose transaction takes too long: that was nobody else.
            Verdict::Fenced if self.begun.elapsed() < TRANSACTION_TIMEOUT => {
                Committed::Halted(self.outbox.fenced(&failed.error))
            }
            Verdict::Fenced | Verdict::Indefinite | Verdict::Again => {
                Committed::Indefinite(self.outbox.indefinite(failed.error, tried))
            }
        }
    }

    /// Going on is impossible; the transaction must not hide what comes after it.
    fn halt(self, error: StreamError) -> Committed {
        self.abandon();
        Committed::Halted(error)
    }

    fn abandon(&self) {
        if self.outbox.is_transactional()
            && let Err(failed) = self.outbox.call(ABANDON_TIMEOUT, Producer::abort_transaction)
        {
            tracing::warn!(error = %failed.error, "the open transaction was not aborted, its time-out will do it");
        }
    }

    /// Takes back what was sent, where that can be done; else its fate is indefinite. `tried` is what was
    /// to be committed where a commit was asked for: a failed abort does not say that it failed too.
    pub fn undo(mut self, cause: StreamError, tried: &[Commit]) -> Committed {
        if !self.outbox.is_transactional() {
            return Committed::Indefinite(self.outbox.indefinite(cause, &[]));
        }
        match self.outbox.call(COMMIT_TIMEOUT, Producer::abort_transaction) {
            Ok(()) => {
                self.outbox.tally = Tally::default();
                // What was purged is reported as failed, and is no news.
                let purged = self.outbox.producer.take_failures();
                tracing::debug!(?purged, "transaction aborted");
                Committed::Aborted(Ready(self.outbox), cause)
            }
            // An abort that failed is finished by the next producer with this id.
            Err(failed) => match self.failed_abort(failed, cause, tried) {
                Ok(indefinite) => Committed::Indefinite(indefinite),
                Err(error) => Committed::Halted(error),
            },
        }
    }

    fn failed_abort(
        self,
        failed: TransactionError,
        cause: StreamError,
        tried: &[Commit],
    ) -> Result<Indefinite, StreamError> {
        match failed.verdict {
            Verdict::Refused => Err(failed.error),
            Verdict::Fenced if self.begun.elapsed() < TRANSACTION_TIMEOUT => {
                Err(self.outbox.fenced(&failed.error))
            }
            _ => Ok(self.outbox.indefinite(cause, tried)),
        }
    }
}

impl Indefinite {
    /// Where there was no unit before.
    pub fn unopened(config: Arc<UnitConfig>, heartbeat: Heartbeat, deadlines: Deadlines) -> Self {
        Self {
            config,
            heartbeat,
            deadlines,
            cause: None,
            tried: Vec::new(),
        }
    }

    /// Why; `None` where there was no unit before.
    pub fn cause(&self) -> Option<&StreamError> {
        self.cause.as_ref()
    }

    /// What the failed transaction was to commit.
    pub fn tried(&self) -> &[Commit] {
        &self.tried
    }

    /// Makes a new producer.
    pub fn recover(&self) -> Result<Opening, StreamError> {
        let config = Arc::clone(&self.config);
        let mut properties = config.producer_properties.clone();
        if let Some(id) = &config.transactional_id {
            properties.extend(transaction_properties(id));
        }
        let producer = Producer::open(&config.brokers, &properties, false)?;
        let lookup = |names: &[String]| {
            names
                .iter()
                .map(|name| producer.topic(name))
                .collect::<Result<Vec<_>, _>>()
        };
        let outputs = lookup(&config.outputs)?;
        let dead_letters = lookup(&config.dead_letter_topics)?;
        let retries = lookup(config.inputs.get(config.plan.sources()..).unwrap_or_default())?;
        Ok(Opening(Outbox {
            config,
            heartbeat: self.heartbeat.clone(),
            deadlines: self.deadlines.clone(),
            producer,
            outputs,
            dead_letters,
            retries,
            tally: Tally::default(),
        }))
    }
}

/// The unit of a pump, whatever its state.
pub(crate) enum UnitOfWork {
    Ready(Ready),
    Open(Open),
    Indefinite(Indefinite),
    /// Between two states, while a method of this type runs, and after a halt.
    Gone,
}

impl UnitOfWork {
    /// The open unit; begins one where none is.
    pub fn open(&mut self) -> Result<&mut Open, StreamError> {
        if let Self::Ready(_) = self
            && let Self::Ready(ready) = std::mem::replace(self, Self::Gone)
        {
            *self = match ready.begin() {
                Ok(open) => Self::Open(open),
                Err(indefinite) => Self::Indefinite(*indefinite),
            };
        }
        match self {
            Self::Open(open) => Ok(open),
            Self::Indefinite(indefinite) => Err(indefinite.cause().cloned().unwrap_or_else(not_open)),
            Self::Ready(_) | Self::Gone => Err(not_open()),
        }
    }

    /// Whether outputs may be on their way.
    pub fn is_unfinished(&self) -> bool {
        matches!(self, Self::Open(_) | Self::Indefinite(_))
    }

    /// Takes the open unit out, to commit it or to take it back. Its new state has to be put in.
    pub fn take_open(&mut self) -> Option<Open> {
        match std::mem::replace(self, Self::Gone) {
            Self::Open(open) => Some(open),
            other => {
                *self = other;
                None
            }
        }
    }

    /// The pump ends: a transaction that is still open must not hide what comes after it.
    pub fn abandon(&mut self) {
        if let Some(open) = self.take_open() {
            open.abandon();
        }
    }
}

fn no_member(group: &str) -> StreamError {
    StreamError::Transaction {
        what: "committing offsets".to_owned(),
        cause: format!("this consumer is no member of group `{group}` any more"),
    }
}

fn undeclared_input(index: usize) -> StreamError {
    StreamError::Halted {
        message: format!("input topic {index} was not declared"),
    }
}

fn no_time_left() -> StreamError {
    StreamError::Transaction {
        what: "ending a transaction".to_owned(),
        cause: "the shutdown has no time left for it".to_owned(),
    }
}

fn not_open() -> StreamError {
    StreamError::Halted {
        message: "a unit of work was used before it was opened".to_owned(),
    }
}
