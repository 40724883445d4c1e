//! What all connections share.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::faults::Faults;
use crate::groups::Groups;
use crate::options::Options;
use crate::producer_ids::ProducerIds;
use crate::retention::Retention;
use crate::security::Guard;
use crate::stats::{Counters, Stats};
use crate::storage::{Storage, WriteError};
use crate::topics::{Topic, Topics};
use crate::transactions::Transactions;

/// The id of the only broker of the cluster, which is the controller and every coordinator too.
pub(crate) const NODE_ID: i32 = 1;

/// Why a disk can not be filled.
pub(crate) const NO_DATA_FOLDER: &str = "the broker has no data folder, so no disk that could be full";

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) options: Options,
    pub(crate) guard: Guard,
    pub(crate) cluster_id: String,
    pub(crate) topics: Arc<Topics>,
    pub(crate) groups: Groups,
    pub(crate) transactions: Arc<Transactions>,
    pub(crate) retention: Arc<Retention>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) faults: Arc<Faults>,
    pub(crate) stopping: CancellationToken,
    pub(crate) tasks: TaskTracker,
    pub(crate) producer_ids: ProducerIds,
    /// The data folder, if there is one.
    pub(crate) storage: Option<Arc<Storage>>,
}

impl Core {
    /// Everything in memory.
    #[cfg(test)]
    pub(crate) fn in_memory(options: Options) -> Self {
        Self::new(options, "cluster".to_owned(), None)
    }

    /// A broker without topics, groups and transactions yet.
    pub(crate) fn new(options: Options, cluster_id: String, storage: Option<Arc<Storage>>) -> Self {
        let counters = Arc::new(Counters::default());
        let retention = Arc::new(Retention::new(options.retention_bytes, Arc::clone(&counters)));
        let topics = Arc::new(Topics::new(
            Arc::clone(&retention),
            options.max_partitions,
            storage.clone(),
        ));
        let clock = Arc::new(Clock::new());
        let stopping = CancellationToken::new();
        let tasks = TaskTracker::new();
        let transactions = Arc::new(Transactions::new(&options, storage.clone()));
        let groups = Groups::new(
            &options,
            Arc::clone(&transactions),
            Arc::clone(&clock),
            stopping.clone(),
            tasks.clone(),
            storage.clone(),
        );
        let guard = Guard::new(&options.security);
        Self {
            options,
            guard,
            cluster_id,
            topics,
            groups,
            transactions,
            retention,
            counters,
            clock,
            faults: Arc::default(),
            stopping,
            tasks,
            producer_ids: ProducerIds::new(storage.clone()),
            storage,
        }
    }

    /// Returns when everything but records that was written to the data folder before is as safe as its
    /// policy wants it.
    pub(crate) async fn settled(&self) -> Result<(), WriteError> {
        match &self.storage {
            Some(storage) => storage.settled().await,
            None => Ok(()),
        }
    }

    /// The same for records too, each of whose partitions is to be asked whether it failed.
    pub(crate) async fn settled_with_records(&self) -> Result<(), WriteError> {
        match &self.storage {
            Some(storage) => storage.settled_with_records().await,
            None => Ok(()),
        }
    }

    /// The same for records alone, whatever became of the rest.
    pub(crate) async fn records_settled(&self) -> Result<(), WriteError> {
        match &self.storage {
            Some(storage) => storage.records_settled().await,
            None => Ok(()),
        }
    }

    pub(crate) fn advance_clock(&self, step: Duration) {
        self.clock.advance(step);
        tracing::info!(?step, "the clock was moved forward");
    }

    /// Lets the data folder have no room left, or room again. False where there is no data folder.
    pub(crate) fn fill_disk(&self, full: bool) -> bool {
        let Some(storage) = &self.storage else {
            return false;
        };
        let faults = storage.disk().faults();
        if full {
            faults.leave_room(0);
        } else {
            faults.lift();
        }
        tracing::info!(
            full,
            "the disk of the data folder was filled or freed, as a fault"
        );
        true
    }

    /// Drops what is older or larger than the topics' own settings allow.
    pub(crate) fn enforce_retention(&self) {
        for topic in self.topics.all() {
            self.enforce_settings(&topic);
        }
    }

    /// The same for one topic: what its settings do, they do at once when they change.
    pub(crate) fn enforce_settings(&self, topic: &Topic) {
        let (config, now_ms) = (topic.config(), self.clock.unix_ms());
        for partition in topic.partitions() {
            partition.enforce(&config, now_ms);
        }
    }

    /// Compacts what has to be; ends early when the broker stops.
    pub(crate) fn compact(&self) {
        for topic in self.topics.all() {
            let Some(settings) = topic.config().compaction() else {
                continue;
            };
            for partition in topic.partitions() {
                if self.stopping.is_cancelled() {
                    return;
                }
                partition.compact(&settings, self.clock.unix_ms());
            }
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        let counters = &self.counters;
        Stats {
            connections_open: counters.connections_open.get(),
            connections_total: counters.connections.get(),
            connections_refused_total: counters.connections_refused.get(),
            requests_total: counters.requests.get(),
            malformed_total: counters.malformed.get(),
            records_appended_total: counters.records_appended.get(),
            bytes_appended_total: counters.bytes_appended.get(),
            duplicate_batches_total: counters.duplicate_batches.get(),
            bytes_stored: counters.bytes_stored.get(),
            retention_dropped_records_total: counters.retention_dropped_records.get(),
            retention_dropped_bytes_total: counters.retention_dropped_bytes.get(),
            compacted_records_total: counters.compacted_records.get(),
            topics: self.topics.count() as u64,
            groups: self.groups.count() as u64,
        }
    }
}
