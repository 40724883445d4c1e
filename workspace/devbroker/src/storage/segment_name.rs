//! How the files of a partition are named.
//!
//! `<base offset>.log` is appended to and has no holes. `<base offset>-<end offset>-<checksum>.compacted`
//! was written whole by compaction, may have holes, and its name vouches for its content. The same
//! with `.swap` is a compacted file that takes the place of every file in its range, and with `.new`
//! anything that was not finished. Offsets have 20 digits, so names sort like offsets.

use std::fmt;

/// The name of a file that holds records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SegmentName {
    Dense { base: i64 },
    Compacted { base: i64, end: i64, checksum: u32 },
}

/// What a file in a partition's folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    Segment(SegmentName),
    /// A finished compaction that has not taken its place yet.
    Swap {
        base: i64,
        end: i64,
        checksum: u32,
    },
    /// What a crash left.
    Unfinished,
    /// Not ours.
    Foreign,
}

impl SegmentName {
    pub(crate) fn base(&self) -> i64 {
        match self {
            Self::Dense { base } | Self::Compacted { base, .. } => *base,
        }
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dense { base } => write!(f, "{base:020}.log"),
            Self::Compacted { base, end, checksum } => {
                write!(f, "{base:020}-{end:020}-{checksum:08x}.compacted")
            }
        }
    }
}

impl FileKind {
    pub(crate) fn of(name: &str) -> Self {
        let Some((stem, extension)) = name.rsplit_once('.') else {
            return Self::Foreign;
        };
        match extension {
            "new" => Self::Unfinished,
            "log" => offset(stem).map_or(Self::Foreign, |base| Self::Segment(SegmentName::Dense { base })),
            "compacted" => range(stem).map_or(Self::Foreign, |(base, end, checksum)| {
                Self::Segment(SegmentName::Compacted { base, end, checksum })
            }),
            "swap" => range(stem).map_or(Self::Foreign, |(base, end, checksum)| Self::Swap {
                base,
                end,
                checksum,
            }),
            _ => Self::Foreign,
        }
    }
}

fn offset(text: &str) -> Option<i64> {
    let digits = text.len() == 20 && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

fn range(stem: &str) -> Option<(i64, i64, u32)> {
    let mut parts = stem.splitn(3, '-');
    let base = offset(parts.next()?)?;
    let end = offset(parts.next()?)?;
    let checksum = parts.next().filter(|text| text.len() == 8)?;
    Some((base, end, u32::from_str_radix(checksum, 16).ok()?)).filter(|_| base < end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_was_written() {
        let dense = SegmentName::Dense { base: 4_711 };
        assert_eq!(dense.to_string(), "00000000000000004711.log");
        let compacted = SegmentName::Compacted {
            base: 0,
            end: i64::MAX,
            checksum: 0xab,
        };
        for name in [dense, compacted] {
            assert_eq!(FileKind::of(&name.to_string()), FileKind::Segment(name));
        }
        let swap = "00000000000000000001-00000000000000000005-0000000a.swap";
        let (base, end, checksum) = (1, 5, 10);
        assert_eq!(FileKind::of(swap), FileKind::Swap { base, end, checksum });
        assert_eq!(FileKind::of("00000000000000000001.new"), FileKind::Unfinished);
    }

    #[test]
    fn what_is_not_ours_is_foreign() {
        for name in [
            "notes.txt",
            "1.log",
            "0000000000000000000x.log",
            "log",
            ".log",
            "99999999999999999999.log",
            "00000000000000000005-00000000000000000005-0000000a.compacted",
        ] {
            assert_eq!(FileKind::of(name), FileKind::Foreign, "{name}");
        }
    }
}
