//! What is refused, with which code, and what the sentence says.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

use domain::{Currency, EventTime, MAX_NAME_BYTES, MAX_ORDER_BYTES, Order, RejectionCode, admit};

const NOW: EventTime = EventTime(1_705_029_300_000);

fn decode(text: &str) -> Result<Order<'_>, domain::Rejection> {
    Order::decode(text.as_bytes(), Currency::USD)
}

/// Both doors must say the same: what intake admits, every worker can read.
fn refused(bytes: &[u8], code: RejectionCode, sentence: &str) {
    let shown = domain::shown(&String::from_utf8_lossy(bytes));
    let decoded = Order::decode(bytes, Currency::USD).expect_err(&shown);
    let admitted = admit(bytes, Currency::USD, NOW).expect_err(&shown);
    assert_eq!(decoded, admitted, "{shown}");
    assert_eq!(decoded.code, code, "{shown}: {}", decoded.message);
    assert!(
        decoded.message.contains(sentence),
        "{shown}: {} lacks {sentence}",
        decoded.message
    );
    assert!(decoded.message.len() < 512, "{}", decoded.message);
    assert!(
        !decoded.message.ends_with('.') && !decoded.message.contains('\n'),
        "{}",
        decoded.message
    );
}

#[test]
fn each_field_has_its_codes() {
    use RejectionCode::*;
    // An order in which one field is replaced by the text of the second column ("" leaves it out).
    let table: &[(&str, &str, RejectionCode, &str)] = &[
        (
            "order_id",
            "",
            MissingField,
            "`order_id` is missing, must be a 64-bit integer or a string",
        ),
        ("order_id", "null", MissingField, "`order_id` is missing"),
        (
            "order_id",
            "true",
            WrongType,
            "`order_id` is a boolean (`true`), must be",
        ),
        ("order_id", "[1]", WrongType, "`order_id` is an array (`[1]`)"),
        ("order_id", "{}", WrongType, "`order_id` is an object"),
        (
            "order_id",
            "1.0",
            InvalidOrderId,
            "`order_id` is `1.0`, must be a 64-bit integer",
        ),
        ("order_id", "1e3", InvalidOrderId, "`order_id` is `1e3`"),
        ("order_id", "-0", InvalidOrderId, "`order_id` is `-0`"),
        (
            "order_id",
            "9223372036854775808",
            InvalidOrderId,
            "`order_id` is `9223372036854775808`",
        ),
        (
            "order_id",
            "-9223372036854775809",
            InvalidOrderId,
            "`order_id` is `-9223372036854775809`",
        ),
        ("order_id", r#""""#, InvalidOrderId, "`order_id` is ``, must be"),
        ("order_id", r#""a b""#, InvalidOrderId, "`order_id` is `a b`"),
        ("order_id", r#""a\u0020b""#, InvalidOrderId, "`order_id` is `a b`"),
        (
            "order_id",
            r#""a\nb""#,
            InvalidOrderId,
            r"`order_id` is `a\u{a}b`",
        ),
        ("order_id", r#""é""#, InvalidOrderId, "`order_id` is `é`"),
        (
            "order_id",
            r#""\u007f""#,
            InvalidOrderId,
            r"`order_id` is `\u{7f}`",
        ),
        (
            "order_id",
            r#""12345678901234567890123456789012345678901234567890123456789012345""#,
            InvalidOrderId,
            "`order_id` is `123456789012345678901234567890123456789012345678…`",
        ),
        ("amount", "", MissingField, "`amount` is missing"),
        ("amount", "null", MissingField, "`amount` is missing"),
        (
            "amount",
            "0",
            AmountNotPositive,
            "`amount` is `0`, must be more than 0",
        ),
        ("amount", "0.00", AmountNotPositive, "`amount` is `0.00`"),
        ("amount", "-0", AmountNotPositive, "`amount` is `-0`"),
        (
            "amount",
            "-3.10",
            AmountNotPositive,
            "`amount` is `-3.10`, must be more than 0",
        ),
        (
            "amount",
            r#""-3.10""#,
            AmountNotPositive,
            "`amount` is `-3.10`, must be more than 0",
        ),
        (
            "amount",
            "0e999999999999999999999",
            AmountNotPositive,
            "must be more than 0",
        ),
        (
            "amount",
            "249.999",
            AmountTooPrecise,
            "must be an amount with at most 2 decimals, as USD has",
        ),
        ("amount", "1e-3", AmountTooPrecise, "`amount` is `1e-3`"),
        (
            "amount",
            "1e-99999999999999999999999",
            AmountTooPrecise,
            "at most 2 decimals",
        ),
        (
            "amount",
            "92233720368547758.08",
            AmountTooLarge,
            "must be at most 92233720368547758.07 USD",
        ),
        ("amount", "1e17", AmountTooLarge, "`amount` is `1e17`"),
        (
            "amount",
            "1e99999999999999999999999",
            AmountTooLarge,
            "must be at most",
        ),
        ("amount", "-1e400", AmountTooLarge, "must be at most"),
        (
            "amount",
            r#""NaN""#,
            InvalidAmount,
            "`amount` is `NaN`, must be a decimal number",
        ),
        ("amount", r#""Infinity""#, InvalidAmount, "`amount` is `Infinity`"),
        ("amount", r#""""#, InvalidAmount, "`amount` is ``"),
        ("amount", r#""1,50""#, InvalidAmount, "`amount` is `1,50`"),
        ("amount", r#"" 1.50""#, InvalidAmount, "`amount` is ` 1.50`"),
        ("amount", r#""+1.50""#, InvalidAmount, "`amount` is `+1.50`"),
        ("amount", r#"".5""#, InvalidAmount, "`amount` is `.5`"),
        ("amount", r#""1.""#, InvalidAmount, "`amount` is `1.`"),
        ("amount", r#""01""#, InvalidAmount, "`amount` is `01`"),
        ("amount", r#""0x10""#, InvalidAmount, "`amount` is `0x10`"),
        ("amount", r#""1e""#, InvalidAmount, "`amount` is `1e`"),
        ("amount", r#""١""#, InvalidAmount, "`amount` is `١`"),
        (
            "amount",
            "true",
            WrongType,
            "`amount` is a boolean (`true`), must be a number or a decimal string",
        ),
        ("amount", "[1]", WrongType, "`amount` is an array"),
        ("country", "", MissingField, "`country` is missing"),
        (
            "country",
            r#""us""#,
            InvalidCountry,
            "`country` is `us`, must be two letters A to Z",
        ),
        ("country", r#""USA""#, InvalidCountry, "`country` is `USA`"),
        ("country", r#""usa""#, InvalidCountry, "`country` is `usa`"),
        ("country", r#""U1""#, InvalidCountry, "`country` is `U1`"),
        ("country", r#""É""#, InvalidCountry, "`country` is `É`"),
        ("country", r#""""#, InvalidCountry, "`country` is ``"),
        ("country", "840", WrongType, "`country` is a number (`840`)"),
        (
            "currency",
            r#""usd""#,
            UnknownCurrency,
            "`currency` is `usd`, must be a currency code of ISO 4217",
        ),
        ("currency", r#""ABC""#, UnknownCurrency, "`currency` is `ABC`"),
        ("currency", r#""BTC""#, UnknownCurrency, "`currency` is `BTC`"),
        ("currency", r#""""#, UnknownCurrency, "`currency` is ``"),
        ("currency", "978", WrongType, "`currency` is a number (`978`)"),
        (
            "customer_id",
            "1.5",
            WrongType,
            "`customer_id` is a number (`1.5`), must be a string or an integer",
        ),
        ("customer_id", "[]", WrongType, "`customer_id` is an array"),
        ("vendor", "{}", WrongType, "`vendor` is an object"),
        (
            "timestamp",
            r#""2024-01-12""#,
            InvalidTimestamp,
            "`timestamp` is `2024-01-12`, must be an RFC 3339 time",
        ),
        (
            "timestamp",
            r#""2024-01-12T03:15:00""#,
            InvalidTimestamp,
            "`timestamp` is",
        ),
        (
            "timestamp",
            r#""2024-02-30T03:15:00Z""#,
            InvalidTimestamp,
            "`timestamp` is",
        ),
        (
            "timestamp",
            r#""2024-01-12T24:00:00Z""#,
            InvalidTimestamp,
            "`timestamp` is",
        ),
        ("timestamp", r#""""#, InvalidTimestamp, "`timestamp` is ``"),
        ("timestamp", "1705029300000", WrongType, "`timestamp` is a number"),
    ];
    for &(field, value, code, sentence) in table {
        let fields = [
            ("order_id", "1"),
            ("amount", "249.99"),
            ("country", "\"US\""),
            ("currency", "\"USD\""),
            ("customer_id", "\"c\""),
            ("vendor", "\"v\""),
            ("timestamp", "\"2024-01-12T03:15:00Z\""),
        ]
        .into_iter()
        .map(|(name, good)| (name, if name == field { value } else { good }))
        .filter(|(_, text)| !text.is_empty())
        .map(|(name, text)| format!("\"{name}\":{text}"))
        .collect::<Vec<_>>();
        refused(format!("{{{}}}", fields.join(",")).as_bytes(), code, sentence);
    }
}

#[test]
fn what_is_no_order_at_all_has_its_codes() {
    use RejectionCode::*;
    let table: &[(&[u8], RejectionCode, &str)] = &[
        (b"", InvalidJson, "it ends at byte 0, must go on with a value"),
        (b"hello", InvalidJson, "at byte 0 stands `h`, must be a value"),
        (b"\xff{}", InvalidUtf8, "byte 0 is `0xff`"),
        (br#"{"order_id":1,"vendor":"a"#, InvalidJson, "it ends at byte 25"),
        (
            b"{\"order_id\":1,\"vendor\":\"\xc3\x28\"}",
            InvalidUtf8,
            "byte 24 is `0xc3`",
        ),
        (b"\xef\xbb\xbf{}", InvalidJson, "at byte 0 stands"),
        (
            b"42",
            NotAnObject,
            "the message is a number (`42`), must be a JSON object",
        ),
        (b"null", NotAnObject, "the message is null"),
        (br#"[{"order_id":1}]"#, NotAnObject, "the message is an array"),
        (
            br#"{"order_id":1"#,
            InvalidJson,
            "it ends at byte 13, must go on with `,` or `}`",
        ),
        (
            br#"{"order_id":1,}"#,
            InvalidJson,
            "at byte 14 stands `}`, must be a field name in double quotes",
        ),
        (
            br#"{"order_id":1} x"#,
            InvalidJson,
            "at byte 15 stands `x`, must be the end",
        ),
        (br#"{"order_id":1}{"order_id":2}"#, InvalidJson, "must be the end"),
        (br"{'order_id':1}", InvalidJson, "must be a field name"),
        (br#"{"order_id":01}"#, InvalidJson, "`1`"),
        (
            br#"{"order_id":1,"amount":NaN,"country":"US"}"#,
            InvalidJson,
            "at byte 23 stands `N`",
        ),
        (br#"{"order_id":1,"amount":+1}"#, InvalidJson, "stands `+`"),
        (br#"{"order_id":1,"amount":.5}"#, InvalidJson, "stands `.`"),
        (
            br#"{"order_id":1,"x":"\q"}"#,
            InvalidJson,
            "must be an escape that JSON knows",
        ),
        (
            br#"{"order_id":1,"x":"\ud800"}"#,
            InvalidJson,
            "must be the second half of a surrogate pair",
        ),
        (
            b"{\"order_id\":1,\"x\":\"a\nb\"}",
            InvalidJson,
            "must be no control character inside a string",
        ),
        (
            br#"{"order_id":1,"amount":1,"country":"US","order_id":2}"#,
            DuplicateField,
            "`order_id` stands twice",
        ),
        (
            br#"{"order_id":1,"amount":1,"country":"US","\u0061mount":9}"#,
            DuplicateField,
            "`amount` stands twice",
        ),
        (
            br#"{"order_id":1,"amount":1,"country":"US","vendor":null,"vendor":"x"}"#,
            DuplicateField,
            "`vendor`",
        ),
    ];
    for &(bytes, code, sentence) in table {
        refused(bytes, code, sentence);
    }
}

#[test]
fn limits_hold_on_both_sides() {
    let long = |bytes: usize| {
        format!(
            r#"{{"order_id":1,"amount":1,"country":"US","vendor":"{}"}}"#,
            "v".repeat(bytes)
        )
    };
    assert!(decode(&long(MAX_NAME_BYTES)).is_ok());
    refused(
        long(MAX_NAME_BYTES + 1).as_bytes(),
        RejectionCode::TooLong,
        "must be at most 512 bytes long, has 513",
    );

    let timed = r#"{"order_id":1,"amount":1,"country":"US","timestamp":"2024-01-12T03:15:00Z","x":""}"#;
    let padded = |bytes: usize| timed.replace("\"\"", &format!("\"{}\"", "x".repeat(bytes - timed.len())));
    assert!(admit(padded(MAX_ORDER_BYTES).as_bytes(), Currency::USD, NOW).is_ok());
    let over = padded(MAX_ORDER_BYTES + 1);
    refused(
        over.as_bytes(),
        RejectionCode::TooLarge,
        "the message has 262145 bytes, must have at most 262144",
    );

    let id = "x".repeat(domain::MAX_ORDER_ID_CHARS);
    assert_eq!(
        decode(&format!(r#"{{"order_id":"{id}","amount":1,"country":"US"}}"#))
            .unwrap()
            .id
            .text(),
        id
    );

    for depth in [domain::json::MAX_DEPTH as usize, 100_000] {
        for (open, close) in [("[", "]"), (r#"{"x":"#, "}")] {
            let nested = |levels: usize| {
                let inner = format!("{}0{}", open.repeat(levels), close.repeat(levels));
                format!(r#"{{"order_id":1,"amount":1,"country":"US","x":{inner}}}"#)
            };
            // The order itself is the first level.
            assert!(decode(&nested(domain::json::MAX_DEPTH as usize - 1)).is_ok());
            let deep = nested(depth);
            if deep.len() <= MAX_ORDER_BYTES {
                refused(
                    deep.as_bytes(),
                    RejectionCode::TooDeep,
                    "nests deeper than 100 levels",
                );
            }
            refused(
                open.repeat(50_000 / open.len()).as_bytes(),
                RejectionCode::TooDeep,
                "nests deeper",
            );
        }
    }
}

#[test]
fn a_time_stamp_that_no_longer_fits_is_refused_at_intake_not_by_the_workers() {
    let bare = r#"{"order_id":1,"amount":1,"country":"US","x":""}"#;
    let full = bare.replace(
        "\"\"",
        &format!("\"{}\"", "x".repeat(MAX_ORDER_BYTES - bare.len())),
    );
    assert!(decode(&full).is_ok());
    assert_eq!(
        admit(full.as_bytes(), Currency::USD, NOW).unwrap_err().code,
        RejectionCode::TooLarge
    );
}

#[test]
fn the_reserved_field_is_refused_at_intake_only() {
    for name in ["_orderflow", "\\u005forderflow"] {
        let order = format!(r#"{{"order_id":1,"amount":1,"country":"US","{name}":{{"amount_minor":9}}}}"#);
        let refusal = admit(order.as_bytes(), Currency::USD, NOW).unwrap_err();
        assert_eq!(refusal.code, RejectionCode::ReservedField);
        assert_eq!(
            refusal.message,
            "`_orderflow` is reserved for orderflow's own data, must be left out"
        );
        assert!(decode(&order).is_ok());
    }
    let inner = r#"{"order_id":1,"amount":1,"country":"US","x":{"_orderflow":1}}"#;
    assert!(admit(inner.as_bytes(), Currency::USD, NOW).is_ok());
}

#[test]
fn decimals_follow_the_currency() {
    let minor = |amount: &str, currency: &str| {
        let order = format!(r#"{{"order_id":1,"amount":{amount},"country":"US","currency":"{currency}"}}"#);
        decode(&order)
            .map(|order| order.money.minor.0)
            .map_err(|refusal| refusal.code)
    };
    assert_eq!(minor("500", "JPY"), Ok(500));
    assert_eq!(minor("500.0", "JPY"), Ok(500));
    assert_eq!(minor("500.5", "JPY"), Err(RejectionCode::AmountTooPrecise));
    assert_eq!(minor("9223372036854775807", "JPY"), Ok(i64::MAX));
    assert_eq!(
        minor("9223372036854775808", "JPY"),
        Err(RejectionCode::AmountTooLarge)
    );
    assert_eq!(minor("1.234", "KWD"), Ok(1234));
    assert_eq!(minor("1.2345", "KWD"), Err(RejectionCode::AmountTooPrecise));
    assert_eq!(minor("1.2345", "CLF"), Ok(12345));
    assert_eq!(minor("2.4999e2", "USD"), Ok(24_999));
    assert_eq!(minor("24999E-2", "USD"), Ok(24_999));
    assert_eq!(minor("249.990000", "USD"), Ok(24_999));
    assert_eq!(minor("\"249.99\"", "USD"), Ok(24_999));
    assert_eq!(minor("92233720368547758.07", "USD"), Ok(i64::MAX));
    // A float would give 28.999999999999996 and 1.1500000000000001.
    assert_eq!((minor("0.29", "USD"), minor("1.15", "USD")), (Ok(29), Ok(115)));
}

#[test]
fn good_orders_are_read_whatever_surrounds_their_fields() {
    let text = " \r\n{ \"x\" : [1,{\"order_id\":9},\"\\ud83d\\ude00\"] , \"country\":\"F\\u0052\",\"amount\" : \"1\",\
         \"customer_id\":17850,\"vendor\":\"\",\"currency\":null,\"timestamp\":null,\"order_id\":-7 }\t";
    let order = decode(text).unwrap();
    assert_eq!((order.id.text(), order.id.is_integer()), ("-7", true));
    assert_eq!(
        (order.country.as_str(), order.money.currency),
        ("FR", Currency::USD)
    );
    assert_eq!(
        (order.customer_id.as_deref(), order.vendor, order.timestamp),
        (Some("17850"), None, None)
    );
    let admitted = admit(text.as_bytes(), Currency::USD, NOW).unwrap();
    let value = String::from_utf8(admitted.value).unwrap();
    assert_eq!(
        value,
        text.trim()
            .replace("\"timestamp\":null", "\"timestamp\":\"2024-01-12T03:15:00.000Z\"")
    );
}

#[test]
fn a_number_and_a_string_with_the_same_text_are_the_same_order() {
    let number = decode(r#"{"order_id":1,"amount":1,"country":"US"}"#).unwrap().id;
    let string = decode(r#"{"order_id":"1","amount":1,"country":"US"}"#)
        .unwrap()
        .id;
    assert_eq!(number, string);
    assert_ne!(number.is_integer(), string.is_integer());
    for (text, integer) in [
        ("1", true),
        ("-9223372036854775808", true),
        ("01", false),
        ("C1", false),
        ("-0", false),
    ] {
        assert_eq!(
            domain::OrderId::from_text(text).unwrap().is_integer(),
            integer,
            "{text}"
        );
    }
}
