//! How a pump publishes what has ended, commits the frontier, and takes in what became of a unit of work.

use std::time::Instant;

use super::{Pump, complain};
use crate::error::StreamError;
use crate::ledger::{Commit, Volume};
use crate::position::TopicPartition;
use crate::source::Source;
use crate::stage::{Ending, Stage};
use crate::unit_of_work::{Committed, UnitOfWork};

impl<S: Source, G: Stage> Pump<S, G> {
    /// An error that costs the unit of work is survived; every other error ends the pump.
    pub(super) fn survive(&mut self, result: Result<(), StreamError>) -> Result<(), StreamError> {
        match result {
            // All that was sent is of records that have ended. Committing it means that the next release
            // gets further, however many records are poison. No gaps are passed here: the client has read
            // the rest of the batch, and we have not.
            Err(StreamError::Brake { why }) => {
                let published = self.publish_ended();
                self.survive(published)?;
                self.commit_published()?;
                // What nobody knows the fate of is worked on again when the group has said whether it counts.
                if !matches!(self.unit, UnitOfWork::Indefinite(_)) {
                    self.work_again()?;
                }
                self.pull_brake(&why)
            }
            Err(error) if error.costs_a_unit() => match self.unit.take_open() {
                Some(open) => self.conclude(open.undo(error, &[]), &[]),
                None => Ok(()),
            },
            other => other,
        }
    }

    /// Publishes what has ended and commits the frontier.
    pub(super) fn settle(&mut self) -> Result<(), StreamError> {
        self.last_settled = Instant::now();
        if let UnitOfWork::Indefinite(_) = self.unit {
            return Ok(());
        }
        self.pass_gaps()?;
        match self.publish_ended() {
            // What comes before it is committed, and nothing after it.
            Err(StreamError::Brake { why }) => {
                self.commit_published()?;
                self.pull_brake(&why)
            }
            published => {
                self.survive(published)?;
                self.commit_published()
            }
        }
    }

    fn publish_ended(&mut self) -> Result<(), StreamError> {
        let (unit, braking) = (&mut self.unit, &mut self.braking);
        self.ledger.publish(|at, offset, ending| {
            // Work that is done at once was counted when it was done.
            if G::KEEPS_ENDINGS {
                braking.count(ending.dead_lettered().is_some())?;
            }
            match ending {
                Ending::Done => Ok(()),
                Ending::Publish(_) => ending.publish(at, offset, unit.open()?),
            }
        })
    }

    fn commit_published(&mut self) -> Result<(), StreamError> {
        let mut commits = self.ledger.commits();
        let (interval, last) = self.idle_offsets;
        if last.elapsed() >= interval {
            self.idle_offsets.1 = Instant::now();
            commits.extend(self.idle_retries(&commits));
        }
        if commits.is_empty() {
            return Ok(());
        }
        let begun = self.unit.open().map(|_| ());
        self.survive(begun)?;
        let Some(open) = self.unit.take_open() else {
            return Ok(());
        };
        let began = Instant::now();
        self.tell_unit(true);
        let outcome = open.commit(&self.source, &commits, None);
        self.parts
            .metrics
            .commit_seconds
            .observe(began.elapsed().as_secs_f64());
        self.last_settled = Instant::now();
        let concluded = self.conclude(outcome, &commits);
        self.tell_unit(self.unit.is_unfinished());
        concluded
    }

    /// The offsets of retry topics that are committed already and not among `commits`.
    fn idle_retries(&self, commits: &[Commit]) -> Vec<Commit> {
        let plan = &self.parts.unit.plan;
        let idle = self.ledger.assigned().filter(|at| {
            plan.is_retry(at.topic) && !self.is_braked(*at) && commits.iter().all(|commit| commit.at != *at)
        });
        self.committed_again(idle)
    }

    /// What the group has committed of these partitions. Where that is nothing, there is nothing to repeat.
    pub(super) fn committed_again(&self, partitions: impl Iterator<Item = TopicPartition>) -> Vec<Commit> {
        let again = partitions.filter_map(|at| {
            Some(Commit {
                at,
                epoch: self.ledger.epoch(at)?,
                next: self.ledger.begins(at)?,
                volume: Volume::default(),
            })
        });
        again.collect()
    }

    /// Takes in what became of a unit.
    pub(super) fn conclude(&mut self, outcome: Committed, commits: &[Commit]) -> Result<(), StreamError> {
        let counted = |outcome: &str| self.parts.metrics.commits.with_label_values(&[outcome]).inc();
        match outcome {
            Committed::Yes(ready) => {
                counted("committed");
                self.failed_units = 0;
                self.is_broker_away = false;
                self.braking.keep(!commits.is_empty());
                self.unit = UnitOfWork::Ready(ready);
                self.confirm(commits);
                Ok(())
            }
            Committed::OutputsOnly(ready, error) => {
                counted("refused");
                self.unit = UnitOfWork::Ready(ready);
                if let StreamError::Authorization { .. } = error {
                    return Err(error);
                }
                complain(&mut self.last_complaint, &error);
                Ok(())
            }
            Committed::Aborted(ready, cause) => {
                counted("aborted");
                self.unit = UnitOfWork::Ready(ready);
                self.is_broker_away = cause.is_of_an_absent_broker();
                if !cause.costs_a_unit() {
                    return Err(cause);
                }
                complain(&mut self.last_complaint, &cause);
                self.work_again()
            }
            Committed::Indefinite(indefinite) => {
                counted("indefinite");
                self.is_broker_away = indefinite
                    .cause()
                    .is_some_and(StreamError::is_of_an_absent_broker);
                let ends = indefinite.cause().filter(|cause| !cause.costs_a_unit()).cloned();
                self.unit = UnitOfWork::Indefinite(indefinite);
                ends.map_or(Ok(()), Err)
            }
            Committed::Halted(error) => Err(error),
        }
    }

    /// Lets the takeover know whether what hides our outputs may be ourselves.
    pub(super) fn tell_unit(&self, is_unfinished: bool) {
        if let Some(takeover) = &self.parts.takeover {
            takeover.works(self.parts.number, is_unfinished);
        }
    }

    /// These offsets are committed: what they cover leaves the ledger and the budget.
    pub(super) fn confirm(&mut self, commits: &[Commit]) {
        for commit in commits {
            if self.ledger.committed(commit) {
                self.count_ended(commit.at, commit.volume.records);
                self.budget.refund(commit.at, commit.volume);
            }
        }
    }

    /// Markers, aborted and compacted records at the end of a partition are never given to a reader. Where
    /// nothing is in work and the end is still ahead, the client tells how far it has come.
    fn pass_gaps(&mut self) -> Result<(), StreamError> {
        let ahead = |at: &TopicPartition| self.source.high_watermark(*at) > self.ledger.frontier(*at);
        let idle: Vec<_> = self
            .ledger
            .assigned()
            .filter(|at| self.ledger.is_idle(*at) && !self.is_braked(*at))
            .filter(ahead)
            .collect();
        if idle.is_empty() {
            return Ok(());
        }
        for (at, position) in self.source.positions(&idle)? {
            self.ledger.reached_end(at, position);
        }
        Ok(())
    }
}
