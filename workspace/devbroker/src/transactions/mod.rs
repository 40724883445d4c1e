//! Transactions of producers over partitions and groups.
//!
//! `coordinator` decides (pure); this module makes the decisions true: it writes the markers that end
//! a transaction into its partitions, tells the groups, and lets transactions run out of time. As in
//! Kafka, the answer to EndTxn comes when the outcome is decided, and the markers follow a little
//! later ([`Options::transaction_marker_delay`](crate::Options::transaction_marker_delay)): in
//! between, the producer's next transaction is answered with CONCURRENT_TRANSACTIONS.
//!
//! A batch is appended to a partition for the first time in a transaction under the coordinator's
//! lock ([`Transactions::while_open`]), so that no batch can slip in behind the marker.
//!
//! With a data folder every change of a transactional id is kept before anybody hears of it
//! ([`Transactions::change`]). A decision is on the disk before its first marker is written, and every
//! marker and offset before the transaction counts as complete; so whatever a process leaves half done,
//! the next one finishes, and it finds nothing that contradicts the decision.

mod coordinator;
mod keeping;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use kafka_protocol::error::ResponseError;
use tokio::sync::Notify;

pub(crate) use coordinator::{Coordinator, Ended, Ending, Identity, Initialised, Transaction};

use crate::clock::Moment;
use crate::core::Core;
use crate::groups::{Absent, Command};
use crate::options::Options;
use crate::partition::Partition;
use crate::storage::Storage;
use crate::sync::lock;

/// Pause before what could not be kept is tried again.
const RETRY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Transactions {
    coordinator: Mutex<Coordinator>,
    /// Wakes [`watch_timeouts`]: a transaction began.
    begun: Notify,
    storage: Option<Arc<Storage>>,
}

impl Transactions {
    pub(crate) fn new(options: &Options, storage: Option<Arc<Storage>>) -> Self {
        Self {
            coordinator: Mutex::new(Coordinator::new(
                options.max_transactional_ids,
                options.transaction_max_timeout,
            )),
            begun: Notify::new(),
            storage,
        }
    }

    /// For asking only: what changes something goes through [`Transactions::change`].
    pub(crate) fn coordinator(&self) -> MutexGuard<'_, Coordinator> {
        lock(&self.coordinator)
    }

    /// Does `append` while the partition is sure to be part of the producer's open transaction.
    pub(crate) fn while_open<T>(
        &self,
        id: &str,
        identity: Identity,
        partition: &(String, i32),
        append: impl FnOnce() -> T,
    ) -> Result<T, ResponseError> {
        let mut coordinator = self.coordinator();
        coordinator.check_partition(id, identity, partition)?;
        Ok(append())
    }

    /// Whether a group's offsets are part of the producer's open transaction.
    pub(crate) fn check_group(&self, id: &str, identity: Identity, group: &str) -> Result<(), ResponseError> {
        self.coordinator().check_group(id, identity, group)
    }

    /// A transaction began: its time-out has to be watched.
    pub(crate) fn watch(&self) {
        self.begun.notify_one();
    }
}

/// Makes an outcome true after the marker delay, or at once where there is none.
pub(crate) async fn finish(core: &Arc<Core>, ending: Ending) {
    let delay = core.options.transaction_marker_delay;
    let mut work = Work::new(ending);
    if delay.is_zero() && carry_out(core, &mut work).await {
        return;
    }
    let core = Arc::clone(core);
    let tasks = core.tasks.clone();
    tasks.spawn(async move {
        let mut pause = if delay.is_zero() { RETRY } else { delay };
        loop {
            tokio::select! {
                () = core.stopping.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            if carry_out(&core, &mut work).await {
                return;
            }
            pause = RETRY;
        }
    });
}

/// An ending, and how far it has been made true.
struct Work {
    /// Without the partitions and groups that were told.
    ending: Ending,
    marked: Vec<Arc<Partition>>,
}

impl Work {
    fn new(ending: Ending) -> Self {
        Self {
            ending,
            marked: Vec::new(),
        }
    }
}

/// Makes an ending true as far as that is possible now, and says whether all of it is.
async fn carry_out(core: &Core, work: &mut Work) -> bool {
    // The decision first: a marker that is on the disk without it would contradict the next process.
    if core.settled().await.is_err() {
        return false;
    }
    write_markers(core, work);
    tell_groups(core, &mut work.ending).await;
    let settled = core.settled_with_records().await;
    let ending = &work.ending;
    let done = ending.partitions.is_empty()
        && ending.groups.is_empty()
        && settled.is_ok()
        && work.marked.iter().all(|partition| partition.failure().is_none());
    let id = &ending.transactional_id;
    let completed = done
        && core
            .transactions
            .change(id, |coordinator| {
                coordinator.complete(id);
                Ok(())
            })
            .is_ok();
    if completed {
        let Identity { producer_id, epoch } = ending.identity;
        tracing::debug!(transactional_id = id, producer_id, epoch, outcome = ?ending.outcome, "transaction ended");
    }
    completed
}

fn write_markers(core: &Core, Work { ending, marked }: &mut Work) {
    let Identity { producer_id, epoch } = ending.identity;
    let now_ms = core.clock.unix_ms();
    ending.partitions.retain(|(topic, index)| {
        // A topic that was deleted meanwhile needs no marker.
        let Some(partition) = core.topics.partition(topic, *index) else {
            return false;
        };
        match partition.end_transaction(producer_id, epoch, ending.outcome, now_ms) {
            Ok(()) => marked.push(partition),
            Err(ResponseError::KafkaStorageError) => return true,
            Err(error) => tracing::warn!(
                transactional_id = ending.transactional_id,
                topic,
                partition = index,
                ?error,
                "the marker of a transaction was not written"
            ),
        }
        false
    });
}

async fn tell_groups(core: &Core, ending: &mut Ending) {
    for group in std::mem::take(&mut ending.groups) {
        let command = |sender| Command::EndTransaction(ending.identity.producer_id, ending.outcome, sender);
        let told = core.groups.ask(&group, Absent::Leave, command).await;
        if let Err(error) = told.and_then(|told| told.unwrap_or(Ok(()))) {
            tracing::warn!(
                transactional_id = ending.transactional_id,
                group,
                ?error,
                "the group could not be told that a transaction ended"
            );
            // Only the group itself can say that it knows. One that can not be reached may still have
            // offsets to end: where the broker stops, the next start tells it.
            ending.groups.insert(group);
        }
    }
}

/// Aborts transactions whose time is over, until the broker stops.
pub(crate) async fn watch_timeouts(core: Arc<Core>) {
    loop {
        let deadline = core.transactions.coordinator().next_deadline();
        tokio::select! {
            () = core.stopping.cancelled() => return,
            () = core.transactions.begun.notified() => continue,
            () = sleep_until(&core, deadline) => {}
        }
        let overdue = core.transactions.coordinator().overdue(core.clock.now());
        for id in overdue {
            let now = core.clock.now();
            match core
                .transactions
                .change(&id, |coordinator| Ok(coordinator.expire(now, &id)))
            {
                Ok(None) => {}
                Ok(Some(ending)) => {
                    tracing::info!(
                        transactional_id = id,
                        "a transaction ran out of time and is aborted; its producer is fenced"
                    );
                    finish(&core, ending).await;
                }
                // It stays overdue, and is looked at again after a pause.
                Err(_) => tokio::select! {
                    () = core.stopping.cancelled() => return,
                    () = tokio::time::sleep(RETRY) => {}
                },
            }
        }
    }
}

async fn sleep_until(core: &Core, deadline: Option<Moment>) {
    match deadline {
        Some(deadline) => core.clock.sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
