//! One file of the journal: frames of `length`, `crc32c` (both u32, big endian) and JSON.
//!
//! The first frame is a snapshot of the state, and each one after it is an entry. A file whose snapshot
//! is not whole was never synced, so nothing in it was acknowledged.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::journal_state::{Entry, JournalState};

/// Length and checksum of a frame.
const HEAD_BYTES: usize = 8;
/// The longest frame: beyond it a length is damage. A snapshot of everything that the broker's bounds
/// allow is far below.
const MAX_FRAME_BYTES: usize = 1 << 30;

/// What a file holds up to its first frame that is not sound.
#[derive(Debug, PartialEq)]
pub(super) struct ReadFile {
    pub(super) state: JournalState,
    /// Bytes of the snapshot's frame.
    pub(super) snapshot_bytes: u64,
    pub(super) sound_bytes: u64,
    pub(super) file_bytes: u64,
    /// Why the reading ended before the end of the file.
    pub(super) damage: Option<Damage>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Damage {
    /// Nothing sound follows: the process or the machine ended while it wrote.
    Torn,
    /// The frame after it is sound.
    InTheMiddle,
}

/// What a frame says.
#[derive(Debug, PartialEq)]
enum Frame<'a> {
    Whole {
        content: &'a [u8],
        rest: &'a [u8],
    },
    /// The checksum does not fit, and the length leads to `rest`.
    Damaged {
        rest: &'a [u8],
    },
    /// There is not as much as the length says.
    Short,
}

/// Writes frames into one run of bytes.
pub(super) fn frames<T: Serialize>(contents: &[T]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for content in contents {
        let json = serde_json::to_vec(content).map_err(io::Error::other)?;
        let length = u32::try_from(json.len())
            .ok()
            .filter(|length| *length as usize <= MAX_FRAME_BYTES);
        let length = length.ok_or(io::ErrorKind::FileTooLarge)?;
        bytes.extend(length.to_be_bytes());
        bytes.extend(crc32c::crc32c(&json).to_be_bytes());
        bytes.extend(json);
    }
    Ok(bytes)
}

/// Reads a file. `None` where its snapshot is not whole.
pub(super) fn read(path: &Path) -> io::Result<Option<ReadFile>> {
    replay(&std::fs::read(path)?)
}

fn replay(bytes: &[u8]) -> io::Result<Option<ReadFile>> {
    let Frame::Whole { content, mut rest } = frame(bytes) else {
        return Ok(None);
    };
    let mut file = ReadFile {
        state: parse(content)?,
        snapshot_bytes: (bytes.len() - rest.len()) as u64,
        sound_bytes: 0,
        file_bytes: bytes.len() as u64,
        damage: None,
    };
    while !rest.is_empty() {
        match frame(rest) {
            Frame::Whole { content, rest: after } => {
                file.state.apply(parse::<Entry>(content)?);
                rest = after;
                continue;
            }
            Frame::Damaged { rest: after } if matches!(frame(after), Frame::Whole { .. }) => {
                file.damage = Some(Damage::InTheMiddle);
            }
            Frame::Damaged { .. } | Frame::Short => file.damage = Some(Damage::Torn),
        }
        break;
    }
    file.sound_bytes = (bytes.len() - rest.len()) as u64;
    Ok(Some(file))
}

fn frame(bytes: &[u8]) -> Frame<'_> {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD_BYTES>() else {
        return Frame::Short;
    };
    let [a, b, c, d, checksum @ ..] = *head;
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if length == 0 || length > MAX_FRAME_BYTES {
        return Frame::Short;
    }
    let Some((content, rest)) = rest.split_at_checked(length) else {
        return Frame::Short;
    };
    if crc32c::crc32c(content) == u32::from_be_bytes(checksum) {
        Frame::Whole { content, rest }
    } else {
        Frame::Damaged { rest }
    }
}

/// A sound frame that is not understood was written by a newer version, and going on without it would
/// be to forget what it says.
fn parse<'a, T: Deserialize<'a>>(content: &'a [u8]) -> io::Result<T> {
    serde_json::from_slice(content).map_err(|error| {
        let message =
            format!("a frame of the journal is not understood, perhaps a newer version wrote it: {error}");
        io::Error::new(io::ErrorKind::InvalidData, message)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entries(count: i64) -> Vec<Entry> {
        (1..=count)
            .map(|below| Entry::ProducerIdsTaken { below })
            .collect()
    }

    fn file(count: i64) -> Vec<u8> {
        let mut bytes = frames(&[JournalState::default()]).unwrap();
        bytes.extend(frames(&entries(count)).unwrap());
        bytes
    }

    proptest! {
        /// Each entry raises the number by one, so the number tells how many were read.
        #[test]
        fn a_torn_file_gives_what_was_whole(count in 0..20_i64, cut in 0.0..1.0_f64) {
            let whole = file(count);
            let cut = (cut * whole.len() as f64) as usize;
            let expected = (0..=count).rev().find(|entries| file(*entries).len() <= cut);
            let read = replay(&whole[..cut]).unwrap();
            prop_assert_eq!(read.as_ref().map(|read| read.state.producer_ids_below), expected);
            if let Some(read) = read {
                prop_assert_eq!(read.sound_bytes as usize, file(read.state.producer_ids_below).len());
                prop_assert_eq!(read.damage.is_some(), read.sound_bytes != read.file_bytes);
            }
        }

        #[test]
        fn a_damaged_byte_gives_a_prefix_and_never_another_state(count in 0..20_i64, at in any::<prop::sample::Index>(), bit in 0..8_u32) {
            let mut bytes = file(count);
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            if let Some(read) = replay(&bytes).unwrap() {
                prop_assert!(read.state.producer_ids_below < count);
                prop_assert!(read.sound_bytes as usize <= at);
                prop_assert!(read.damage.is_some());
            }
        }
    }

    #[test]
    fn damage_before_a_sound_frame_is_not_a_torn_tail() {
        let mut bytes = file(3);
        let at = file(1).len() + HEAD_BYTES + 1;
        bytes[at] ^= 1;
        let read = replay(&bytes).unwrap().unwrap();
        assert_eq!(
            (read.state.producer_ids_below, read.damage),
            (1, Some(Damage::InTheMiddle))
        );
        bytes.truncate(file(2).len());
        assert_eq!(replay(&bytes).unwrap().unwrap().damage, Some(Damage::Torn));
    }

    #[test]
    fn a_sound_frame_that_is_not_understood_is_an_error() {
        let mut bytes = file(1);
        bytes.extend(frames(&["from the future"]).unwrap());
        assert!(replay(&bytes).unwrap_err().to_string().contains("newer version"));
    }
}
