//! Values, and walks over the members of one object or array.

use std::borrow::Cow;

use super::scan::{Scanner, Wanted, unescape};
use crate::rejection::{Rejection, RejectionCode, shown};

/// The JSON type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A string; `escaped` when it has at least one backslash escape.
    String {
        /// Whether the text has to be unescaped before use.
        escaped: bool,
    },
    /// A number, in the text of the input.
    Number,
    /// `true` or `false`.
    Boolean,
    /// `null`.
    Null,
    /// An object, checked and skipped.
    Object,
    /// An array, checked and skipped.
    Array,
}

impl Kind {
    /// The type's name for a sentence.
    pub const fn name(self) -> &'static str {
        match self {
            Self::String { .. } => "a string",
            Self::Number => "a number",
            Self::Boolean => "a boolean",
            Self::Null => "null",
            Self::Object => "an object",
            Self::Array => "an array",
        }
    }
}

/// A value: its type and its bytes as they stand in the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value<'a> {
    /// The JSON type.
    pub kind: Kind,
    /// The whole text of the value; a string's quotes are part of it.
    pub raw: &'a str,
    /// Where `raw` starts in the input, in bytes.
    pub start: usize,
}

impl<'a> Value<'a> {
    /// The text of a string, unescaped; `None` for other types. Allocates only for strings with escapes.
    pub fn text(&self) -> Option<Cow<'a, str>> {
        match self.kind {
            Kind::String { escaped } => {
                let inner = self
                    .raw
                    .get(1..self.raw.len().saturating_sub(1))
                    .unwrap_or_default();
                Some(if escaped {
                    Cow::Owned(unescape(inner))
                } else {
                    Cow::Borrowed(inner)
                })
            }
            _ => None,
        }
    }
}

/// A field of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name, unescaped.
    pub name: Cow<'a, str>,
    /// The value.
    pub value: Value<'a>,
}

/// Checks that `text` is one JSON value (white space around it is allowed) and returns it.
///
/// # Errors
/// `invalid_json` or `too_deep`, with the byte at which the text stopped being JSON.
pub fn parse(text: &str) -> Result<Value<'_>, Rejection> {
    let mut scanner = Scanner::new(text);
    scanner.white_space();
    let value = scanner.value(0).and_then(|value| scanner.end().map(|()| value));
    value.map_err(|wanted| scanner.rejection(wanted))
}

/// The fields of one object in their order. The text after an error is not looked at: stop there.
///
/// ```
/// let mut fields = domain::json::Fields::of(r#"{"order_id": 1, "tags": [2, 3]}"#).unwrap();
/// let first = fields.next_field().unwrap().unwrap();
/// assert_eq!((first.name.as_ref(), first.value.raw), ("order_id", "1"));
/// assert_eq!(fields.next_field().unwrap().unwrap().value.raw, "[2, 3]");
/// assert!(fields.next_field().unwrap().is_none());
/// ```
#[derive(Debug)]
pub struct Fields<'a> {
    scanner: Scanner<'a>,
    progress: Progress,
}

impl<'a> Fields<'a> {
    /// Starts on `text`, which must hold one object.
    ///
    /// # Errors
    /// `not_an_object` for JSON of another type, `invalid_json` for what is no JSON.
    pub fn of(text: &'a str) -> Result<Self, Rejection> {
        let mut scanner = Scanner::new(text);
        scanner.white_space();
        if scanner.peek() != Some(b'{') {
            let value = parse(text)?;
            return Err(Rejection::new(
                RejectionCode::NotAnObject,
                format!(
                    "the message is {} (`{}`), must be a JSON object",
                    value.kind.name(),
                    shown(value.raw)
                ),
            ));
        }
        scanner.at += 1;
        Ok(Self {
            scanner,
            progress: Progress::First,
        })
    }

    /// The next field; `None` after the last one, when the whole text has been checked.
    ///
    /// # Errors
    /// `invalid_json` or `too_deep`.
    pub fn next_field(&mut self) -> Result<Option<Field<'a>>, Rejection> {
        let Some((name, value)) = self.next_raw()? else {
            return Ok(None);
        };
        Ok(Some(Field {
            name: name.unescaped(),
            value,
        }))
    }

    /// The same with the name as it stands in the input.
    #[inline]
    pub(crate) fn next_raw(&mut self) -> Result<Option<(Name<'a>, Value<'a>)>, Rejection> {
        self.step().map_err(|wanted| self.scanner.rejection(wanted))
    }

    #[inline]
    fn step(&mut self) -> Result<Option<(Name<'a>, Value<'a>)>, Wanted> {
        if !self
            .scanner
            .member(&mut self.progress, b'}', Wanted::CommaOrBrace)?
        {
            return Ok(None);
        }
        let name = self.scanner.key()?;
        let value = self.scanner.value(1)?;
        Ok(Some((name, value)))
    }

    /// Where the object's closing brace stands, once every field was read.
    pub(crate) fn closing_brace(&self) -> usize {
        self.scanner
            .text
            .trim_end_matches([' ', '\t', '\r', '\n'])
            .len()
            .saturating_sub(1)
    }
}

/// The elements of one array in their order.
#[derive(Debug)]
pub struct Elements<'a> {
    scanner: Scanner<'a>,
    progress: Progress,
}

impl<'a> Elements<'a> {
    /// Starts on `text`, which must hold one array; `None` when the first character opens none.
    pub fn of(text: &'a str) -> Option<Self> {
        let mut scanner = Scanner::new(text);
        scanner.white_space();
        if scanner.peek() != Some(b'[') {
            return None;
        }
        scanner.at += 1;
        Some(Self {
            scanner,
            progress: Progress::First,
        })
    }

    /// The next element; `None` after the last one, when the whole text has been checked.
    ///
    /// # Errors
    /// `invalid_json` or `too_deep`.
    pub fn next_element(&mut self) -> Result<Option<Value<'a>>, Rejection> {
        self.step().map_err(|wanted| self.scanner.rejection(wanted))
    }

    fn step(&mut self) -> Result<Option<Value<'a>>, Wanted> {
        if self
            .scanner
            .member(&mut self.progress, b']', Wanted::CommaOrBracket)?
        {
            self.scanner.value(1).map(Some)
        } else {
            Ok(None)
        }
    }
}

/// How far a walk over a container's members is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    First,
    Later,
    Ended,
}

/// A field's name between its quotes, as it stands in the input.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Name<'a> {
    pub(super) raw: &'a str,
    pub(super) escaped: bool,
}

impl<'a> Name<'a> {
    /// Whether this is the name `known`, however it is spelled.
    #[inline]
    pub(crate) fn is(&self, known: &str) -> bool {
        if self.escaped {
            unescape(self.raw) == known
        } else {
            self.raw == known
        }
    }

    pub(crate) fn unescaped(self) -> Cow<'a, str> {
        if self.escaped {
            Cow::Owned(unescape(self.raw))
        } else {
            Cow::Borrowed(self.raw)
        }
    }
}
