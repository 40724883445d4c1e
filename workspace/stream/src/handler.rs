//! What a worker supplies: the meaning of a record. Everything else is in this crate.
//!
//! There are three shapes of work, and a worker picks the one that fits:
//! - [`Handler`]: computes and answers at once, on the pump's own thread (fraud);
//! - [`ConcurrentHandler`]: calls somebody and waits, thousands at a time (payment);
//! - [`Sink`]: turns records into items and writes them in batches to a store (analytics).

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use crate::failure::Failure;
use crate::position::TopicIndex;
use crate::record::Record;

/// An output topic by its place in the list that the worker was opened with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputTopic(pub usize);

/// Where a synchronous handler puts its outputs. An output keeps the partition of its input, so that
/// the order per key holds through the pipeline.
pub trait Outputs {
    /// Sends one output. Key and value are copied before this returns.
    fn send(&mut self, topic: OutputTopic, key: &[u8], value: &[u8]);
}

/// Whether the key of a record is the name of what it is about. Asked of records that look like repeats
/// only, so it may cost something.
pub type NamesByKey = Arc<dyn Fn(&Record<'_>) -> bool + Send + Sync>;

/// What becomes of a record with the key of an earlier one, which has had its effect or is in work.
#[derive(Clone)]
pub enum Repeats {
    /// Keys may repeat: every record has its own effect.
    Count,
    /// The first record with a key counts, and a repeat ends without an effect. A record that its key
    /// does not name, as of a producer with keys of its own, counts as it stands.
    End(NamesByKey),
    /// As `End`; but a repeat with other content becomes a dead letter, so that somebody looks.
    EndOrDeadLetter(NamesByKey),
}

impl Repeats {
    /// Who says whether a key names its record; `None` where it does not matter.
    pub(crate) fn names_by_key(&self) -> Option<&NamesByKey> {
        match self {
            Self::Count => None,
            Self::End(names) | Self::EndOrDeadLetter(names) => Some(names),
        }
    }
}

impl fmt::Debug for Repeats {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Count => "Count",
            Self::End(_) => "End",
            Self::EndOrDeadLetter(_) => "EndOrDeadLetter",
        })
    }
}

/// An output that a concurrent handler computed; it keeps the partition of its input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputRecord {
    /// Where it goes.
    pub topic: OutputTopic,
    /// Its key.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
}

/// Work that is done when the call returns.
pub trait Handler: Send + 'static {
    /// Works on one record. It waits for nobody, so a transient failure is not tried again: it ends the
    /// record as poison does. Outputs that were sent before an error count for nothing.
    ///
    /// # Errors
    /// What became of the record instead; see [`Failure`].
    fn handle(&mut self, record: &Record<'_>, outputs: &mut dyn Outputs) -> Result<(), Failure>;
}

/// Work that waits for somebody else. Many records are in work at once; their outputs are published
/// in read order all the same.
pub trait ConcurrentHandler: Send + Sync + 'static {
    /// What a record was decoded to.
    type Job: Send + Sync + 'static;

    /// Decodes a record, on the pump's thread.
    ///
    /// # Errors
    /// Poison for what can not be decoded.
    fn decode(&self, record: &Record<'_>) -> Result<Self::Job, Failure>;

    /// Waits until an attempt makes sense, e.g. for a place among so many calls at once, or until a
    /// service that is away is back. Awaited before each attempt and before the last word: this wait
    /// has no limit, and none of the attempt's time and number is used up by it. What it returns is
    /// dropped when the attempt is over.
    fn ready(&self) -> impl Future<Output = impl Send> + Send {
        std::future::ready(())
    }

    /// One attempt, bounded by `stream.attempt_timeout_ms`. It is repeated after a transient failure, and
    /// ended when its partition is given up, so it must be idempotent.
    fn attempt(
        &self,
        job: &Self::Job,
        attempt: u32,
    ) -> impl Future<Output = Result<Vec<OutputRecord>, Failure>> + Send;

    /// The last word on a job whose attempts are used up, bounded as an attempt is. It must know how the
    /// job ended: an attempt without an answer may have had its effect.
    ///
    /// # Errors
    /// After [`Failure::Away`] it is asked again as soon as the handler is ready. After any other failure
    /// nobody knows: the record becomes a dead letter with the code `outcome_unknown`.
    fn give_up(
        &self,
        job: &Self::Job,
        attempts: u32,
    ) -> impl Future<Output = Result<LastWord, Failure>> + Send;
}

/// How a job ended whose attempts are used up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LastWord {
    /// It had its effect after all: the record ends with these outputs, as after an attempt.
    Settled(Vec<OutputRecord>),
    /// It had no effect: these outputs say so, and the record becomes a dead letter as well.
    GaveUp(Vec<OutputRecord>),
}

/// Work that ends in a store. Writes must be idempotent: a batch is written again after a crash.
pub trait Sink: Send + Sync + 'static {
    /// What a record was turned into.
    type Item: Send + Sync + 'static;

    /// Turns a record into an item, on the pump's thread.
    ///
    /// # Errors
    /// Poison for what can not be decoded.
    fn prepare(&self, topic: TopicIndex, record: &Record<'_>) -> Result<Self::Item, Failure>;

    /// Writes a batch. The returned list names the items that the store refused for good, by index;
    /// all others are stored when this returns. A transient failure of the whole batch is tried again
    /// until it succeeds: a store that is away delays documents and loses none.
    fn write(
        &self,
        items: &[&Self::Item],
    ) -> impl Future<Output = Result<Vec<(usize, Failure)>, Failure>> + Send;
}
