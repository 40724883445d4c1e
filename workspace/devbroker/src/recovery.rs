//! Starting on a data folder: what an earlier process kept becomes the broker's state again.
//!
//! Topics, groups and transactional ids come from the journal, records and what partitions know of
//! their producers from the files of batches. Then what was left half done is ended: transactions whose
//! outcome was decided get their markers, and a transaction that no transactional id knows of is
//! aborted, for nobody else would ever end it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::batch::{BatchHeader, Outcome};
use crate::core::Core;
use crate::offsets::Offsets;
use crate::options::Options;
use crate::partition::Partition;
use crate::storage::{DataOptions, DiskFaults, JournalState, KeptTopic, PlacedOffset, Storage, StorageError};
use crate::topic_config::TopicConfig;
use crate::transactions::{self, Ending};

/// Opens the data folder and makes a broker of what it has.
pub(crate) async fn open(
    options: Options,
    data: DataOptions,
    faults: Arc<DiskFaults>,
) -> Result<Arc<Core>, StorageError> {
    let folder = data.folder.clone();
    let opened = tokio::task::spawn_blocking(move || open_blocking(options, &data, faults)).await;
    let failed = |source| StorageError::Io {
        doing: "recover",
        path: folder,
        source: std::io::Error::other(source),
    };
    let (core, endings) = opened.map_err(failed)??;
    for ending in endings {
        transactions::finish(&core, ending).await;
    }
    Ok(core)
}

fn open_blocking(
    options: Options,
    data: &DataOptions,
    faults: Arc<DiskFaults>,
) -> Result<(Arc<Core>, Vec<Ending>), StorageError> {
    let (storage, recovered) = Storage::open(data, faults)?;
    let storage = Arc::new(storage);
    let core = Arc::new(Core::new(
        options,
        recovered.cluster_id,
        Some(Arc::clone(&storage)),
    ));
    let state = recovered.state;
    let mut producer_ids_below = state.producer_ids_below;
    for (name, topic) in &state.topics {
        let highest = restore_topic(&core, &storage, name, topic)?;
        producer_ids_below = producer_ids_below.max(highest + 1);
    }
    core.producer_ids.restore(producer_ids_below);
    core.groups.restore(offsets(&state));
    let endings = restore_transactions(&core, &state);
    if core.retention.is_exceeded() {
        core.retention.sweep(&core.topics);
    }
    tracing::info!(
        folder = %data.folder.display(),
        topics = state.topics.len(),
        groups = core.groups.count(),
        transactional_ids = state.transactions.len(),
        bytes = core.counters.bytes_stored.get(),
        "the data folder was read"
    );
    Ok((core, endings))
}

/// Returns the highest producer id in the records.
fn restore_topic(core: &Core, storage: &Storage, name: &str, topic: &KeptTopic) -> Result<i64, StorageError> {
    let settings = topic.settings.iter();
    let config = TopicConfig::parse(settings.map(|(name, value)| (name.as_str(), Some(value.as_str()))));
    let config = config.unwrap_or_else(|refusal| {
        tracing::warn!(
            topic = name,
            reason = refusal.message,
            "kept settings of a topic are not valid any more; it has the defaults"
        );
        TopicConfig::default()
    });
    let name: Arc<str> = Arc::from(name);
    let mut partitions = Vec::new();
    let mut highest = 0;
    let mut unreadable = None;
    for index in 0..topic.partitions {
        let start = topic.log_starts.get(&index).copied().unwrap_or(0);
        let mut batches = Vec::new();
        let files =
            storage.open_partition(
                (&name, topic.id),
                index,
                start,
                |extent, bytes| match BatchHeader::read(&bytes) {
                    Ok(header) if extent.last_offset >= start => {
                        let producer_id = header.sequenced.map_or(0, |sequenced| sequenced.producer_id);
                        highest = highest.max(producer_id);
                        batches.push((extent, header, bytes));
                    }
                    Ok(_) => {}
                    Err(refusal) => unreadable = Some((extent.base_offset, refusal.message)),
                },
            )?;
        if let Some((offset, reason)) = unreadable {
            return Err(StorageError::Unreadable {
                topic: name.to_string(),
                partition: index,
                offset,
                reason,
            });
        }
        let (start, end) = (start.max(files.start()), files.end());
        let partition = core.topics.partition_of(&name, index, Some(files));
        partition.restore(start, end, batches);
        partitions.push(partition);
    }
    core.topics.restore(&name, topic.id, config, partitions);
    Ok(highest)
}

