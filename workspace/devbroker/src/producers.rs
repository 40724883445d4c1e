//! What one partition remembers of its idempotent producers.
//!
//! For each producer id: its epoch and its last five batches. A batch that is one of the five is a
//! repeat and gets the old offset; a batch that continues the numbering is new; anything else is
//! refused. The rules are those of Kafka's `ProducerAppendInfo` and `ProducerStateEntry`.
//!
//! Pure: the caller brings the order of time as a counter that only grows.

use std::collections::{HashMap, VecDeque};

use kafka_protocol::error::ResponseError;

use crate::batch::{Refusal, Sequenced, advance};

/// Batches that are remembered: what a producer may have in flight.
const REMEMBERED_BATCHES: usize = 5;
/// Producers that are remembered; the one that was silent longest is forgotten first.
const REMEMBERED_PRODUCERS: usize = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RememberedBatch {
    first_sequence: i32,
    last_sequence: i32,
    base_offset: i64,
}

#[derive(Debug)]
struct Producer {
    epoch: i16,
    batches: VecDeque<RememberedBatch>,
    last_used: u64,
}

/// What to do with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Append it, then [`Producers::record`] it.
    New,
    /// It is in the log already, from this offset on.
    Duplicate { base_offset: i64 },
}

#[derive(Debug, Default)]
pub(crate) struct Producers {
    by_id: HashMap<i64, Producer>,
}

impl Producers {
    /// Decides about a batch; changes nothing.
    pub(crate) fn judge(&self, batch: &Sequenced) -> Result<Verdict, Refusal> {
        // A producer of whom nothing is known (new, or forgotten) may begin anywhere, as in Kafka:
        // retention may have taken what it wrote before.
        let Some(producer) = self.by_id.get(&batch.producer_id) else {
            return Ok(Verdict::New);
        };
        if batch.epoch < producer.epoch {
            return Err(Refusal::new(
                ResponseError::InvalidProducerEpoch,
                format!(
                    "epoch `{}` of producer `{}` is older than `{}`",
                    batch.epoch, batch.producer_id, producer.epoch
                ),
            ));
        }
        if batch.epoch > producer.epoch {
            return if batch.first == 0 {
                Ok(Verdict::New)
            } else {
                Err(out_of_order(batch, 0))
            };
        }
        let same = |known: &&RememberedBatch| {
            known.first_sequence == batch.first && known.last_sequence == batch.last
        };
        if let Some(known) = producer.batches.iter().find(same) {
            return Ok(Verdict::Duplicate {
                base_offset: known.base_offset,
            });
        }
        let expected = producer
            .batches
            .back()
            .map_or(0, |last| advance(last.last_sequence, 1));
        if batch.first == expected {
            Ok(Verdict::New)
        } else {
            Err(out_of_order(batch, expected))
        }
    }

    /// Remembers a batch that was appended.
    pub(crate) fn record(&mut self, batch: &Sequenced, base_offset: i64, now: u64) {
        if !self.by_id.contains_key(&batch.producer_id) && self.by_id.len() >= REMEMBERED_PRODUCERS {
            self.forget_oldest();
        }
        let producer = self.by_id.entry(batch.producer_id).or_insert_with(|| Producer {
            epoch: batch.epoch,
            batches: VecDeque::with_capacity(REMEMBERED_BATCHES),
            last_used: now,
        });
        if producer.epoch != batch.epoch {
            producer.epoch = batch.epoch;
            producer.batches.clear();
        }
        if producer.batches.len() == REMEMBERED_BATCHES {
            producer.batches.pop_front();
        }
        producer.last_used = now;
        producer.batches.push_back(RememberedBatch {
            first_sequence: batch.first,
            last_sequence: batch.last,
            base_offset,
        });
    }

    fn forget_oldest(&mut self) {
        let oldest = self
            .by_id
            .iter()
            .min_by_key(|(_, producer)| producer.last_used)
            .map(|(id, _)| *id);
        if let Some(id) = oldest {
            self.by_id.remove(&id);
        }
    }
}

fn out_of_order(batch: &Sequenced, expected: i32) -> Refusal {
    Refusal::new(
        ResponseError::OutOfOrderSequenceNumber,
        format!(
            "producer `{}` sent sequence `{}`, `{expected}` was expected",
            batch.producer_id, batch.first
        ),
    )
}
