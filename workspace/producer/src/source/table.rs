//! CSV rows that a broken quote can not swallow.
//!
//! A quoted field may hold line ends, so a quote that is never closed would take the rest of the file with it.
//! Here a row may span [`MAX_ROW_LINES`] lines and [`MAX_LINE_BYTES`] bytes. When it does not end within them,
//! or ends with the wrong number of fields, its first line alone is bad, and reading goes on with the second.

use std::collections::VecDeque;
use std::io;

use csv_core::ReadRecordResult;

use super::lines::{LineRead, Lines, MAX_LINE_BYTES};

/// Most lines of one row.
pub(crate) const MAX_ROW_LINES: usize = 100;

/// Most columns of a file.
const MAX_COLUMNS: usize = 1024;

/// A row, or why there is none.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Row {
    /// Fields in the order of the header, and the line on which the row starts.
    Fields(u64, Vec<String>),
    /// The line that is bad, and why.
    Bad(u64, String),
}

/// Rows of a CSV file after its header.
pub(crate) struct Table {
    lines: Lines,
    /// Lines that were read ahead and belong to rows that are still to come.
    ahead: VecDeque<(u64, Result<Vec<u8>, u64>)>,
    header: Vec<String>,
    parser: Parser,
}

impl Table {
    /// Starts after the header, which is the first line that is not empty.
    pub(crate) fn new(lines: Lines, header_line: &[u8]) -> Result<Self, String> {
        let mut parser = Parser::default();
        match parser.feed(header_line) {
            Fed::Complete => {}
            Fed::Open => return Err("a quote in the header is not closed".to_owned()),
            Fed::Bad(problem) => return Err(problem),
        }
        let header = parser
            .fields()?
            .iter()
            .map(|name| name.trim().to_owned())
            .collect();
        Ok(Self {
            lines,
            ahead: VecDeque::new(),
            header,
            parser,
        })
    }

    pub(crate) fn header(&self) -> &[String] {
        &self.header
    }

    /// The next row; `None` at the end. Empty lines are passed over.
    pub(crate) fn next_row(&mut self) -> io::Result<Option<Row>> {
        let number = loop {
            match self.line(0)? {
                None => return Ok(None),
                Some((number, Err(bytes))) => {
                    let problem = format!("the line has {bytes} bytes, must have at most {MAX_LINE_BYTES}");
                    self.ahead.pop_front();
                    return Ok(Some(Row::Bad(number, problem)));
                }
                Some((_, Ok([]))) => drop(self.ahead.pop_front()),
                Some((number, Ok(_))) => break number,
            }
        };
        match self.read_row()? {
            Ok((fields, count)) => {
                self.ahead.drain(..count);
                Ok(Some(Row::Fields(number, fields)))
            }
            Err(problem) => {
                self.ahead.pop_front();
                Ok(Some(Row::Bad(number, problem)))
            }
        }
    }

    /// The fields of the row that starts with the first line ahead and how many lines it has, or what is wrong.
    fn read_row(&mut self) -> io::Result<Result<(Vec<String>, usize), String>> {
        let wanted = self.header.len();
        self.parser.restart();
        let mut bytes = 0;
        for index in 0..MAX_ROW_LINES {
            let line = match self.line(index)? {
                None => {
                    return Ok(Err(
                        "a quote that opens here is not closed before the end of the file".to_owned(),
                    ));
                }
                Some((_, Ok(line))) if bytes + line.len() <= MAX_LINE_BYTES => line.to_vec(),
                Some(_) => {
                    return Ok(Err(format!(
                        "a quote that opens here is not closed within {MAX_LINE_BYTES} bytes"
                    )));
                }
            };
            bytes += line.len() + 1;
            match self.parser.feed(&line) {
                Fed::Open => {}
                Fed::Bad(problem) => return Ok(Err(problem)),
                Fed::Complete => {
                    if index > 0 && !quotes_fit(self.ahead.iter().take(index + 1)) {
                        return Ok(Err("a quote that opens here is not closed properly".to_owned()));
                    }
                    return Ok(match self.parser.fields() {
                        Ok(fields) if fields.len() == wanted => Ok((fields, index + 1)),
                        Ok(fields) => Err(format!("the row has {} fields, must have {wanted}", fields.len())),
                        Err(problem) => Err(problem),
                    });
                }
            }
        }
        Ok(Err(format!(
            "a quote that opens here is not closed within {MAX_ROW_LINES} lines"
        )))
    }

