//! How the three shapes of work fit into one loop.
//!
//! A stage takes records in, ends them in the ledger now or later, and knows how to publish what an
//! ending carries. [`immediate`] ends a record while it is taken in; [`concurrent`] when its future is
//! done; [`store`] when the batch that carries it is written.

pub(crate) mod concurrent;
pub(crate) mod immediate;
pub(crate) mod store;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::backoff::Backoff;
use crate::dead_letter::Cause;
use crate::error::StreamError;
use crate::failure::Failure;
use crate::ffi::ReadWaker;
use crate::handler::OutputRecord;
use crate::ledger::{Ledger, Ticket};
use crate::metrics::StreamMetrics;
use crate::parking::{self, Parked, RetryPlan};
use crate::position::{Offset, TopicPartition};
use crate::pump::Braking;
use crate::record::{OwnedRecord, Record};
use crate::seen::{Digest, SeenWindows};
use crate::settings::StreamSettings;
use crate::unit_of_work::{Open, SourceMark, UnitOfWork};

/// What is to be published for a record that has ended.
pub(crate) enum Ending {
    /// Nothing, or it was published already.
    Done,
    /// Outputs, and where the record became a dead letter, that too.
    Publish(Box<Publication>),
}

pub(crate) struct Publication {
    pub outputs: Vec<OutputRecord>,
    /// Of the record, where it had its effect: whoever restores the window of seen records needs it.
    pub digest: Option<Digest>,
    /// Where the record stood in its source, if that is not where it was read.
    pub origin: Option<Offset>,
    pub fate: Fate,
}

/// What else becomes of a record that was worked on.
pub(crate) enum Fate {
    /// Nothing: its outputs are all.
    Settled,
    DeadLetter(OwnedRecord, Cause),
    /// It waits in a retry topic.
    Parked(OwnedRecord, Parked),
}

impl Ending {
    pub fn outputs(outputs: Vec<OutputRecord>, digest: Digest, origin: Option<Offset>) -> Self {
        if outputs.is_empty() {
            return Self::Done;
        }
        Self::Publish(Box::new(Publication {
            outputs,
            digest: Some(digest),
            origin,
            fate: Fate::Settled,
        }))
    }

    pub fn dead_letter(record: OwnedRecord, cause: Cause, outputs: Vec<OutputRecord>) -> Self {
        Self::Publish(Box::new(Publication {
            outputs,
            digest: None,
            origin: None,
            fate: Fate::DeadLetter(record, cause),
        }))
    }

    pub fn parked(record: OwnedRecord, parked: Parked) -> Self {
        Self::Publish(Box::new(Publication {
            outputs: Vec::new(),
            digest: None,
            origin: None,
            fate: Fate::Parked(record, parked),
        }))
    }

    /// Whether the record had its effect, for good.
    pub fn is_settled(&self) -> bool {
        match self {
            Self::Publish(publication) => matches!(publication.fate, Fate::Settled),
            Self::Done => true,
        }
    }

    /// The record, where it became a dead letter.
    pub fn dead_lettered(&self) -> Option<&OwnedRecord> {
        match self {
            Self::Publish(publication) => match &publication.fate {
                Fate::DeadLetter(record, _) => Some(record),
                Fate::Settled | Fate::Parked(..) => None,
            },
            Self::Done => None,
        }
    }

    /// Sends what the ending carries into the open unit.
    pub fn publish(&self, at: TopicPartition, offset: Offset, open: &mut Open) -> Result<(), StreamError> {
        let Self::Publish(publication) = self else {
            return Ok(());
        };
        // The outputs of a dead letter are of the record in it, wherever that stood first.
        let of_letter = match &publication.fate {
            Fate::DeadLetter(record, _) => parking::origin_offset(&record.as_record()),
            Fate::Settled | Fate::Parked(..) => None,
        };
        for output in &publication.outputs {
            let source = SourceMark {
                at,
                offset: publication.origin.or(of_letter).unwrap_or(offset),
                digest: publication.digest,
            };
            open.send(source, output.topic, &output.key, &output.value)?;
        }
        match &publication.fate {
            Fate::DeadLetter(record, cause) => open.send_dead_letter(&record.as_record(), cause),
            Fate::Parked(record, parked) => open.send_parked(&record.as_record(), parked),
            Fate::Settled => Ok(()),
        }
    }
}

/// What a stage works with while it has the pump's attention.
pub(crate) struct Desk<'a> {
    pub ledger: &'a mut Ledger<Ending>,
    pub unit: &'a mut UnitOfWork,
    pub seen: &'a mut SeenWindows,
    pub metrics: &'a StreamMetrics,
    pub wake: &'a Arc<Wake>,
    pub retry: RetryPolicy,
    pub plan: &'a RetryPlan,
    pub braking: &'a mut Braking,
}

