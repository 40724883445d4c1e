//! What a start makes of the files of one partition.
//!
//! First it finishes what a crash interrupted: half-written files go, a finished compaction takes its
//! place. Then it walks through every batch. The file that was written to last may end in a torn
//! batch, which no one was told is safe; it is cut off with one WARN line. Damage anywhere else is an
//! error, for to go on would be to lose records in silence.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::error::StorageError;
use super::files::{Disk, remove_if_there};
use super::partition_files::{FilesConfig, PartitionFiles, Segment, settle};
use super::segment::{Order, Scanned, is_followed_by_a_batch, scan};
use super::segment_name::{FileKind, SegmentName};
use crate::batch::Extent;

/// What the owner can do about damage that can not be cut off.
const REMEDY: &str = "restore the file from a copy, or remove it and every later file of its folder and with them \
                      the records in them, or start with an empty data folder";

impl PartitionFiles {
    /// Opens the files of a partition, and hands out every batch in the order of offsets. Where the
    /// files end before `log_start` (records deleted, then a power loss) the log begins anew there.
    pub(crate) fn open(
        config: FilesConfig,
        folder: PathBuf,
        log_start: i64,
        mut visit: impl FnMut(Extent, Bytes),
    ) -> Result<Self, StorageError> {
        let names = tidy(&folder)?;
        let last = last_with_records(&folder, &names)?;
        let mut segments: VecDeque<Segment> = VecDeque::new();
        for (index, name) in names.into_iter().enumerate() {
            let path = folder.join(name.to_string());
            if last.is_none_or(|last| index > last) {
                remove_if_there(&path).map_err(StorageError::io("remove", &path))?;
                continue;
            }
            if let Some(before) = segments.back()
                && before.end != name.base()
            {
                let reason = format!("the file before it ends at offset {}", before.end);
                return Err(damaged(&path, 0, reason));
            }
            let segment = read(&config.disk, &path, name, last == Some(index), &mut visit)?;
            segments.push_back(segment);
        }
        let mut files = Self::new(config, folder, log_start);
        if let Some(end) = segments.back().map(|segment| segment.end) {
            files.segments = segments;
            files.restart_at(end, log_start)?;
            files.sync_last()?;
        }
        Ok(files)
    }

    fn restart_at(&mut self, end: i64, log_start: i64) -> Result<(), StorageError> {
        self.end = end.max(log_start);
        if end < log_start {
            for segment in std::mem::take(&mut self.segments) {
                let path = self.folder.join(segment.name.to_string());
                remove_if_there(&path).map_err(StorageError::io("remove", &path))?;
            }
        }
        Ok(())
    }

    /// What a process wrote before it was killed is in its file, and perhaps not on the disk yet. From
    /// now on it counts as kept, so it has to be.
    fn sync_last(&self) -> Result<(), StorageError> {
        let Some(last) = self.segments.back().filter(|_| self.config.synced) else {
            return Ok(());
        };
        let path = self.folder.join(last.name.to_string());
        let disk = &self.config.disk;
        let synced = disk.open(&path).and_then(|file| file.sync());
        synced
            .and_then(|()| disk.sync_folder(&self.folder))
            .map_err(StorageError::io("sync", &path))
    }
}

/// Finishes what a crash interrupted, and returns the files with records in the order of offsets.
fn tidy(folder: &Path) -> Result<Vec<SegmentName>, StorageError> {
    let (mut names, mut swaps) = (Vec::new(), Vec::new());
    for (file, path) in entries(folder)? {
        match file {
            FileKind::Segment(name) => names.push(name),
            FileKind::Swap { base, end, checksum } => {
                swaps.push((path, SegmentName::Compacted { base, end, checksum }, base..end));
            }
            FileKind::Unfinished => {
                remove_if_there(&path).map_err(StorageError::io("remove", &path))?;
            }
            FileKind::Foreign => {
                tracing::warn!(file = %path.display(), "a file that devbroker does not know is left alone");
            }
        }
    }
    for (swap, name, range) in swaps {
        let replaced = names.iter().copied().filter(|old| range.contains(&old.base()));
        settle(folder, &swap, name, replaced).map_err(StorageError::io("finish the compaction in", &swap))?;
        names.retain(|old| !range.contains(&old.base()));
        names.push(name);
    }
    names.sort_unstable_by_key(SegmentName::base);
    Ok(names)
}

fn entries(folder: &Path) -> Result<Vec<(FileKind, PathBuf)>, StorageError> {
    let listed = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.map_err(StorageError::io("list", folder))?,
    };
    let mut found = Vec::new();
    for entry in listed {
        let entry = entry.map_err(StorageError::io("list", folder))?;
        let name = entry.file_name();
        found.push((
            name.to_str().map_or(FileKind::Foreign, FileKind::of),
            entry.path(),
        ));
    }
    Ok(found)
}

/// The file that was written to last. Empty ones after it were begun and never used.
fn last_with_records(folder: &Path, names: &[SegmentName]) -> Result<Option<usize>, StorageError> {
    for (index, name) in names.iter().enumerate().rev() {
        let path = folder.join(name.to_string());
        let length = std::fs::metadata(&path)
            .map_err(StorageError::io("look at", &path))?
            .len();
        // A compacted file without records still says where the log ends.
        if length > 0 || matches!(name, SegmentName::Compacted { .. }) {
            return Ok(Some(index));
        }
    }
    Ok(None)
}

fn read(
    disk: &Disk,
    path: &Path,
    name: SegmentName,
    is_last: bool,
    visit: &mut impl FnMut(Extent, Bytes),
) -> Result<Segment, StorageError> {
    let order = match name {
        SegmentName::Dense { .. } => Order::Dense,
        SegmentName::Compacted { .. } => Order::WithHoles,
    };
    let scanned = scan(path, name.base(), order, visit).map_err(StorageError::io("read", path))?;
    let end = match name {
        SegmentName::Compacted { end, checksum, .. } => {
            if let Some(reason) = scanned.damage {
                return Err(damaged(path, scanned.sound_bytes, reason));
            }
            if checksum != scanned.checksum || end < scanned.next_offset {
                let reason = "the content is not what the name of the file vouches for".to_owned();
                return Err(damaged(path, 0, reason));
            }
            end
        }
        SegmentName::Dense { .. } => {
            cut_tail(disk, path, &scanned, is_last)?;
            scanned.next_offset
        }
    };
    Ok(Segment {
        name,
        end,
        bytes: scanned.sound_bytes,
    })
}

fn cut_tail(disk: &Disk, path: &Path, scanned: &Scanned, is_last: bool) -> Result<(), StorageError> {
    let Some(reason) = &scanned.damage else {
        return Ok(());
    };
    let followed = is_followed_by_a_batch(path, scanned.sound_bytes, scanned.next_offset);
    if !is_last || followed.map_err(StorageError::io("read", path))? {
        return Err(damaged(path, scanned.sound_bytes, reason.clone()));
    }
    tracing::warn!(
        file = %path.display(),
        position = scanned.sound_bytes,
        cut_bytes = scanned.file_bytes - scanned.sound_bytes,
        next_offset = scanned.next_offset,
        reason,
        "the end of the log is torn and was cut off at the last sound batch"
    );
    let cut = disk.open(path).and_then(|file| {
        file.truncate(scanned.sound_bytes)?;
        file.sync()
    });
    cut.map_err(StorageError::io("cut the torn end of", path))
}

fn damaged(path: &Path, position: u64, reason: String) -> StorageError {
    StorageError::Damaged {
        file: path.to_owned(),
        position,
        reason,
        remedy: REMEDY,
    }
}
