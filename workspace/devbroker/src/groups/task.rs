//! The task of one group: owns its state machine, its offsets, and who waits for it.
//!
//! Commands come through a bounded channel and are worked off one after the other, so the state
//! needs no lock. Between commands the task sleeps until the state machine's next deadline. The
//! `select!` may drop a sleep at any time, for the deadline is asked anew in each round.
//!
//! Offsets of a transaction are taken only while it is open, and the coordinator is asked for that in
//! the task, not by whoever sends them. It decides an outcome before it sends the end of the
//! transaction here, so an end that offsets are part of always comes behind them: a fenced producer
//! that was slow leaves nothing here for its successor to commit.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::error::ResponseError;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::Directory;
use super::group::{Description, Group, Speaker, SyncRequest};
use super::member::{JoinReply, JoinRequest, Reply, SyncReply, Ticket};
use crate::batch::Outcome;
use crate::clock::{Clock, Moment};
use crate::offsets::{Committed, Offsets, PartitionOffset};
use crate::storage::{Entry, Storage};
use crate::sync::lock;
use crate::transactions::{Identity, Transactions};

/// A group without members and offsets is forgotten after this; Kafka's check interval.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);

/// What a group is asked, with where the answer goes.
#[derive(Debug)]
pub(crate) enum Command {
    Join(JoinRequest, oneshot::Sender<JoinReply>),
    Sync(SyncRequest, oneshot::Sender<SyncReply>),
    Heartbeat(Speaker, oneshot::Sender<Result<(), ResponseError>>),
    Leave {
        member_id: String,
        instance_id: Option<String>,
        answer: oneshot::Sender<Result<(), ResponseError>>,
    },
    Commit(
        Speaker,
        Vec<PartitionOffset>,
        oneshot::Sender<Result<(), ResponseError>>,
    ),
    /// Positions that count when the transaction of this producer commits. It has to be open still.
    Hold {
        speaker: Speaker,
        transactional_id: String,
        identity: Identity,
        positions: Vec<PartitionOffset>,
        answer: oneshot::Sender<Result<(), ResponseError>>,
    },
    /// The transaction of this producer ended.
    EndTransaction(i64, Outcome, oneshot::Sender<Result<(), ResponseError>>),
    /// The positions of these partitions, in their order, or of all.
    Fetch(Option<Vec<(String, i32)>>, oneshot::Sender<Vec<Position>>),
    /// Forgets the positions of these partitions, except of topics that a live member reads.
    DeleteOffsets(
        Vec<(String, i32)>,
        oneshot::Sender<Result<Vec<Result<(), ResponseError>>, ResponseError>>,
    ),
    Describe(oneshot::Sender<Description>),
    Delete(oneshot::Sender<Result<(), ResponseError>>),
    ForgetTopic(String, oneshot::Sender<()>),
    /// Whether the member was known.
    ForgetMember(String, oneshot::Sender<bool>),
    ForgetMembers(oneshot::Sender<()>),
}

/// What a group knows of its place in a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) committed: Option<Committed>,
    /// Whether a transaction that has not ended may move it.
    pub(crate) unstable: bool,
}

pub(super) struct GroupTask {
    pub(super) id: String,
    pub(super) group: Group,
    pub(super) transactions: Arc<Transactions>,
    pub(super) clock: Arc<Clock>,
    pub(super) directory: Directory,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) stopping: CancellationToken,
    pub(super) storage: Option<Arc<Storage>>,
}

#[derive(Default)]
struct Waiting {
    next_ticket: Ticket,
    joins: HashMap<Ticket, oneshot::Sender<JoinReply>>,
    syncs: HashMap<Ticket, oneshot::Sender<SyncReply>>,
}

impl Waiting {
    fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        self.next_ticket
    }
}

/// Whether the task goes on.
#[derive(PartialEq, Eq)]
enum Next {
    GoOn,
    End,
}

