//! Transactional ids as the data folder keeps them.

use std::time::Duration;

use kafka_protocol::error::ResponseError;

use super::Transactions;
use super::coordinator::{Coordinator, Ending, State, Transaction};
use crate::batch::Outcome;
use crate::clock::Moment;
use crate::storage::{Entry, KeptPhase, KeptTransaction};

impl Transactions {
    /// Lets the coordinator change what it knows of an id, and keeps it. What can not be kept is undone,
    /// and refused as Kafka does where its transaction log can not be written: the client is to look for
    /// its coordinator again, which it does until there is room.
    pub(crate) fn change<T>(
        &self,
        id: &str,
        change: impl FnOnce(&mut Coordinator) -> Result<T, ResponseError>,
    ) -> Result<T, ResponseError> {
        let mut coordinator = self.coordinator();
        let Some(storage) = &self.storage else {
            coordinator.take_forgotten();
            return change(&mut coordinator);
        };
        let before = coordinator.get(id).cloned();
        let changed = change(&mut coordinator)?;
        let forgotten = coordinator.take_forgotten();
        let mut entries: Vec<Entry> = forgotten
            .iter()
            .map(|(forgotten, _)| Entry::TransactionalIdForgotten {
                transactional_id: forgotten.clone(),
            })
            .collect();
        let after = coordinator.get(id).map(Transaction::kept);
        if let Some(transaction) = after
            && before.as_ref().map(Transaction::kept).as_ref() != Some(&transaction)
        {
            entries.push(Entry::TransactionChanged {
                transactional_id: id.to_owned(),
                transaction,
            });
        }
        if entries.is_empty() {
            return Ok(changed);
        }
        if let Err(error) = storage.record(entries) {
            tracing::debug!(transactional_id = id, %error, "a change of a transactional id was not kept");
            coordinator.put(id, before);
            for (forgotten, transaction) in forgotten {
                coordinator.put(&forgotten, Some(transaction));
            }
            return Err(ResponseError::NotCoordinator);
        }
        Ok(changed)
    }

    /// Takes what an earlier process knew of an id. A transaction that was open has its whole time from
    /// now on; one whose outcome was decided is handed out, to be finished.
    pub(crate) fn restore(&self, id: &str, kept: KeptTransaction, now: Moment) -> Option<Ending> {
        let transaction = Transaction::restored(kept, now);
        let ending = match transaction.state {
            State::Prepared(outcome) => Some(transaction.ending(id, outcome)),
            State::Empty | State::Ongoing { .. } | State::Completed(_) => None,
        };
        self.coordinator().put(id, Some(transaction));
        ending
    }
}

impl Transaction {
    fn kept(&self) -> KeptTransaction {
        let phase = match self.state {
            State::Empty => KeptPhase::Empty,
            State::Ongoing { .. } => KeptPhase::Ongoing,
            State::Prepared(Outcome::Commit) => KeptPhase::PrepareCommit,
            State::Prepared(Outcome::Abort) => KeptPhase::PrepareAbort,
            State::Completed(Outcome::Commit) => KeptPhase::CompleteCommit,
            State::Completed(Outcome::Abort) => KeptPhase::CompleteAbort,
        };
        KeptTransaction {
            producer_id: self.producer_id,
            previous_producer_id: self.previous_producer_id,
            epoch: self.epoch,
            last_epoch: self.last_epoch,
            timeout_ms: u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX),
            phase,
            partitions: self.partitions.clone(),
            groups: self.groups.clone(),
            started_ms: self.started_ms,
        }
    }

    fn restored(kept: KeptTransaction, now: Moment) -> Self {
        let state = match kept.phase {
            KeptPhase::Empty => State::Empty,
            KeptPhase::Ongoing => State::Ongoing { since: now },
            KeptPhase::PrepareCommit => State::Prepared(Outcome::Commit),
            KeptPhase::PrepareAbort => State::Prepared(Outcome::Abort),
            KeptPhase::CompleteCommit => State::Completed(Outcome::Commit),
            KeptPhase::CompleteAbort => State::Completed(Outcome::Abort),
        };
        Self {
            producer_id: kept.producer_id,
            previous_producer_id: kept.previous_producer_id,
            epoch: kept.epoch,
            last_epoch: kept.last_epoch,
            timeout: Duration::from_millis(kept.timeout_ms),
            state,
            partitions: kept.partitions,
            groups: kept.groups,
            last_used: now,
            started_ms: kept.started_ms,
        }
    }
}
