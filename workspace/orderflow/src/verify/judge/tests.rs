//! A run that is right, and what breaks it.

use std::collections::BTreeMap;

use domain::{Alert, Country, Money, Payment, PaymentStatus, RiskLevel, ids};
use fraud::config::FraudSettings;
use proptest::prelude::*;
use stream::OwnedRecord;
use stream::position::{Offset, Partition, TopicIndex, TopicPartition};

use super::*;
use crate::verify::findings::Check;
use crate::verify::table::Group;
use domain::{EventTime, OrderId};

const PARTITIONS: i32 = 3;

type Headers = Vec<(String, Vec<u8>)>;

fn headers(list: &[(&str, &str)]) -> Headers {
    list.iter()
        .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
        .collect()
}

/// A topic's records, each with the next offset of its partition.
#[derive(Clone, Debug, Default)]
struct Log(Vec<OwnedRecord>);

impl Log {
    fn end(&self, partition: i32) -> i64 {
        let here = self.0.iter().filter(|record| record.at.partition.0 == partition);
        here.map(|record| record.offset.0 + 1).max().unwrap_or(0)
    }

    fn add(&mut self, partition: i32, value: impl Into<Vec<u8>>, headers: Headers) -> Spot {
        let offset = self.end(partition);
        self.0.push(OwnedRecord {
            at: TopicPartition {
                topic: TopicIndex(0),
                partition: Partition(partition),
            },
            offset: Offset(offset),
            record_time_ms: 1_000 + offset,
            key: None,
            value: Some(value.into()),
            headers,
        });
        Spot { partition, offset }
    }

    fn position(&self, id: &str) -> usize {
        let text = format!("\"order_id\":{id},");
        let other = format!("\"orderId\":{id},");
        let found = self.0.iter().position(|record| {
            let value = String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned();
            value.contains(&text) || value.contains(&other)
        });
        found.unwrap_or_else(|| panic!("no record of order {id}"))
    }

    fn remove(&mut self, id: &str) -> OwnedRecord {
        self.0.remove(self.position(id))
    }

    /// Writes the record of an order once more, with something replaced.
    fn again(&mut self, id: &str, from: &str, to: &str) {
        let mut record = self.0[self.position(id)].clone();
        record.offset = Offset(self.end(record.at.partition.0));
        record.value = Some(replaced(&record, from, to));
        self.0.push(record);
    }

    fn change(&mut self, id: &str, from: &str, to: &str) {
        let index = self.position(id);
        self.0[index].value = Some(replaced(&self.0[index], from, to));
    }
}

fn replaced(record: &OwnedRecord, from: &str, to: &str) -> Vec<u8> {
    let value = String::from_utf8(record.value.clone().expect("a value")).expect("text");
    assert!(value.contains(from), "{from} is not in {value}");
    value.replace(from, to).into_bytes()
}

