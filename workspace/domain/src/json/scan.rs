//! The scanner itself: a position in a text, and steps that each check and pass over one thing.

use super::walk::{Kind, Name, Progress, Value};
use crate::rejection::{Rejection, RejectionCode, shown};

/// Deepest nesting that is accepted. Lower than the 127 of `serde_json`, so that a document that wraps
/// an order, and an answer that wraps documents, can still be read with it.
pub const MAX_DEPTH: u32 = 100;

/// What the text lacks at the place where the scanner stopped. One byte, so that the results of the scanner's
/// steps travel in registers; the sentence is made at the very end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Value,
    End,
    Key,
    Colon,
    CommaOrBrace,
    CommaOrBracket,
    Digit,
    Quote,
    NoControl,
    Escape,
    FourHex,
    SecondSurrogate,
    FirstSurrogate,
    LessDepth,
}

impl Wanted {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Value => "a value",
            Self::End => "the end",
            Self::Key => "a field name in double quotes",
            Self::Colon => "`:`",
            Self::CommaOrBrace => "`,` or `}`",
            Self::CommaOrBracket => "`,` or `]`",
            Self::Digit => "a digit",
            Self::Quote => "`\"`",
            Self::NoControl => "no control character inside a string",
            Self::Escape => "an escape that JSON knows",
            Self::FourHex => "four hexadecimal digits",
            Self::SecondSurrogate => "the second half of a surrogate pair",
            Self::FirstSurrogate => "no second half of a surrogate pair without a first",
            Self::LessDepth => "flatter",
        }
    }
}