impl Desk<'_> {
    /// Ends a record. One that became a dead letter had no effect: its successor is no repeat.
    pub fn end(&mut self, ticket: &Ticket, ending: Ending) {
        // A void ticket says nothing about the partition's present life.
        if let Some(record) = ending.dead_lettered().filter(|_| self.ledger.is_current(ticket)) {
            let key = record.key.as_deref().unwrap_or_default();
            let origin = self.plan.origin_or_place(&record.as_record());
            self.seen.forget(origin.at, origin.offset, key);
        }
        self.ledger.end(ticket, ending);
    }
}

/// One shape of work.
pub(crate) trait Stage {
    /// Whether endings wait in the ledger until their commit is confirmed, so that they can be
    /// published again. Where they do not, a failed unit means reading the records again.
    const KEEPS_ENDINGS: bool;

    /// Takes a record in.
    fn accept(&mut self, ticket: Ticket, record: &Record<'_>, desk: &mut Desk<'_>)
    -> Result<(), StreamError>;

    /// The batch is over: work that goes by batches may start.
    fn batch_is_over(&mut self, desk: &mut Desk<'_>);

    /// Takes back what was finished since the last call.
    fn collect(&mut self, desk: &mut Desk<'_>) -> Result<(), StreamError>;

    /// These partitions are somebody else's now: work for them may end.
    fn given_up(&mut self, partitions: &[TopicPartition]);

    /// Records that are in work outside of the pump's thread.
    fn in_flight(&self) -> usize;
}

/// When an attempt is worth another one.
#[derive(Clone, Copy)]
pub(crate) struct RetryPolicy {
    pub backoff: Backoff,
    /// No attempt starts after this much time.
    pub deadline: Duration,
}

impl RetryPolicy {
    pub fn new(settings: &StreamSettings) -> Self {
        let first = Duration::from_millis(settings.retry_first_ms);
        let deadline = Duration::from_millis(settings.retry_deadline_ms);
        Self {
            backoff: Backoff {
                first,
                most: deadline,
            },
            deadline,
        }
    }

    /// The pause before the next attempt, or `None` when there is none.
    pub fn next_pause(&self, failed: u32, spent: Duration, asked: Option<Duration>) -> Option<Duration> {
        let pause = self
            .backoff
            .pause(failed, &mut rand::rng())
            .max(asked.unwrap_or_default());
        (spent + pause < self.deadline).then_some(pause)
    }
}

/// How the world outside gets the attention of a pump.
pub(crate) struct Wake {
    reader: ReadWaker,
    called: AtomicBool,
    stopped_at: OnceLock<Instant>,
}

impl Wake {
    pub fn new(reader: ReadWaker) -> Self {
        Self {
            reader,
            called: AtomicBool::new(false),
            stopped_at: OnceLock::new(),
        }
    }

    /// Something is there to collect. Many calls before the pump looks count as one.
    pub fn call(&self) {
        if !self.called.swap(true, Ordering::AcqRel) {
            self.reader.wake();
        }
    }

    /// The pump looks now: a call from here on wakes it again.
    pub fn answer(&self) {
        self.called.store(false, Ordering::Release);
    }

    /// Asks the pump to end; only the first time counts.
    pub fn stop(&self) {
        self.stopped_at.get_or_init(Instant::now);
        self.reader.wake();
    }

    pub fn is_stopping(&self) -> bool {
        self.stopped_at.get().is_some()
    }

    /// When the pump was asked to end.
    pub fn stopped_at(&self) -> Option<Instant> {
        self.stopped_at.get().copied()
    }
}

/// Carries the one report of a task to its pump. A task that panics reports its last word.
pub(crate) struct Reporter<T> {
    to: mpsc::Sender<T>,
    wake: Arc<Wake>,
    last_word: Option<T>,
}

impl<T> Reporter<T> {
    pub fn new(to: mpsc::Sender<T>, wake: Arc<Wake>, last_word: T) -> Self {
        Self {
            to,
            wake,
            last_word: Some(last_word),
        }
    }

    pub async fn report(mut self, report: T) {
        self.last_word = None;
        // Nobody listens any more when the pump has ended; the record was not committed then.
        if self.to.send(report).await.is_ok() {
            self.wake.call();
        }
    }
}

impl<T> Drop for Reporter<T> {
    fn drop(&mut self) {
        // The channel has room for everything that can be in flight.
        if let Some(last_word) = self.last_word.take()
            && self.to.try_send(last_word).is_ok()
        {
            self.wake.call();
        }
    }
}

/// The code and sentence of a failure that ends a record, or the error that ends the pump.
pub(crate) fn cause_of(failure: Failure, attempts: u32) -> Result<Cause, StreamError> {
    match failure {
        Failure::Poison { code, message } => Ok(Cause {
            code: code.into_owned(),
            message,
            attempts,
        }),
        Failure::Transient { code, message, .. } | Failure::Away { code, message } => {
            let message = format!("gave up after {attempts} attempts: {message}");
            Ok(Cause {
                code: code.into_owned(),
                message,
                attempts,
            })
        }
        Failure::Fatal { message } => Err(StreamError::Fatal { message }),
    }
}
