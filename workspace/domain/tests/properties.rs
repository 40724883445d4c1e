//! The codecs against other implementations, and against arbitrary bytes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

use std::borrow::Cow;
use std::str::FromStr;

use bigdecimal::BigDecimal;
use bigdecimal::num_bigint::BigInt;
use domain::json::{self, Kind};
use domain::*;
use proptest::prelude::*;
use serde_json::Value;

const NOW: EventTime = EventTime(1_705_029_300_000);

/// Valid JSON of many shapes, in the spelling of this generator.
fn any_json() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        "-?(0|[1-9][0-9]{0,5})(\\.[0-9]{1,5})?([eE][+-]?[0-9]{1,3})?",
    ];
    let string = prop_oneof![
        "\"[ -!#-\\[\\]-~]{0,12}\"",
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
        "\"(\\\\[\"\\\\/bfnrt]|\\\\u[0-9a-fA-F]{4}|é|x){0,4}\"",
    ];
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("false".to_owned()),
        number,
        string.clone()
    ];
    leaf.prop_recursive(6, 40, 6, move |inner| {
        let key = string.clone();
        prop_oneof![
            (prop::collection::vec(inner.clone(), 0..5), "[ \t\r\n]{0,2}").prop_map(
                |(items, space)| format!("[{space}{}{space}]", items.join(&format!("{space},{space}")))
            ),
            (prop::collection::vec((key, inner), 0..5), "[ \t\r\n]{0,2}").prop_map(|(fields, space)| {
                let fields: Vec<_> = fields
                    .into_iter()
                    .map(|(key, value)| format!("{key}{space}:{space}{value}"))
                    .collect();
                format!("{space}{{{space}{}{space}}}", fields.join(","))
            }),
        ]
    })
}

/// JSON with a few bytes changed, removed or put in, so that most is broken in one place.
fn damaged_json() -> impl Strategy<Value = Vec<u8>> {
    let junk =
        prop::sample::select(b"{}[]\",:\\/u0123456789.eE+-tfn \n\t\x00\x1f\x7f\x80\xc3\xff\xa9x".to_vec());
    (
        any_json(),
        prop::collection::vec((any::<prop::sample::Index>(), 0..3u8, junk), 0..4),
    )
        .prop_map(|(text, edits)| {
            let mut bytes = text.into_bytes();
            for (place, edit, byte) in edits {
                let at = place.index(bytes.len() + 1);
                match edit {
                    0 if at < bytes.len() => bytes[at] = byte,
                    1 if at < bytes.len() => drop(bytes.remove(at)),
                    _ => bytes.insert(at, byte),
                }
            }
            bytes
        })
}

