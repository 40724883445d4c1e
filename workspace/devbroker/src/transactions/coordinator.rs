//! The state machine of all transactional ids.
//!
//! A transactional id belongs to the producer that initialised it last: each initialisation raises
//! the epoch, and whoever comes with an older one is fenced. A transaction is `Ongoing` from its first
//! partition or group on, `Prepared` once its outcome is decided (it can not change any more), and
//! `Completed` when every marker is written. While it is prepared, everything that would begin the
//! next one is answered with CONCURRENT_TRANSACTIONS. The rules and codes are those of Kafka's
//! `TransactionCoordinator`, for clients that do not speak transactions v2 (KIP-890).
//!
//! Pure: time comes with each call. What has to be done outside (markers in logs, offsets in groups)
//! is handed out as an [`Ending`], and [`Coordinator::complete`] is told when it is done.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use kafka_protocol::error::ResponseError;

use crate::batch::Outcome;
use crate::clock::Moment;

/// Epochs end here, so that the broker can always fence once more.
const LAST_EPOCH: i16 = i16::MAX - 1;
/// Partitions that one transaction may have. Each addition keeps all of them anew.
pub(super) const MAX_PARTITIONS: usize = 5_000;
/// Groups whose offsets one transaction may have.
pub(super) const MAX_GROUPS: usize = 100;
const NO_EPOCH: i16 = -1;
const NO_PRODUCER: i64 = -1;

/// A producer id with its epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Empty,
    Ongoing { since: Moment },
    Prepared(Outcome),
    Completed(Outcome),
}

impl State {
    /// As Kafka names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Ongoing { .. } => "Ongoing",
            Self::Prepared(Outcome::Commit) => "PrepareCommit",
            Self::Prepared(Outcome::Abort) => "PrepareAbort",
            Self::Completed(Outcome::Commit) => "CompleteCommit",
            Self::Completed(Outcome::Abort) => "CompleteAbort",
        }
    }
}

/// One transactional id and its current or last transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Transaction {
    pub(crate) producer_id: i64,
    /// The producer id before the epochs of it were used up.
    pub(super) previous_producer_id: i64,
    pub(crate) epoch: i16,
    /// The epoch before the last bump, unless another instance asked for that: its owner may ask for a
    /// new epoch, and asking again is answered alike.
    pub(super) last_epoch: i16,
    pub(crate) timeout: Duration,
    pub(crate) state: State,
    pub(crate) partitions: BTreeSet<(String, i32)>,
    /// Groups whose offsets are part of the transaction.
    pub(crate) groups: BTreeSet<String>,
    pub(super) last_used: Moment,
    /// When the transaction began, in milliseconds since 1970; -1 where there is none.
    pub(crate) started_ms: i64,
}

/// A transaction whose outcome is decided, and where it has to be made true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ending {
    pub(crate) transactional_id: String,
    pub(crate) identity: Identity,
    pub(crate) outcome: Outcome,
    pub(crate) partitions: BTreeSet<(String, i32)>,
    pub(crate) groups: BTreeSet<String>,
}

/// What an initialisation came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Initialised {
    Ready(Identity),
    /// A transaction of the former producer was open: it is aborted, and the client has to ask again.
    Aborting(Ending),
}

/// What a request to end a transaction came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Now(Ending),
    /// It had ended so before: the request is a repeat.
    Before,
}

#[derive(Debug)]
pub(crate) struct Coordinator {
    by_id: HashMap<String, Transaction>,
    /// Ids that had to make room, until [`Coordinator::take_forgotten`].
    forgotten: Vec<(String, Transaction)>,
    max_ids: usize,
    max_timeout: Duration,
}

impl Coordinator {
    pub(crate) fn new(max_ids: usize, max_timeout: Duration) -> Self {
        Self {
            by_id: HashMap::new(),
            forgotten: Vec::new(),
            max_ids,
            max_timeout,
        }
    }

