//! What a new owner of a partition has to know of repeats.
//!
//! Outputs keep the key and the partition of their input, and carry its offset and fingerprint. So the
//! tail of an output partition tells which records of the input have had their effect, whoever worked on
//! them; and what the group has not taken from the retry topics yet tells which wait for theirs. It is read in a thread of its own, while the pump keeps the partition paused; the stable offset
//! of the group is known before, so that everything which an earlier owner committed is in the tail.

use std::collections::VecDeque;
use std::ffi::CString;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

use crate::backoff::Backoff;
use crate::error::StreamError;
use crate::ffi::{Consumer, End, Inquirer};
use crate::parking;
use crate::position::{Epoch, Offset, StartAt, TopicIndex, TopicPartition};
use crate::record::Record;
use crate::seen::Digest;
use crate::source::{Entry, Source};
use crate::stage::Wake;
use crate::unit_of_work::{SOURCE_DIGEST, SOURCE_OFFSET};

const ASK_TIMEOUT: Duration = Duration::from_secs(3);
const READ_STEP: Duration = Duration::from_millis(200);
const BATCH: usize = 2_000;
/// Partitions that may wait for their window, and windows that may wait for the pump.
const MOST_WAITING: usize = 10_000;
/// The pauses while the broker does not answer: a declared wait.
const BROKER_AWAY: Backoff = Backoff {
    first: Duration::from_millis(100),
    most: Duration::from_secs(5),
};

/// What a restorer works with.
#[derive(Clone)]
pub(crate) struct RestoreConfig {
    pub brokers: String,
    pub group: String,
    pub client_properties: Vec<(String, String)>,
    /// Of a consumer of committed records.
    pub consumer_properties: Vec<(String, String)>,
    pub outputs: Vec<String>,
    /// The sources, and behind them their retry topics.
    pub inputs: Vec<String>,
}

/// A record of the input that has had its effect, or waits for it in a retry topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub key: Vec<u8>,
    pub offset: Offset,
    pub digest: Digest,
    pub is_settled: bool,
}

/// The window of a partition as it was asked for in one life of it, oldest first.
pub(crate) struct Restored {
    pub at: TopicPartition,
    pub epoch: Epoch,
    pub known: Vec<Known>,
}

struct Request {
    at: TopicPartition,
    epoch: Epoch,
    /// How many records are worth knowing.
    limit: usize,
    /// The partitions of its retry topics, and from where they are not taken yet.
    retries: Vec<(TopicPartition, StartAt)>,
}

/// The restorer of one pump. Dropping it ends its thread, after what it does at the moment.
pub(crate) struct Restorer {
    requests: SyncSender<Request>,
    restored: Receiver<Restored>,
    wake: Arc<Wake>,
}

impl Restorer {
    pub fn start(number: usize, config: RestoreConfig, wake: Arc<Wake>) -> Result<Self, StreamError> {
        let (requests, asked) = sync_channel::<Request>(MOST_WAITING);
        let (done, restored) = sync_channel(1);
        let awake = Arc::clone(&wake);
        let started = std::thread::Builder::new()
            .name(format!("restore-{number}"))
            .spawn(move || {
                for request in asked {
                    let Some(known) = restore(&config, &request, &wake) else {
                        return;
                    };
                    let Request { at, epoch, .. } = request;
                    // Before too: the pump takes the one before it, if it still waits there.
                    wake.call();
                    if done.send(Restored { at, epoch, known }).is_err() {
                        return;
                    }
                    wake.call();
                }
            });
        match started {
            Ok(_) => Ok(Self {
                requests,
                restored,
                wake: awake,
            }),
            Err(error) => Err(StreamError::Client {
                what: "starting a restorer".to_owned(),
                cause: error.to_string(),
                retriable: false,
            }),
        }
    }

    /// Asks for the window of a partition.
    pub fn ask(
        &self,
        at: TopicPartition,
        epoch: Epoch,
        limit: usize,
        retries: Vec<(TopicPartition, StartAt)>,
    ) -> Result<(), StreamError> {
        let request = Request {
            at,
            epoch,
            limit,
            retries,
        };
        self.requests
            .try_send(request)
            .map_err(|error| StreamError::Halted {
                message: format!("what was settled before can not be restored: {error}"),
            })
    }

    /// A window that was restored since the last call.
    pub fn take(&self) -> Result<Option<Restored>, StreamError> {
        match self.restored.try_recv() {
            Ok(restored) => Ok(Some(restored)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) if self.wake.is_stopping() => Ok(None),
            Err(TryRecvError::Disconnected) => Err(StreamError::Halted {
                message: "the thread that restores what was settled has ended, see above".to_owned(),
            }),
        }
    }
}

