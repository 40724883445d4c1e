//! What a store extracts from a document on write.
//!
//! Queries and totals need a few values of a document. They are read once, here, so that no engine
//! depends on its own JSON functions (whose numbers are floats). Amounts come from
//! `_orderflow.amount_minor` alone, the authoritative integer.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::document::{Collection, MAX_BODY_BYTES, MAX_KEY_BYTES, VersionedDocument};
use crate::error::StoreError;

/// The values of one document that queries and totals need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Columns {
    /// When the record was sent, in milliseconds since the epoch.
    pub record_time_ms: i64,
    /// What the collection's totals are grouped by: an order's country, an alert's risk level, a
    /// payment's status. One of few words, so that totals stay small whatever others send.
    pub facet: Cow<'static, str>,
    /// The currency code and the amount in its minor units.
    pub amount: Option<(String, i64)>,
}

/// Checks a document and extracts its columns; the error is always poison.
pub(crate) fn extract(collection: Collection, document: &VersionedDocument) -> Result<Columns, StoreError> {
    let key = &document.key;
    if key.is_empty() || key.len() > MAX_KEY_BYTES {
        let message = format!("key of {} bytes, must have 1 to {MAX_KEY_BYTES}", key.len());
        return Err(StoreError::poison("key_length", message));
    }
    if document.body.len() > MAX_BODY_BYTES {
        let message = format!(
            "document `{key}` has {} bytes, must have at most {MAX_BODY_BYTES}",
            document.body.len()
        );
        return Err(StoreError::poison("document_too_large", message));
    }
    let body: Body<'_> = serde_json::from_str(&document.body).map_err(|error| {
        StoreError::poison(
            "not_an_object",
            format!("document `{key}` is not a JSON object that can be stored: {error}"),
        )
    })?;
    if collection == Collection::Aggregates {
        return Ok(Columns::default());
    }
    let lacks = |field: &str| {
        StoreError::poison(
            "missing_field",
            format!(
                "document `{key}` in `{}` lacks a valid `_orderflow.{field}`",
                collection.as_str()
            ),
        )
    };
    let ours = body.ours.ok_or_else(|| lacks("record_time"))?;
    let amount = match (ours.currency, ours.amount_minor) {
        (Some(currency), Some(minor)) if is_currency(&currency) => Some((currency.into_owned(), minor)),
        (None, None) if collection != Collection::Orders => None,
        (_, None) => return Err(lacks("amount_minor")),
        (_, Some(_)) => return Err(lacks("currency")),
    };
    let facet = match collection {
        Collection::Orders => country(body.country),
        Collection::Alerts => known(body.risk_level, &["Low", "Medium", "High", "Critical"], "Other"),
        Collection::Payments => known(body.status, &["PAID", "DECLINED", "FAILED"], "OTHER"),
        Collection::Aggregates => Cow::Borrowed(""),
    };
    Ok(Columns {
        record_time_ms: ours.record_time.ok_or_else(|| lacks("record_time"))?,
        facet,
        amount,
    })
}

fn is_currency(code: &str) -> bool {
    code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_uppercase())
}

fn country(raw: Option<&RawValue>) -> Cow<'static, str> {
    match text(raw) {
        Some(code) if code.len() == 2 && code.bytes().all(|byte| byte.is_ascii_uppercase()) => {
            Cow::Owned(code)
        }
        _ => Cow::Borrowed("ZZ"),
    }
}

fn known(raw: Option<&RawValue>, words: &[&'static str], other: &'static str) -> Cow<'static, str> {
    let text = text(raw).unwrap_or_default();
    Cow::Borrowed(words.iter().find(|word| **word == text).copied().unwrap_or(other))
}

fn text(raw: Option<&RawValue>) -> Option<String> {
    serde_json::from_str(raw?.get()).ok()
}

/// The part of a document that we own; a wrong type in it is our own mistake and refused.
#[derive(Deserialize)]
struct Ours<'a> {
    record_time: Option<i64>,
    #[serde(borrow)]
    currency: Option<Cow<'a, str>>,
    amount_minor: Option<i64>,
}

#[derive(Deserialize)]
#[serde(field_identifier)]
enum Name {
    #[serde(rename = "_orderflow")]
    Ours,
    #[serde(rename = "country")]
    Country,
    #[serde(rename = "status")]
    Status,
    #[serde(rename = "riskLevel")]
    RiskLevel,
    #[serde(other)]
    Other,
}

