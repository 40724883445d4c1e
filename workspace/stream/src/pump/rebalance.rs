//! What a pump does when partitions come and go.

use std::collections::HashMap;

use super::{BROKER_AWAY, COMMITTED_TIMEOUT, Pump};
use crate::brake::Note;
use crate::error::StreamError;
use crate::position::{StartAt, TopicPartition};
use crate::restore::Restored;
use crate::source::{GroupOffset, RebalanceKind, Source};
use crate::stage::Stage;

/// A dead owner's transaction is over after one or two attempts to end it.
const HANGING_AFTER: u32 = 6;

impl<S: Source, G: Stage> Pump<S, G> {
    /// Answers what the group is waiting for, with everything settled first.
    pub(super) fn answer_rebalance(&mut self) -> Result<(), StreamError> {
        let Some((kind, partitions)) = self.source.take_rebalance() else {
            return Ok(());
        };
        let named: Vec<String> = partitions
            .iter()
            .map(|at| format!("{}[{}]", self.topic(*at), at.partition))
            .collect();
        tracing::info!(?kind, partitions = named.join(" "), "rebalance");
        match kind {
            RebalanceKind::Assign => {
                self.parts.metrics.rebalances.with_label_values(&["assign"]).inc();
                // Taking may wait for others, and what is open would be hidden meanwhile.
                self.collect()?;
                self.settle()?;
                self.take_partitions(&partitions)
            }
            RebalanceKind::Revoke => {
                self.parts.metrics.rebalances.with_label_values(&["revoke"]).inc();
                self.collect()?;
                self.settle()?;
                // Its next owner has to know.
                self.note_brake()?;
                self.give_up(&partitions)
            }
            RebalanceKind::Lose => {
                self.parts.metrics.rebalances.with_label_values(&["lose"]).inc();
                self.give_up(&partitions)?;
                self.take_back()
            }
        }
    }

    /// An open transaction may hold outputs of partitions that have another owner by now: it is aborted,
    /// and what else was in it is worked on again.
    fn take_back(&mut self) -> Result<(), StreamError> {
        if self.parts.unit.transactional_id.is_none() {
            return Ok(());
        }
        match self.unit.take_open() {
            Some(open) => self.conclude(open.undo(lost(), &[]), &[]),
            None => Ok(()),
        }
    }

    pub(super) fn take_partitions(&mut self, partitions: &[TopicPartition]) -> Result<(), StreamError> {
        let Some(committed) = self.committed(partitions)? else {
            // Told to stop meanwhile: the group hears that nothing was taken, and then that we leave.
            return self.source.assign(&[]);
        };
        let mut starts = Vec::new();
        let mut braked = Vec::new();
        self.wait_for_growth(partitions);
        for at in partitions {
            if self.is_retry_of_growing(*at) {
                continue;
            }
            let offset = committed.get(at).and_then(Option::as_ref);
            let start = offset.map_or(StartAt::Earliest, |offset| StartAt::Offset(offset.next));
            let epoch = self.ledger.assign(*at, start);
            self.budget.assign(*at);
            starts.push((*at, start));
            if self.parts.unit.plan.is_retry(at.topic) {
                continue;
            }
            let note = offset.map(|offset| Note::parse(&offset.note));
            if let (Some(takeover), Some(note)) = (&self.parts.takeover, note) {
                takeover.follows(*at, note.transactional_id);
            }
            braked.extend(note.and_then(|note| Some((*at, note.brake?.to_owned()))));
            if self.restores() && !self.growing.contains(at) {
                self.restoring.insert(*at, epoch);
            }
            self.seen.open(*at);
        }
        self.tell_owned();
        self.source.assign(&starts)?;
        self.start_restoring(&starts)?;
        for (at, name) in braked {
            self.stay_braked(at, &name)?;
        }
        self.pause_what_must_wait(partitions)
    }

    pub(super) fn pause_what_must_wait(&mut self, partitions: &[TopicPartition]) -> Result<(), StreamError> {
        let reads_nothing = self.stopped_reading || self.polled_only;
        let still: Vec<_> = partitions
            .iter()
            .copied()
            .filter(|at| reads_nothing || self.must_wait(*at))
            .collect();
        if still.is_empty() {
            return Ok(());
        }
        self.source.pause(&still)
    }

    /// Whether a new owner has to know what former ones settled.
    pub(super) fn restores(&self) -> bool {
        self.seen.is_on() && self.parts.restorer.is_some()
    }

    /// Asks what former owners settled in these partitions. They are not read before that is known; when
    /// the pump is told to stop, they are not read any more.
    pub(super) fn start_restoring(
        &mut self,
        starts: &[(TopicPartition, StartAt)],
    ) -> Result<(), StreamError> {
        let limit = self.seen.limit();
        let plan = &self.parts.unit.plan;
        let restorer = self.parts.restorer.as_ref();
        if let Some(restorer) = restorer.filter(|_| !self.parts.wake.is_stopping()) {
            for (at, epoch) in &self.restoring {
                if starts.iter().any(|(started, _)| started == at) {
                    let retries = starts
                        .iter()
                        .filter(|(retry, _)| plan.is_retry(retry.topic) && plan.source(*retry) == *at);
                    restorer.ask(*at, *epoch, limit, retries.copied().collect())?;
                }
            }
        }
        self.tell_restoring();
        Ok(())
    }