    /// The line `index` lines ahead, or how long it was.
    #[allow(clippy::type_complexity)]
    fn line(&mut self, index: usize) -> io::Result<Option<(u64, Result<&[u8], u64>)>> {
        while self.ahead.len() <= index {
            let mut line = Vec::new();
            let read = match self.lines.next_into(&mut line)? {
                LineRead::End => return Ok(None),
                LineRead::Line => Ok(line),
                LineRead::TooLong(bytes) => Err(bytes),
            };
            self.ahead.push_back((self.lines.number(), read));
        }
        Ok(self
            .ahead
            .get(index)
            .map(|(number, line)| (*number, line.as_deref().map_err(|bytes| *bytes))))
    }
}

/// Whether every quote that closes a field stands at its end. `csv-core` is lenient there, which is well within
/// a line; over several lines it would take the opening quote of a later row for the closing one of this row.
fn quotes_fit<'a>(lines: impl Iterator<Item = &'a (u64, Result<Vec<u8>, u64>)>) -> bool {
    #[derive(PartialEq)]
    enum At {
        Start,
        Plain,
        Quoted,
        Closed,
    }
    let mut at = At::Start;
    for line in lines.filter_map(|(_, line)| line.as_ref().ok()) {
        for &byte in line.iter().chain(b"\n") {
            at = match (at, byte) {
                (At::Start, b'"') | (At::Closed, b'"') => At::Quoted,
                (At::Quoted, b'"') => At::Closed,
                (At::Quoted, _) => At::Quoted,
                (_, b',' | b'\n') => At::Start,
                (At::Closed, _) => return false,
                _ => At::Plain,
            };
        }
    }
    at == At::Start
}

/// What a line did to the row.
enum Fed {
    Complete,
    /// A quote is open: the row goes on with the next line.
    Open,
    Bad(String),
}

/// The `csv-core` state machine with its buffers, fed line by line.
struct Parser {
    reader: csv_core::Reader,
    text: Vec<u8>,
    written: usize,
    ends: Vec<usize>,
    fields: usize,
}

impl Default for Parser {
    fn default() -> Self {
        Self {
            reader: csv_core::ReaderBuilder::new()
                .terminator(csv_core::Terminator::Any(b'\n'))
                .build(),
            text: Vec::new(),
            written: 0,
            ends: vec![0; MAX_COLUMNS],
            fields: 0,
        }
    }
}

impl Parser {
    fn restart(&mut self) {
        self.reader.reset();
        (self.written, self.fields) = (0, 0);
    }

    fn feed(&mut self, line: &[u8]) -> Fed {
        let room = self.written + line.len() + 1;
        if self.text.len() < room {
            self.text.resize(room, 0);
        }
        let mut complete = false;
        for part in [line, &b"\n"[..]] {
            let mut rest = part;
            while !rest.is_empty() {
                if complete {
                    return Fed::Bad("the quotes do not fit".to_owned());
                }
                let (result, used, out, ended) = self.reader.read_record(
                    rest,
                    self.text.get_mut(self.written..).unwrap_or_default(),
                    self.ends.get_mut(self.fields..).unwrap_or_default(),
                );
                self.written += out;
                self.fields += ended;
                rest = rest.get(used..).unwrap_or_default();
                match result {
                    ReadRecordResult::InputEmpty => {}
                    ReadRecordResult::Record => complete = true,
                    _ => return Fed::Bad(format!("the row has more than {MAX_COLUMNS} fields")),
                }
            }
        }
        if complete { Fed::Complete } else { Fed::Open }
    }

