//! Reading one file of record batches, from its beginning to the last batch that is sound.
//!
//! A batch is taken only when it is whole, its checksum fits, and its offset is the one that must
//! come here; the offset stands outside of the checksum, so the order is what vouches for it. The
//! walk ends at the first batch that fails; what that means is for the caller to decide.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use bytes::{Buf, Bytes, BytesMut};

use crate::batch::{Extent, HEADER_BYTES, PREFIX_BYTES};

/// One system call fetches this much of the file.
const READ_BUFFER_BYTES: usize = 256 * 1024;

/// Which offset a batch may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// The one after the batch before.
    Dense,
    /// That one or a later one: compaction leaves holes.
    WithHoles,
}

/// What a walk through a file found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scanned {
    /// The offset after the last sound batch.
    pub(crate) next_offset: i64,
    /// Bytes of all sound batches.
    pub(crate) sound_bytes: u64,
    /// Bytes of the whole file.
    pub(crate) file_bytes: u64,
    /// The checksum of the sound bytes.
    pub(crate) checksum: u32,
    /// Why the walk ended before the end of the file.
    pub(crate) damage: Option<String>,
}

/// Walks through the batches of a file whose first offset is `base_offset` (or more, with holes).
pub(crate) fn scan(
    path: &Path,
    base_offset: i64,
    order: Order,
    mut visit: impl FnMut(Extent, Bytes),
) -> io::Result<Scanned> {
    let file = File::open(path)?;
    let file_bytes = file.metadata()?.len();
    let mut reader = BufReader::with_capacity(READ_BUFFER_BYTES, file);
    let mut scanned = Scanned {
        next_offset: base_offset,
        sound_bytes: 0,
        file_bytes,
        checksum: 0,
        damage: None,
    };
    while scanned.sound_bytes < file_bytes {
        let left = file_bytes - scanned.sound_bytes;
        match next_batch(&mut reader, left)? {
            Err(reason) => scanned.damage = Some(reason),
            Ok((extent, _)) if !fits(order, scanned.next_offset, extent.base_offset) => {
                let reason = format!(
                    "the batch says offset {}, and {} comes here",
                    extent.base_offset, scanned.next_offset
                );
                scanned.damage = Some(reason);
            }
            Ok((extent, bytes)) => {
                scanned.next_offset = extent.last_offset.saturating_add(1);
                scanned.sound_bytes += bytes.len() as u64;
                scanned.checksum = crc32c::crc32c_append(scanned.checksum, &bytes);
                visit(extent, bytes);
            }
        }
        if scanned.damage.is_some() {
            break;
        }
    }
    Ok(scanned)
}

/// Whether a sound batch of a later offset stands anywhere behind `position`. Then what is there is no
/// torn end: records that were acknowledged lie beyond it.
pub(crate) fn is_followed_by_a_batch(path: &Path, position: u64, next_offset: i64) -> io::Result<bool> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(position))?;
    let mut rest = Vec::new();
    file.read_to_end(&mut rest)?;
    // The batch at the position itself is known to be damaged.
    let mut candidates = (1..rest.len().saturating_sub(HEADER_BYTES)).filter_map(|at| rest.get(at..));
    Ok(candidates.any(|bytes| is_batch(bytes, next_offset)))
}

/// Whether the bytes begin with a sound batch of this offset or a later one.
fn is_batch(bytes: &[u8], next_offset: i64) -> bool {
    let mut fields = bytes;
    let (Ok(base_offset), Ok(length)) = (fields.try_get_i64(), fields.try_get_i32()) else {
        return false;
    };
    let whole = usize::try_from(length).map(|length| length.saturating_add(PREFIX_BYTES));
    let batch = whole.ok().and_then(|whole| bytes.get(..whole));
    base_offset >= next_offset && batch.is_some_and(|batch| Extent::of_stored(batch).is_ok())
}

fn fits(order: Order, expected: i64, found: i64) -> bool {
    match order {
        Order::Dense => found == expected,
        Order::WithHoles => found >= expected,
    }
}

/// The next batch of at most `left` bytes, or what is wrong with it.
fn next_batch(reader: &mut impl Read, left: u64) -> io::Result<Result<(Extent, Bytes), String>> {
    let mut prefix = [0; PREFIX_BYTES];
    if left < HEADER_BYTES as u64 {
        return Ok(Err(format!("{left} bytes are less than the header of a batch")));
    }
    reader.read_exact(&mut prefix)?;
    let [.., a, b, c, d] = prefix;
    let length = i32::from_be_bytes([a, b, c, d]);
    let Some(whole) = u64::try_from(length)
        .ok()
        .map(|length| length + PREFIX_BYTES as u64)
    else {
        return Ok(Err(format!("batch length `{length}` is no length")));
    };
    if whole < HEADER_BYTES as u64 || whole > left {
        return Ok(Err(format!(
            "a batch of {whole} bytes where {left} bytes are left"
        )));
    }
    let mut bytes = BytesMut::zeroed(usize::try_from(whole).map_err(io::Error::other)?);
    let (head, body) = bytes.split_at_mut(PREFIX_BYTES);
    head.copy_from_slice(&prefix);
    reader.read_exact(body)?;
    Ok(Extent::of_stored(bytes.chunk()).map(|extent| (extent, bytes.freeze())))
}
