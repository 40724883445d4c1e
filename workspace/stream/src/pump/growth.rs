//! What a pump does with a partition of a source that topics downstream do not have yet.
//!
//! Outputs, dead letters and retry topics keep the partition of their input. When a source grows before
//! them, its new partitions are taken, because nobody else could do more with them, and stay paused until
//! all topics downstream have grown: a declared wait. What is read from the topics downstream (retry
//! topics, what former owners settled) is taken up then.

use super::Pump;
use crate::error::StreamError;
use crate::position::{StartAt, TopicPartition};
use crate::source::Source;
use crate::stage::Stage;

impl<S: Source, G: Stage> Pump<S, G> {
    /// Notes which of these partitions have to wait for topics downstream.
    pub(super) fn wait_for_growth(&mut self, partitions: &[TopicPartition]) {
        let lookout = &self.parts.lookout;
        let plan = &self.parts.unit.plan;
        let is_growing = |at: &&TopicPartition| !plan.is_retry(at.topic) && lookout.lacks(**at);
        self.growing.extend(partitions.iter().filter(is_growing));
        self.tell_growing();
    }

    /// Whether this is a partition of a retry topic that may not be there yet.
    pub(super) fn is_retry_of_growing(&self, at: TopicPartition) -> bool {
        let plan = &self.parts.unit.plan;
        plan.is_retry(at.topic) && self.growing.contains(&plan.source(at))
    }

    pub(super) fn tell_growing(&self) {
        self.parts.lookout.waits(self.parts.number, &self.growing);
    }

    /// Begins to work on partitions whose topics downstream have grown.
    pub(super) fn tend_growth(&mut self) -> Result<(), StreamError> {
        let lookout = &self.parts.lookout;
        let grown: Vec<_> = self
            .growing
            .iter()
            .copied()
            .filter(|at| !lookout.lacks(*at))
            .collect();
        if grown.is_empty() {
            return Ok(());
        }
        let plan = &self.parts.unit.plan;
        let retries: Vec<_> = grown.iter().flat_map(|at| plan.retries(*at)).collect();
        let mut starts = Vec::new();
        if !retries.is_empty() {
            let Some(committed) = self.committed(&retries)? else {
                return Ok(());
            };
            for at in &retries {
                let offset = committed.get(at).and_then(Option::as_ref);
                let start = offset.map_or(StartAt::Earliest, |offset| StartAt::Offset(offset.next));
                self.ledger.assign(*at, start);
                self.ledger.hold(*at, self.is_braked(*at));
                self.budget.assign(*at);
                starts.push((*at, start));
            }
            self.source.assign(&starts)?;
        }
        for at in &grown {
            self.growing.remove(at);
            if let (true, Some(epoch)) = (self.restores(), self.ledger.epoch(*at)) {
                self.restoring.insert(*at, epoch);
            }
            starts.extend(self.ledger.read_position(*at).map(|start| (*at, start)));
        }
        self.tell_growing();
        self.tell_owned();
        self.start_restoring(&starts)?;
        self.pause_what_must_wait(&retries)?;
        self.resume(grown)
    }
}
