//! The document of a record: its own fields as they came, and ours under `_orderflow`.

use domain::json::{Fields, write_integer, write_string};
use domain::{Alert, Currency, EventTime, Money, Order, Payment, RESERVED_FIELD, Rejection, RejectionCode};

/// What kind of message a topic carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Orders.
    Order,
    /// Fraud alerts.
    Alert,
    /// Payments.
    Payment,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Order => "order",
            Self::Alert => "alert",
            Self::Payment => "payment",
        }
    }
}

/// Where a record stands, and when it was sent.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// When it was sent, in milliseconds.
    pub record_time_ms: i64,
}

/// Key and body of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The order id's text.
    pub key: String,
    /// A JSON object.
    pub body: String,
}

/// Makes the document of a record.
///
/// # Errors
/// Why the record is not what its topic carries.
pub fn document(
    kind: Kind,
    value: &[u8],
    place: Place<'_>,
    default_currency: Currency,
) -> Result<Document, Rejection> {
    let (key, money, event_time) = match kind {
        Kind::Order => {
            let order = Order::decode(value, default_currency)?;
            (order.id.text().to_owned(), order.money, order.timestamp)
        }
        Kind::Alert => {
            let alert = Alert::decode(value)?;
            (alert.order_id.text().to_owned(), alert.money, alert.timestamp)
        }
        Kind::Payment => {
            let payment = Payment::decode(value)?;
            (
                payment.order_id.text().to_owned(),
                payment.money,
                Some(payment.timestamp),
            )
        }
    };
    // Decoding has checked that the bytes are UTF-8 and one JSON object with at least one field.
    let text = String::from_utf8_lossy(value);
    refuse_reserved(&text)?;
    let text = text.trim_end();
    let fields = text.strip_suffix('}').unwrap_or(text);
    let mut body = Vec::with_capacity(value.len() + 256);
    body.extend_from_slice(fields.as_bytes());
    ours(&mut body, kind, place, money, event_time);
    Ok(Document {
        key,
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}

/// A record that carries our own field already did not come through the intake, and its field would
/// stand beside ours.
fn refuse_reserved(text: &str) -> Result<(), Rejection> {
    if !text.contains(RESERVED_FIELD) {
        return Ok(());
    }
    let mut fields = Fields::of(text)?;
    while let Some(field) = fields.next_field()? {
        if field.name == RESERVED_FIELD {
            let message =
                format!("`{RESERVED_FIELD}` is reserved for orderflow's own data, must be left out");
            return Err(Rejection::new(RejectionCode::ReservedField, message));
        }
    }
    Ok(())
}

fn ours(body: &mut Vec<u8>, kind: Kind, place: Place<'_>, money: Money, event_time: Option<EventTime>) {
    body.extend_from_slice(b",\"_orderflow\":{\"type\":");
    write_string(body, kind.as_str());
    body.extend_from_slice(b",\"topic\":");
    write_string(body, place.topic);
    let mut number = |name: &str, value: i64| {
        body.extend_from_slice(name.as_bytes());
        write_integer(body, value);
    };
    number(",\"partition\":", i64::from(place.partition));
    number(",\"offset\":", place.offset);
    number(",\"record_time\":", place.record_time_ms);
    match event_time {
        Some(time) => number(",\"event_time\":", time.0),
        None => body.extend_from_slice(b",\"event_time\":null"),
    }
    body.extend_from_slice(b",\"currency\":");
    write_string(body, money.currency.as_str());
    body.extend_from_slice(b",\"amount_minor\":");
    write_integer(body, money.minor.0);
    body.extend_from_slice(b",\"amount\":");
    write_string(body, &money.to_string());
    body.extend_from_slice(b"}}");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const PLACE: Place<'_> = Place {
        topic: "orders",
        partition: 2,
        offset: 41,
        record_time_ms: 1_700_000_000_000,
    };

    fn make(text: &str) -> Result<Document, Rejection> {
        document(Kind::Order, text.as_bytes(), PLACE, Currency::USD)
    }

    #[test]
    fn an_order_keeps_its_fields_and_gets_ours() {
        let order = r#" {"order_id":1,"amount":249.99,"country":"US","x":{"y":{}},"timestamp":"2024-01-12T03:15:00Z"} "#;
        let document = make(order).expect("document");
        assert_eq!(document.key, "1");
        let mut body: Value = serde_json::from_str(&document.body).expect("JSON");
        let ours = body
            .as_object_mut()
            .expect("object")
            .remove("_orderflow")
            .expect("ours");
        assert_eq!(body, serde_json::from_str::<Value>(order).expect("JSON"));
        let want = json!({"type":"order","topic":"orders","partition":2,"offset":41,"record_time":1_700_000_000_000_i64,
            "event_time":1_705_029_300_000_i64,"currency":"USD","amount_minor":24_999,"amount":"249.99"});
        assert_eq!(ours, want);
    }

    #[test]
    fn an_order_that_ends_in_nested_objects_keeps_them() {
        let document =
            make(r#"{"order_id":"a","amount":5,"country":"FR","x":{"y":{"z":{}}}}"#).expect("document");
        let body: Value = serde_json::from_str(&document.body).expect("JSON");
        assert_eq!(body["x"], json!({"y":{"z":{}}}));
        assert_eq!(body["_orderflow"]["amount_minor"], json!(500));
        assert_eq!(body["_orderflow"]["event_time"], Value::Null);
    }

    #[test]
    fn our_own_field_is_refused_and_a_text_that_only_mentions_it_is_not() {
        let refused =
            make(r#"{"order_id":1,"amount":5,"country":"FR","_orderflow":{}}"#).expect_err("refused");
        assert_eq!(refused.code.as_str(), "reserved_field");
        assert!(make(r#"{"order_id":1,"amount":5,"country":"FR","vendor":"_orderflow"}"#).is_ok());
    }

    proptest! {
        #[test]
        fn every_document_is_json(extra in "[a-z{}\\\\\"]{0,20}", depth in 0_usize..20) {
            let nested = format!("{}{}{}", "{\"n\":".repeat(depth), json!(extra), "}".repeat(depth));
            let order = format!("{{\"order_id\":1,\"amount\":5,\"country\":\"FR\",\"x\":{nested}}}");
            let document = make(&order).expect("document");
            let body: Value = serde_json::from_str(&document.body).expect("JSON");
            prop_assert_eq!(&body["x"], &serde_json::from_str::<Value>(&nested).expect("JSON"));
        }
    }
}