impl GroupTask {
    pub(super) async fn run(mut self, mut offsets: Offsets) {
        let mut waiting = Waiting::default();
        let mut idle_since = self.clock.now();
        loop {
            let idle = self.group.is_empty() && offsets.is_empty();
            let deadline = self
                .group
                .next_deadline()
                .or(idle.then_some(idle_since + IDLE_TIMEOUT));
            let command = tokio::select! {
                () = self.stopping.cancelled() => return,
                command = self.commands.recv() => command,
                () = sleep_until(&self.clock, deadline) => None,
            };
            let now = self.clock.now();
            let commanded = command.is_some();
            if let Some(command) = command
                && self.handle(now, command, &mut offsets, &mut waiting) == Next::End
            {
                return;
            }
            self.group.advance(now);
            self.deliver(&mut waiting);
            if commanded || !idle {
                idle_since = now;
            } else if now >= idle_since + IDLE_TIMEOUT && self.retire() == Next::End {
                return;
            }
        }
    }

    fn handle(
        &mut self,
        now: Moment,
        command: Command,
        offsets: &mut Offsets,
        waiting: &mut Waiting,
    ) -> Next {
        match command {
            Command::Join(request, answer) => {
                let ticket = waiting.ticket();
                waiting.joins.insert(ticket, answer);
                self.group.join(now, request, ticket);
            }
            Command::Sync(request, answer) => {
                let ticket = waiting.ticket();
                waiting.syncs.insert(ticket, answer);
                self.group.sync(now, request, ticket);
            }
            Command::Heartbeat(speaker, answer) => reply(answer, self.group.heartbeat(now, &speaker)),
            Command::Leave {
                member_id,
                instance_id,
                answer,
            } => {
                reply(answer, self.group.leave(now, &member_id, instance_id.as_deref()));
            }
            Command::Commit(speaker, positions, answer) => {
                let allowed = self.group.check_commit(now, &speaker);
                let kept = allowed.and_then(|()| self.keep(|group| committed(group, &positions)));
                if kept.is_ok() {
                    positions
                        .into_iter()
                        .for_each(|position| offsets.commit(position));
                }
                reply(answer, kept);
            }
            Command::Hold {
                speaker,
                transactional_id,
                identity,
                positions,
                answer,
            } => {
                let Identity { producer_id, .. } = identity;
                let open = self
                    .transactions
                    .check_group(&transactional_id, identity, &self.id);
                let allowed = open.and_then(|()| self.group.check_transactional_commit(now, &speaker));
                let kept = allowed.and_then(|()| self.keep(|group| pending(group, producer_id, &positions)));
                if kept.is_ok() {
                    positions
                        .into_iter()
                        .for_each(|position| offsets.hold(producer_id, position));
                }
                reply(answer, kept);
            }
            Command::EndTransaction(producer_id, outcome, answer) => {
                let kept = self.keep(|group| Entry::OffsetsEnded {
                    producer_id,
                    group,
                    committed: outcome == Outcome::Commit,
                });
                if kept.is_ok() {
                    offsets.end_transaction(producer_id, outcome);
                }
                reply(answer, kept);
            }
            Command::Fetch(wanted, answer) => reply(answer, positions(offsets, wanted)),
            Command::DeleteOffsets(unwanted, answer) => {
                reply(answer, self.delete_offsets(offsets, unwanted));
            }
            Command::Describe(answer) => reply(answer, self.group.describe()),
            Command::ForgetTopic(topic, answer) => {
                offsets.forget_topic(&topic);
                reply(answer, ());
            }
            Command::ForgetMember(id, answer) => reply(answer, self.group.lose_member(now, &id)),
            Command::ForgetMembers(answer) => {
                self.group.lose_all();
                reply(answer, ());
            }
            Command::Delete(answer) => {
                if !self.group.is_empty() {
                    reply(answer, Err(ResponseError::NonEmptyGroup));
                    return Next::GoOn;
                }
                if let Err(error) = self.keep(|group| Entry::GroupDeleted { group }) {
                    reply(answer, Err(error));
                    return Next::GoOn;
                }
                lock(&self.directory).remove(&self.id);
                tracing::info!(group = self.id, "group deleted");
                reply(answer, Ok(()));
                return Next::End;
            }
        }
        Next::GoOn
    }

