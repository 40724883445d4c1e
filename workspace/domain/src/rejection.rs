//! Why a message was refused: a stable code for machines and a sentence for people.

use std::fmt;

/// Values longer than this are cut in a rejection's sentence, so that hostile input can not flood a log.
const SHOWN_CHARS: usize = 48;

/// Why a message was refused. The texts of [`RejectionCode::as_str`] are stable: they stand in
/// dead-letter headers, metrics and API answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum RejectionCode {
    /// More than [`crate::MAX_ORDER_BYTES`].
    TooLarge,
    /// The bytes are not UTF-8.
    InvalidUtf8,
    /// Not one JSON value by RFC 8259 (or an escape that names no character).
    InvalidJson,
    /// Nested deeper than [`crate::json::MAX_DEPTH`].
    TooDeep,
    /// JSON, but not an object.
    NotAnObject,
    /// A known field stands twice.
    DuplicateField,
    /// The field `_orderflow`, which only orderflow writes.
    ReservedField,
    /// A required field is missing or null.
    MissingField,
    /// A known field has a JSON type that it can not have.
    WrongType,
    /// `order_id` is not an i64 or 1 to 64 printable ASCII characters without spaces.
    InvalidOrderId,
    /// The amount is not a decimal number.
    InvalidAmount,
    /// The amount is zero or negative.
    AmountNotPositive,
    /// The amount has more decimals than its currency.
    AmountTooPrecise,
    /// The amount does not fit into 64 bits of minor units.
    AmountTooLarge,
    /// Not two letters A to Z.
    InvalidCountry,
    /// Not a code of ISO 4217.
    UnknownCurrency,
    /// Not an RFC 3339 time.
    InvalidTimestamp,
    /// `customer_id` or `vendor` is longer than [`crate::MAX_NAME_BYTES`].
    TooLong,
    /// A field has the right type and a value outside its range.
    InvalidValue,
}

impl RejectionCode {
    /// Every code, for metrics and documentation.
    pub const ALL: [Self; 19] = [
        Self::TooLarge,
        Self::InvalidUtf8,
        Self::InvalidJson,
        Self::TooDeep,
        Self::NotAnObject,
        Self::DuplicateField,
        Self::ReservedField,
        Self::MissingField,
        Self::WrongType,
        Self::InvalidOrderId,
        Self::InvalidAmount,
        Self::AmountNotPositive,
        Self::AmountTooPrecise,
        Self::AmountTooLarge,
        Self::InvalidCountry,
        Self::UnknownCurrency,
        Self::InvalidTimestamp,
        Self::TooLong,
        Self::InvalidValue,
    ];

    /// The stable text of the code.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::InvalidJson => "invalid_json",
            Self::TooDeep => "too_deep",
            Self::NotAnObject => "not_an_object",
            Self::DuplicateField => "duplicate_field",
            Self::ReservedField => "reserved_field",
            Self::MissingField => "missing_field",
            Self::WrongType => "wrong_type",
            Self::InvalidOrderId => "invalid_order_id",
            Self::InvalidAmount => "invalid_amount",
            Self::AmountNotPositive => "amount_not_positive",
            Self::AmountTooPrecise => "amount_too_precise",
            Self::AmountTooLarge => "amount_too_large",
            Self::InvalidCountry => "invalid_country",
            Self::UnknownCurrency => "unknown_currency",
            Self::InvalidTimestamp => "invalid_timestamp",
            Self::TooLong => "too_long",
            Self::InvalidValue => "invalid_value",
        }
    }
}

impl fmt::Display for RejectionCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A refused message. The message names field and value and says what would be right:
/// "`amount` is `-3.10`, must be more than 0".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Rejection {
    /// What kind of refusal this is.
    pub code: RejectionCode,
    /// One sentence without a full stop; input shown in it is cut and escaped.
    pub message: String,
}

impl Rejection {
    /// A rejection with a sentence of the caller's own.
    #[cold]
    pub fn new(code: RejectionCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// "`field` is `value`, must be ...".
    #[cold]
    pub fn value(code: RejectionCode, field: &str, value: &str, must: &str) -> Self {
        Self {
            code,
            message: format!("`{field}` is `{}`, must be {must}", shown(value)),
        }
    }

    /// "`field` is missing, must be ...".
    #[cold]
    pub(crate) fn missing(field: &str, must: &str) -> Self {
        Self {
            code: RejectionCode::MissingField,
            message: format!("`{field}` is missing, must be {must}"),
        }
    }
}

/// A value of the input made fit for a log line: control characters and backticks escaped, cut after 48 characters.
pub fn shown(value: &str) -> String {
    let mut out = String::with_capacity(value.len().min(SHOWN_CHARS * 2));
    for (count, character) in value.chars().enumerate() {
        if count == SHOWN_CHARS {
            out.push('…');
            break;
        }
        if character.is_control() || character == '`' || is_bidirectional_control(character) {
            out.extend(character.escape_unicode());
        } else {
            out.push(character);
        }
    }
    out
}

/// Characters that reorder the text around them, with which input could disguise what a log line says.
fn is_bidirectional_control(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn codes_are_distinct_snake_case() {
        let texts: BTreeSet<_> = RejectionCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(texts.len(), RejectionCode::ALL.len());
        assert!(texts.iter().all(|text| {
            text.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte == b'8')
        }));
    }

    #[test]
    fn shown_values_are_cut_and_escaped() {
        assert_eq!(shown("a\nb`c\u{202e}"), "a\\u{a}b\\u{60}c\\u{202e}");
        let long = shown(&"é".repeat(1000));
        assert_eq!(long.chars().count(), SHOWN_CHARS + 1);
        assert!(long.ends_with('…'));
    }
}