    /// What is known of a transactional id.
    pub(crate) fn get(&self, id: &str) -> Option<&Transaction> {
        self.by_id.get(id)
    }

    /// All transactional ids.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, &Transaction)> {
        self.by_id
            .iter()
            .map(|(id, transaction)| (id.as_str(), transaction))
    }

    /// Makes an id what it was at another time; without a transaction it is not known.
    pub(crate) fn put(&mut self, id: &str, transaction: Option<Transaction>) {
        match transaction {
            Some(transaction) => drop(self.by_id.insert(id.to_owned(), transaction)),
            None => drop(self.by_id.remove(id)),
        }
    }

    pub(crate) fn take_forgotten(&mut self) -> Vec<(String, Transaction)> {
        std::mem::take(&mut self.forgotten)
    }

    /// Gives the id to the producer that asks. `claimed` is who the producer says that it is, where it
    /// goes on after an error (KIP-360). `new_producer_id` is called where a new id is needed.
    pub(crate) fn initialise(
        &mut self,
        now: Moment,
        id: &str,
        timeout: Duration,
        claimed: Option<Identity>,
        mut new_producer_id: impl FnMut() -> i64,
    ) -> Result<Initialised, ResponseError> {
        if id.is_empty() {
            return Err(ResponseError::InvalidRequest);
        }
        if timeout.is_zero() || timeout > self.max_timeout {
            return Err(ResponseError::InvalidTransactionTimeout);
        }
        if !self.by_id.contains_key(id) {
            self.make_room(id)?;
            let new = Transaction::new(new_producer_id(), now);
            self.by_id.insert(id.to_owned(), new);
        }
        let transaction = self
            .by_id
            .get_mut(id)
            .ok_or(ResponseError::CoordinatorNotAvailable)?;
        if claimed.is_some_and(|claimed| !transaction.is_known(claimed)) {
            return Err(ResponseError::ProducerFenced);
        }
        match transaction.state {
            State::Prepared(_) => Err(ResponseError::ConcurrentTransactions),
            State::Ongoing { .. } => Ok(Initialised::Aborting(transaction.fence(id))),
            State::Empty | State::Completed(_) => {
                let epoch = claimed.map(|claimed| claimed.epoch);
                transaction.next_epoch(epoch, new_producer_id)?;
                transaction.timeout = timeout;
                transaction.state = State::Empty;
                transaction.last_used = now;
                transaction.started_ms = -1;
                Ok(Initialised::Ready(transaction.identity()))
            }
        }
    }

    /// Makes partitions and groups part of the producer's transaction, which begins it. Where that would
    /// be too many, none of them is, and a client aborts.
    pub(crate) fn add(
        &mut self,
        now: Moment,
        now_ms: i64,
        id: &str,
        identity: Identity,
        partitions: impl IntoIterator<Item = (String, i32)>,
        group: Option<String>,
    ) -> Result<(), ResponseError> {
        let transaction = self.of(id, identity)?;
        if let State::Prepared(_) = transaction.state {
            return Err(ResponseError::ConcurrentTransactions);
        }
        let new = |partition: &(String, i32)| !transaction.partitions.contains(partition);
        let partitions: BTreeSet<_> = partitions.into_iter().filter(new).collect();
        let group = group.filter(|group| !transaction.groups.contains(group));
        if transaction.partitions.len() + partitions.len() > MAX_PARTITIONS
            || transaction.groups.len() + usize::from(group.is_some()) > MAX_GROUPS
        {
            tracing::warn!(
                transactional_id = id,
                max_partitions = MAX_PARTITIONS,
                max_groups = MAX_GROUPS,
                "addition to a transaction refused: it has as many partitions or groups as allowed"
            );
            return Err(ResponseError::PolicyViolation);
        }
        match transaction.state {
            State::Ongoing { .. } | State::Prepared(_) => {}
            State::Empty | State::Completed(_) => {
                transaction.state = State::Ongoing { since: now };
                transaction.started_ms = now_ms;
            }
        }
        transaction.partitions.extend(partitions);
        transaction.groups.extend(group);
        transaction.last_used = now;
        Ok(())
    }

    /// Decides the outcome of the producer's transaction.
    pub(crate) fn end(
        &mut self,
        now: Moment,
        id: &str,
        identity: Identity,
        outcome: Outcome,
    ) -> Result<Ended, ResponseError> {
        let transaction = self.of(id, identity)?;
        match transaction.state {
            State::Ongoing { .. } => {
                transaction.last_used = now;
                Ok(Ended::Now(transaction.prepare(id, outcome)))
            }
            State::Completed(before) if before == outcome => Ok(Ended::Before),
            State::Prepared(before) if before == outcome => Err(ResponseError::ConcurrentTransactions),
            State::Empty | State::Prepared(_) | State::Completed(_) => Err(ResponseError::InvalidTxnState),
        }
    }

    /// Everything that an [`Ending`] names is done.
    pub(crate) fn complete(&mut self, id: &str) {
        if let Some(transaction) = self.by_id.get_mut(id)
            && let State::Prepared(outcome) = transaction.state
        {
            transaction.state = State::Completed(outcome);
            transaction.partitions.clear();
            transaction.groups.clear();
        }
    }

    /// Whether a partition is part of the producer's open transaction.
    pub(crate) fn check_partition(
        &mut self,
        id: &str,
        identity: Identity,
        partition: &(String, i32),
    ) -> Result<(), ResponseError> {
        let transaction = self.open(id, identity)?;
        let is_part = transaction.partitions.contains(partition);
        is_part.then_some(()).ok_or(ResponseError::InvalidTxnState)
    }

    /// Whether a group's offsets are part of the producer's open transaction.
    pub(crate) fn check_group(
        &mut self,
        id: &str,
        identity: Identity,
        group: &str,
    ) -> Result<(), ResponseError> {
        let transaction = self.open(id, identity)?;
        let is_part = transaction.groups.contains(group);
        is_part.then_some(()).ok_or(ResponseError::InvalidTxnState)
    }

    /// When the next transaction runs out of time.
    pub(crate) fn next_deadline(&self) -> Option<Moment> {
        self.by_id.values().filter_map(Transaction::deadline).min()
    }

    /// The ids whose transactions are out of time.
    pub(crate) fn overdue(&self, now: Moment) -> Vec<String> {
        let overdue = self
            .by_id
            .iter()
            .filter(|(_, transaction)| transaction.deadline().is_some_and(|deadline| deadline <= now));
        overdue.map(|(id, _)| id.clone()).collect()
    }

    /// Aborts the transaction of an id whose time is over. Its producer is fenced.
    pub(crate) fn expire(&mut self, now: Moment, id: &str) -> Option<Ending> {
        let transaction = self.by_id.get_mut(id)?;
        let is_overdue = transaction.deadline().is_some_and(|deadline| deadline <= now);
        is_overdue.then(|| transaction.fence(id))
    }

    fn of(&mut self, id: &str, identity: Identity) -> Result<&mut Transaction, ResponseError> {
        if id.is_empty() {
            return Err(ResponseError::InvalidRequest);
        }
        let transaction = self
            .by_id
            .get_mut(id)
            .ok_or(ResponseError::InvalidProducerIdMapping)?;
        if transaction.producer_id != identity.producer_id {
            return Err(ResponseError::InvalidProducerIdMapping);
        }
        if transaction.epoch != identity.epoch {
            return Err(ResponseError::ProducerFenced);
        }
        Ok(transaction)
    }

    /// As [`Self::of`], for what may only happen in a transaction that can still take something.
    fn open(&mut self, id: &str, identity: Identity) -> Result<&mut Transaction, ResponseError> {
        let transaction = self.of(id, identity)?;
        match transaction.state {
            State::Prepared(_) => Err(ResponseError::ConcurrentTransactions),
            _ => Ok(transaction),
        }
    }

    /// Forgets the id that was silent longest, where the limit is reached; one in work never.
    fn make_room(&mut self, newcomer: &str) -> Result<(), ResponseError> {
        if self.by_id.len() < self.max_ids {
            return Ok(());
        }
        let idle = self
            .by_id
            .iter()
            .filter(|(_, transaction)| matches!(transaction.state, State::Empty | State::Completed(_)));
        let oldest = idle.min_by_key(|(_, transaction)| transaction.last_used);
        let Some(oldest) = oldest.map(|(id, _)| id.clone()) else {
            tracing::warn!(
                transactional_id = newcomer,
                limit = self.max_ids,
                "transactional id refused: as many as allowed have a transaction open"
            );
            return Err(ResponseError::CoordinatorNotAvailable);
        };
        let removed = self.by_id.remove(&oldest);
        self.forgotten
            .extend(removed.map(|transaction| (oldest, transaction)));
        Ok(())
    }
}

