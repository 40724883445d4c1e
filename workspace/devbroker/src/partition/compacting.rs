//! Compaction of a partition: of its log, and of its files where there is a data folder.
//!
//! The work is done on handles and outside of the lock. If the log loses batches at its front
//! meanwhile, it was for nothing, and the next round does it again. The files are replaced before the
//! log is, and by batches that say the same: a start may find either.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::Partition;
use crate::compaction::{self, Compacted, Pass};
use crate::log::StoredBatch;
use crate::storage::{Flushable, PartitionFiles, Replaced};
use crate::topic_config::CompactionSettings;

/// Keys that are told apart in one compaction pass: about 30 MiB of memory while it lasts.
const MAX_COMPACTED_KEYS: usize = 400_000;

impl Partition {
    /// One compaction pass, if enough is new. Blocks where there is a data folder.
    pub(crate) fn compact(self: &Arc<Self>, settings: &CompactionSettings, now_ms: i64) {
        let Some((batches, pass)) = self.compactable(settings, now_ms) else {
            return;
        };
        let compacted = compaction::compact(&batches, &pass);
        let former = batches.get(..compacted.considered).unwrap_or_default();
        let bytes = |batches: &[StoredBatch]| batches.iter().map(|batch| batch.bytes.len() as u64).sum();
        let (bytes_before, bytes_after): (u64, u64) = (bytes(former), bytes(&compacted.batches));
        let records = compacted.removed_records;
        let files = match self.write_replacement(former, &compacted) {
            Ok(files) => files,
            Err(error) => {
                tracing::warn!(
                    topic = self.topic(),
                    partition = self.index,
                    %error,
                    "compaction can not write to the data folder; the log is as it was, and is tried again"
                );
                return;
            }
        };
        if self.replace(former, compacted, files.as_ref()) {
            self.retention.refund(bytes_before);
            self.retention.charge(bytes_after);
            self.retention.count_compacted(records);
            tracing::info!(
                topic = self.topic(),
                partition = self.index,
                records,
                bytes_before,
                bytes_after,
                "compaction removed records"
            );
        }
    }

    fn compactable(&self, settings: &CompactionSettings, now_ms: i64) -> Option<(Vec<StoredBatch>, Pass)> {
        let state = self.state();
        if state.failure().is_some() {
            return None;
        }
        let (batches, clean_until) = (state.log.batches(), state.clean_until);
        let stable = state.bounds().stable;
        let limit = compaction::limit(batches, stable, now_ms, settings.min_lag_ms);
        if !compaction::is_dirty(batches, clean_until, limit, settings.min_dirty_ratio) {
            return None;
        }
        let pass = Pass {
            clean_until,
            limit,
            now_ms,
            delete_retention_ms: settings.delete_retention_ms,
            max_keys: MAX_COMPACTED_KEYS,
        };
        Some((batches.iter().cloned().collect(), pass))
    }

    /// Writes the file that stands for all files of now: what compaction left, and what it did not
    /// look at. `None` where there is nothing to write, or the log has changed at its front.
    fn write_replacement(
        &self,
        former: &[StoredBatch],
        compacted: &Compacted,
    ) -> io::Result<Option<Replaced>> {
        if compacted.changes_nothing() {
            return Ok(None);
        }
        let mut state = self.state();
        if !state.log.begins_with(former) {
            return Ok(None);
        }
        let files = state.files.as_mut();
        let Some(replacing) = files.and_then(PartitionFiles::begin_replacing) else {
            return Ok(None);
        };
        let newer = state.log.batches().iter().skip(former.len());
        let newer: Vec<Bytes> = newer.map(|batch| batch.bytes.clone()).collect();
        drop(state);
        let kept = compacted.batches.iter().map(|batch| batch.bytes.clone());
        replacing.write(kept.chain(newer)).map(Some)
    }

    /// The one place where batches that stand in the log are replaced. True where that was done: there
    /// was something to replace, and it is still what the log begins with.
    fn replace(
        self: &Arc<Self>,
        former: &[StoredBatch],
        compacted: Compacted,
        files: Option<&Replaced>,
    ) -> bool {
        let mut state = self.state();
        if state.deleted {
            return false;
        }
        if compacted.changes_nothing() {
            state.clean_until = compacted.clean_until;
            return false;
        }
        if let Some((replaced, of_partition)) = files.zip(state.files.as_mut()) {
            let finished = of_partition.finish_replacing(replaced);
            if let Some(storage) = &self.storage {
                // The names in the folder are to be synced.
                storage.dirty(Arc::clone(self) as Arc<dyn Flushable>);
            }
            if finished.is_err() {
                return false;
            }
        }
        let replaced = state.log.replace(former, compacted.batches);
        if replaced {
            state.clean_until = compacted.clean_until;
            state.transactions.forget_markers(&compacted.removed_markers);
        }
        replaced
    }
}