    fn fields(&self) -> Result<Vec<String>, String> {
        let mut start = 0;
        let mut fields = Vec::with_capacity(self.fields);
        for &end in self.ends.iter().take(self.fields) {
            match std::str::from_utf8(self.text.get(start..end).unwrap_or_default()) {
                Ok(field) => fields.push(field.to_owned()),
                Err(_) => return Err(format!("field {} is not UTF-8", fields.len() + 1)),
            }
            start = end;
        }
        Ok(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table(text: &str) -> Table {
        let mut lines = Lines::new(Box::new(io::Cursor::new(text.as_bytes().to_vec())));
        let mut header = Vec::new();
        lines.next_into(&mut header).unwrap();
        Table::new(lines, &header).unwrap()
    }

    fn rows(text: &str) -> Vec<Row> {
        let mut table = table(text);
        std::iter::from_fn(|| table.next_row().unwrap()).collect()
    }

    fn fields(line: u64, fields: &[&str]) -> Row {
        Row::Fields(line, fields.iter().map(|&field| field.to_owned()).collect())
    }

    #[test]
    fn quoted_fields_may_hold_commas_quotes_and_line_ends() {
        assert_eq!(
            rows("a,b\r\n1,\"x, \"\"y\"\"\"\r\n\n2,\"two\nlines\"\n3,5\" pipe\n4,"),
            [
                fields(2, &["1", "x, \"y\""]),
                fields(4, &["2", "two\nlines"]),
                fields(6, &["3", "5\" pipe"]),
                fields(7, &["4", ""]),
            ]
        );
    }

    #[test]
    fn an_open_quote_costs_its_own_line_only() {
        let mut text = "a,b\n1,\"open\n".to_owned();
        for row in 0..1000 {
            text.push_str(&format!("{row},x\n"));
        }
        let rows = rows(&text);
        assert_eq!(rows.len(), 1001);
        assert_eq!(
            rows[0],
            Row::Bad(
                2,
                "a quote that opens here is not closed within 100 lines".to_owned()
            )
        );
        assert_eq!(rows[1], fields(3, &["0", "x"]));
        assert_eq!(rows[1000], fields(1002, &["999", "x"]));
    }

    #[test]
    fn two_open_quotes_near_each_other_do_not_swallow_the_rows_between() {
        let rows = rows("a,b\n1,\"open\n2,x\n3,x\n4,\"open\n5,x\n");
        let bad: Vec<_> = rows.iter().filter(|row| matches!(row, Row::Bad(..))).collect();
        assert_eq!(bad.len(), 2, "{rows:?}");
        assert!(rows.contains(&fields(3, &["2", "x"])) && rows.contains(&fields(6, &["5", "x"])));
    }

    #[test]
    fn rows_of_another_width_and_long_lines_are_bad_and_the_rest_goes_on() {
        let text = format!("a,b\n1\n1,2,3\n{}\n5,x\n6,\"", "y".repeat(MAX_LINE_BYTES + 1));
        let rows = rows(&text);
        assert_eq!(
            rows[0],
            Row::Bad(2, "the row has 1 fields, must have 2".to_owned())
        );
        assert_eq!(
            rows[1],
            Row::Bad(3, "the row has 3 fields, must have 2".to_owned())
        );
        assert_eq!(
            rows[2],
            Row::Bad(
                4,
                "the line has 1048577 bytes, must have at most 1048576".to_owned()
            )
        );
        assert_eq!(rows[3], fields(5, &["5", "x"]));
        assert_eq!(
            rows[4],
            Row::Bad(
                6,
                "a quote that opens here is not closed before the end of the file".to_owned()
            )
        );
    }

    proptest! {
        #[test]
        fn any_text_ends_and_each_line_is_accounted_for(text in "[a\",\n]{0,400}") {
            let lines = text.lines().count() as u64 + 1;
            let rows = rows(&format!("a,b\n{text}"));
            let mut last = 1;
            for row in rows {
                let (Row::Fields(line, _) | Row::Bad(line, _)) = row;
                prop_assert!(line > last && line <= lines + 1);
                last = line;
            }
        }
    }
}