#[derive(Debug)]
pub(super) struct Scanner<'a> {
    pub(super) text: &'a str,
    bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self {
            text,
            bytes: text.as_bytes(),
            at: 0,
        }
    }

    #[inline]
    pub(super) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline]
    pub(super) fn white_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    pub(super) fn end(&mut self) -> Result<(), Wanted> {
        self.white_space();
        if self.at == self.bytes.len() {
            Ok(())
        } else {
            Err(Wanted::End)
        }
    }

    /// Moves to the start of the next member of a container, or over its closing bracket and to the end of the
    /// text; says whether there is a member.
    #[inline]
    pub(super) fn member(
        &mut self,
        progress: &mut Progress,
        close: u8,
        wanted: Wanted,
    ) -> Result<bool, Wanted> {
        if *progress == Progress::Ended {
            return Ok(false);
        }
        self.white_space();
        match self.peek() {
            Some(byte) if byte == close => {
                self.at += 1;
                *progress = Progress::Ended;
                self.end()?;
                return Ok(false);
            }
            Some(b',') if *progress == Progress::Later => {
                self.at += 1;
                self.white_space();
            }
            _ if *progress == Progress::First => *progress = Progress::Later,
            _ => return Err(wanted),
        }
        Ok(true)
    }

    /// A name, the colon and the white space after it.
    #[inline]
    pub(super) fn key(&mut self) -> Result<Name<'a>, Wanted> {
        if self.peek() != Some(b'"') {
            return Err(Wanted::Key);
        }
        let start = self.at + 1;
        let escaped = self.string()?;
        let raw = self.text.get(start..self.at - 1).unwrap_or_default();
        self.white_space();
        if self.peek() != Some(b':') {
            return Err(Wanted::Colon);
        }
        self.at += 1;
        self.white_space();
        Ok(Name { raw, escaped })
    }

    /// One value of any type; `depth` counts the containers around it.
    #[inline]
    pub(super) fn value(&mut self, depth: u32) -> Result<Value<'a>, Wanted> {
        let start = self.at;
        let kind = match self.peek() {
            Some(b'{') => self.containers(depth).map(|()| Kind::Object)?,
            Some(b'[') => self.containers(depth).map(|()| Kind::Array)?,
            _ => self.scalar()?,
        };
        Ok(Value {
            kind,
            raw: self.text.get(start..self.at).unwrap_or_default(),
            start,
        })
    }

    #[inline]
    fn scalar(&mut self) -> Result<Kind, Wanted> {
        match self.peek() {
            Some(b'"') => self.string().map(|escaped| Kind::String { escaped }),
            Some(b'-' | b'0'..=b'9') => self.number().map(|()| Kind::Number),
            Some(b't') => self.word("true", Kind::Boolean),
            Some(b'f') => self.word("false", Kind::Boolean),
            Some(b'n') => self.word("null", Kind::Null),
            _ => Err(Wanted::Value),
        }
    }

    fn word(&mut self, word: &str, kind: Kind) -> Result<Kind, Wanted> {
        if self
            .bytes
            .get(self.at..)
            .is_some_and(|rest| rest.starts_with(word.as_bytes()))
        {
            self.at += word.len();
            Ok(kind)
        } else {
            Err(Wanted::Value)
        }
    }

    /// A container with all that is in it, without recursion: `objects` holds one bit per open level.
    fn containers(&mut self, outer: u32) -> Result<(), Wanted> {
        let mut objects: u128 = 0;
        let mut depth = outer;
        loop {
            match self.peek() {
                Some(open @ (b'{' | b'[')) => {
                    if depth == MAX_DEPTH {
                        return Err(Wanted::LessDepth);
                    }
                    depth += 1;
                    let is_object = open == b'{';
                    objects = (objects << 1) | u128::from(is_object);
                    self.at += 1;
                    self.white_space();
                    match (self.peek(), is_object) {
                        (Some(b'}'), true) | (Some(b']'), false) => {}
                        (_, true) => {
                            self.key()?;
                            continue;
                        }
                        (_, false) => continue,
                    }
                }
                _ => {
                    self.scalar()?;
                }
            }
            // A value has ended, or an empty container stands before its closing bracket.
            loop {
                self.white_space();
                let is_object = objects & 1 == 1;
                match (self.peek(), is_object) {
                    (Some(b'}'), true) | (Some(b']'), false) => {
                        self.at += 1;
                        depth -= 1;
                        objects >>= 1;
                        if depth == outer {
                            return Ok(());
                        }
                    }
                    (Some(b','), true) => {
                        self.at += 1;
                        self.white_space();
                        self.key()?;
                        break;
                    }
                    (Some(b','), false) => {
                        self.at += 1;
                        self.white_space();
                        break;
                    }
                    (_, true) => return Err(Wanted::CommaOrBrace),
                    (_, false) => return Err(Wanted::CommaOrBracket),
                }
            }
        }
    }

    /// A number by the grammar of RFC 8259 section 6.
    #[inline]
    fn number(&mut self) -> Result<(), Wanted> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return Err(Wanted::Digit),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.some_digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.some_digits()?;
        }
        Ok(())
    }

    #[inline]
    fn digits(&mut self) {
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
    }

    #[inline]
    fn some_digits(&mut self) -> Result<(), Wanted> {
        let start = self.at;
        self.digits();
        if self.at == start {
            Err(Wanted::Digit)
        } else {
            Ok(())
        }
    }

    /// A string from its opening to its closing quote; says whether it has escapes.
    #[inline]
    fn string(&mut self) -> Result<bool, Wanted> {
        self.at += 1;
        let mut escaped = false;
        loop {
            self.plain_characters();
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(escaped);
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => return Err(Wanted::NoControl),
                None => return Err(Wanted::Quote),
            }
        }
    }

    /// Skips to the next quote, backslash or control character, eight bytes at a time.
    ///
    /// Each mask sets the high bit of the bytes it looks for. The subtractions may also mark bytes above
    /// a true hit, never below one, so the lowest mark is always true ("Bit Twiddling Hacks", "Determine
    /// if a word has a byte less than n").
    #[inline]
    fn plain_characters(&mut self) {
        const ONES: u64 = u64::MAX / 255;
        const HIGH: u64 = ONES << 7;
        while let Some(chunk) = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<8>()) {
            let word = u64::from_le_bytes(*chunk);
            let quote = word ^ (ONES * b'"' as u64);
            let backslash = word ^ (ONES * b'\\' as u64);
            let hits = ((quote.wrapping_sub(ONES) & !quote)
                | (backslash.wrapping_sub(ONES) & !backslash)
                | (word.wrapping_sub(ONES * 0x20) & !word))
                & HIGH;
            if hits != 0 {
                self.at += (hits.trailing_zeros() / 8) as usize;
                return;
            }
            self.at += 8;
        }
        while let Some(byte) = self.peek() {
            if byte == b'"' || byte == b'\\' || byte < 0x20 {
                return;
            }
            self.at += 1;
        }
    }

    fn escape(&mut self) -> Result<(), Wanted> {
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 1;
                Ok(())
            }
            Some(b'u') => {
                self.at += 1;
                let unit = self.code_unit()?;
                match unit {
                    0xD800..=0xDBFF => {
                        if self
                            .bytes
                            .get(self.at..)
                            .is_some_and(|rest| rest.starts_with(b"\\u"))
                        {
                            self.at += 2;
                            if let 0xDC00..=0xDFFF = self.code_unit()? {
                                return Ok(());
                            }
                        }
                        Err(Wanted::SecondSurrogate)
                    }
                    0xDC00..=0xDFFF => Err(Wanted::FirstSurrogate),
                    _ => Ok(()),
                }
            }
            _ => Err(Wanted::Escape),
        }
    }

    fn code_unit(&mut self) -> Result<u16, Wanted> {
        match self
            .bytes
            .get(self.at..)
            .and_then(|rest| rest.first_chunk::<4>())
            .and_then(hex4)
        {
            Some(unit) => {
                self.at += 4;
                Ok(unit)
            }
            None => Err(Wanted::FourHex),
        }
    }

    #[cold]
    pub(super) fn rejection(&self, wanted: Wanted) -> Rejection {
        let mut at = self.at.min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        if wanted == Wanted::LessDepth {
            let message =
                format!("the message nests deeper than {MAX_DEPTH} levels at byte {at}, must be flatter");
            return Rejection::new(RejectionCode::TooDeep, message);
        }
        let wanted = wanted.as_str();
        let message = match self.text.get(at..).and_then(|rest| rest.chars().next()) {
            Some(found) => {
                let found = shown(found.encode_utf8(&mut [0; 4]));
                format!("the message is not JSON: at byte {at} stands `{found}`, must be {wanted}")
            }
            None => format!("the message is not JSON: it ends at byte {at}, must go on with {wanted}"),
        };
        Rejection::new(RejectionCode::InvalidJson, message)
    }
}

