//! The codecs of record batches: what is behind a batch's header, unpacked and packed again.
//!
//! What a client packed is not trusted: unpacking is a stream with a bound, so that a batch that
//! unpacks to gigabytes costs time and memory in proportion to the bound only.

use std::borrow::Cow;
use std::io::{self, Read, Write};

use bytes::Buf;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

use crate::batch::Compression;

/// Unpacked bytes of one batch that are looked at.
const MAX_UNPACKED_BYTES: u64 = 256 * 1024 * 1024;
/// The header of the framing that Java's snappy streams have: magic, version, compatible version.
const XERIAL_MAGIC: &[u8] = b"\x82SNAPPY\0";
const XERIAL_HEADER_BYTES: usize = 16;

/// The records of a batch as a stream.
pub(crate) fn unpacked(compression: Compression, bytes: &[u8]) -> io::Result<Box<dyn Read + '_>> {
    let reader: Box<dyn Read + '_> = match compression {
        Compression::None => return Ok(Box::new(bytes)),
        Compression::Gzip => Box::new(GzDecoder::new(bytes)),
        Compression::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(bytes)),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(bytes)?),
        Compression::Snappy => Box::new(io::Cursor::new(unsnappy(bytes)?)),
    };
    Ok(Box::new(io::BufReader::new(reader.take(MAX_UNPACKED_BYTES))))
}

/// The records of a batch in one piece of at most `limit_bytes`.
pub(crate) fn unpacked_whole(
    compression: Compression,
    bytes: &[u8],
    limit_bytes: u64,
) -> io::Result<Cow<'_, [u8]>> {
    if compression == Compression::None {
        return Ok(Cow::Borrowed(bytes));
    }
    let mut whole = Vec::new();
    unpacked(compression, bytes)?
        .take(limit_bytes + 1)
        .read_to_end(&mut whole)?;
    if whole.len() as u64 > limit_bytes {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(Cow::Owned(whole))
}

/// Records as they stand in a batch. Snappy comes out bare, which every client reads.
pub(crate) fn packed(compression: Compression, records: &[u8]) -> io::Result<Cow<'_, [u8]>> {
    let packed = match compression {
        Compression::None => return Ok(Cow::Borrowed(records)),
        Compression::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(records)?;
            encoder.finish()?
        }
        Compression::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(records)?;
            encoder.finish().map_err(io::Error::other)?
        }
        Compression::Zstd => zstd::stream::encode_all(records, zstd::DEFAULT_COMPRESSION_LEVEL)?,
        Compression::Snappy => snap::raw::Encoder::new()
            .compress_vec(records)
            .map_err(io::Error::other)?,
    };
    Ok(Cow::Owned(packed))
}

/// Snappy comes bare (librdkafka) or as blocks in the framing of Java's library.
fn unsnappy(bytes: &[u8]) -> io::Result<Vec<u8>> {
    if !bytes.starts_with(XERIAL_MAGIC) {
        let mut out = Vec::new();
        unsnappy_block(bytes, &mut out)?;
        return Ok(out);
    }
    let mut rest = bytes.get(XERIAL_HEADER_BYTES..).unwrap_or_default();
    let mut out = Vec::new();
    while !rest.is_empty() {
        let length = rest.try_get_u32().map_err(|_| io::ErrorKind::UnexpectedEof)? as usize;
        let block = rest.get(..length).ok_or(io::ErrorKind::UnexpectedEof)?;
        unsnappy_block(block, &mut out)?;
        rest.advance(length);
    }
    Ok(out)
}

fn unsnappy_block(block: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let length = snap::raw::decompress_len(block).map_err(io::Error::other)?;
    if out.len() as u64 + length as u64 > MAX_UNPACKED_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    out.extend(
        snap::raw::Decoder::new()
            .decompress_vec(block)
            .map_err(io::Error::other)?,
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Compression; 5] = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];

    #[test]
    fn what_is_packed_comes_back_and_not_beyond_its_bound() {
        let records = b"orders ".repeat(1_000);
        for compression in ALL {
            let bytes = packed(compression, &records).unwrap();
            let whole = unpacked_whole(compression, &bytes, 7_000).unwrap();
            assert_eq!(whole, records, "{compression:?}");
            if compression != Compression::None {
                assert!(bytes.len() < 1_000, "{compression:?}: {}", bytes.len());
                assert!(
                    unpacked_whole(compression, &bytes, 6_999).is_err(),
                    "{compression:?}"
                );
            }
        }
    }

    #[test]
    fn damaged_bytes_are_an_error() {
        for compression in &ALL[1..] {
            assert!(
                unpacked_whole(*compression, b"these are not packed", 1_000).is_err(),
                "{compression:?}"
            );
        }
    }
}
