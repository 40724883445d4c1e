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
use crate::storage::{DataOptions, DiskFaults, JournalState, KeptTopic, Storage, StorageError};
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

/// The offsets of each group, those of open transactions among them.
fn offsets(state: &JournalState) -> HashMap<String, Offsets> {
    let mut groups: HashMap<String, Offsets> = HashMap::new();
    for (group, kept) in &state.groups {
        let offsets = groups.entry(group.clone()).or_default();
        let kept = kept.values().flat_map(BTreeMap::values).cloned();
        kept.for_each(|kept| offsets.commit(kept.into()));
    }
    for (producer_id, pending) in &state.pending {
        let transaction = state
            .transactions
            .values()
            .find(|transaction| transaction.producer_id == *producer_id);
        for (group, kept) in pending {
            // Whose transaction has ended, or is not known any more, would be unstable for ever.
            if !transaction.is_some_and(|transaction| transaction.groups.contains(group)) {
                continue;
            }
            let offsets = groups.entry(group.clone()).or_default();
            let kept = kept.values().flat_map(BTreeMap::values).cloned();
            kept.for_each(|kept| offsets.hold(*producer_id, kept.into()));
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
mod tests {
    use std::path::Path;

    use kafka_protocol::error::ResponseError;

    use super::*;
    use crate::batch::Sequenced;
    use crate::groups::{Absent, Command, Speaker};
    use crate::offsets::{Committed, PartitionOffset};
    use crate::partition::{Appended, Isolation, Membership};
    use crate::samples;

    struct Scene {
        core: Arc<Core>,
        faults: Arc<DiskFaults>,
    }

    impl Scene {
        async fn open(folder: &Path) -> Self {
            let faults = Arc::new(DiskFaults::default());
            let opened = open(Options::default(), DataOptions::new(folder), Arc::clone(&faults)).await;
            Self {
                core: opened.unwrap(),
                faults,
            }
        }

        /// With topic `orders` of one partition.
        async fn new(folder: &Path) -> Self {
            let scene = Self::open(folder).await;
            scene.create("orders").unwrap();
            scene
        }

        fn create(&self, topic: &str) -> Result<(), ResponseError> {
            let created = self.core.topics.create(topic, 1, TopicConfig::default(), false);
            created.map(drop).map_err(|refusal| refusal.error)
        }

        fn partition(&self) -> Arc<Partition> {
            self.core.topics.partition("orders", 0).unwrap()
        }

        /// Appends a batch of two records as number `number` of producer 7.
        fn append(&self, number: i32) -> Result<Appended, ResponseError> {
            let bytes = samples::batch(2, 0, Some(sequenced(number)));
            let header = BatchHeader::check(&bytes).unwrap();
            let appended = self.partition().append(&header, &bytes, Membership::Unknown);
            appended.unwrap().unwrap().map_err(|refusal| refusal.error)
        }

        async fn commit(&self, offset: i64) -> Result<(), ResponseError> {
            let speaker = Speaker {
                member_id: String::new(),
                instance_id: None,
                generation: -1,
            };
            let position = PartitionOffset {
                topic: "orders".to_owned(),
                partition: 0,
                committed: Committed {
                    offset,
                    leader_epoch: 0,
                    metadata: String::new(),
                },
            };
            let command = |answer| Command::Commit(speaker.clone(), vec![position.clone()], answer);
            self.core
                .groups
                .ask("readers", Absent::Create, command)
                .await?
                .unwrap()
        }

        async fn committed(&self) -> Option<i64> {
            let wanted = vec![("orders".to_owned(), 0)];
            let command = |answer| Command::Fetch(Some(wanted.clone()), answer);
            let found = self
                .core
                .groups
                .ask("readers", Absent::Leave, command)
                .await
                .unwrap()?;
            found[0].committed.as_ref().map(|committed| committed.offset)
        }

        /// Ends the broker as a stop does.
        async fn close(self) {
            self.core.stopping.cancel();
            self.core.tasks.close();
            self.core.tasks.wait().await;
            let storage = self.core.storage.clone().unwrap();
            tokio::task::spawn_blocking(move || storage.close())
                .await
                .unwrap();
        }
    }

    fn sequenced(number: i32) -> Sequenced {
        Sequenced {
            producer_id: 7,
            epoch: 0,
            first: number * 2,
            last: number * 2 + 1,
        }
    }

    #[tokio::test]
    async fn readers_see_a_record_when_it_is_synced() {
        let folder = tempfile::tempdir().unwrap();
        let scene = Scene::new(folder.path()).await;
        let partition = scene.partition();
        let reader = Arc::default();
        partition.register(&reader);
        scene.append(0).unwrap();
        // Whoever is woken by the flusher finds the records.
        reader.notified().await;
        assert_eq!(partition.bounds().end, 2);
        scene.close().await;
    }

    #[tokio::test]
    async fn what_a_full_disk_refuses_is_not_there_and_what_comes_later_is() {
        let folder = tempfile::tempdir().unwrap();
        let scene = Scene::new(folder.path()).await;
        scene.append(0).unwrap();
        scene.commit(1).await.unwrap();
        scene.faults.leave_room(20);
        assert_eq!(scene.append(1).unwrap_err(), ResponseError::KafkaStorageError);
        assert_eq!(scene.commit(2).await, Err(ResponseError::NotCoordinator));
        assert_eq!(scene.create("other"), Err(ResponseError::KafkaStorageError));
        let deleted = scene
            .core
            .topics
            .delete("orders")
            .map_err(|refusal| refusal.error);
        assert_eq!(deleted.unwrap_err(), ResponseError::KafkaStorageError);
        scene.core.settled_with_records().await.unwrap();
        assert_eq!(
            (scene.partition().bounds().end, scene.committed().await),
            (2, Some(1))
        );
        assert!(scene.core.topics.get("other").is_none());
        scene.faults.lift();
        assert_eq!(scene.append(1).unwrap().base_offset, 2);
        scene.commit(2).await.unwrap();
        scene.close().await;

        let scene = Scene::open(folder.path()).await;
        assert_eq!(
            (scene.partition().bounds().end, scene.committed().await),
            (4, Some(2))
        );
        assert!(scene.append(1).unwrap().duplicate, "the producer is known");
        scene.close().await;
    }

    #[tokio::test]
    async fn after_a_failed_sync_nothing_is_shown_or_taken_until_a_restart_has_looked() {
        let folder = tempfile::tempdir().unwrap();
        let scene = Scene::new(folder.path()).await;
        scene.append(0).unwrap();
        scene.core.settled_with_records().await.unwrap();
        scene.faults.fail_syncs();
        scene.append(1).unwrap();
        drop(scene.core.settled_with_records().await);
        scene.faults.lift();
        let partition = scene.partition();
        assert!(partition.failure().is_some());
        for number in [1, 2] {
            assert_eq!(
                scene.append(number).unwrap_err(),
                ResponseError::KafkaStorageError,
                "not even a repeat"
            );
        }
        let (bounds, read) = partition
            .read(2, Isolation::ReadUncommitted, 1_000, true)
            .unwrap();
        assert_eq!((bounds.end, read.unwrap().read.batches.len()), (2, 0));
        scene.close().await;

        let scene = Scene::open(folder.path()).await;
        assert_eq!(scene.partition().bounds().end, 4, "the file had it");
        scene.append(2).unwrap();
        scene.close().await;
    }

    #[tokio::test]
    async fn after_a_failed_sync_of_the_journal_its_changes_are_not_answered() {
        let folder = tempfile::tempdir().unwrap();
        let scene = Scene::new(folder.path()).await;
        scene.core.settled().await.unwrap();
        scene.faults.fail_syncs();
        scene.commit(1).await.unwrap();
        scene.core.settled().await.unwrap_err();
        scene.faults.lift();
        assert_eq!(scene.commit(2).await, Err(ResponseError::NotCoordinator));
        scene.close().await;
    }

    #[tokio::test]
    async fn a_transaction_that_nobody_knows_of_is_aborted() {
        let folder = tempfile::tempdir().unwrap();
        let scene = Scene::new(folder.path()).await;
        let mut bytes = samples::batch(2, 0, Some(sequenced(0)));
        bytes[22] |= 0x10;
        let checksum = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&checksum.to_be_bytes());
        let header = BatchHeader::check(&bytes).unwrap();
        let appended = scene.partition().append(&header, &bytes, Membership::Verified);
        appended.unwrap().unwrap().unwrap();
        scene.core.settled_with_records().await.unwrap();
        assert_eq!(scene.partition().bounds().stable, 0);
        scene.close().await;

        let scene = Scene::open(folder.path()).await;
        scene.core.settled_with_records().await.unwrap();
        let bounds = scene.partition().bounds();
        assert_eq!((bounds.stable, bounds.end), (3, 3), "two records and a marker");
        let (_, read) = scene
            .partition()
            .read(0, Isolation::ReadCommitted, 1_000, true)
            .unwrap();
        assert_eq!(read.unwrap().aborted.len(), 1);
        scene.close().await;
    }

    #[tokio::test]
    async fn a_start_on_an_empty_folder_is_quick() {
        let folder = tempfile::tempdir().unwrap();
        let begun = std::time::Instant::now();
        let scene = Scene::open(folder.path()).await;
        let took = begun.elapsed();
        assert!(took < std::time::Duration::from_secs(1), "{took:?}");
        scene.close().await;
    }
}
