//! How a pump takes records in: charged in the ledger, debited from the budget, and handed to the stage,
//! unless they repeat an earlier one.

use super::{Pump, PumpParts, SEEK_TIMEOUT, complain};
use crate::budget::Budget;
use crate::dead_letter::Cause;
use crate::error::StreamError;
use crate::handler::Repeats;
use crate::ledger::{ChargeError, Ticket, Volume};
use crate::metrics::StreamMetrics;
use crate::position::TopicPartition;
use crate::record::{OwnedRecord, Record};
use crate::seen::{Digest, Sighting};
use crate::source::{Entry, Source};
use crate::stage::{Desk, Ending, Stage};

impl<S: Source, G: Stage> Pump<S, G> {
    /// Hands the records of a batch to the stage.
    pub(super) fn take(&mut self, batch: &S::Batch) -> Result<(), StreamError> {
        let Self {
            source,
            stage,
            ledger,
            unit,
            seen,
            parts,
            budget,
            retry,
            braking,
            drained,
            last_complaint,
            ..
        } = self;
        let mut desk = Desk {
            ledger,
            unit,
            seen,
            metrics: &parts.metrics,
            wake: &parts.wake,
            retry: *retry,
            plan: &parts.unit.plan,
            braking,
        };
        let mut run = Run::default();
        let mut entries = 0;
        let mut taken = Ok(());
        let mut disturbed = Vec::new();
        for entry in source.entries(batch) {
            entries += 1;
            match entry {
                Entry::Record(record) => {
                    taken = accept(stage, &record, &mut desk, &mut run, budget, parts);
                }
                Entry::EndOfPartition(at, next) => desk.ledger.reached_end(at, next),
                // A leftover of a partition that was given up says nothing about those that are here.
                Entry::Error(Some(at), _) if desk.ledger.read_position(at).is_none() => {}
                Entry::Error(at, error) if error.is_retriable() => {
                    complain(last_complaint, &error);
                    disturbed.extend(at.filter(|at| !disturbed.contains(at)));
                }
                Entry::Error(_, error) => taken = Err(error),
            }
            if taken.is_err() {
                break;
            }
        }
        *drained = entries < parts.settings.batch_records;
        run.finish(budget, desk.metrics, &parts.unit.inputs);
        stage.batch_is_over(&mut desk);
        taken.and_then(|()| self.correct_positions(&disturbed))
    }

    /// Works once more on the records of a partition that became dead letters and were not published: what
    /// refused them may be mended.
    pub(super) fn try_letters_again(&mut self, at: TopicPartition) -> Result<(), StreamError> {
        let letters = self.ledger.reopen(at, |ending| ending.dead_lettered().is_some());
        self.at_desk(|stage, desk, parts| {
            for (ticket, ending) in letters {
                let Some(record) = ending.dead_lettered().map(OwnedRecord::as_record) else {
                    continue;
                };
                let origin = desk.plan.origin_or_place(&record);
                let key = record.key.unwrap_or_default();
                // A later record with its key counts as the first one by now.
                if desk.seen.has_later(origin.at, origin.offset, key) {
                    desk.ledger.end(&ticket, ending);
                } else if !end_repeat(&ticket, &record, desk, parts) {
                    stage.accept(ticket, &record, desk)?;
                }
            }
            Ok(())
        })
    }

    /// The client counts an error inside of a batch as a record, and its position is one too far then
    /// (librdkafka 2.12, `rd_kafka_q_serve_rkmessages`): the next pause would skip a record.
    fn correct_positions(&mut self, disturbed: &[TopicPartition]) -> Result<(), StreamError> {
        if disturbed.is_empty() {
            return Ok(());
        }
        let position = |at: &TopicPartition| Some((*at, self.ledger.read_position(*at)?));
        let starts: Vec<_> = disturbed.iter().filter_map(position).collect();
        self.source.seek(&starts, SEEK_TIMEOUT)
    }
}

