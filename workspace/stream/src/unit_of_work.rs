//! One unit of work: outputs, dead letters and input offsets that belong together.
//!
//! A unit is `Ready` (nothing was sent), `Open` (outputs are on their way) or `Indefinite` (nobody
//! knows what arrived). The only ways are `Ready -> Open -> Ready` by a commit, and into `Indefinite`,
//! from which the only way is to destroy the producer and open a new one: after a time-out nothing may
//! be sent through the old one, because a late answer to an old request must never meet new work.
//!
//! With at-least-once delivery a commit is: every output acknowledged by all in-sync replicas, then the
//! offsets committed. A transaction has the same three states and the same two steps, which is why the
//! consume loop knows nothing of the difference.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::types::RDKafkaErrorCode;
use service::{Heartbeat, Throttle};

use crate::dead_letter::{self, Cause};
use crate::error::StreamError;
use crate::ffi::{Outgoing, ProduceError, Producer, Topic};
use crate::handler::OutputTopic;
use crate::ledger::Commit;
use crate::metrics::StreamMetrics;
use crate::position::{Offset, TopicPartition};
use crate::record::Record;
use crate::settings::COMMIT_TIMEOUT;
use crate::source::Source;

/// Outputs must be acknowledged within the client's own `message.timeout.ms` (30 s); a little later the
/// unit is given up.
pub(crate) const FLUSH_LIMIT: Duration = Duration::from_secs(35);
/// How long a full local queue is waited for at a time.
const QUEUE_STEP: Duration = Duration::from_millis(50);

static DEAD_LETTER_LINES: Throttle = Throttle::every_seconds(1);

/// What every unit of one worker is made with.
pub(crate) struct UnitConfig {
    pub brokers: String,
    pub producer_properties: Vec<(String, String)>,
    pub group: String,
    pub inputs: Vec<String>,
    pub outputs: Vec<String>,
    /// By input.
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
    }
}

/// The producer and the topics that it writes to.
struct Outbox {
    config: Arc<UnitConfig>,
    heartbeat: Heartbeat,
    producer: Producer,
    outputs: Vec<Topic>,
    dead_letters: Vec<Topic>,
    tally: Tally,
}

/// Nothing was sent since the last commit.
pub(crate) struct Ready(Outbox);

/// Outputs may be on their way.
pub(crate) struct Open(Outbox);

/// Nobody knows what arrived.
pub(crate) struct Indefinite {
    config: Arc<UnitConfig>,
    heartbeat: Heartbeat,
    cause: StreamError,
}

/// What became of a commit.
pub(crate) enum Committed {
    /// Outputs and offsets are in.
    Yes(Ready),
    /// The outputs are in, the offsets are not, as during a rebalance: they may be committed later, or
    /// the next owner does the work again.
    OutputsOnly(Ready, StreamError),
    /// Nobody knows.
    Indefinite(Indefinite),
}

impl Ready {
    /// Opens the producer. `heartbeat` beats while a call waits.
    pub fn open(config: Arc<UnitConfig>, heartbeat: Heartbeat) -> Result<Self, StreamError> {
        let producer = Producer::open(&config.brokers, &config.producer_properties, false)?;
        let lookup = |names: &[String]| {
            names
                .iter()
                .map(|name| producer.topic(name))
                .collect::<Result<Vec<_>, _>>()
        };
        let outputs = lookup(&config.outputs)?;
        let dead_letters = lookup(&config.dead_letter_topics)?;
        Ok(Self(Outbox {
            config,
            heartbeat,
            producer,
            outputs,
            dead_letters,
            tally: Tally::default(),
        }))
    }

    /// Begins a unit, at its first output or offset.
    pub fn begin(self) -> Open {
        Open(self.0)
    }
}

impl Open {
    /// Sends one output into the partition of its input.
    pub fn send(
        &mut self,
        at: TopicPartition,
        source: Offset,
        topic: OutputTopic,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), StreamError> {
        let undeclared = || StreamError::Halted {
            message: format!("output topic {} was not declared", topic.0),
        };
        let handle = self.0.outputs.get(topic.0).ok_or_else(undeclared)?;
        let name = self.0.config.outputs.get(topic.0).ok_or_else(undeclared)?;
        let source = source.to_string();
        let outgoing = Outgoing {
            topic: handle,
            partition: Some(at.partition),
            key: Some(key),
            value: Some(value),
            headers: &[("source-offset", source.as_bytes())],
        };
        self.produce(name, &outgoing)?;
        self.0.tally.add_output(topic.0);
        Ok(())
    }

