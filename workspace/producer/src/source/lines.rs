//! Lines of bounded length.

use std::io::{self, BufRead, BufReader, Read};

/// Longest line that is kept. A longer one is read to its end without being kept.
pub(crate) const MAX_LINE_BYTES: usize = 1024 * 1024;

const BOM: &[u8] = b"\xef\xbb\xbf";

/// What one read gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum LineRead {
    /// The buffer holds a line without its end.
    Line,
    /// A line of so many bytes was passed over.
    TooLong(u64),
    /// The input is at its end.
    End,
}

/// Reads lines and counts them from 1. The line's end is `\n` or `\r\n`; a byte order mark at the very start is
/// not part of the first line.
pub(crate) struct Lines {
    input: BufReader<Box<dyn Read + Send>>,
    number: u64,
}

impl Lines {
    pub(crate) fn new(input: Box<dyn Read + Send>) -> Self {
        Self {
            input: BufReader::with_capacity(64 * 1024, input),
            number: 0,
        }
    }

    /// The number of the line that was read last.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Reads the next line into `line`.
    pub(crate) fn next_into(&mut self, line: &mut Vec<u8>) -> io::Result<LineRead> {
        line.clear();
        let mut length = 0u64;
        loop {
            let available = match self.input.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            };
            if available.is_empty() {
                if length == 0 {
                    return Ok(LineRead::End);
                }
                break;
            }
            let end = available.iter().position(|&byte| byte == b'\n');
            let part = available
                .get(..end.unwrap_or(available.len()))
                .unwrap_or_default();
            length += part.len() as u64;
            if length <= MAX_LINE_BYTES as u64 {
                line.extend_from_slice(part);
            }
            let used = part.len() + usize::from(end.is_some());
            self.input.consume(used);
            if end.is_some() {
                break;
            }
        }
        self.number += 1;
        if length > MAX_LINE_BYTES as u64 {
            line.clear();
            return Ok(LineRead::TooLong(length));
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        if self.number == 1 && line.starts_with(BOM) {
            line.drain(..BOM.len());
        }
        Ok(LineRead::Line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: Vec<u8>) -> Vec<(u64, LineRead, String)> {
        let mut lines = Lines::new(Box::new(io::Cursor::new(bytes)));
        let mut line = Vec::new();
        let mut all = Vec::new();
        loop {
            let read = lines.next_into(&mut line).unwrap();
            if read == LineRead::End {
                return all;
            }
            assert!(line.capacity() <= 2 * MAX_LINE_BYTES);
            all.push((lines.number(), read, String::from_utf8_lossy(&line).into_owned()));
        }
    }

    #[test]
    fn lines_end_with_either_end_and_the_last_one_may_have_none() {
        let all = read(b"\xef\xbb\xbfa\r\n\nb".to_vec());
        let texts: Vec<_> = all
            .iter()
            .map(|(number, _, text)| (*number, text.as_str()))
            .collect();
        assert_eq!(texts, [(1, "a"), (2, ""), (3, "b")]);
        assert!(read(Vec::new()).is_empty());
    }

    #[test]
    fn ten_megabytes_without_an_end_are_passed_over_in_bounded_memory() {
        let mut bytes = b"first\n".to_vec();
        bytes.extend(std::iter::repeat_n(b'x', 10_000_000));
        bytes.extend(b"\nlast\n");
        let all = read(bytes);
        assert_eq!(all[1], (2, LineRead::TooLong(10_000_000), String::new()));
        assert_eq!(all[2], (3, LineRead::Line, "last".to_owned()));
        assert_eq!(read(vec![b'x'; MAX_LINE_BYTES]).len(), 1);
        assert_eq!(
            read(vec![b'x'; MAX_LINE_BYTES + 1])[0].1,
            LineRead::TooLong(MAX_LINE_BYTES as u64 + 1)
        );
    }
}
