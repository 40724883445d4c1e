//! What one partition remembers of its idempotent producers.
//!
//! For each producer id: its epoch and its last five batches. A batch that is one of the five is a
//! repeat and gets the old offset; a batch that continues the numbering is new; anything else is
//! refused. A producer whose transaction is open here is known by the offset at which it began, and
//! is not forgotten. The rules are those of Kafka's `ProducerAppendInfo` and `ProducerStateEntry`.
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
    /// The first offset of the open transaction.
    open: Option<i64>,
    last_used: u64,
    /// The time of its last batch or marker.
    last_timestamp: i64,
    has_marker: bool,
}

/// A producer as DescribeProducers tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DescribedProducer {
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
    pub(crate) last_sequence: Option<i32>,
    pub(crate) last_timestamp: i64,
    /// Whether a transaction of it ended here.
    pub(crate) has_marker: bool,
    /// The first offset of its open transaction.
    pub(crate) open: Option<i64>,
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
    /// Whether a transaction of the producer, in this epoch, has records here.
    pub(crate) fn is_open(&self, producer_id: i64, epoch: i16) -> bool {
        let producer = self.by_id.get(&producer_id);
        producer.is_some_and(|producer| producer.open.is_some() && producer.epoch == epoch)
    }

    /// The producers with an open transaction, each with its epoch.
    pub(crate) fn open(&self) -> Vec<(i64, i16)> {
        let open = self.by_id.iter().filter(|(_, producer)| producer.open.is_some());
        open.map(|(id, producer)| (*id, producer.epoch)).collect()
    }

    /// Whether a later epoch of the producer is known.
    pub(crate) fn is_fenced(&self, producer_id: i64, epoch: i16) -> bool {
        let producer = self.by_id.get(&producer_id);
        producer.is_some_and(|producer| epoch < producer.epoch)
    }

    /// Decides about a batch; changes nothing.
    pub(crate) fn judge(&self, batch: &Sequenced, transactional: bool) -> Result<Verdict, Refusal> {
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
        // After a marker with a newer epoch no batch is remembered, and the numbering begins anew.
        if batch.first != expected {
            return Err(out_of_order(batch, expected));
        }
        if producer.open.is_some() && !transactional {
            let message = format!(
                "producer `{}` has a transaction open here, and this batch is not part of it",
                batch.producer_id
            );
            return Err(Refusal::new(ResponseError::InvalidTxnState, message));
        }
        Ok(Verdict::New)
    }

    /// Remembers a batch that was appended. True where it is the first one of a transaction.
    pub(crate) fn record(
        &mut self,
        batch: &Sequenced,
        transactional: bool,
        base_offset: i64,
        now: u64,
    ) -> bool {
        let producer = self.touch(batch.producer_id, batch.epoch, now);
        if producer.batches.len() == REMEMBERED_BATCHES {
            producer.batches.pop_front();
        }
        producer.batches.push_back(RememberedBatch {
            first_sequence: batch.first,
            last_sequence: batch.last,
            base_offset,
        });
        let begins = transactional && producer.open.is_none();
        if begins {
            producer.open = Some(base_offset);
        }
        begins
    }

    /// A marker of this epoch was appended: the transaction is over, and older epochs are fenced.
    /// Returns where the transaction began, if it has records here.
    pub(crate) fn end(&mut self, producer_id: i64, epoch: i16, now: u64) -> Option<i64> {
        self.touch(producer_id, epoch, now).open.take()
    }

    /// A batch or marker with this time was appended and is remembered.
    pub(crate) fn date(&mut self, producer_id: i64, timestamp: i64, is_marker: bool) {
        if let Some(producer) = self.by_id.get_mut(&producer_id) {
            producer.last_timestamp = timestamp;
            producer.has_marker |= is_marker;
        }
    }

    /// All that are remembered, by their ids.
    pub(crate) fn describe(&self) -> Vec<DescribedProducer> {
        let described = self.by_id.iter().map(|(id, producer)| DescribedProducer {
            producer_id: *id,
            epoch: producer.epoch,
            last_sequence: producer.batches.back().map(|batch| batch.last_sequence),
            last_timestamp: producer.last_timestamp,
            has_marker: producer.has_marker,
            open: producer.open,
        });
        let mut described: Vec<_> = described.collect();
        described.sort_unstable_by_key(|producer| producer.producer_id);
        described
    }

    /// The producer, known from now on by this epoch. A new epoch begins a new numbering.
    fn touch(&mut self, producer_id: i64, epoch: i16, now: u64) -> &mut Producer {
        if !self.by_id.contains_key(&producer_id) && self.by_id.len() >= REMEMBERED_PRODUCERS {
            self.forget_oldest();
        }
        let producer = self.by_id.entry(producer_id).or_insert_with(|| Producer {
            epoch,
            batches: VecDeque::with_capacity(REMEMBERED_BATCHES),
            open: None,
            last_used: now,
            last_timestamp: -1,
            has_marker: false,
        });
        if producer.epoch != epoch {
            producer.epoch = epoch;
            producer.batches.clear();
        }
        producer.last_used = now;
        producer
    }

    fn forget_oldest(&mut self) {
        let oldest = self
            .by_id
            .iter()
            .filter(|(_, producer)| producer.open.is_none())
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn batch(epoch: i16, first: i32, last: i32) -> Sequenced {
        Sequenced {
            producer_id: 7,
            epoch,
            first,
            last,
        }
    }

    fn error(producers: &Producers, batch: &Sequenced) -> ResponseError {
        producers.judge(batch, false).unwrap_err().error
    }

    #[test]
    fn the_last_five_batches_are_known_again_and_older_ones_are_out_of_order() {
        let mut producers = Producers::default();
        for number in 0..6 {
            let batch = batch(0, number * 10, number * 10 + 9);
            assert_eq!(producers.judge(&batch, false), Ok(Verdict::New));
            producers.record(&batch, false, i64::from(number) * 100, 0);
        }
        for number in 1..6 {
            let again = batch(0, number * 10, number * 10 + 9);
            let base_offset = i64::from(number) * 100;
            assert_eq!(
                producers.judge(&again, false),
                Ok(Verdict::Duplicate { base_offset })
            );
        }
        assert_eq!(
            error(&producers, &batch(0, 0, 9)),
            ResponseError::OutOfOrderSequenceNumber
        );
        assert_eq!(
            error(&producers, &batch(0, 50, 58)),
            ResponseError::OutOfOrderSequenceNumber,
            "half a repeat"
        );
        assert_eq!(
            error(&producers, &batch(0, 70, 79)),
            ResponseError::OutOfOrderSequenceNumber,
            "a gap"
        );
        assert_eq!(producers.judge(&batch(0, 60, 60), false), Ok(Verdict::New));
    }

    #[test]
    fn a_new_epoch_begins_at_zero_and_fences_the_old_one() {
        let mut producers = Producers::default();
        producers.record(&batch(3, 0, 4), false, 0, 0);
        assert_eq!(
            error(&producers, &batch(2, 5, 5)),
            ResponseError::InvalidProducerEpoch
        );
        assert_eq!(
            error(&producers, &batch(4, 5, 5)),
            ResponseError::OutOfOrderSequenceNumber
        );
        assert_eq!(
            producers.judge(&batch(4, 0, 4), false),
            Ok(Verdict::New),
            "not a repeat: another epoch"
        );
        producers.record(&batch(4, 0, 4), false, 5, 1);
        assert_eq!(
            error(&producers, &batch(3, 5, 5)),
            ResponseError::InvalidProducerEpoch
        );
    }

    #[test]
    fn sequences_go_on_at_zero_after_the_largest_number() {
        let mut producers = Producers::default();
        let last = batch(0, i32::MAX - 1, advance(i32::MAX - 1, 3));
        assert_eq!(last.last, 1, "MAX - 1, MAX, 0, 1");
        producers.record(&last, false, 0, 0);
        assert_eq!(producers.judge(&batch(0, 2, 2), false), Ok(Verdict::New));
    }

    #[test]
    fn a_producer_of_whom_nothing_is_known_may_begin_anywhere() {
        assert_eq!(
            Producers::default().judge(&batch(0, 4_711, 4_712), false),
            Ok(Verdict::New)
        );
    }

    #[test]
    fn a_transaction_is_open_until_its_marker_and_takes_no_other_batches() {
        let mut producers = Producers::default();
        assert!(producers.record(&batch(0, 0, 4), true, 100, 0), "it begins here");
        assert!(!producers.record(&batch(0, 5, 9), true, 105, 1));
        assert!(producers.is_open(7, 0));
        let plain = producers.judge(&batch(0, 10, 10), false).unwrap_err();
        assert_eq!(plain.error, ResponseError::InvalidTxnState);
        assert_eq!(producers.end(7, 0, 2), Some(100));
        assert_eq!(producers.end(7, 0, 3), None);
        assert_eq!(
            producers.judge(&batch(0, 10, 10), true),
            Ok(Verdict::New),
            "the numbering goes on in the same epoch"
        );
        assert_eq!(producers.end(7, 1, 4), None, "a marker of a newer epoch");
        assert_eq!(
            error(&producers, &batch(0, 10, 10)),
            ResponseError::InvalidProducerEpoch
        );
        assert_eq!(producers.judge(&batch(1, 0, 0), true), Ok(Verdict::New));
        assert_eq!(
            error(&producers, &batch(1, 10, 10)),
            ResponseError::OutOfOrderSequenceNumber
        );
    }

    #[test]
    fn the_producer_that_was_silent_longest_is_forgotten_first() {
        let mut producers = Producers::default();
        for id in 0..=REMEMBERED_PRODUCERS as i64 {
            let batch = Sequenced {
                producer_id: id,
                epoch: 0,
                first: 0,
                last: 0,
            };
            producers.record(&batch, false, id, if id == 0 { 1_000_000 } else { id as u64 });
        }
        assert_eq!(producers.by_id.len(), REMEMBERED_PRODUCERS);
        assert!(producers.by_id.contains_key(&0) && !producers.by_id.contains_key(&1));
    }

    proptest! {
        /// A producer with five batches in flight, whose requests are repeated at random: the log has
        /// each batch once, in order, and each answer names the offset of the first append.
        #[test]
        fn repeats_never_append_twice(sizes in prop::collection::vec(1..50_i32, 1..60),
                                      repeats in prop::collection::vec(0..5_usize, 60)) {
            let mut producers = Producers::default();
            let mut sent: Vec<(Sequenced, i64)> = Vec::new();
            let (mut sequence, mut end) = (i32::MAX - 100, 0_i64);
            for (size, back) in sizes.into_iter().zip(repeats) {
                let new = batch(0, sequence, advance(sequence, size - 1));
                prop_assert_eq!(producers.judge(&new, false), Ok(Verdict::New));
                producers.record(&new, false, end, 0);
                sent.push((new, end));
                sequence = advance(sequence, size);
                end += i64::from(size);
                if let Some((again, base_offset)) = sent.iter().rev().nth(back) {
                    prop_assert_eq!(producers.judge(again, false), Ok(Verdict::Duplicate { base_offset: *base_offset }));
                }
            }
        }
    }
}