/// Records of one partition that follow each other in a batch: counted once per run.
#[derive(Default)]
struct Run {
    at: Option<TopicPartition>,
    volume: Volume,
}

impl Run {
    fn add(&mut self, record: &Record<'_>, budget: &mut Budget, metrics: &StreamMetrics, inputs: &[String]) {
        if self.at != Some(record.at) {
            self.finish(budget, metrics, inputs);
            self.at = Some(record.at);
        }
        self.volume.add(Volume {
            records: 1,
            bytes: u64::from(record.size()),
        });
    }

    fn finish(&mut self, budget: &mut Budget, metrics: &StreamMetrics, inputs: &[String]) {
        let (Some(at), volume) = (self.at.take(), std::mem::take(&mut self.volume)) else {
            return;
        };
        budget.debit(at, volume);
        if let Some(topic) = inputs.get(usize::from(at.topic.0)) {
            metrics
                .records_read
                .with_label_values(&[topic])
                .inc_by(volume.records);
        }
    }
}

fn accept<G: Stage>(
    stage: &mut G,
    record: &Record<'_>,
    desk: &mut Desk<'_>,
    run: &mut Run,
    budget: &mut Budget,
    parts: &PumpParts,
) -> Result<(), StreamError> {
    match desk
        .ledger
        .charge(record.at, record.offset, record.size(), record.record_time_ms)
    {
        Ok(ticket) => {
            run.add(record, budget, desk.metrics, &parts.unit.inputs);
            if end_repeat(&ticket, record, desk, parts) {
                return Ok(());
            }
            stage.accept(ticket, record, desk)
        }
        // A leftover from before a seek or a revocation: its present owner reads it again.
        Err(ChargeError::NotAssigned | ChargeError::Behind { .. }) => {
            desk.metrics.records_dropped.inc();
            Ok(())
        }
    }
}

/// Ends a record that repeats an earlier one. `false` where it has to be worked on.
fn end_repeat(ticket: &Ticket, record: &Record<'_>, desk: &mut Desk<'_>, parts: &PumpParts) -> bool {
    let Some(key) = record.key.filter(|_| desk.seen.is_on()) else {
        return false;
    };
    let digest = Digest::of(record.value);
    let is_retry = desk.plan.is_retry(record.at.topic);
    let sighting = if is_retry {
        let Some(origin) = desk.plan.origin(record) else {
            return false;
        };
        let place = (record.at, record.offset);
        desk.seen
            .see_retry((origin.at, origin.offset), key, digest, place)
    } else {
        desk.seen.see(record.at, record.offset, key, digest)
    };
    let counted = |content: &str| {
        let inputs = &parts.unit.inputs;
        let topic = inputs
            .get(usize::from(record.at.topic.0))
            .map_or("", String::as_str);
        desk.metrics.repeats.with_label_values(&[topic, content]).inc();
    };
    let is_named = || parts.repeats.names_by_key().is_some_and(|names| names(record));
    match sighting {
        Sighting::First => return false,
        Sighting::Repeat | Sighting::Conflict { .. } if !is_named() => return false,
        Sighting::Repeat => {
            counted("same");
            desk.ledger.end(ticket, Ending::Done);
        }
        Sighting::Conflict { first } => {
            counted("other");
            let ending = match parts.repeats {
                Repeats::Count | Repeats::End(_) => Ending::Done,
                // It was a dead letter once, and somebody has it tried again.
                Repeats::EndOrDeadLetter(_) if is_retry => Ending::Done,
                Repeats::EndOrDeadLetter(_) => {
                    let cause = Cause {
                        code: "conflicting_repeat".to_owned(),
                        message: format!(
                            "the record at offset {first} has the same key and other content, and the first one counts"
                        ),
                        attempts: 1,
                    };
                    Ending::dead_letter(record.to_owned(), cause, Vec::new())
                }
            };
            desk.ledger.end(ticket, ending);
        }
    }
    true
}
