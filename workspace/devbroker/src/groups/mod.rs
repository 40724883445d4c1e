//! Consumer groups with the classic protocol.
//!
//! `group` is the state machine (with `joining`, `rebalancing` and `working` as its chapters) and
//! `member` what it is made of, all pure. `task` runs one group. This module knows which exist.

mod group;
mod joining;
mod member;
mod rebalancing;
mod subscription;
mod task;
#[cfg(test)]
mod tests;
mod working;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kafka_protocol::error::ResponseError;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use group::{DescribedMember, Description, Speaker, SyncRequest};
pub(crate) use member::{JoinRequest, Joined, Protocol};
pub(crate) use task::{Command, Position};

use crate::clock::Clock;
use crate::offsets::Offsets;
use crate::options::Options;
use crate::storage::Storage;
use crate::sync::lock;
use crate::transactions::Transactions;
use group::{Group, GroupSettings};
use task::GroupTask;

/// Commands that wait for one group.
const QUEUE: usize = 1_024;
/// A group may retire between being found and being asked; more than once in a row it does not.
const ATTEMPTS: usize = 3;

type Directory = Arc<Mutex<HashMap<String, mpsc::Sender<Command>>>>;

/// Whether asking a group that is not there makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Absent {
    Create,
    Leave,
}

#[derive(Debug)]
pub(crate) struct Groups {
    directory: Directory,
    settings: GroupSettings,
    max_groups: usize,
    session_timeouts: std::ops::RangeInclusive<Duration>,
    transactions: Arc<Transactions>,
    clock: Arc<Clock>,
    stopping: CancellationToken,
    tasks: TaskTracker,
    storage: Option<Arc<Storage>>,
}

impl Groups {
    pub(crate) fn new(
        options: &Options,
        transactions: Arc<Transactions>,
        clock: Arc<Clock>,
        stopping: CancellationToken,
        tasks: TaskTracker,
        storage: Option<Arc<Storage>>,
    ) -> Self {
        Self {
            directory: Directory::default(),
            settings: GroupSettings {
                initial_rebalance_delay: options.group_initial_rebalance_delay,
                max_size: options.group_max_size,
            },
            max_groups: options.max_groups,
            session_timeouts: options.group_min_session_timeout..=options.group_max_session_timeout,
            transactions,
            clock,
            stopping,
            tasks,
            storage,
        }
    }

    /// Makes the groups that a data folder has offsets of. They have no members.
    pub(crate) fn restore(&self, groups: impl IntoIterator<Item = (String, Offsets)>) {
        let mut directory = lock(&self.directory);
        for (id, offsets) in groups {
            let group = self.start(&id, offsets);
            directory.insert(id, group);
        }
    }

    pub(crate) fn count(&self) -> usize {
        lock(&self.directory).len()
    }

    /// The ids of all groups, sorted.
    pub(crate) fn ids(&self) -> Vec<String> {
        let mut ids: Vec<String> = lock(&self.directory).keys().cloned().collect();
        ids.sort_unstable();
        ids
    }

    pub(crate) fn accepts_session_timeout(&self, timeout: Duration) -> bool {
        self.session_timeouts.contains(&timeout)
    }

    /// Asks a group and waits for its answer, however long the protocol makes it wait. `None` if
    /// there is no such group.
    pub(crate) async fn ask<T>(
        &self,
        id: &str,
        absent: Absent,
        command: impl Fn(oneshot::Sender<T>) -> Command,
    ) -> Result<Option<T>, ResponseError> {
        for _ in 0..ATTEMPTS {
            let Some(group) = self.find(id, absent)? else {
                return Ok(None);
            };
            let (sender, receiver) = oneshot::channel();
            if group.send(command(sender)).await.is_err() {
                continue;
            }
            if let Ok(answer) = receiver.await {
                return Ok(Some(answer));
            }
        }
        Err(ResponseError::CoordinatorNotAvailable)
    }

    /// A topic is gone, and the positions in it with it.
    pub(crate) async fn forget_topic(&self, topic: &str) {
        for id in self.ids() {
            let forgotten = self.ask(&id, Absent::Leave, |sender| {
                Command::ForgetTopic(topic.to_owned(), sender)
            });
            if let Err(error) = forgotten.await {
                tracing::warn!(
                    group = id,
                    topic,
                    ?error,
                    "the group could not be told that a topic is gone"
                );
            }
        }
    }

    /// Whether the member was known, and is not any more.
    pub(crate) async fn forget_member(&self, group: &str, member_id: &str) -> bool {
        let forgotten = self.ask(group, Absent::Leave, |sender| {
            Command::ForgetMember(member_id.to_owned(), sender)
        });
        forgotten.await.ok().flatten().unwrap_or(false)
    }

    /// Whether the group was known. Its members are not any more, its offsets are.
    pub(crate) async fn forget_members(&self, group: &str) -> bool {
        let forgotten = self.ask(group, Absent::Leave, Command::ForgetMembers);
        forgotten.await.is_ok_and(|answer| answer.is_some())
    }

    fn find(&self, id: &str, absent: Absent) -> Result<Option<mpsc::Sender<Command>>, ResponseError> {
        let mut directory = lock(&self.directory);
        if let Some(group) = directory.get(id) {
            return Ok(Some(group.clone()));
        }
        if absent == Absent::Leave {
            return Ok(None);
        }
        if directory.len() >= self.max_groups {
            tracing::warn!(
                group = id,
                limit = self.max_groups,
                "group refused: as many as allowed exist"
            );
            return Err(ResponseError::CoordinatorNotAvailable);
        }
        let group = self.start(id, Offsets::default());
        directory.insert(id.to_owned(), group.clone());
        Ok(Some(group))
    }

    /// Starts the task of a group.
    fn start(&self, id: &str, offsets: Offsets) -> mpsc::Sender<Command> {
        let (sender, commands) = mpsc::channel(QUEUE);
        let task = GroupTask {
            id: id.to_owned(),
            group: Group::new(id.to_owned(), self.settings),
            transactions: Arc::clone(&self.transactions),
            clock: Arc::clone(&self.clock),
            directory: Arc::clone(&self.directory),
            commands,
            stopping: self.stopping.clone(),
            storage: self.storage.clone(),
        };
        self.tasks.spawn(task.run(offsets));
        sender
    }
}