/// Reads the tails of all outputs, however long the broker is away. `None` when told to stop first.
fn restore(config: &RestoreConfig, request: &Request, wake: &Wake) -> Option<Vec<Known>> {
    let mut failed = 0_u32;
    loop {
        if wake.is_stopping() {
            return None;
        }
        match read_tails(config, request, wake) {
            Ok(known) => return Some(known),
            Err(error) => {
                failed += 1;
                if failed.is_power_of_two() {
                    let partition = request.at.partition.0;
                    tracing::warn!(attempts = failed, partition, %error, "what was settled before is not known yet, trying again");
                }
                std::thread::park_timeout(BROKER_AWAY.pause(failed, &mut rand::rng()));
            }
        }
    }
}

/// A partition to read, where at the earliest, and what its records tell.
struct Tail {
    /// Its place among the inputs and, behind them, the outputs.
    at: TopicPartition,
    start: StartAt,
    tells: fn(&Record<'_>) -> Option<Known>,
}

fn read_tails(config: &RestoreConfig, request: &Request, wake: &Wake) -> Result<Vec<Known>, StreamError> {
    let inquirer = Inquirer::open(&config.client_properties)?;
    let topics = [config.inputs.as_slice(), config.outputs.as_slice()].concat();
    let mut consumer = Consumer::open(
        &config.brokers,
        &config.group,
        &config.consumer_properties,
        &topics,
    )?;
    let limit = request.limit;
    let retries = request.retries.iter().map(|(at, start)| Tail {
        at: *at,
        start: *start,
        tells: parked_by,
    });
    let outputs = (config.inputs.len()..topics.len()).map(|index| Tail {
        at: TopicPartition {
            topic: TopicIndex(u16::try_from(index).unwrap_or(u16::MAX)),
            partition: request.at.partition,
        },
        start: StartAt::Earliest,
        tells: settled_by,
    });
    let mut known = Vec::new();
    for tail in retries.chain(outputs) {
        let Some(topic) = topics.get(usize::from(tail.at.topic.0)) else {
            continue;
        };
        let Ok(name) = CString::new(topic.as_str()) else {
            continue;
        };
        // As far as anything was written, not as far as it is seen yet: of a commit the offsets may show
        // before the outputs. What a dead owner left open there is ended by its successor or its time-out.
        let place = (name, tail.at.partition.0);
        let ends = inquirer.ends(std::slice::from_ref(&place), End::OfAll, ASK_TIMEOUT)?;
        let end = ends.first().map(|(_, _, offset)| *offset);
        let end = end.ok_or_else(|| StreamError::MissingTopic { topic: topic.clone() })?;
        // Each commit has left a marker too, so the records of a tail may lie twice as far back.
        let span = i64::try_from(limit.saturating_mul(2)).unwrap_or(i64::MAX);
        let earliest = match tail.start {
            StartAt::Earliest => 0,
            StartAt::Offset(offset) => offset.0,
        };
        let start = end.saturating_sub(span).max(earliest);
        if end > start {
            let range = Offset(start)..Offset(end);
            known.extend(read_tail(&mut consumer, &tail, range, limit, wake)?);
        }
    }
    known.sort_by_key(|record: &Known| record.offset);
    let surplus = known.len().saturating_sub(limit);
    known.drain(..surplus);
    // The first with a key is remembered: what had its effect counts more than what waits for it.
    known.sort_by_key(|record| !record.is_settled);
    Ok(known)
}

fn read_tail(
    consumer: &mut Consumer,
    tail: &Tail,
    range: Range<Offset>,
    limit: usize,
    wake: &Wake,
) -> Result<VecDeque<Known>, StreamError> {
    consumer.assign(&[(tail.at, StartAt::Offset(range.start))])?;
    let mut known = VecDeque::new();
    let mut is_over = false;
    let mut result = Ok(());
    while !is_over && result.is_ok() && !wake.is_stopping() {
        let batch = consumer.read(READ_STEP, BATCH);
        for entry in consumer.entries(&batch) {
            match entry {
                Entry::Record(record) => {
                    is_over |= record.offset.next() >= range.end;
                    known.extend((tail.tells)(&record));
                    if known.len() > limit {
                        known.pop_front();
                    }
                }
                Entry::EndOfPartition(at, next) => is_over |= at == tail.at && next >= range.end,
                Entry::Error(_, error) if error.is_retriable() => {
                    tracing::debug!(%error, "reading what was settled before");
                }
                Entry::Error(_, error) => result = Err(error),
            }
        }
    }
    consumer.unassign(&[tail.at])?;
    result.map(|()| known)
}

/// The record of the input that this output settles.
fn settled_by(output: &Record<'_>) -> Option<Known> {
    let offset = std::str::from_utf8(output.headers.last(SOURCE_OFFSET)?).ok()?;
    Some(Known {
        key: output.key?.to_vec(),
        offset: Offset(offset.parse().ok()?),
        digest: Digest::from_bytes(output.headers.last(SOURCE_DIGEST)?)?,
        is_settled: true,
    })
}

/// The record of the input that waits here.
fn parked_by(parked: &Record<'_>) -> Option<Known> {
    Some(Known {
        key: parked.key?.to_vec(),
        offset: parking::origin_offset(parked)?,
        digest: Digest::of(parked.value),
        is_settled: false,
    })
}