/// Our verdict and that of `serde_json` on the same bytes, which may differ for numbers beyond f64 only.
fn same_verdict(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        assert_eq!(
            Order::decode(bytes, Currency::USD).unwrap_err().code,
            RejectionCode::InvalidUtf8
        );
        return;
    };
    let ours = json::parse(text);
    match serde_json::from_str::<Value>(text) {
        Ok(theirs) => {
            let ours = ours.unwrap_or_else(|refusal| panic!("serde_json accepts {text:?}: {refusal}"));
            assert_eq!(ours.raw, text.trim_matches([' ', '\t', '\r', '\n']));
            let kind = match theirs {
                Value::Null => "null",
                Value::Bool(_) => "a boolean",
                Value::Number(_) => "a number",
                Value::String(ref string) => {
                    assert_eq!(ours.text().unwrap(), string.as_str());
                    "a string"
                }
                Value::Array(ref items) => {
                    let mut elements = json::Elements::of(text).unwrap();
                    for item in items {
                        let element = elements.next_element().unwrap().unwrap();
                        assert_eq!(&serde_json::from_str::<Value>(element.raw).unwrap(), item);
                    }
                    assert!(elements.next_element().unwrap().is_none());
                    "an array"
                }
                Value::Object(ref map) => {
                    let mut fields = json::Fields::of(text).unwrap();
                    let mut read = serde_json::Map::new();
                    while let Some(field) = fields.next_field().unwrap() {
                        read.insert(
                            field.name.into_owned(),
                            serde_json::from_str(field.value.raw).unwrap(),
                        );
                    }
                    assert_eq!(&read, map);
                    "an object"
                }
            };
            assert_eq!(ours.kind.name(), kind);
        }
        Err(error) if error.to_string().starts_with("number out of range") => {}
        Err(error) => assert!(ours.is_err(), "serde_json refuses {text:?}: {error}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_json_here_is_json_for_serde_json_and_the_other_way_round(text in any_json()) {
        same_verdict(text.as_bytes());
    }

    #[test]
    fn damaged_json_gets_the_same_verdict_as_from_serde_json(bytes in damaged_json()) {
        same_verdict(&bytes);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        drop((Order::decode(&bytes, Currency::USD), Alert::decode(&bytes), Payment::decode(&bytes)));
        drop((EventEnvelope::decode(&bytes), admit(&bytes, Currency::USD, NOW)));
    }

    #[test]
    fn damaged_messages_never_panic(
        place in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()
    ) {
        let good = br#"{"order_id":"A-1","amount":2.5e2,"country":"US","currency":"EUR","timestamp":"2024-01-12T03:15:00.5+01:00","x":[{"y":"\ud83d\ude00"}]}"#;
        let mut bytes = good.to_vec();
        bytes[place.index(good.len())] = byte;
        drop((Order::decode(&bytes, Currency::USD), admit(&bytes, Currency::USD, NOW)));
        bytes.truncate(cut.index(good.len()));
        prop_assert!(Order::decode(&bytes, Currency::USD).is_err());
    }

    #[test]
    fn money_is_what_big_decimals_say(
        text in "-?(0|[1-9][0-9]{0,21})(\\.[0-9]{1,8})?([eE][+-]?[0-9]{1,2})?",
        code in prop::sample::select(vec!["JPY", "USD", "KWD", "CLF"]),
    ) {
        let currency = Currency::parse(code).unwrap();
        let exact = BigDecimal::from_str(&text).unwrap() * BigDecimal::from_str(&format!("1e{}", currency.exponent())).unwrap();
        let fits = exact.abs() <= i64::MAX;
        match Money::parse(&text, currency) {
            Ok(money) => {
                prop_assert_eq!(BigDecimal::from(money.minor.0), exact);
                let shown = BigDecimal::from_str(&money.to_string()).unwrap();
                prop_assert_eq!(&shown, &BigDecimal::from_str(&text).unwrap());
                prop_assert_eq!(Money::parse(&money.to_string(), currency).unwrap(), money);
            }
            Err(refusal) if refusal.code == RejectionCode::AmountTooPrecise => prop_assert!(!exact.is_integer()),
            Err(refusal) => {
                prop_assert_eq!(refusal.code, RejectionCode::AmountTooLarge);
                prop_assert!(exact.is_integer() && !fits, "{} {}", text, code);
            }
        }
    }

    #[test]
    fn any_amount_survives_being_written(minor in any::<i64>(), code in prop::sample::select(vec!["JPY", "USD", "KWD", "CLF"])) {
        let money = Money { minor: MinorUnits(minor), currency: Currency::parse(code).unwrap() };
        let mut json = Vec::new();
        money.write_json(&mut json);
        let json = String::from_utf8(json).unwrap();
        prop_assert_eq!(Money::parse(&json, money.currency).unwrap(), money);
        prop_assert_eq!(Money::parse(&money.to_string(), money.currency).unwrap(), money);
        prop_assert_eq!(json::parse(&json).unwrap().kind, Kind::Number);
        prop_assert!(!json.contains('.') || !json.ends_with('0'));
    }

    #[test]
    fn sums_of_prices_are_what_big_decimals_say(
        lines in prop::collection::vec(("-?(0|[1-9][0-9]{0,6})(\\.[0-9]{1,6})?", -1000..1000i64), 0..20),
    ) {
        let mut ours = Decimal::ZERO;
        let mut theirs = BigDecimal::from(0);
        for (price, quantity) in &lines {
            ours = ours.plus(Decimal::parse(price).unwrap().times(*quantity).unwrap()).unwrap();
            theirs += BigDecimal::from_str(price).unwrap() * BigDecimal::from(*quantity);
        }
        prop_assert_eq!(BigDecimal::from_str(&ours.to_string()).unwrap(), theirs.clone());
        let rounded = theirs.with_scale_round(2, bigdecimal::RoundingMode::HalfEven);
        let money = ours.round_half_even(Currency::USD).unwrap();
        prop_assert_eq!(BigDecimal::new(BigInt::from(money.minor.0), 2), rounded);
        prop_assert_eq!(ours.is_positive(), theirs > 0);
    }

    #[test]
    fn times_are_what_jiff_says(millis in -62_135_596_800_000i64..253_402_300_799_999, offset in -1439i64..1439) {
        let shown = EventTime(millis).to_string();
        let theirs = jiff::Timestamp::from_millisecond(millis).unwrap();
        prop_assert_eq!(&shown, &format!("{theirs:.3}"));
        prop_assert_eq!(EventTime::parse(&shown).unwrap(), EventTime(millis));
        let sign = if offset < 0 { '-' } else { '+' };
        let local = EventTime(millis + offset * 60_000).to_string();
        if (11..20).contains(&local.len()) || local.len() == 24 {
            let zoned = local.replace('Z', &format!("{sign}{:02}:{:02}", offset.abs() / 60, offset.abs() % 60));
            match EventTime::parse(&zoned) {
                Ok(time) => prop_assert_eq!(time, EventTime(millis)),
                Err(_) => prop_assert!(local.starts_with('-')),
            }
        }
    }

    #[test]
    fn texts_like_times_are_read_as_jiff_reads_them(
        text in "(19|20)[0-9]{2}-[01][0-9]-[0-3][0-9][Tt ][0-2][0-9]:[0-6][0-9]:[0-6][0-9](\\.[0-9]{1,9})?(Z|z|[+-][0-2][0-9]:[0-6][0-9])",
    ) {
        let theirs = text.parse::<jiff::Timestamp>().ok();
        let ours = EventTime::parse(&text).ok();
        // jiff reads offsets up to 25:59; RFC 3339 ends at 23:59. It rounds a leap second down as well.
        let zone = &text[text.len() - 6..];
        if zone.starts_with(['+', '-']) && &zone[1..3] > "23" {
            prop_assert!(ours.is_none());
        } else {
            let millis = theirs.map(|time| EventTime(time.as_nanosecond().div_euclid(1_000_000) as i64));
            prop_assert_eq!(ours, millis, "{}", text);
        }
    }

    #[test]
    fn an_admitted_order_is_the_same_order_with_a_time(order in any_new_order(), spaces in "[ \n\t]{0,3}") {
        let mut bytes = spaces.clone().into_bytes();
        order.encode(&mut bytes);
        bytes.extend_from_slice(spaces.as_bytes());
        let before: Value = serde_json::from_slice(&bytes).unwrap();
        let decoded = Order::decode(&bytes, Currency::USD).unwrap();
        prop_assert_eq!(decoded.money, order.money);
        prop_assert_eq!(&decoded.id, &order.id);
        prop_assert_eq!(decoded.id.is_integer(), order.id.is_integer());
        prop_assert_eq!(decoded.country, order.country);
        prop_assert_eq!(decoded.timestamp, order.timestamp);
        prop_assert_eq!(decoded.vendor.as_deref(), order.vendor.as_deref().filter(|text| !text.is_empty()));
        let admitted = admit(&bytes, Currency::USD, NOW).unwrap();
        prop_assert_eq!(&admitted.key, &order.key());
        let mut after: Value = serde_json::from_slice(&admitted.value).unwrap();
        let again = admit(&admitted.value, Currency::USD, EventTime(0)).unwrap();
        prop_assert_eq!(again.value, admitted.value);
        if order.timestamp.is_none() {
            prop_assert_eq!(after.as_object_mut().unwrap().remove("timestamp").unwrap(), NOW.to_string());
        }
        prop_assert_eq!(after, before);
    }

    #[test]
    fn alerts_and_payments_read_back_the_same(order in any_new_order(), score in 0..=100u8, reasons in prop::collection::vec(any::<String>(), 0..4), attempts in any::<u32>()) {
        let alert = Alert {
            alert_id: ids::alert_id(order.timestamp, order.id.text()).into(),
            order_id: order.id.clone(),
            risk_score: score,
            risk_level: RiskLevel::ALL[usize::from(score) % 4],
            money: order.money,
            country: order.country,
            vendor: order.vendor.clone().filter(|text| !text.is_empty()).map(Cow::Owned),
            timestamp: order.timestamp,
            reasons: reasons.into_iter().map(Cow::Owned).collect(),
            rules_version: "v1".into(),
        };
        let mut bytes = Vec::new();
        alert.encode(&mut bytes);
        prop_assert_eq!(&Alert::decode(&bytes).unwrap(), &alert);
        let payment = Payment {
            order_id: order.id.clone(),
            status: PaymentStatus::ALL[usize::from(score) % 3],
            payment_id: ids::payment_id(order.id.text()).into(),
            money: order.money,
            attempts,
            timestamp: NOW,
        };
        let mut bytes = Vec::new();
        payment.encode(&mut bytes);
        prop_assert_eq!(&Payment::decode(&bytes).unwrap(), &payment);
    }
}