/// A JSON object of which a few fields count. A derive would refuse a field that is there twice and
/// a field of another type, and both are legal in what others send: here the last one counts, and
/// its type is looked at when it is needed.
#[derive(Default)]
struct Body<'a> {
    ours: Option<Ours<'a>>,
    country: Option<&'a RawValue>,
    status: Option<&'a RawValue>,
    risk_level: Option<&'a RawValue>,
}

impl<'de> Deserialize<'de> for Body<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Body<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Body<'de>, M::Error> {
                let mut body = Body::default();
                while let Some(name) = map.next_key()? {
                    match name {
                        Name::Ours => body.ours = Some(map.next_value()?),
                        Name::Country => body.country = Some(map.next_value()?),
                        Name::Status => body.status = Some(map.next_value()?),
                        Name::RiskLevel => body.risk_level = Some(map.next_value()?),
                        Name::Other => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(body)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Version;

    fn document(body: &str) -> VersionedDocument {
        VersionedDocument {
            key: "1".into(),
            body: body.into(),
            version: Version {
                generation: 0,
                offset: 0,
            },
        }
    }

    #[test]
    fn an_order_gives_its_country_record_time_and_exact_amount() {
        let body = r#"{"order_id":1,"amount":1e0,"country":"GB","status":7,"status":[],
            "_orderflow":{"type":"order","record_time":1700000000123,"event_time":null,"currency":"GBP","amount_minor":9007199254740993}}"#;
        assert_eq!(
            extract(Collection::Orders, &document(body)).unwrap(),
            Columns {
                record_time_ms: 1_700_000_000_123,
                facet: "GB".into(),
                amount: Some(("GBP".into(), 9_007_199_254_740_993))
            }
        );
    }

    #[test]
    fn words_that_we_do_not_know_are_counted_together() {
        let facet = |collection, field: &str| {
            let body =
                format!(r#"{{{field},"_orderflow":{{"record_time":1,"currency":"USD","amount_minor":1}}}}"#);
            extract(collection, &document(&body)).unwrap().facet
        };
        assert_eq!(facet(Collection::Payments, r#""status":"PAID""#), "PAID");
        assert_eq!(facet(Collection::Payments, r#""status":"paid""#), "OTHER");
        assert_eq!(facet(Collection::Payments, r#""status":{"PAID":1}"#), "OTHER");
        assert_eq!(facet(Collection::Alerts, r#""riskLevel":"\u0048igh""#), "High");
        assert_eq!(facet(Collection::Alerts, r#""x":1"#), "Other");
        assert_eq!(facet(Collection::Orders, r#""country":"usa""#), "ZZ");
    }

    #[test]
    fn what_can_never_be_stored_is_poison_with_a_code() {
        let ours = r#"{"_orderflow":{"record_time":1,"currency":"USD","amount_minor":1}}"#;
        let cases = [
            (Collection::Orders, "[]", "not_an_object"),
            (Collection::Orders, "", "not_an_object"),
            (Collection::Orders, "{\"a\":1} x", "not_an_object"),
            (Collection::Aggregates, "\"text\"", "not_an_object"),
            (Collection::Orders, r#"{"order_id":1}"#, "missing_field"),
            (
                Collection::Orders,
                r#"{"_orderflow":{"record_time":1}}"#,
                "missing_field",
            ),
            (
                Collection::Orders,
                r#"{"_orderflow":{"record_time":1,"currency":"usd","amount_minor":1}}"#,
                "missing_field",
            ),
            (Collection::Payments, r#"{"_orderflow":{}}"#, "missing_field"),
            (
                Collection::Payments,
                r#"{"_orderflow":{"record_time":"x"}}"#,
                "not_an_object",
            ),
        ];
        for (collection, body, code) in cases {
            let error = extract(collection, &document(body)).unwrap_err();
            assert_eq!(
                (error.kind(), error.code()),
                (crate::StoreErrorKind::Poison, code),
                "{body}: {error}"
            );
        }
        for key in [String::new(), "x".repeat(MAX_KEY_BYTES + 1)] {
            let document = VersionedDocument {
                key,
                ..document(ours)
            };
            assert_eq!(
                extract(Collection::Orders, &document).unwrap_err().code(),
                "key_length"
            );
        }
        let large = document(&format!("{{\"a\":\"{}\"}}", "x".repeat(MAX_BODY_BYTES)));
        assert_eq!(
            extract(Collection::Orders, &large).unwrap_err().code(),
            "document_too_large"
        );
        assert!(extract(Collection::Aggregates, &document("{}")).is_ok());
    }
}