impl Transaction {
    fn new(producer_id: i64, now: Moment) -> Self {
        Self {
            producer_id,
            previous_producer_id: NO_PRODUCER,
            epoch: NO_EPOCH,
            last_epoch: NO_EPOCH,
            timeout: Duration::ZERO,
            state: State::Empty,
            partitions: BTreeSet::new(),
            groups: BTreeSet::new(),
            last_used: now,
            started_ms: -1,
        }
    }

    pub(crate) fn identity(&self) -> Identity {
        Identity {
            producer_id: self.producer_id,
            epoch: self.epoch,
        }
    }

    fn deadline(&self) -> Option<Moment> {
        match self.state {
            State::Ongoing { since } => Some(since + self.timeout),
            _ => None,
        }
    }

    /// Whether the producer can be who it says: the present one, or one that did not hear that its
    /// id was changed because its epochs were used up. The epoch is looked at later.
    fn is_known(&self, claimed: Identity) -> bool {
        self.epoch == NO_EPOCH
            || claimed.producer_id == self.producer_id
            || (claimed.producer_id == self.previous_producer_id && claimed.epoch >= LAST_EPOCH)
    }

    /// Raises the epoch, or begins a new producer id where there are no more epochs.
    fn next_epoch(
        &mut self,
        claimed: Option<i16>,
        mut new_producer_id: impl FnMut() -> i64,
    ) -> Result<(), ResponseError> {
        if self.epoch >= LAST_EPOCH && claimed.is_none_or(|epoch| epoch == self.epoch) {
            self.previous_producer_id = self.producer_id;
            self.producer_id = new_producer_id();
            self.last_epoch = claimed.map_or(NO_EPOCH, |_| self.epoch);
            self.epoch = 0;
            return Ok(());
        }
        match claimed {
            None => {
                self.last_epoch = NO_EPOCH;
                self.epoch += 1;
            }
            Some(epoch) if self.epoch == NO_EPOCH || epoch == self.epoch => {
                self.last_epoch = self.epoch;
                self.epoch += 1;
            }
            // A repeat of a request that was carried out: the same answer again.
            Some(epoch) if epoch == self.last_epoch => {}
            Some(_) => return Err(ResponseError::ProducerFenced),
        }
        Ok(())
    }

    fn prepare(&mut self, id: &str, outcome: Outcome) -> Ending {
        self.state = State::Prepared(outcome);
        self.ending(id, outcome)
    }

    pub(crate) fn ending(&self, id: &str, outcome: Outcome) -> Ending {
        Ending {
            transactional_id: id.to_owned(),
            identity: self.identity(),
            outcome,
            partitions: self.partitions.clone(),
            groups: self.groups.clone(),
        }
    }

    /// Aborts the transaction over the head of its producer, which is fenced by the new epoch until it
    /// is initialised again: it may name its old epoch for that, unless another instance came first.
    fn fence(&mut self, id: &str) -> Ending {
        self.last_epoch = self.epoch;
        self.epoch = self.epoch.saturating_add(1);
        self.prepare(id, Outcome::Abort)
    }
}