fn any_new_order() -> impl Strategy<Value = NewOrder> {
    let id = prop_oneof![
        any::<i64>().prop_map(OrderId::integer),
        "[!-~]{1,64}".prop_map(|text| OrderId::string(text).unwrap()),
    ];
    let money =
        (1..=i64::MAX, prop::sample::select(vec!["JPY", "USD", "KWD"])).prop_map(|(minor, code)| Money {
            minor: MinorUnits(minor),
            currency: Currency::parse(code).unwrap(),
        });
    let name = prop::option::of(".{0,40}");
    let items = prop::collection::vec(
        (".{1,10}", -5..100i64, "(0|[1-9][0-9]{0,3})(\\.[0-9]{1,3})?"),
        0..4,
    );
    (
        id,
        money,
        "[A-Z]{2}",
        name.clone(),
        name,
        prop::option::of(-62_135_596_800_000i64..253_402_300_799_999),
        items,
    )
        .prop_map(
            |(id, money, country, customer_id, vendor, time, items)| NewOrder {
                id,
                money,
                country: Country::parse(&country).unwrap(),
                customer_id,
                vendor,
                timestamp: time.map(EventTime),
                items: items
                    .into_iter()
                    .map(|(sku, quantity, price)| NewItem {
                        sku,
                        description: None,
                        quantity,
                        unit_price: Decimal::parse(&price).unwrap(),
                    })
                    .collect(),
            },
        )
}
