//! A partition and its data folder: taking up what an earlier process kept, and syncing.

use bytes::Bytes;

use super::Partition;
use crate::batch::{self, BatchHeader, Extent};
use crate::log::PartitionLog;
use crate::storage::{Entry, Flushable, PartitionFiles, WriteError};

impl Partition {
    /// Takes the batches that the files have, from `start` on; whoever calls is the only one who knows
    /// of the partition. The order of appends over the broker is told by the times of the records.
    pub(crate) fn restore(&self, start: i64, end: i64, batches: Vec<(Extent, BatchHeader, Bytes)>) {
        let mut state = self.state();
        let first = batches.first().map_or(end, |(extent, ..)| extent.base_offset);
        // Compaction may have taken what the log began with, and deletion the beginning of a batch.
        state.log = PartitionLog::beginning_at(first.min(start));
        let mut appended = 0;
        for (extent, header, bytes) in batches {
            appended = appended.max(u64::try_from(header.max_timestamp).unwrap_or(0));
            self.retention.restore(appended, bytes.len() as u64);
            let ends = header.control.then(|| batch::outcome(&bytes)).flatten();
            state.log.restore(extent, &header, bytes, appended);
            state.account(&header, ends, extent.base_offset, appended);
        }
        state.log.end_at(end);
        if let Ok(dropped) = state.log.delete_before(start) {
            self.retention.refund(dropped.bytes);
        }
        state.synced_end = state.synced_end.map(|_| end);
    }

    /// The producers that have a transaction open here, each with its epoch.
    pub(crate) fn open_transactions(&self) -> Vec<(i64, i16)> {
        self.state().producers.open()
    }

    /// Why nothing more can be kept, and nothing that was not synced is. A deleted partition has failed
    /// nobody: what was to be kept of it is gone because somebody wanted it so.
    pub(crate) fn failure(&self) -> Option<WriteError> {
        let state = self.state();
        if state.deleted { None } else { state.failure() }
    }

    /// Retention dropped records: the data folder is told, and files that have none left go.
    pub(crate) fn start_moved(&self) {
        let mut state = self.state();
        if state.deleted {
            return;
        }
        let start = state.log.start();
        // What can not be told is dropped again after the next start.
        if let Err(error) = self.keep_start(start) {
            tracing::debug!(topic = &*self.topic, partition = self.index, %error, "the start of a log was not kept");
        }
        if let Some(files) = &mut state.files {
            files.drop_before(start);
        }
    }

    /// The journal knows the partition by its topic's name, so whoever calls has seen, under the lock,
    /// that the topic was not deleted: the name may be another topic's by then.
    pub(super) fn keep_start(&self, offset: i64) -> Result<(), WriteError> {
        let Some(storage) = &self.storage else {
            return Ok(());
        };
        storage.record(vec![Entry::LogStartMoved {
            topic: self.topic.to_string(),
            partition: self.index,
            offset,
        }])
    }
}

impl Flushable for Partition {
    fn flush(&self) {
        let Some(storage) = &self.storage else {
            return;
        };
        let (unsynced, end) = {
            let mut state = self.state();
            let unsynced = state.files.as_mut().map(PartitionFiles::take_unsynced);
            (unsynced.unwrap_or_default(), state.log.end())
        };
        let synced = unsynced.sync(storage.disk());
        let mut state = self.state();
        match synced {
            _ if state.deleted => {}
            Ok(()) if state.synced_end.is_some() => {
                state.synced_end = Some(end);
                state.wake_readers();
            }
            Ok(()) => {}
            Err(error) => {
                if let Some(files) = &mut state.files {
                    files.break_off(format!("what was written can not be synced: {error}"));
                }
            }
        }
    }
}
