//! Taking the place of files: what compaction does to a partition on disk.
//!
//! Everything up to now is replaced by one file, in three steps: the last file is ended (under the
//! lock), the replacement is written and synced (not under it), and it takes its place (under it).
//! A crash before the replacement is whole changes nothing; a crash after it is finished by the next
//! start, because the name of the replacement says what it replaces.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::error::WriteError;
use super::files::{Disk, remove_if_there};
use super::partition_files::{PartitionFiles, Segment, settle};
use super::segment_name::SegmentName;

impl PartitionFiles {
    /// Ends the last file and says what compaction may now replace: everything that is there. The
    /// partition takes more records meanwhile. `None` where there is nothing.
    pub(crate) fn begin_replacing(&mut self) -> Option<Replacing> {
        let base = self.segments.front()?.name.base();
        if base >= self.end || self.broken.is_some() {
            return None;
        }
        self.sealed = true;
        self.active = None;
        Some(Replacing {
            disk: self.config.disk.clone(),
            folder: self.folder.clone(),
            base,
            end: self.end,
        })
    }

    /// Puts the replacement in the place of the files that it replaces. Needs the lock; the slow part
    /// was done by [`Replacing::write`].
    pub(crate) fn finish_replacing(&mut self, replaced: &Replaced) -> Result<(), WriteError> {
        let Replaced { name, bytes, end, .. } = *replaced;
        let newer = self
            .segments
            .iter()
            .position(|segment| segment.name.base() >= end);
        let newer = self.segments.split_off(newer.unwrap_or(self.segments.len()));
        let names = self.segments.iter().map(|segment| segment.name);
        if let Err(error) = settle(&self.folder, &replaced.swap, name, names) {
            let reason = format!(
                "compaction could not take its place in `{}`: {error}",
                self.folder.display()
            );
            self.break_off(reason);
        }
        self.segments = VecDeque::from([Segment { name, end, bytes }]);
        self.segments.extend(newer);
        self.note_folder(&self.folder.clone());
        self.broken.clone().map_or(Ok(()), Err)
    }
}

/// The right to replace a range of files.
#[derive(Debug)]
pub(crate) struct Replacing {
    disk: Disk,
    folder: PathBuf,
    base: i64,
    end: i64,
}

/// A replacement that is on the disk and only has to take its place. A start finishes it where the
/// process ended before.
#[derive(Debug)]
pub(crate) struct Replaced {
    swap: PathBuf,
    name: SegmentName,
    bytes: u64,
    end: i64,
}

impl Replacing {
    /// The offsets that are replaced.
    #[cfg(test)]
    pub(super) fn range(&self) -> std::ops::Range<i64> {
        self.base..self.end
    }

    /// Writes and syncs the batches that stay. Slow: neither under a lock nor on a tokio worker.
    pub(crate) fn write(self, batches: impl IntoIterator<Item = Bytes>) -> io::Result<Replaced> {
        let new = self.folder.join(format!("{:020}.new", self.base));
        remove_if_there(&new)?;
        let written = self.write_file(&new, batches);
        if written.is_err() {
            // Of no use to anybody, and the next start would remove it too.
            drop(remove_if_there(&new));
        }
        let (checksum, bytes) = written?;
        let (base, end) = (self.base, self.end);
        let name = SegmentName::Compacted { base, end, checksum };
        let swap = self.folder.join(name.to_string()).with_extension("swap");
        std::fs::rename(&new, &swap)?;
        self.disk.sync_folder(&self.folder)?;
        Ok(Replaced {
            swap,
            name,
            bytes,
            end,
        })
    }

    fn write_file(&self, path: &Path, batches: impl IntoIterator<Item = Bytes>) -> io::Result<(u32, u64)> {
        let file = self.disk.create(path)?;
        let (mut checksum, mut bytes) = (0, 0);
        for batch in batches {
            file.append(&batch)?;
            checksum = crc32c::crc32c_append(checksum, &batch);
            bytes += batch.len() as u64;
        }
        file.sync()?;
        Ok((checksum, bytes))
    }
}
