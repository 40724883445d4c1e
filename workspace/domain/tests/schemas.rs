//! The published schemas and the codecs say the same.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

use domain::*;
use jsonschema::Validator;
use serde_json::{Value, json};

fn schema(name: &str) -> Value {
    let path = format!(
        "{}/../../docs/schemas/{name}.schema.json",
        env!("CARGO_MANIFEST_DIR")
    );
    serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap()
}

fn validator(name: &str) -> Validator {
    jsonschema::options()
        .should_validate_formats(true)
        .build(&schema(name))
        .unwrap()
}

/// Every example conforms to its own schema, and there is at least one.
fn examples(name: &str) -> Vec<Value> {
    let validator = validator(name);
    let examples = schema(name)["examples"].as_array().unwrap().clone();
    assert!(!examples.is_empty());
    for example in &examples {
        conforms(&validator, example);
    }
    examples
}

fn conforms(validator: &Validator, value: &Value) {
    let problems: Vec<_> = validator
        .iter_errors(value)
        .map(|error| error.to_string())
        .collect();
    assert!(problems.is_empty(), "{value} {problems:?}");
}

#[test]
fn schemas_are_schemas() {
    for name in ["order", "alert", "payment", "event", "dead-letter-headers"] {
        jsonschema::draft202012::meta::validate(&schema(name))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        examples(name);
    }
}

#[test]
fn examples_of_orders_are_admitted() {
    let validator = validator("order");
    for example in examples("order") {
        let bytes = serde_json::to_vec(&example).unwrap();
        let admitted = admit(&bytes, Currency::USD, EventTime(0)).unwrap();
        conforms(&validator, &serde_json::from_slice(&admitted.value).unwrap());
    }
}

#[test]
fn examples_of_alerts_payments_and_events_read_back_as_they_stand() {
    for example in examples("alert") {
        let bytes = serde_json::to_vec(&example).unwrap();
        let mut out = Vec::new();
        Alert::decode(&bytes).unwrap().encode(&mut out);
        assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), example);
    }
    for example in examples("payment") {
        let bytes = serde_json::to_vec(&example).unwrap();
        let mut out = Vec::new();
        Payment::decode(&bytes).unwrap().encode(&mut out);
        assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), example);
    }
    for example in examples("event") {
        let bytes = serde_json::to_vec(&example).unwrap();
        let mut out = Vec::new();
        EventEnvelope::decode(&bytes).unwrap().encode(&mut out);
        assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), example);
    }
}

#[test]
fn ids_in_the_examples_are_the_ids_that_the_code_makes() {
    let alerts = examples("alert");
    for alert in &alerts {
        let time = alert["timestamp"]
            .as_str()
            .map(|text| EventTime::parse(text).unwrap());
        assert_eq!(alert["alertId"], ids::alert_id(time, "1"));
    }
    assert!(
        examples("payment")
            .iter()
            .all(|payment| payment["payment_id"] == ids::payment_id("1"))
    );
    assert_eq!(
        examples("event")[0]["eventId"],
        ids::event_id(EventTime(1_705_029_300_000), 255)
    );
}

#[test]
fn what_the_code_writes_conforms() {
    let order = NewOrder {
        id: OrderId::from_text("0042").unwrap(),
        money: Money::parse("0.01", Currency::USD).unwrap(),
        country: Country::UNKNOWN,
        customer_id: Some("c\"1\"".to_owned()),
        vendor: Some("é\u{1}".to_owned()),
        timestamp: Some(EventTime(-1)),
        items: vec![NewItem {
            sku: "s".to_owned(),
            description: Some("d".to_owned()),
            quantity: -1,
            unit_price: Decimal::parse("0.001").unwrap(),
        }],
    };
    let mut out = Vec::new();
    order.encode(&mut out);
    let written: Value = serde_json::from_slice(&out).unwrap();
    conforms(&validator("order"), &written);
    assert_eq!(
        written,
        json!({"order_id": "0042", "amount": 0.01, "currency": "USD", "country": "ZZ", "customer_id": "c\"1\"",
               "vendor": "é\u{1}", "timestamp": "1969-12-31T23:59:59.999Z",
               "items": [{"sku": "s", "description": "d", "quantity": -1, "unit_price": 0.001}]})
    );
    for time in [
        None,
        Some(EventTime(-1)),
        Some(EventTime(0)),
        Some(EventTime(4_102_444_800_000)),
    ] {
        let alert = Alert {
            alert_id: ids::alert_id(time, "0042").into(),
            order_id: order.id.clone(),
            risk_score: 100,
            risk_level: RiskLevel::Critical,
            money: order.money,
            country: order.country,
            vendor: None,
            timestamp: time,
            reasons: vec!["because".into()],
            rules_version: "v1".into(),
        };
        let mut out = Vec::new();
        alert.encode(&mut out);
        conforms(&validator("alert"), &serde_json::from_slice(&out).unwrap());
    }
    for status in PaymentStatus::ALL {
        let payment = Payment {
            order_id: order.id.clone(),
            status,
            payment_id: ids::payment_id("0042").into(),
            money: Money {
                minor: MinorUnits(i64::MAX),
                currency: order.money.currency,
            },
            attempts: u32::MAX,
            timestamp: EventTime(0),
        };
        let mut out = Vec::new();
        payment.encode(&mut out);
        assert!(String::from_utf8_lossy(&out).contains("\"amount\":92233720368547758.07,"));
        conforms(&validator("payment"), &serde_json::from_slice(&out).unwrap());
    }
}

#[test]
fn what_the_schema_refuses_the_code_refuses_too() {
    let validator = validator("order");
    let good = json!({"order_id": 1, "amount": 249.99, "country": "US"});
    for (field, value) in [
        ("order_id", json!(1.5)),
        ("order_id", json!("a b")),
        ("order_id", json!("")),
        ("order_id", json!(null)),
        ("amount", json!(0)),
        ("amount", json!("1,5")),
        ("country", json!("us")),
        ("country", json!("USA")),
        ("currency", json!("usd")),
        ("vendor", json!("v".repeat(513))),
        ("timestamp", json!("yesterday")),
        ("_orderflow", json!({})),
    ] {
        let mut order = good.clone();
        order[field] = value;
        assert!(!validator.is_valid(&order), "{order}");
        assert!(
            admit(&serde_json::to_vec(&order).unwrap(), Currency::USD, EventTime(0)).is_err(),
            "{order}"
        );
    }
}
