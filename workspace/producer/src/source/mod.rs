//! Where orders come from: files of several layouts, and the generator.
//!
//! A source is read on a blocking thread and gives [`Entry`]s; it knows no Kafka and no clock.
//!
//! - `input` opens plain and packed files,
//! - `lines` cuts them into lines of bounded length,
//! - `table` reads CSV rows that a broken quote can not swallow,
//! - `ndjson` reads an order per line,
//! - `mapped` reads CSV with named columns,
//! - `online_retail` groups the lines of the Online Retail data set by invoice,
//! - `generator` makes orders up.

mod generator;
mod input;
mod lines;
mod mapped;
mod ndjson;
mod online_retail;
mod table;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use domain::{AdmittedOrder, Currency, EventTime, Rejection};

pub use generator::{GeneratedTime, Generator};
pub use mapped::ColumnMap;

/// What a source gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// An order to send, and the line of the file on which it starts.
    Order {
        /// Line, counted from 1; 0 for the generator.
        line: u64,
        /// The order.
        order: AdmittedOrder,
    },
    /// Something that is no order.
    Rejected {
        /// Line, counted from 1.
        line: u64,
        /// Stable code and sentence.
        rejection: Rejected,
        /// Whether this counts as an order that is left out; further bad lines of the same order do not.
        counts: bool,
    },
    /// An order that is left out on purpose: a cancellation, or a total that is not more than 0.
    Skipped,
}

/// Why a line was refused: the code of a [`Rejection`], or `invalid_line` for what is no row at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Stable code.
    pub code: &'static str,
    /// The sentence.
    pub message: String,
}

impl Rejected {
    pub(crate) fn line(message: String) -> Self {
        Self {
            code: "invalid_line",
            message,
        }
    }
}

impl From<Rejection> for Rejected {
    fn from(rejection: Rejection) -> Self {
        Self {
            code: rejection.code.as_str(),
            message: rejection.message,
        }
    }
}

/// Why a source can not go on.
#[derive(Debug)]
pub enum SourceError {
    /// The file's layout is not known, or the map does not fit it: the owner has to say more.
    Layout(String),
    /// The file can not be read, or is beyond a limit.
    Unreadable(String),
}

/// Orders in their order. Called on a thread that may block.
pub trait Source: Send {
    /// The next entry; `None` at the end.
    ///
    /// # Errors
    /// When the source can not go on; entries before it stand.
    fn next_entry(&mut self, now: EventTime) -> Result<Option<Entry>, SourceError>;

    /// How many orders there are, once that is known.
    fn orders(&self) -> Option<u64> {
        None
    }
}

/// The layout of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// By the first line.
    #[default]
    Auto,
    /// A header and rows: Online Retail by its header, else columns by `--map` or their names.
    Csv,
    /// One JSON order per line.
    Ndjson,
}

/// An open file with its layout found out.
pub struct OpenFile {
    /// Its orders.
    pub source: Box<dyn Source>,
    /// What it was taken for.
    pub layout: &'static str,
    /// Bytes of the file read so far.
    pub read: Arc<AtomicU64>,
    /// Bytes of the file.
    pub total: Option<u64>,
}

/// Opens an orders file (`-` is standard input), plain or zstd, and finds out its layout.
///
/// # Errors
/// When the file can not be read or its layout is not known; the sentence names the remedy.
pub fn open(
    path: &Path,
    format: Format,
    map: Option<&ColumnMap>,
    default_currency: Currency,
) -> Result<OpenFile, SourceError> {
    let name = path.display().to_string();
    let unreadable = |error: std::io::Error| {
        SourceError::Unreadable(format!(
            "`{name}` can not be read: {error}; give the path of a CSV or NDJSON file, plain or zstd, or `-` for standard input"
        ))
    };
    let input = input::open(path).map_err(unreadable)?;
    let (read, total) = (Arc::clone(&input.read), input.total);
    let (source, layout) = layout_of(name.clone(), input, format, map, default_currency)?;
    Ok(OpenFile {
        source,
        layout,
        read,
        total,
    })
}

fn layout_of(
    name: String,
    input: input::Input,
    format: Format,
    map: Option<&ColumnMap>,
    default_currency: Currency,
) -> Result<(Box<dyn Source>, &'static str), SourceError> {
    let mut lines = lines::Lines::new(input.bytes);
    let mut first = Vec::new();
    let ndjson = match (format, map) {
        (Format::Ndjson, _) => true,
        (Format::Csv, _) | (Format::Auto, Some(_)) => false,
        (Format::Auto, None) => {
            let plain = name.strip_suffix(".zst").unwrap_or(&name);
            [".ndjson", ".jsonl"].iter().any(|suffix| plain.ends_with(suffix))
        }
    };
    if ndjson {
        return Ok((
            Box::new(ndjson::Ndjson::new(name, lines, None, default_currency)),
            "ndjson",
        ));
    }
    let read = loop {
        let read = lines.next_into(&mut first);
        let read =
            read.map_err(|error| SourceError::Unreadable(format!("`{name}` can not be read: {error}")))?;
        if !(read == lines::LineRead::Line && first.trim_ascii().is_empty()) {
            break read;
        }
    };
    let opens_json = matches!(first.trim_ascii_start().first(), Some(b'{'));
    if format == Format::Auto && map.is_none() && (opens_json || read == lines::LineRead::End) {
        let first = (read == lines::LineRead::Line).then_some(first);
        return Ok((
            Box::new(ndjson::Ndjson::new(name, lines, first, default_currency)),
            "ndjson",
        ));
    }
    let unknown = |problem: &str| {
        SourceError::Layout(format!(
            "the layout of `{name}` is not known: {problem}; name the columns with \
             `--map order_id=COLUMN,amount=COLUMN,country=COLUMN`, or say `--format ndjson` for one JSON order per line"
        ))
    };
    if read != lines::LineRead::Line {
        return Err(unknown("the first line is no header"));
    }
    let table = table::Table::new(lines, &first).map_err(|problem| unknown(&problem))?;
    if map.is_none() && online_retail::is_header(table.header()) {
        return Ok((
            Box::new(online_retail::OnlineRetail::new(name, table)),
            "online retail",
        ));
    }
    let by_name;
    let map = match map {
        Some(map) => map,
        None => {
            by_name = ColumnMap::by_name(table.header()).ok_or_else(|| {
                let header = domain::shown(&table.header().join(","));
                unknown(&format!("its header is `{header}`"))
            })?;
            &by_name
        }
    };
    let mapped = mapped::Mapped::new(name, table, map, default_currency).map_err(SourceError::Layout)?;
    Ok((Box::new(mapped), "csv"))
}
