//! What an order must be to enter the topic, and the form in which it enters.

use crate::MAX_ORDER_BYTES;
use crate::currency::Currency;
use crate::fields::{Known, text_of, too_large};
use crate::order::{ORDER_FIELDS, Order, TIMESTAMP};
use crate::rejection::{Rejection, RejectionCode};
use crate::time::EventTime;

/// The field under which orderflow keeps its own data in documents; no order may bring it.
pub const RESERVED_FIELD: &str = "_orderflow";

/// An order ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmittedOrder {
    /// The record key: the text of the id.
    pub key: String,
    /// The record value.
    pub value: Vec<u8>,
}

/// Checks an order and adds `timestamp` where it is missing or null. Every other byte stays as it came: field
/// order, number texts and unknown fields included.
///
/// ```
/// use domain::{Currency, EventTime, admit};
/// let order = br#"{"order_id":1,"amount":2.50,"country":"FR"}"#;
/// let admitted = admit(order, Currency::USD, EventTime(0)).unwrap();
/// assert_eq!(admitted.key, "1");
/// assert_eq!(
///     String::from_utf8(admitted.value).unwrap(),
///     r#"{"order_id":1,"amount":2.50,"country":"FR","timestamp":"1970-01-01T00:00:00.000Z"}"#
/// );
/// ```
///
/// # Errors
/// Those of [`Order::decode`], `reserved_field`, and `too_large` where the time stamp no longer fits.
pub fn admit(bytes: &[u8], default_currency: Currency, now: EventTime) -> Result<AdmittedOrder, Rejection> {
    let text = text_of(bytes, MAX_ORDER_BYTES)?;
    let (known, closing_brace) = Known::read_with(text, &ORDER_FIELDS, refuse_reserved)?;
    let order = Order::from_fields(&known, default_currency)?;
    let key = order.id.text().to_owned();
    let value = match (order.timestamp, known.raw(TIMESTAMP)) {
        (Some(_), _) => text.trim_ascii().as_bytes().to_vec(),
        (None, Some(null)) => spliced(
            text,
            null.start,
            null.start + null.raw.len(),
            &format!("\"{now}\""),
        ),
        (None, None) => spliced(
            text,
            closing_brace,
            closing_brace,
            &format!(",\"timestamp\":\"{now}\""),
        ),
    };
    if value.len() > MAX_ORDER_BYTES {
        return Err(too_large(value.len(), MAX_ORDER_BYTES));
    }
    Ok(AdmittedOrder { key, value })
}

fn refuse_reserved(name: &str) -> Result<(), Rejection> {
    if name == RESERVED_FIELD {
        let message = format!("`{RESERVED_FIELD}` is reserved for orderflow's own data, must be left out");
        return Err(Rejection::new(RejectionCode::ReservedField, message));
    }
    Ok(())
}

/// `text` with `start..end` replaced, without the white space around it.
fn spliced(text: &str, start: usize, end: usize, insert: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + insert.len());
    out.extend_from_slice(
        text.get(..start)
            .unwrap_or_default()
            .trim_ascii_start()
            .as_bytes(),
    );
    out.extend_from_slice(insert.as_bytes());
    out.extend_from_slice(text.get(end..).unwrap_or_default().trim_ascii_end().as_bytes());
    out
}