    /// Forgets the positions that no live member's subscription covers. A result for each partition, in
    /// their order.
    fn delete_offsets(
        &self,
        offsets: &mut Offsets,
        unwanted: Vec<(String, i32)>,
    ) -> Result<Vec<Result<(), ResponseError>>, ResponseError> {
        let subscription = self.group.subscription()?;
        let result = |(topic, _): &(String, i32)| match subscription.covers(topic) {
            true => Err(ResponseError::GroupSubscribedToTopic),
            false => Ok(()),
        };
        let results: Vec<_> = unwanted.iter().map(result).collect();
        let outcomes = unwanted.into_iter().zip(&results);
        let forgotten: Vec<_> = outcomes
            .filter_map(|(place, result)| result.is_ok().then_some(place))
            .collect();
        if !forgotten.is_empty() {
            self.keep(|group| Entry::OffsetsForgotten {
                group,
                partitions: forgotten.clone(),
            })?;
        }
        for (topic, partition) in &forgotten {
            offsets.forget(topic, *partition);
        }
        Ok(results)
    }

    /// Writes what happened into the data folder, if there is one, before it happens. What can not be
    /// kept is refused as Kafka does where its offsets topic can not be written: the client is to look
    /// for its coordinator again, which it does until there is room.
    fn keep(&self, entry: impl FnOnce(String) -> Entry) -> Result<(), ResponseError> {
        let Some(storage) = &self.storage else {
            return Ok(());
        };
        let kept = storage.record(vec![entry(self.id.clone())]);
        kept.map_err(|error| {
            tracing::debug!(group = self.id, %error, "a change of the group was not kept");
            ResponseError::NotCoordinator
        })
    }

    fn deliver(&mut self, waiting: &mut Waiting) {
        for ready in self.group.take_replies() {
            match ready {
                Reply::Join(ticket, result) => {
                    if let Some(answer) = waiting.joins.remove(&ticket) {
                        reply(answer, result);
                    }
                }
                Reply::Sync(ticket, result) => {
                    if let Some(answer) = waiting.syncs.remove(&ticket) {
                        reply(answer, result);
                    }
                }
            }
        }
    }

    /// Leaves the directory. A command that is sent to this task afterwards finds its answer's
    /// sender dropped, and whoever sent it asks the directory again.
    fn retire(&self) -> Next {
        let mut directory = lock(&self.directory);
        if !self.commands.is_empty() {
            return Next::GoOn;
        }
        directory.remove(&self.id);
        tracing::debug!(group = self.id, "group forgotten: no members and no offsets");
        Next::End
    }
}

fn committed(group: String, positions: &[PartitionOffset]) -> Entry {
    let offsets = positions.iter().map(PartitionOffset::kept).collect();
    Entry::OffsetsCommitted { group, offsets }
}

fn pending(group: String, producer_id: i64, positions: &[PartitionOffset]) -> Entry {
    Entry::OffsetsPending {
        producer_id,
        group,
        offsets: positions.iter().map(PartitionOffset::kept).collect(),
    }
}

/// Where no partitions are named, those with a committed position.
fn positions(offsets: &Offsets, wanted: Option<Vec<(String, i32)>>) -> Vec<Position> {
    let wanted = wanted.unwrap_or_else(|| offsets.partitions());
    let found = wanted.into_iter().map(|(topic, partition)| Position {
        committed: offsets.get(&topic, partition).cloned(),
        unstable: offsets.is_unstable(&topic, partition),
        topic,
        partition,
    });
    found.collect()
}

/// The connection that asked may be gone, and then nobody needs the answer.
fn reply<T>(answer: oneshot::Sender<T>, result: T) {
    drop(answer.send(result));
}

