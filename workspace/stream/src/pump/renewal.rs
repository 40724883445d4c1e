//! What a pump does after a unit of work failed.
//!
//! A new producer is made, and the group is asked whether the failed transaction counts. While that
//! takes time the pump reads nothing, but goes on polling: a member that does not poll is taken out of
//! its group, and a rebalance that nobody answers holds up the others.

use std::time::Duration;

use super::{BROKER_AWAY, Pump, SEEK_TIMEOUT};
use crate::error::StreamError;
use crate::source::Source;
use crate::stage::Stage;
use crate::unit_of_work::{Opened, Opening, Ready, UnitOfWork};

impl<S: Source, G: Stage> Pump<S, G> {
    /// Leads out of an indefinite unit of work, and takes up the work where it was committed. When the
    /// pump is told to stop first, the unit stays as it is.
    pub(super) fn renew(&mut self) -> Result<(), StreamError> {
        let UnitOfWork::Indefinite(indefinite) = &self.unit else {
            return Ok(());
        };
        let (opening, tried) = (indefinite.recover()?, indefinite.tried().to_vec());
        let failed = indefinite.cause().is_some();
        if let Some(cause) = indefinite.cause() {
            tracing::warn!(error = %cause, "unit of work failed, its records are worked on again");
            self.parts.metrics.set_waiting("broker", true);
            self.failed_units += 1;
            self.parts.heartbeat.beat();
            if !self.parts.wake.is_stopping() {
                std::thread::park_timeout(BROKER_AWAY.pause(self.failed_units, &mut rand::rng()));
            }
        }
        let Some(ready) = self.open(opening)? else {
            return Ok(());
        };
        // A new producer has ended the transaction of the old one, so the answer is final.
        let partitions: Vec<_> = tried.iter().map(|commit| commit.at).collect();
        let Some(committed) = self.committed(&partitions)? else {
            return Ok(());
        };
        self.unit = UnitOfWork::Ready(ready);
        self.tell_unit(false);
        let counts: Vec<_> = tried
            .into_iter()
            .filter(|commit| {
                let offset = committed.get(&commit.at).and_then(Option::as_ref);
                offset.is_some_and(|offset| offset.next == commit.next)
            })
            .collect();
        self.confirm(&counts);
        if failed {
            self.work_again()?;
        }
        self.read_on()
    }

    /// Opens a producer, however long it takes. `None` when the pump is told to stop first.
    fn open(&mut self, mut opening: Opening) -> Result<Option<Ready>, StreamError> {
        let mut attempts = 0_u32;
        loop {
            self.parts.heartbeat.beat();
            let error = match opening.open()? {
                Opened::Ready(ready) => break Ok(Some(ready)),
                Opened::NotYet(again, error) => {
                    opening = again;
                    error
                }
            };
            if self.parts.wake.is_stopping() {
                tracing::warn!(%error, "told to stop before the producer was ready");
                break Ok(None);
            }
            attempts += 1;
            if attempts.is_power_of_two() {
                tracing::warn!(attempts, %error, "the producer is not ready, trying again");
            }
            self.poll_only()?;
            std::thread::park_timeout(BROKER_AWAY.pause(attempts, &mut rand::rng()));
        }
    }

    /// Polls for the group's sake. What was fetched is dropped: reading goes on elsewhere afterwards.
    fn poll_only(&mut self) -> Result<(), StreamError> {
        let assigned: Vec<_> = self.ledger.assigned().collect();
        if !assigned.is_empty() {
            self.source.pause(&assigned)?;
        }
        self.polled_only = true;
        drop(
            self.source
                .read(Duration::ZERO, self.parts.settings.batch_records),
        );
        self.parts.wake.answer();
        self.answer_rebalance()
    }

    /// Does again what a failed unit carried: endings that were kept are published again, else their
    /// records are read again.
    pub(super) fn work_again(&mut self) -> Result<(), StreamError> {
        self.ledger.unpublish();
        self.braking.take_back();
        // Nothing more is read at the end of a pump.
        if G::KEEPS_ENDINGS || self.parts.wake.is_stopping() {
            return Ok(());
        }
        // Every partition, also one with nothing in work: what the failed batch still held of it was read
        // by the client and not by us.
        let mut starts = Vec::new();
        for at in self.ledger.assigned().collect::<Vec<_>>() {
            if let Some((start, volume)) = self.ledger.rewind(at) {
                self.budget.refund(at, volume);
                starts.push((at, start));
            }
        }
        if starts.is_empty() {
            return Ok(());
        }
        self.source.seek(&starts, SEEK_TIMEOUT)
    }

    /// Reads again after [`Self::poll_only`], from where our own books stand.
    fn read_on(&mut self) -> Result<(), StreamError> {
        if !std::mem::take(&mut self.polled_only) || self.parts.wake.is_stopping() {
            return Ok(());
        }
        let assigned: Vec<_> = self.ledger.assigned().collect();
        let starts: Vec<_> = assigned
            .iter()
            .filter_map(|at| Some((*at, self.ledger.read_position(*at)?)))
            .collect();
        if !starts.is_empty() {
            self.source.seek(&starts, SEEK_TIMEOUT)?;
        }
        self.resume(assigned)
    }
}
