//! The known fields of a message: which stand in it, and what they say.

use std::borrow::Cow;

use crate::MAX_NAME_BYTES;
use crate::country::Country;
use crate::currency::Currency;
use crate::decimal::parse_money;
use crate::json::{Fields, Kind, Value};
use crate::money::Money;
use crate::rejection::{Rejection, RejectionCode};
use crate::time::EventTime;

/// The values of `N` known fields of one object, in the order of `names`. A null counts as absent.
#[derive(Debug)]
pub(crate) struct Known<'a, const N: usize> {
    names: &'static [&'static str; N],
    values: [Option<Value<'a>>; N],
}

/// Checks size and UTF-8 of a message.
pub(crate) fn text_of(bytes: &[u8], max_bytes: usize) -> Result<&str, Rejection> {
    if bytes.len() > max_bytes {
        return Err(too_large(bytes.len(), max_bytes));
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        let byte = bytes.get(at).copied().unwrap_or_default();
        let message = format!("the message is not UTF-8: byte {at} is `0x{byte:02x}`, must be valid UTF-8");
        Rejection::new(RejectionCode::InvalidUtf8, message)
    })
}

#[cold]
pub(crate) fn too_large(bytes: usize, max_bytes: usize) -> Rejection {
    let message = format!("the message has {bytes} bytes, must have at most {max_bytes}");
    Rejection::new(RejectionCode::TooLarge, message)
}

impl<'a, const N: usize> Known<'a, N> {
    /// Walks the whole object; unknown fields are checked as JSON and passed over.
    ///
    /// A known field that stands twice is refused: two readers could take different ones for the truth.
    #[inline]
    pub(crate) fn read(text: &'a str, names: &'static [&'static str; N]) -> Result<Self, Rejection> {
        Self::read_with(text, names, |_| Ok(())).map(|(known, _)| known)
    }

    /// The same, showing the name of every unknown field to `unknown`, and giving the place of the closing brace.
    #[inline]
    pub(crate) fn read_with(
        text: &'a str,
        names: &'static [&'static str; N],
        unknown: impl Fn(&str) -> Result<(), Rejection>,
    ) -> Result<(Self, usize), Rejection> {
        let mut values = [None; N];
        let mut fields = Fields::of(text)?;
        while let Some((name, value)) = fields.next_raw()? {
            let known = names.iter().zip(&mut values).find(|(known, _)| name.is(known));
            match known {
                Some((_, slot @ None)) => *slot = Some(value),
                Some((name, Some(_))) => return Err(duplicate(name)),
                None => unknown(&name.unescaped())?,
            }
        }
        Ok((Self { names, values }, fields.closing_brace()))
    }

    /// A field's value as it stands, null included.
    pub(crate) fn raw(&self, index: usize) -> Option<Value<'a>> {
        self.values.get(index).copied().flatten()
    }

    pub(crate) fn name(&self, index: usize) -> &'static str {
        self.names.get(index).copied().unwrap_or_default()
    }

    #[inline]
    pub(crate) fn optional(&self, index: usize) -> Option<Value<'a>> {
        self.raw(index).filter(|value| value.kind != Kind::Null)
    }

    #[inline]
    pub(crate) fn required(&self, index: usize, must: &str) -> Result<Value<'a>, Rejection> {
        self.optional(index)
            .ok_or_else(|| Rejection::missing(self.name(index), must))
    }

    /// A required string.
    #[inline]
    pub(crate) fn string(&self, index: usize, must: &str) -> Result<Cow<'a, str>, Rejection> {
        let value = self.required(index, must)?;
        value
            .text()
            .ok_or_else(|| wrong_type(self.name(index), &value, must))
    }

    /// An optional string.
    #[inline]
    pub(crate) fn optional_string(
        &self,
        index: usize,
        must: &str,
    ) -> Result<Option<Cow<'a, str>>, Rejection> {
        self.optional(index).map(|_| self.string(index, must)).transpose()
    }

    /// An optional name of a customer or vendor: a string or an integer, whose text counts. Empty is absent.
    #[inline]
    pub(crate) fn optional_name(&self, index: usize) -> Result<Option<Cow<'a, str>>, Rejection> {
        let must = "a string or an integer";
        let Some(value) = self.optional(index) else {
            return Ok(None);
        };
        let text = match value.kind {
            Kind::Number if is_integer_text(value.raw) => Cow::Borrowed(value.raw),
            _ => value
                .text()
                .ok_or_else(|| wrong_type(self.name(index), &value, must))?,
        };
        if text.len() > MAX_NAME_BYTES {
            let must = format!("at most {MAX_NAME_BYTES} bytes long, has {}", text.len());
            return Err(Rejection::value(
                RejectionCode::TooLong,
                self.name(index),
                &text,
                &must,
            ));
        }
        Ok((!text.is_empty()).then_some(text))
    }

    #[inline]
    pub(crate) fn country(&self, index: usize) -> Result<Country, Rejection> {
        Country::parse(&self.string(index, "two letters A to Z (ISO 3166-1 alpha-2), such as `US`")?)
    }

    #[inline]
    pub(crate) fn currency(&self, index: usize) -> Result<Option<Currency>, Rejection> {
        let must = "a currency code of ISO 4217, such as `USD`";
        self.optional_string(index, must)?
            .map(|text| Currency::parse(&text))
            .transpose()
    }

    #[inline]
    pub(crate) fn timestamp(&self, index: usize) -> Result<Option<EventTime>, Rejection> {
        self.optional_string(index, "an RFC 3339 time")?
            .map(|text| EventTime::parse(&text))
            .transpose()
    }

    /// An amount: a JSON number or a string that holds one.
    #[inline]
    pub(crate) fn money(&self, index: usize, currency: Currency) -> Result<Money, Rejection> {
        let must = "a number or a decimal string such as `\"249.99\"`";
        let value = self.required(index, must)?;
        let text = match value.kind {
            Kind::Number => Cow::Borrowed(value.raw),
            _ => value
                .text()
                .ok_or_else(|| wrong_type(self.name(index), &value, must))?,
        };
        parse_money(self.name(index), &text, currency)
    }

    /// An integer from 0 to `max`.
    pub(crate) fn unsigned(&self, index: usize, max: u32) -> Result<u32, Rejection> {
        let must = format!("an integer from 0 to {max}");
        let value = self.required(index, &must)?;
        if value.kind != Kind::Number {
            return Err(wrong_type(self.name(index), &value, &must));
        }
        value
            .raw
            .parse()
            .ok()
            .filter(|&number| number <= max)
            .ok_or_else(|| Rejection::value(RejectionCode::InvalidValue, self.name(index), value.raw, &must))
    }
}

/// Whether the text of a JSON number is that of an integer.
pub(crate) fn is_integer_text(raw: &str) -> bool {
    raw.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
}

#[cold]
pub(crate) fn wrong_type(field: &str, value: &Value<'_>, must: &str) -> Rejection {
    let message = format!(
        "`{field}` is {} (`{}`), must be {must}",
        value.kind.name(),
        crate::rejection::shown(value.raw)
    );
    Rejection::new(RejectionCode::WrongType, message)
}

#[cold]
fn duplicate(name: &str) -> Rejection {
    let message = format!("`{name}` stands twice, must stand once");
    Rejection::new(RejectionCode::DuplicateField, message)
}