async fn sleep_until(clock: &Clock, deadline: Option<Moment>) {
    match deadline {
        Some(deadline) => clock.sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Core;
    use crate::groups::Absent;
    use crate::options::Options;
    use crate::transactions::{self, Ended, Ending, Initialised};

    const ID: &str = "worker-0";
    const GROUP: &str = "readers";

    /// A broker that ends transactions at once.
    fn core() -> Arc<Core> {
        Arc::new(Core::in_memory(Options {
            transaction_marker_delay: Duration::ZERO,
            ..Options::default()
        }))
    }

    fn initialise(core: &Core) -> Initialised {
        let initialised = core.transactions.change(ID, |coordinator| {
            coordinator.initialise(core.clock.now(), ID, Duration::from_secs(60), None, || 7)
        });
        initialised.unwrap()
    }

    fn ready(core: &Core) -> Identity {
        match initialise(core) {
            Initialised::Ready(identity) => identity,
            Initialised::Aborting(ending) => panic!("{ending:?}"),
        }
    }

    fn add_group(core: &Core, identity: Identity) {
        let added = core.transactions.change(ID, |coordinator| {
            coordinator.add(core.clock.now(), 0, ID, identity, [], Some(GROUP.to_owned()))
        });
        added.unwrap();
    }

    fn commit(core: &Core, identity: Identity) -> Ending {
        let ended = core.transactions.change(ID, |coordinator| {
            coordinator.end(core.clock.now(), ID, identity, Outcome::Commit)
        });
        match ended.unwrap() {
            Ended::Now(ending) => ending,
            Ended::Before => panic!("it was open"),
        }
    }

    async fn hold(core: &Core, identity: Identity, offset: i64) -> Result<(), ResponseError> {
        let command = |answer| Command::Hold {
            speaker: Speaker {
                member_id: String::new(),
                instance_id: None,
                generation: -1,
            },
            transactional_id: ID.to_owned(),
            identity,
            positions: vec![PartitionOffset {
                topic: "orders".to_owned(),
                partition: 0,
                committed: Committed {
                    offset,
                    leader_epoch: 0,
                    metadata: String::new(),
                },
            }],
            answer,
        };
        core.groups.ask(GROUP, Absent::Create, command).await?.unwrap()
    }

    async fn found(core: &Core) -> Option<i64> {
        let command = |answer| Command::Fetch(Some(vec![("orders".to_owned(), 0)]), answer);
        let found = core.groups.ask(GROUP, Absent::Create, command).await;
        let found = found.unwrap().unwrap();
        found[0].committed.as_ref().map(|committed| committed.offset)
    }

    #[tokio::test]
    async fn offsets_of_a_fenced_producer_that_come_late_are_not_committed_by_its_successor() {
        let core = core();
        let fenced = ready(&core);
        add_group(&core, fenced);
        // Here its request has been looked at, and is on the way to the group.
        core.transactions.check_group(ID, fenced, GROUP).unwrap();
        match initialise(&core) {
            Initialised::Aborting(ending) => transactions::finish(&core, ending).await,
            Initialised::Ready(identity) => panic!("{identity:?} while a transaction is open"),
        }
        let successor = ready(&core);
        assert_eq!(hold(&core, fenced, 42).await, Err(ResponseError::ProducerFenced));
        add_group(&core, successor);
        transactions::finish(&core, commit(&core, successor)).await;
        assert_eq!(found(&core).await, None);
    }

    #[tokio::test]
    async fn offsets_that_come_between_the_decision_and_the_end_are_refused() {
        let core = core();
        let identity = ready(&core);
        add_group(&core, identity);
        hold(&core, identity, 41).await.unwrap();
        let ending = commit(&core, identity);
        let late = hold(&core, identity, 42).await;
        assert_eq!(late, Err(ResponseError::ConcurrentTransactions));
        transactions::finish(&core, ending).await;
        assert_eq!(found(&core).await, Some(41));
    }
}
