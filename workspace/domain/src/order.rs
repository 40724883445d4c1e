//! Orders as they stand in the topic.

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};

use crate::MAX_ORDER_BYTES;
use crate::country::Country;
use crate::currency::Currency;
use crate::fields::{Known, is_integer_text, text_of, wrong_type};
use crate::json::{Kind, Value, write_string};
use crate::money::Money;
use crate::rejection::{Rejection, RejectionCode};
use crate::time::EventTime;

/// Longest id in characters.
pub const MAX_ORDER_ID_CHARS: usize = 64;

const ID_MUST: &str = "a 64-bit integer or a string of 1 to 64 printable ASCII characters without spaces";

/// The id of an order. Its identity is its text: `1` and `"1"` are the same order.
#[derive(Clone)]
pub struct OrderId<'a> {
    text: Cow<'a, str>,
    integer: bool,
}

impl<'a> OrderId<'a> {
    /// An id that is written as a JSON integer.
    pub fn integer(number: i64) -> OrderId<'static> {
        OrderId {
            text: Cow::Owned(number.to_string()),
            integer: true,
        }
    }

    /// An id that is written as a JSON string.
    ///
    /// # Errors
    /// `invalid_order_id` unless 1 to 64 printable ASCII characters without spaces.
    #[inline]
    pub fn string(text: impl Into<Cow<'a, str>>) -> Result<Self, Rejection> {
        let text = text.into();
        let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
        if printable && !text.is_empty() && text.len() <= MAX_ORDER_ID_CHARS {
            Ok(Self { text, integer: false })
        } else {
            Err(Rejection::value(
                RejectionCode::InvalidOrderId,
                "order_id",
                &text,
                ID_MUST,
            ))
        }
    }

    /// An id from untyped text such as a CSV column: an integer where the text is one in canonical form,
    /// else a string (`00123` and `A55` stay what they are).
    ///
    /// # Errors
    /// `invalid_order_id`.
    pub fn from_text(text: impl Into<Cow<'a, str>>) -> Result<Self, Rejection> {
        let text = text.into();
        let integer = text.parse::<i64>().is_ok_and(|number| number.to_string() == text);
        if integer {
            Ok(Self { text, integer })
        } else {
            Self::string(text)
        }
    }

    #[inline]
    pub(crate) fn from_value(field: &str, value: &Value<'a>) -> Result<Self, Rejection> {
        match value.kind {
            Kind::Number => {
                let in_range =
                    is_integer_text(value.raw) && value.raw != "-0" && value.raw.parse::<i64>().is_ok();
                if in_range {
                    return Ok(Self {
                        text: Cow::Borrowed(value.raw),
                        integer: true,
                    });
                }
                Err(Rejection::value(
                    RejectionCode::InvalidOrderId,
                    field,
                    value.raw,
                    ID_MUST,
                ))
            }
            Kind::String { .. } => Self::string(value.text().unwrap_or_default()),
            _ => Err(wrong_type(field, value, ID_MUST)),
        }
    }

    /// The id's text: the record key, the document key, and what ids of alerts and payments are made from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the id is written as a JSON integer.
    pub fn is_integer(&self) -> bool {
        self.integer
    }

    /// Appends the id as JSON, in the type that it came in.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        if self.integer {
            out.extend_from_slice(self.text.as_bytes())
        } else {
            write_string(out, &self.text)
        }
    }

    /// The same id without a borrow.
    pub fn into_owned(self) -> OrderId<'static> {
        OrderId {
            text: Cow::Owned(self.text.into_owned()),
            integer: self.integer,
        }
    }
}

impl PartialEq for OrderId<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for OrderId<'_> {}

impl Hash for OrderId<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl fmt::Display for OrderId<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.text)
    }
}

impl fmt::Debug for OrderId<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.integer {
            formatter.write_str(&self.text)
        } else {
            write!(formatter, "{:?}", self.text)
        }
    }
}

/// What orderflow reads of an order. Items and unknown fields stay in the bytes, which are passed on as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order<'a> {
    /// Which order.
    pub id: OrderId<'a>,
    /// The amount, more than 0.
    pub money: Money,
    /// Where the order comes from.
    pub country: Country,
    /// Who ordered; absent where the field is missing, null or empty.
    pub customer_id: Option<Cow<'a, str>>,
    /// Who sells; absent where the field is missing, null or empty.
    pub vendor: Option<Cow<'a, str>>,
    /// Event time; our intake writes it where it was missing, foreign producers may not.
    pub timestamp: Option<EventTime>,
}

const ID: usize = 0;
const AMOUNT: usize = 1;
const COUNTRY: usize = 2;
const CURRENCY: usize = 3;
const CUSTOMER_ID: usize = 4;
const VENDOR: usize = 5;
pub(crate) const TIMESTAMP: usize = 6;
pub(crate) static ORDER_FIELDS: [&str; 7] = [
    "order_id",
    "amount",
    "country",
    "currency",
    "customer_id",
    "vendor",
    "timestamp",
];

impl<'a> Order<'a> {
    /// Reads an order. Borrows from `bytes`; allocates only for strings with escapes. Unknown fields are checked
    /// as JSON and passed over.
    ///
    /// ```
    /// use domain::{Currency, Order};
    /// let order = Order::decode(br#"{"order_id":1,"amount":249.99,"country":"US"}"#, Currency::USD).unwrap();
    /// assert_eq!((order.id.text(), order.money.minor.0, order.country.as_str()), ("1", 24_999, "US"));
    /// ```
    ///
    /// # Errors
    /// A [`Rejection`] with a stable code. What is wrong with the JSON comes before what is wrong with a field.
    #[inline]
    pub fn decode(bytes: &'a [u8], default_currency: Currency) -> Result<Self, Rejection> {
        let known = Known::read(text_of(bytes, MAX_ORDER_BYTES)?, &ORDER_FIELDS)?;
        Self::from_fields(&known, default_currency)
    }

    #[inline]
    pub(crate) fn from_fields(known: &Known<'a, 7>, default_currency: Currency) -> Result<Self, Rejection> {
        let id = OrderId::from_value("order_id", &known.required(ID, ID_MUST)?)?;
        let currency = known.currency(CURRENCY)?.unwrap_or(default_currency);
        let money = known.money(AMOUNT, currency)?;
        if money.minor.0 <= 0 {
            let raw = known
                .raw(AMOUNT)
                .map(|value| value.raw.trim_matches('"'))
                .unwrap_or_default();
            return Err(Rejection::value(
                RejectionCode::AmountNotPositive,
                "amount",
                raw,
                "more than 0",
            ));
        }
        Ok(Self {
            id,
            money,
            country: known.country(COUNTRY)?,
            customer_id: known.optional_name(CUSTOMER_ID)?,
            vendor: known.optional_name(VENDOR)?,
            timestamp: known.timestamp(TIMESTAMP)?,
        })
    }

    /// The same order without a borrow, for work that outlives the record.
    pub fn into_owned(self) -> Order<'static> {
        let owned = |name: Option<Cow<'a, str>>| name.map(|text| Cow::Owned(text.into_owned()));
        Order {
            id: self.id.into_owned(),
            money: self.money,
            country: self.country,
            customer_id: owned(self.customer_id),
            vendor: owned(self.vendor),
            timestamp: self.timestamp,
        }
    }
}