    /// Sends a record to the dead letters of its topic, bytes unchanged.
    pub fn send_dead_letter(&mut self, record: &Record<'_>, cause: &Cause) -> Result<(), StreamError> {
        let index = usize::from(record.at.topic.0);
        let undeclared = || StreamError::Halted {
            message: format!("input topic {index} was not declared"),
        };
        let config = &self.0.config;
        let handle = self.0.dead_letters.get(index).ok_or_else(undeclared)?;
        let source = config.inputs.get(index).ok_or_else(undeclared)?;
        let name = config.dead_letter_topics.get(index).ok_or_else(undeclared)?;
        let headers = dead_letter::headers(record, source, &config.group, cause);
        let headers: Vec<(&str, &[u8])> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()))
            .collect();
        let outgoing = Outgoing {
            topic: handle,
            partition: Some(record.at.partition),
            key: record.key,
            value: record.value,
            headers: &headers,
        };
        self.produce(name, &outgoing)?;
        if let Some(suppressed) = DEAD_LETTER_LINES.allow() {
            let (partition, offset) = (record.at.partition.0, record.offset.0);
            tracing::warn!(
                topic = %source, partition, offset, code = %cause.code, error = %cause.message, suppressed,
                "record becomes a dead letter"
            );
        }
        *self
            .0
            .tally
            .dead_letters
            .entry((index, cause.code.clone()))
            .or_default() += 1;
        Ok(())
    }

    fn produce(&self, topic: &str, record: &Outgoing<'_>) -> Result<(), StreamError> {
        let started = Instant::now();
        loop {
            match self.0.producer.produce(record, None) {
                Ok(()) => return Ok(()),
                Err(ProduceError::QueueFull) if started.elapsed() < FLUSH_LIMIT => {
                    self.0.heartbeat.beat();
                    self.0.producer.poll(QUEUE_STEP);
                }
                Err(ProduceError::QueueFull) => {
                    return Err(StreamError::Timeout {
                        what: format!("queueing a record for `{topic}`"),
                        limit_ms: FLUSH_LIMIT.as_millis(),
                        cause: "the local queue stays full".to_owned(),
                    });
                }
                Err(ProduceError::Refused {
                    code: RDKafkaErrorCode::Fatal,
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

    /// Gives the unit up; its outputs may or may not have arrived.
    pub fn give_up(self, cause: StreamError) -> Indefinite {
        Indefinite {
            config: self.0.config,
            heartbeat: self.0.heartbeat,
            cause,
        }
    }

    /// Waits until all outputs are acknowledged, then commits the offsets. `deadline` is when waiting for
    /// the outputs ends; it is asked again and again.
    pub fn commit(
        mut self,
        source: &impl Source,
        commits: &[Commit],
        deadline: impl Fn() -> Instant,
    ) -> Committed {
        let (heartbeat, metrics) = (self.0.heartbeat.clone(), self.0.config.metrics.clone());
        let waiting = || {
            heartbeat.beat();
            metrics.set_waiting("broker", true);
        };
        let delivered = self
            .0
            .producer
            .flush(deadline, waiting)
            .and_then(|()| self.0.producer.take_failures());
        if let Err(cause) = delivered {
            return Committed::Indefinite(self.give_up(cause));
        }
        self.0.tally.count(&self.0.config);
        let offsets: Vec<_> = commits.iter().map(|commit| (commit.at, commit.next)).collect();
        match source.commit(&offsets, COMMIT_TIMEOUT) {
            Ok(()) => {
                metrics.set_waiting("broker", false);
                Committed::Yes(Ready(self.0))
            }
            Err(error) => Committed::OutputsOnly(Ready(self.0), error),
        }
    }
}

impl Indefinite {
    /// Why.
    pub fn cause(&self) -> &StreamError {
        &self.cause
    }

    /// Opens a new producer.
    pub fn recover(&self) -> Result<Ready, StreamError> {
        Ready::open(Arc::clone(&self.config), self.heartbeat.clone())
    }
}

/// The unit of a pump, whatever its state.
pub(crate) enum UnitOfWork {
    Ready(Ready),
    Open(Open),
    Indefinite(Indefinite),
    /// Between two states, while a method of this type runs; never seen outside.
    Moving,
}

impl UnitOfWork {
    /// The open unit; begins one where none is.
    pub fn open(&mut self) -> Result<&mut Open, StreamError> {
        if let Self::Ready(_) = self
            && let Self::Ready(ready) = std::mem::replace(self, Self::Moving)
        {
            *self = Self::Open(ready.begin());
        }
        match self {
            Self::Open(open) => Ok(open),
            Self::Indefinite(indefinite) => Err(indefinite.cause().clone()),
            Self::Ready(_) | Self::Moving => Err(StreamError::Halted {
                message: "a unit of work was used while it changed its state".to_owned(),
            }),
        }
    }

    /// Gives an open unit up.
    pub fn give_up(&mut self, cause: StreamError) {
        *self = match std::mem::replace(self, Self::Moving) {
            Self::Open(open) => Self::Indefinite(open.give_up(cause)),
            other => other,
        };
    }
}