/// What a run left behind.
#[derive(Clone, Debug, Default)]
struct Run {
    orders: Log,
    payments: Log,
    alerts: Log,
    letters: BTreeMap<&'static str, Log>,
    parked: Log,
    documents: Vec<(String, String, i64)>,
    charges: Vec<(String, String, u64)>,
    /// Committed, last stable and end offset of `orders[0]` of fraud-group.
    standing: (Option<i64>, i64, bool),
    output_ends: (i64, i64),
    moved_by: i64,
    begin: i64,
    parked_extent: Option<(&'static str, Extent)>,
    range: Range,
}

const GROUPS: [(&str, Group); 3] = [
    ("fraud-group", Group::Fraud),
    ("payments-group", Group::Payments),
    ("analytics-group", Group::Analytics),
];

fn letter_headers(group: &str, code: &str, of: Spot) -> Headers {
    headers(&[
        ("dlq-topic", "orders"),
        ("dlq-partition", &of.partition.to_string()),
        ("dlq-offset", &of.offset.to_string()),
        ("dlq-timestamp", "1000"),
        ("dlq-group", group),
        ("dlq-error-code", code),
        ("dlq-error", "why"),
        ("dlq-attempts", "1"),
        ("dlq-service-version", "0.1.0"),
    ])
}

fn payment(id: i64, minor: i64, status: PaymentStatus) -> Vec<u8> {
    let mut value = Vec::new();
    let order_id = OrderId::integer(id);
    Payment {
        payment_id: ids::payment_id(order_id.text()).into(),
        order_id,
        status,
        money: usd(minor),
        attempts: 1,
        timestamp: EventTime(5),
    }
    .encode(&mut value);
    value
}

fn alert(id: i64, minor: i64, score: u8) -> Vec<u8> {
    let mut value = Vec::new();
    let order_id = OrderId::integer(id);
    Alert {
        alert_id: ids::alert_id(None, order_id.text()).into(),
        order_id,
        risk_score: score,
        risk_level: RiskLevel::High,
        money: usd(minor),
        country: Country::parse("FR").expect("country"),
        vendor: None,
        timestamp: None,
        reasons: Vec::new(),
        rules_version: "1".into(),
    }
    .encode(&mut value);
    value
}

fn usd(minor: i64) -> Money {
    Money {
        minor: domain::MinorUnits(minor),
        currency: Currency::USD,
    }
}

fn order_text(id: i64, minor: i64) -> String {
    format!("{{\"order_id\":{id},\"amount\":{minor}e-2,\"country\":\"FR\",\"x\":[1.0]}}")
}

impl Run {
    fn letter(&mut self, group: &'static str, code: &str, of: Spot, value: &str) {
        let log = self.letters.entry(group).or_default();
        log.add(of.partition, value, letter_headers(group, code, of));
    }

    /// An order with everything that it must have.
    fn order(&mut self, id: i64, minor: i64) {
        let partition = i32::try_from(id).expect("small") % PARTITIONS;
        let text = order_text(id, minor);
        let spot = self.orders.add(partition, text.clone(), Vec::new());
        let source = headers(&[("source-offset", &spot.offset.to_string())]);
        let status = if id % 10 == 9 {
            PaymentStatus::Declined
        } else {
            PaymentStatus::Paid
        };
        self.payments
            .add(partition, payment(id, minor, status), source.clone());
        if status == PaymentStatus::Paid {
            let key = ids::payment_id(&id.to_string());
            self.charges.push((key, id.to_string(), 1));
        }
        let mut rules = FraudSettings::default().rules().expect("rules");
        if let Some(hit) = rules.judge(usd(minor), Country::parse("FR").expect("country")) {
            self.alerts.add(partition, alert(id, minor, hit.score), source);
        }
        let body = format!(
            "{},\"_orderflow\":{{\"offset\":1}}}}",
            text.strip_suffix('}').expect("object")
        );
        self.documents.push((id.to_string(), body, 2));
    }

    /// Orders 1 to 20, every third of them suspicious; repeats, poison, a probe and an order that was given up.
    fn right() -> Self {
        let mut run = Self {
            standing: (Some(9), 9, false),
            output_ends: (7, 7),
            ..Self::default()
        };
        for id in 1..=20 {
            run.order(id, if id % 3 == 0 { 45_000 } else { 5_000 });
        }
        // A repeat, and one with other content.
        run.orders.add(1, order_text(1, 5_000), Vec::new());
        let conflict = run.orders.add(1, order_text(1, 700), Vec::new());
        run.letter(
            "payments-group",
            "conflicting_repeat",
            conflict,
            &order_text(1, 700),
        );
        // What is no order.
        let poison = run.orders.add(2, "{", Vec::new());
        for (group, _) in GROUPS {
            run.letter(group, "invalid_json", poison, "{");
        }
        run.orders
            .add(0, order_text(900, 5_000), headers(&[("orderflow-probe", "1")]));
        // Given up: FAILED and a dead letter.
        let given_up = run.orders.add(0, order_text(30, 5_000), Vec::new());
        run.payments
            .add(0, payment(30, 5_000, PaymentStatus::Failed), Vec::new());
        run.letter(
            "payments-group",
            "gateway_unavailable",
            given_up,
            &order_text(30, 5_000),
        );
        run.documents.push(("30".to_owned(), order_text(30, 5_000), 2));
        // Given up, and settled when it was replayed.
        run.order(33, 5_000);
        let replayed = Spot {
            partition: 0,
            offset: run.orders.end(0) - 1,
        };
        run.letter(
            "payments-group",
            "gateway_unavailable",
            replayed,
            &order_text(33, 5_000),
        );
        // Of topics that were there before these.
        run.documents.push(("old".to_owned(), "{}".to_owned(), 1));
        run
    }