fn hex4(digits: &[u8; 4]) -> Option<u16> {
    digits.iter().try_fold(0u16, |unit, &digit| {
        let value = char::from(digit).to_digit(16)?;
        Some(unit << 4 | u16::try_from(value).ok()?)
    })
}

/// Unescapes the inside of a string that the scanner has accepted.
pub(super) fn unescape(inner: &str) -> String {
    let mut out = String::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(at) = rest.find('\\') {
        out.push_str(rest.get(..at).unwrap_or_default());
        let kind = rest.as_bytes().get(at + 1).copied().unwrap_or(b'\\');
        let mut used = at + 2;
        match kind {
            b'b' => out.push('\u{8}'),
            b'f' => out.push('\u{c}'),
            b'n' => out.push('\n'),
            b'r' => out.push('\r'),
            b't' => out.push('\t'),
            b'u' => {
                let unit = |start: usize| {
                    rest.as_bytes()
                        .get(start..)
                        .and_then(|four| four.first_chunk::<4>())
                        .and_then(hex4)
                };
                let first = unit(used).unwrap_or(0xFFFD);
                used += 4;
                let units = if (0xD800..=0xDBFF).contains(&first) {
                    let second = unit(used + 2).unwrap_or(0xFFFD);
                    used += 6;
                    [first, second]
                } else {
                    [first, 0]
                };
                let count = if (0xD800..=0xDBFF).contains(&first) { 2 } else { 1 };
                out.extend(
                    char::decode_utf16(units.into_iter().take(count))
                        .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)),
                );
            }
            other => out.push(char::from(other)),
        }
        rest = rest.get(used..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}