    /// Takes in what was found out, and begins to read where it is known.
    pub(super) fn take_restored(&mut self) -> Result<(), StreamError> {
        let mut readable = Vec::new();
        while let Some(restored) = self.take_one_restored()? {
            let Restored { at, epoch, known } = restored;
            // The answer to a former life of the partition may lack what happened since.
            if self.restoring.get(&at) != Some(&epoch) {
                continue;
            }
            self.restoring.remove(&at);
            for record in &known {
                self.seen.see(at, record.offset, &record.key, record.digest);
                if record.is_settled {
                    self.seen.settle(at, record.offset, &record.key);
                }
            }
            readable.push(at);
            readable.extend(self.parts.unit.plan.retries(at));
        }
        if readable.is_empty() {
            return Ok(());
        }
        self.tell_restoring();
        if self.polled_only {
            return Ok(());
        }
        self.resume(readable)
    }

    fn take_one_restored(&self) -> Result<Option<Restored>, StreamError> {
        match &self.parts.restorer {
            Some(restorer) if !self.restoring.is_empty() => restorer.take(),
            _ => Ok(None),
        }
    }

    fn tell_restoring(&self) {
        self.parts
            .metrics
            .set_waiting("restore", !self.restoring.is_empty());
    }

    /// Asks until somebody knows: without an answer there is no place to begin. `None` when the pump is
    /// told to stop first.
    pub(super) fn committed(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<Option<HashMap<TopicPartition, Option<GroupOffset>>>, StreamError> {
        let (mut failed, mut ended) = (0, 0);
        loop {
            match self.source.committed(partitions, COMMITTED_TIMEOUT) {
                Err(error) if error.is_retriable() && self.parts.wake.is_stopping() => {
                    tracing::warn!(%error, "reading the committed offsets");
                    return Ok(None);
                }
                Err(error) if error.is_retriable() => {
                    failed += 1;
                    self.parts.heartbeat.beat();
                    self.parts.metrics.set_waiting("broker", true);
                    if u32::is_power_of_two(failed) {
                        tracing::warn!(attempts = failed, %error, "reading the committed offsets, trying again");
                    }
                    ended += u32::from(self.end_former(partitions));
                    self.tell_of_hanging(ended, failed);
                    std::thread::park_timeout(BROKER_AWAY.pause(failed, &mut rand::rng()));
                }
                answer => {
                    self.parts.metrics.set_waiting("broker", false);
                    self.parts.metrics.set_waiting("hanging_transaction", false);
                    return answer.map(Some);
                }
            }
        }
    }

    pub(super) fn tell_owned(&self) {
        if let Some(takeover) = &self.parts.takeover {
            let plan = &self.parts.unit.plan;
            // What hides an output that is not there is nobody.
            let is_here = |at: &TopicPartition| !plan.is_retry(at.topic) && !self.growing.contains(at);
            let sources = self.ledger.assigned().filter(is_here);
            takeover.owns(self.parts.number, sources.collect());
        }
    }

    /// Offsets that stay unstable are held up by a former owner that is dead, or does not know better.
    fn end_former(&self, partitions: &[TopicPartition]) -> bool {
        let Some(takeover) = &self.parts.takeover else {
            return false;
        };
        let ended = takeover.end_former(partitions, || self.parts.wake.is_stopping());
        ended.unwrap_or_else(|error| {
            tracing::warn!(%error, "what a former owner left open could not be ended, its time-out will do it");
            false
        })
    }

    /// Whoever could hold the offsets up was ended again and again, and they are still held up: the broker
    /// has lost the end of a transaction, and no client can write it.
    fn tell_of_hanging(&self, ended: u32, failed: u32) {
        if ended < HANGING_AFTER {
            return;
        }
        self.parts.metrics.set_waiting("hanging_transaction", true);
        if failed.is_power_of_two() {
            tracing::error!(
                attempts = failed,
                group = self.parts.unit.group,
                "the offsets of the group are held up by a transaction that nobody has open: ask \
                 `kafka-transactions.sh find-hanging` for it, and end it with `kafka-transactions.sh abort`"
            );
        }
    }

    /// Closes the accounts of partitions and gives them up: what is in work for them is dropped when it
    /// arrives.
    fn give_up(&mut self, partitions: &[TopicPartition]) -> Result<(), StreamError> {
        let mut paused = Vec::new();
        for at in partitions {
            let dropped = self.ledger.revoke(*at);
            self.seen.close(*at);
            self.parts.metrics.records_dropped.inc_by(dropped.records);
            let was_restoring = self.restoring.remove(at).is_some();
            let was_growing = self.growing.remove(at);
            if self.budget.revoke(*at)
                || was_restoring
                || was_growing
                || self.polled_only
                || self.is_braked(*at)
            {
                paused.push(*at);
            }
            self.parts.metrics.remove_lag(self.topic(*at), at.partition);
        }
        for at in partitions {
            self.braking.give_up(*at);
        }
        self.leave_brakes()?;
        self.tell_growing();
        self.stage.given_up(partitions);
        self.tell_owned();
        self.observe();
        // The client remembers a pause beyond the assignment. It is taken back here, where nothing can be
        // lost by it, and not after the next assignment: resuming makes the client drop what it has
        // fetched, also for a partition that was not paused.
        if !paused.is_empty() {
            self.source.resume(&paused)?;
        }
        self.source.unassign(partitions)
    }
}

fn lost() -> StreamError {
    StreamError::Transaction {
        what: "working on partitions".to_owned(),
        cause: "some of them were lost to another member".to_owned(),
    }
}