/// The offsets of each group, those of open transactions among them, in the order in which they came.
fn offsets(state: &JournalState) -> HashMap<String, Offsets> {
    // Whose transaction has ended, or is not known any more, would be unstable for ever.
    let is_open = |producer_id: i64, group: &str| {
        let mut transactions = state.transactions.values();
        let transaction = transactions.find(|transaction| transaction.producer_id == producer_id);
        transaction.is_some_and(|transaction| transaction.groups.contains(group))
    };
    let committed = state.groups.iter().map(|(group, kept)| (None, group, kept));
    let held = state.pending.iter().flat_map(|(producer_id, groups)| {
        let groups = groups.iter().filter(|(group, _)| is_open(*producer_id, group));
        groups.map(|(group, kept)| (Some(*producer_id), group, kept))
    });
    let mut all: Vec<(&PlacedOffset, &str, Option<i64>)> = Vec::new();
    for (producer_id, group, kept) in committed.chain(held) {
        let placed = kept.values().flat_map(BTreeMap::values);
        all.extend(placed.map(|placed| (placed, group.as_str(), producer_id)));
    }
    all.sort_unstable_by_key(|(placed, ..)| placed.order);
    let mut groups: HashMap<String, Offsets> = HashMap::new();
    for (placed, group, producer_id) in all {
        let offsets = groups.entry(group.to_owned()).or_default();
        let position = placed.offset.clone().into();
        match producer_id {
            Some(producer_id) => offsets.hold(producer_id, position),
            None => offsets.commit(position),
        }
    }
    groups
}

/// Returns the transactions whose outcome was decided, with the partitions that miss their marker.
fn restore_transactions(core: &Core, state: &JournalState) -> Vec<Ending> {
    let now = core.clock.now();
    let mut endings = Vec::new();
    for (id, kept) in &state.transactions {
        if let Some(mut ending) = core.transactions.restore(id, kept.clone(), now) {
            let producer_id = ending.identity.producer_id;
            ending.partitions.retain(|(topic, index)| {
                let partition = core.topics.partition(topic, *index);
                let open = partition
                    .map(|partition| partition.open_transactions())
                    .unwrap_or_default();
                open.iter().any(|(open, _)| *open == producer_id)
            });
            endings.push(ending);
        }
    }
    let in_work: HashMap<i64, _> = state
        .transactions
        .values()
        .map(|kept| (kept.producer_id, &kept.partitions))
        .collect();
    for partition in core.topics.partitions() {
        let place = (partition.topic().to_owned(), partition.index());
        for (producer_id, epoch) in partition.open_transactions() {
            if !in_work
                .get(&producer_id)
                .is_some_and(|partitions| partitions.contains(&place))
            {
                abort_orphan(core, &partition, producer_id, epoch);
            }
        }
    }
    endings
}

fn abort_orphan(core: &Core, partition: &Arc<Partition>, producer_id: i64, epoch: i16) {
    let aborted = partition.end_transaction(producer_id, epoch, Outcome::Abort, core.clock.unix_ms());
    tracing::warn!(
        topic = partition.topic(),
        partition = partition.index(),
        producer_id,
        epoch,
        error = ?aborted.err(),
        "a transaction that no transactional id knows of was aborted; a power loss took what was known of it"
    );
}

#[cfg(test)]
mod tests;
