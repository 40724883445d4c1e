//! One JSON order per line.

use domain::{Currency, EventTime, admit};

use super::lines::{LineRead, Lines, MAX_LINE_BYTES};
use super::{Entry, Rejected, Source, SourceError};

/// Reads orders line by line; empty lines are passed over.
pub(crate) struct Ndjson {
    name: String,
    lines: Lines,
    first: Option<Vec<u8>>,
    line: Vec<u8>,
    default_currency: Currency,
}

impl Ndjson {
    /// `first` is a line that was read already.
    pub(crate) fn new(
        name: String,
        lines: Lines,
        first: Option<Vec<u8>>,
        default_currency: Currency,
    ) -> Self {
        Self {
            name,
            lines,
            first,
            line: Vec::new(),
            default_currency,
        }
    }
}

impl Source for Ndjson {
    fn next_entry(&mut self, now: EventTime) -> Result<Option<Entry>, SourceError> {
        loop {
            let read = match self.first.take() {
                Some(first) => {
                    self.line = first;
                    LineRead::Line
                }
                None => self.lines.next_into(&mut self.line).map_err(|error| {
                    let (name, line) = (&self.name, self.lines.number() + 1);
                    SourceError::Unreadable(format!("`{name}` can not be read at line {line}: {error}"))
                })?,
            };
            let line = self.lines.number();
            let admitted = match read {
                LineRead::End => return Ok(None),
                LineRead::TooLong(bytes) => {
                    let message = format!("the line has {bytes} bytes, must have at most {MAX_LINE_BYTES}");
                    Err(Rejected {
                        code: "too_large",
                        message,
                    })
                }
                LineRead::Line if self.line.trim_ascii().is_empty() => continue,
                LineRead::Line => admit(&self.line, self.default_currency, now).map_err(Rejected::from),
            };
            return Ok(Some(match admitted {
                Ok(order) => Entry::Order { line, order },
                Err(rejection) => Entry::Rejected {
                    line,
                    rejection,
                    counts: true,
                },
            }));
        }
    }
}
