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

mod coordinator;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard};

use kafka_protocol::error::ResponseError;
use tokio::sync::Notify;

pub(crate) use coordinator::{Coordinator, Ended, Ending, Identity, Initialised, Transaction};

use crate::clock::Moment;
use crate::core::Core;
use crate::groups::{Absent, Command};
use crate::options::Options;
use crate::sync::lock;

#[derive(Debug)]
pub(crate) struct Transactions {
    coordinator: Mutex<Coordinator>,
    /// Wakes [`watch_timeouts`]: a transaction began.
    begun: Notify,
}

impl Transactions {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            coordinator: Mutex::new(Coordinator::new(
                options.max_transactional_ids,
                options.transaction_max_timeout,
            )),
            begun: Notify::new(),
        }
    }

    /// Asks or tells the coordinator.
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

    /// A transaction began: its time-out has to be watched.
    pub(crate) fn watch(&self) {
        self.begun.notify_one();
    }
}

/// Makes an outcome true after the marker delay, or at once where there is none.
pub(crate) async fn finish(core: &Arc<Core>, ending: Ending) {
    let delay = core.options.transaction_marker_delay;
    if delay.is_zero() {
        return carry_out(core, ending).await;
    }
    let core = Arc::clone(core);
    let tasks = core.tasks.clone();
    tasks.spawn(async move {
        tokio::select! {
            () = core.stopping.cancelled() => return,
            () = tokio::time::sleep(delay) => {}
        }
        carry_out(&core, ending).await;
    });
}

async fn carry_out(core: &Core, ending: Ending) {
    let Identity { producer_id, epoch } = ending.identity;
    let now_ms = core.clock.unix_ms();
    for (topic, index) in &ending.partitions {
        // A topic that was deleted meanwhile needs no marker.
        let Some(partition) = core.topics.partition(topic, *index) else {
            continue;
        };
        if let Err(error) = partition.end_transaction(producer_id, epoch, ending.outcome, now_ms) {
            tracing::warn!(
                transactional_id = ending.transactional_id,
                topic,
                partition = index,
                ?error,
                "the marker of a transaction was not written"
            );
        }
    }
    for group in &ending.groups {
        let command = |sender| Command::EndTransaction(producer_id, ending.outcome, sender);
        if let Err(error) = core.groups.ask(group, Absent::Leave, command).await {
            tracing::warn!(
                transactional_id = ending.transactional_id,
                group,
                ?error,
                "the group could not be told that a transaction ended"
            );
        }
    }
    core.transactions.coordinator().complete(&ending.transactional_id);
    tracing::debug!(
        transactional_id = ending.transactional_id,
        producer_id,
        epoch,
        outcome = ?ending.outcome,
        "transaction ended"
    );
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
        let expired = core.transactions.coordinator().expire(core.clock.now());
        for ending in expired {
            tracing::info!(
                transactional_id = ending.transactional_id,
                "a transaction ran out of time and is aborted; its producer is fenced"
            );
            finish(&core, ending).await;
        }
    }
}

async fn sleep_until(core: &Core, deadline: Option<Moment>) {
    match deadline {
        Some(deadline) => core.clock.sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
