//! Opening a file, whatever it is packed in.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The first bytes of a zstd frame (RFC 8878, section 3.1.1).
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// An open input: its plain bytes, and how far the reading is in the bytes of the file itself.
pub(crate) struct Input {
    /// The unpacked bytes.
    pub(crate) bytes: Box<dyn Read + Send>,
    /// Bytes of the file that were read so far.
    pub(crate) read: Arc<AtomicU64>,
    /// Bytes of the whole file; unknown for standard input.
    pub(crate) total: Option<u64>,
}

/// Opens `path`, or standard input for `-`. Zstd is recognised by its first bytes, not by the name.
pub(crate) fn open(path: &Path) -> io::Result<Input> {
    if path.as_os_str() == "-" {
        return unpack(io::stdin(), None);
    }
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::Error::other("is a folder, must be a file"));
    }
    let total = metadata.is_file().then_some(metadata.len());
    unpack(file, total)
}

pub(crate) fn unpack(file: impl Read + Send + 'static, total: Option<u64>) -> io::Result<Input> {
    let read = Arc::new(AtomicU64::new(0));
    let mut counted = Counted {
        inner: file,
        read: Arc::clone(&read),
    };
    let mut magic = Vec::with_capacity(ZSTD_MAGIC.len());
    counted
        .by_ref()
        .take(ZSTD_MAGIC.len() as u64)
        .read_to_end(&mut magic)?;
    let packed = magic == ZSTD_MAGIC;
    let whole = Cursor::new(magic).chain(counted);
    let bytes: Box<dyn Read + Send> = if packed {
        Box::new(zstd::Decoder::with_buffer(BufReader::new(whole))?)
    } else {
        Box::new(whole)
    };
    Ok(Input { bytes, read, total })
}

struct Counted<R> {
    inner: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: Vec<u8>) -> String {
        let mut text = String::new();
        unpack(Cursor::new(bytes), None)
            .unwrap()
            .bytes
            .read_to_string(&mut text)
            .unwrap();
        text
    }

    #[test]
    fn zstd_is_known_by_its_first_bytes_and_frames_may_follow_each_other() {
        let mut packed = zstd::encode_all(&b"one\n"[..], 1).unwrap();
        packed.extend(zstd::encode_all(&b"two\n"[..], 1).unwrap());
        assert_eq!(text(packed), "one\ntwo\n");
    }

    #[test]
    fn plain_text_stays_as_it_is_however_short() {
        for plain in ["", "a", "abc", "(", "plain text\n"] {
            assert_eq!(text(plain.as_bytes().to_vec()), plain);
        }
    }

    #[test]
    fn a_cut_zstd_file_is_an_error_and_not_a_short_file() {
        let mut packed = zstd::encode_all(&[b'x'; 100_000][..], 1).unwrap();
        packed.truncate(packed.len() - 4);
        let mut out = Vec::new();
        assert!(
            unpack(Cursor::new(packed), None)
                .unwrap()
                .bytes
                .read_to_end(&mut out)
                .is_err()
        );
    }
}