    fn judged(&self) -> Findings {
        let mut judge = Judge::new(Terms {
            rules: FraudSettings::default().rules().expect("rules"),
            default_currency: Currency::USD,
            range: self.range,
            groups: Group::ALL.to_vec(),
            orders: "orders".to_owned(),
            payments: "payments".to_owned(),
            alerts: "fraud-alerts".to_owned(),
            most_examples: 3,
        });
        for partition in 0..PARTITIONS {
            let extent = Extent {
                begin: self.begin,
                end: self.orders.end(partition),
            };
            judge.extent("orders", partition, extent);
            judge.input("orders", partition, extent.end + self.moved_by);
        }
        if let Some((topic, extent)) = self.parked_extent {
            judge.extent(topic, 0, extent);
        }
        self.tell(&mut judge);
        let (committed, last_stable, unstable) = self.standing;
        judge.standing(&Standing {
            group: "fraud-group",
            topic: "orders",
            partition: 0,
            committed,
            begin: 0,
            last_stable,
            unstable,
        });
        judge.ends("payments", 0, self.output_ends.0, self.output_ends.1);
        judge.verdict()
    }

    fn tell(&self, judge: &mut Judge) {
        for record in &self.orders.0 {
            judge.order(&record.as_record());
        }
        for (group_name, group) in GROUPS {
            let letters = Letters {
                topic: format!("orders.{group_name}.dlq"),
                source: "orders".to_owned(),
                group,
                group_name: group_name.to_owned(),
            };
            for record in self.letters.get(group_name).into_iter().flat_map(|log| &log.0) {
                judge.dead_letter(&letters, &record.as_record());
            }
        }
        for record in &self.parked.0 {
            judge.parked(
                "orders.payments-group.retry.5s",
                Group::Payments,
                &record.as_record(),
            );
        }
        for record in &self.payments.0 {
            judge.payment(&record.as_record());
        }
        for record in &self.alerts.0 {
            judge.alert(&record.as_record());
        }
        judge.has_store();
        for (key, body, generation) in &self.documents {
            judge.document(Document {
                key,
                body,
                generation: *generation,
            });
        }
        judge.has_charges();
        for (key, order_id, times) in &self.charges {
            judge.charge(Charge {
                key,
                order_id,
                times: *times,
            });
        }
    }
}

#[test]
fn a_run_that_is_right_holds_and_every_check_looked_at_something() {
    let findings = Run::right().judged();
    assert_eq!(findings.violations(), 0, "{findings}");
    let line = findings.to_json();
    assert_eq!(line["not_judged"], serde_json::json!([]));
    for check in Check::ALL {
        let looked = line["checks"][check.name()]["judged"].as_u64().expect("judged");
        // These two count what is wrong alone.
        let counts_wrong_alone = [Check::NotFinished, Check::DocumentUnknown, Check::ChargeUnpaid];
        assert!(
            looked > 0 || counts_wrong_alone.contains(&check),
            "{}",
            check.name()
        );
    }
    let wanted = serde_json::json!({"records": 26, "orders": 22, "orders_outside": 0, "probes": 1, "refused": 1,
        "repeats": 1, "conflicting_repeats": 1, "repeats_across_partitions": 0, "paid": 19, "declined": 2,
        "failed": 1, "alerts": 6, "dead_letters": 6, "documents": 22, "documents_of_earlier_topics": 1,
        "charges": 19, "of_deleted_orders": 0});
    assert_eq!(line["counts"], wanted);
}

/// What breaks a run.
type Break = fn(&mut Run);

/// Each way to break a run, and the violations that it must show, and no others.
const BREAKS: &[(&str, Break, &[Check])] = &[
    (
        "a payment is lost",
        |run| drop(run.payments.remove("4")),
        &[Check::PaymentMissing],
    ),
    (
        "a payment is doubled",
        |run| run.payments.again("4", "PAID", "PAID"),
        &[Check::PaymentDoubled],
    ),
    (
        "an order is paid and declined",
        |run| run.payments.again("4", "PAID", "DECLINED"),
        &[Check::PaymentDoubled],
    ),
    (
        "FAILED follows a payment",
        |run| run.payments.again("4", "PAID", "FAILED"),
        &[Check::PaymentDoubled],
    ),
    (
        "an order is FAILED twice",
        |run| run.payments.again("30", "FAILED", "FAILED"),
        &[Check::PaymentDoubled],
    ),
    (
        "a payment has another amount",
        |run| run.payments.change("4", ":50,", ":50.01,"),
        &[Check::PaymentDiffers],
    ),
    (
        "a payment has another currency",
        |run| run.payments.change("4", "USD", "EUR"),
        &[Check::PaymentDiffers],
    ),
    (
        "a payment has another id",
        |run| run.payments.change("4", "pay_", "pay_0"),
        &[Check::PaymentDiffers],
    ),
    (
        "a payment is of no order",
        |run| run.payments.again("4", "\"order_id\":4,", "\"order_id\":77,"),
        &[Check::PaymentUnknown],
    ),
    (
        "a payment can not be read",
        |run| {
            run.payments.add(0, "{", Vec::new());
        },
        &[Check::PaymentUnknown],
    ),
    (
        "a payment is in another partition",
        |run| {
            let record = run.payments.remove("4");
            run.payments.add(0, record.value.expect("value"), Vec::new());
        },
        &[Check::PaymentMissing, Check::PaymentUnknown],
    ),
    (
        "an order that was given up has no dead letter",
        |run| {
            drop(
                run.letters
                    .get_mut("payments-group")
                    .expect("letters")
                    .remove("30"),
            )
        },
        &[Check::PaymentMissing],
    ),
    (
        "an alert is lost",
        |run| drop(run.alerts.remove("6")),
        &[Check::AlertMissing],
    ),
    (
        "an alert is doubled",
        |run| run.alerts.again("6", "High", "High"),
        &[Check::AlertDoubled],
    ),
    (
        "an alert that the rules do not raise",
        |run| {
            run.alerts.add(1, alert(4, 5_000, 30), Vec::new());
        },
        &[Check::AlertUnexpected],
    ),
    (
        "an alert has another score",
        |run| run.alerts.change("6", "\"riskScore\":2", "\"riskScore\":3"),
        &[Check::AlertDiffers],
    ),
    (
        "an alert has another id",
        |run| run.alerts.change("6", "ALERT-", "ALERT-1"),
        &[Check::AlertDiffers],
    ),
    (
        "an alert is of no order",
        |run| {
            run.alerts.add(1, alert(77, 45_000, 30), Vec::new());
        },
        &[Check::AlertUnknown],
    ),
    (
        "a document is lost",
        |run| run.documents.retain(|(key, ..)| key != "4"),
        &[Check::DocumentMissing],
    ),
    (
        "a document says something else",
        |run| {
            for (_, body, _) in run.documents.iter_mut().filter(|(key, ..)| key == "4") {
                *body = body.replace("[1.0]", "[1.1]");
            }
        },
        &[Check::DocumentDiffers],
    ),
    (
        "a document is that of a repeat",
        |run| {
            for (_, body, _) in run.documents.iter_mut().filter(|(key, ..)| key == "1") {
                *body = body.replace("5000e-2", "700e-2");
            }
        },
        &[Check::DocumentDiffers],
    ),
    (
        "a document is of no order",
        |run| run.documents.push(("77".to_owned(), "{}".to_owned(), 2)),
        &[Check::DocumentUnknown],
    ),
    (
        "poison is no dead letter",
        |run| {
            run.letters.remove("fraud-group");
        },
        &[Check::DeadLetterMissing],
    ),
    (
        "a dead letter is doubled",
        |run| {
            let log = run.letters.get_mut("fraud-group").expect("letters");
            log.add(2, "{", log.0[0].headers.clone());
        },
        &[Check::DeadLetterDoubled],
    ),
    (
        "a dead letter does not say why",
        |run| {
            let log = run.letters.get_mut("fraud-group").expect("letters");
            log.0[0].headers.retain(|(name, _)| name != "dlq-error-code");
        },
        &[Check::DeadLetterMissing, Check::DeadLetterUnexplained],
    ),
    (
        "a dead letter has other bytes",
        |run| {
            let log = run.letters.get_mut("fraud-group").expect("letters");
            log.0[0].value = Some(b"{ ".to_vec());
        },
        &[Check::DeadLetterMissing, Check::DeadLetterUnexplained],
    ),
    (
        "a dead letter of a record that is not there",
        |run| {
            run.letter(
                "fraud-group",
                "x",
                Spot {
                    partition: 0,
                    offset: 500,
                },
                &order_text(33, 5_000),
            );
        },
        &[Check::DeadLetterUnexplained],
    ),
    (
        "a dead letter of an order that is not there",
        |run| {
            run.letter(
                "fraud-group",
                "x",
                Spot {
                    partition: 0,
                    offset: 1,
                },
                &order_text(77, 5_000),
            );
        },
        &[Check::DeadLetterUnexplained],
    ),
    (
        "a conflict that is none",
        |run| {
            let repeat = Spot {
                partition: 1,
                offset: run.orders.end(1) - 2,
            };
            run.letter(
                "payments-group",
                "conflicting_repeat",
                repeat,
                &order_text(1, 5_000),
            );
        },
        &[Check::DeadLetterUnexplained],
    ),
    (
        "an order waits in a retry topic",
        |run| {
            run.payments.remove("4");
            run.parked.add(1, order_text(4, 5_000), Vec::new());
        },
        &[Check::NotFinished],
    ),
    (
        "a group has not reached its end",
        |run| run.standing.0 = Some(8),
        &[Check::OffsetBehind],
    ),
    (
        "a group has committed nothing",
        |run| run.standing.0 = None,
        &[Check::OffsetBehind],
    ),
    (
        "a group has committed more than there is",
        |run| run.standing.0 = Some(10),
        &[Check::OffsetBehind],
    ),
    (
        "an offset hangs in a transaction",
        |run| run.standing.2 = true,
        &[Check::TransactionOpen],
    ),
    (
        "a transaction is open",
        |run| run.output_ends = (6, 7),
        &[Check::TransactionOpen],
    ),
    (
        "orders go on coming",
        |run| run.moved_by = 1,
        &[Check::InputMoved],
    ),
    (
        "an order is charged twice",
        |run| run.charges[3].2 = 2,
        &[Check::ChargedTwice],
    ),
    (
        "an order is charged in two entries",
        |run| {
            let again = run.charges[3].clone();
            run.charges.push(again);
        },
        &[Check::ChargedTwice],
    ),
    (
        "an order is charged under another key",
        |run| run.charges[3].0.push('0'),
        &[Check::ChargedTwice],
    ),
    (
        "a paid order is not charged",
        |run| drop(run.charges.remove(3)),
        &[Check::ChargeMissing],
    ),
    (
        "a declined order is charged",
        |run| {
            let key = ids::payment_id("9");
            run.charges.push((key, "9".to_owned(), 1));
        },
        &[Check::ChargeUnpaid],
    ),
];

#[test]
fn every_violation_is_found_and_nothing_else() {
    for (what, break_it, wanted) in BREAKS {
        let mut run = Run::right();
        break_it(&mut run);
        let findings = run.judged();
        let found: Vec<Check> = findings.violated().map(|(check, _)| check).collect();
        let mut wanted = wanted.to_vec();
        wanted.sort_unstable();
        assert_eq!(found, wanted, "{what}: {findings}");
    }
    let broken: Vec<Check> = BREAKS
        .iter()
        .flat_map(|(.., checks)| checks.iter().copied())
        .collect();
    for check in Check::ALL {
        assert!(broken.contains(&check), "nothing breaks `{}`", check.name());
    }
}

#[test]
fn repeats_across_partitions_are_counted_apart_and_fail_nothing() {
    let mut run = Run::right();
    // Order 4 stands in partition 1; after the topic grew, its repeat came to partition 2 and was settled there.
    run.orders.add(2, order_text(4, 5_000), Vec::new());
    run.payments
        .add(2, payment(4, 5_000, PaymentStatus::Paid), Vec::new());
    let findings = run.judged();
    assert_eq!(findings.violations(), 0, "{findings}");
    assert_eq!(findings.counted(Count::RepeatsAcrossPartitions), 1);
    // Under another id it would have been charged again.
    run.payments.again("4", "pay_", "pay_0");
    let last = run.payments.0.len() - 1;
    run.payments.0[last].at.partition = Partition(2);
    run.payments.0.remove(last - 1);
    let violated: Vec<_> = run.judged().violated().collect();
    assert_eq!(violated, [(Check::PaymentDiffers, 1)]);
}

#[test]
fn what_stood_in_a_retry_topic_by_itself_is_explained_where_it_stood_there() {
    let mut run = Run::right();
    let retry = "orders.payments-group.retry.5s";
    let stray = |offset| {
        let mut headers = letter_headers("payments-group", "no_origin", Spot { partition: 0, offset });
        headers[0].1 = retry.as_bytes().to_vec();
        headers
    };
    let letters = run.letters.entry("payments-group").or_default();
    letters.add(0, "{", stray(0));
    run.parked_extent = Some((retry, Extent { begin: 0, end: 1 }));
    assert_eq!(run.judged().violations(), 0, "{}", run.judged());
    run.letters
        .entry("payments-group")
        .or_default()
        .add(0, "{", stray(1));
    let violated: Vec<_> = run.judged().violated().collect();
    assert_eq!(violated, [(Check::DeadLetterUnexplained, 1)]);
}

#[test]
fn outside_of_the_range_nothing_is_judged() {
    let mut run = Run::right();
    let time_of = |run: &Run, id: &str| run.orders.0[run.orders.position(id)].record_time_ms;
    run.payments.remove("4");
    run.range.from_ms = Some(time_of(&run, "4") + 1);
    assert_eq!(run.judged().violations(), 0, "{}", run.judged());
    run.range = Range {
        from_ms: None,
        to_ms: Some(time_of(&run, "4") - 1),
    };
    assert_eq!(run.judged().violations(), 0, "{}", run.judged());
    run.range = Range {
        from_ms: Some(time_of(&run, "4")),
        to_ms: Some(time_of(&run, "4")),
    };
    let violated: Vec<_> = run.judged().violated().collect();
    assert_eq!(violated, [(Check::PaymentMissing, 1)]);
}

#[test]
fn outputs_of_orders_that_were_deleted_are_counted_apart() {
    let mut run = Run::right();
    let gone = run.orders.remove("1");
    run.orders
        .0
        .retain(|record| record.at != gone.at || record.offset.0 > 8);
    run.begin = 1;
    let findings = run.judged();
    let violated: Vec<Check> = findings.violated().map(|(check, _)| check).collect();
    // Order 1 has a payment whose input was deleted; the others of the partition were not at offset 0.
    assert!(!violated.contains(&Check::PaymentMissing), "{findings}");
    assert!(findings.counted(Count::OfDeletedOrders) >= 1, "{findings}");
    let unknown = findings
        .violated()
        .find(|(check, _)| *check == Check::PaymentUnknown);
    assert_eq!(unknown.map(|(_, count)| count), Some(6), "{findings}");
}

proptest! {
    /// Whatever order is hit, a lost and a doubled effect are found, and told with the order's place.
    #[test]
    fn whichever_order_loses_or_doubles_its_payment_is_named(id in 1_i64..=20, doubled: bool) {
        let mut run = Run::right();
        let text = id.to_string();
        let spot = run.orders.0[run.orders.position(&text)].clone();
        let wanted = if doubled {
            run.payments.again(&text, "payment_id", "payment_id");
            Check::PaymentDoubled
        } else {
            run.payments.remove(&text);
            Check::PaymentMissing
        };
        let findings = run.judged();
        let mut violated: Vec<_> = findings.violated().collect();
        // A declined order has no charge either way.
        violated.retain(|(check, _)| *check != Check::ChargeMissing);
        prop_assert_eq!(violated, vec![(wanted, 1)]);
        let line = findings.to_json();
        let example = &line["checks"][wanted.name()]["examples"][0];
        prop_assert_eq!(example["id"].as_str(), Some(text.as_str()));
        if !doubled {
            prop_assert_eq!(example["offset"].as_i64(), Some(spot.offset.0));
            prop_assert_eq!(example["partition"].as_i64(), Some(i64::from(spot.at.partition.0)));
        }
    }
}
