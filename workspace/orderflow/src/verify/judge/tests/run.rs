//! A run that is right, as the records, documents, charges and offsets that it left behind.

use std::collections::BTreeMap;

use domain::{Alert, Country, Currency, EventTime, Money, OrderId, Payment, PaymentStatus, RiskLevel, ids};
use fraud::config::FraudSettings;
use stream::OwnedRecord;
use stream::position::{Offset, Partition, TopicIndex, TopicPartition};

use super::super::{Charge, Document, Extent, Judge, Letters, Range, Spot, Standing, Terms};
use crate::dlq::State;
use crate::dlq::mark::{Act, Mark};
use crate::verify::findings::Findings;
use crate::verify::table::Group;

pub const PARTITIONS: i32 = 3;

pub type Headers = Vec<(String, Vec<u8>)>;

pub fn headers(list: &[(&str, &str)]) -> Headers {
    list.iter()
        .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
        .collect()
}

/// A topic's records, each with the next offset of its partition.
#[derive(Clone, Debug, Default)]
pub struct Log(pub Vec<OwnedRecord>);

impl Log {
    pub fn end(&self, partition: i32) -> i64 {
        let here = self.0.iter().filter(|record| record.at.partition.0 == partition);
        here.map(|record| record.offset.0 + 1).max().unwrap_or(0)
    }

    pub fn add(&mut self, partition: i32, value: impl Into<Vec<u8>>, headers: Headers) -> Spot {
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

    pub fn position(&self, id: &str) -> usize {
        let text = format!("\"order_id\":{id},");
        let other = format!("\"orderId\":{id},");
        let found = self.0.iter().position(|record| {
            let value = String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned();
            value.contains(&text) || value.contains(&other)
        });
        found.unwrap_or_else(|| panic!("no record of order {id}"))
    }

    pub fn remove(&mut self, id: &str) -> OwnedRecord {
        self.0.remove(self.position(id))
    }

    /// The last record is of a replay.
    pub fn replayed(&mut self) {
        let last = self.0.last_mut().expect("a record");
        last.headers.extend(headers(&[("replayed-at", "1000")]));
    }

    /// Writes the record of an order once more, with something replaced.
    pub fn again(&mut self, id: &str, from: &str, to: &str) {
        let mut record = self.0[self.position(id)].clone();
        record.offset = Offset(self.end(record.at.partition.0));
        record.value = Some(replaced(&record, from, to));
        self.0.push(record);
    }

    pub fn change(&mut self, id: &str, from: &str, to: &str) {
        let index = self.position(id);
        self.0[index].value = Some(replaced(&self.0[index], from, to));
    }
}

pub fn replaced(record: &OwnedRecord, from: &str, to: &str) -> Vec<u8> {
    let value = String::from_utf8(record.value.clone().expect("a value")).expect("text");
    assert!(value.contains(from), "{from} is not in {value}");
    value.replace(from, to).into_bytes()
}

/// What a run left behind.
#[derive(Clone, Debug, Default)]
pub struct Run {
    pub orders: Log,
    pub payments: Log,
    pub alerts: Log,
    pub letters: BTreeMap<&'static str, Log>,
    pub parked: Log,
    pub documents: Vec<(String, String, i64)>,
    pub charges: Vec<(String, String, u64)>,
    /// Committed, last stable and end offset of `orders[0]` of fraud-group.
    pub standing: (Option<i64>, i64, bool),
    pub output_ends: (i64, i64),
    pub moved_by: i64,
    pub begin: i64,
    /// What became of dead letters, by group.
    pub marks: Vec<(&'static str, State, Vec<Spot>)>,
    pub parked_extent: Option<(&'static str, Extent)>,
    pub range: Range,
}

pub const GROUPS: [(&str, Group); 3] = [
    ("fraud-group", Group::Fraud),
    ("payments-group", Group::Payments),
    ("analytics-group", Group::Analytics),
];

pub fn letter_headers(group: &str, code: &str, of: Spot) -> Headers {
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

pub fn payment(id: i64, minor: i64, status: PaymentStatus) -> Vec<u8> {
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

pub fn alert(id: i64, minor: i64, score: u8) -> Vec<u8> {
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

pub fn usd(minor: i64) -> Money {
    Money {
        minor: domain::MinorUnits(minor),
        currency: Currency::USD,
    }
}

pub fn order_text(id: i64, minor: i64) -> String {
    format!("{{\"order_id\":{id},\"amount\":{minor}e-2,\"country\":\"FR\",\"x\":[1.0]}}")
}

/// A mark in each partition, far behind the letters.
fn marks(state: State, spots: &[Spot]) -> Vec<OwnedRecord> {
    let mark = |spot: &Spot| {
        let act = Act {
            state,
            by: "me@here".to_owned(),
            at: 5,
            reason: None,
        };
        let offsets = vec![spot.offset];
        let (value, header) = Mark { act, offsets }.encode().expect("json");
        let mut log = Log::default();
        log.add(spot.partition, value, vec![header]);
        let mut record = log.0.remove(0);
        record.offset = Offset(1_000);
        record
    };
    spots.iter().map(mark).collect()
}

impl Run {
    pub fn letter(&mut self, group: &'static str, code: &str, of: Spot, value: &str) {
        let log = self.letters.entry(group).or_default();
        log.add(of.partition, value, letter_headers(group, code, of));
    }

    pub fn letters_of(&mut self, group: &'static str) -> &mut Log {
        self.letters.entry(group).or_default()
    }

    /// Where the last dead letter of payments-group stands.
    pub fn last_letter(&self) -> Spot {
        let letter = self.letters["payments-group"].0.last().expect("a letter");
        Spot {
            partition: letter.at.partition.0,
            offset: letter.offset.0,
        }
    }

    /// An order with everything that it must have.
    pub fn order(&mut self, id: i64, minor: i64) {
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
    pub fn right() -> Self {
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
        run.marks
            .push(("payments-group", State::Replayed, vec![run.last_letter()]));
        // Given up, replayed, given up again, and then discarded.
        let again = run.orders.add(0, order_text(36, 5_000), Vec::new());
        for is_replay in [false, true] {
            run.payments
                .add(0, payment(36, 5_000, PaymentStatus::Failed), Vec::new());
            run.letter(
                "payments-group",
                "gateway_unavailable",
                again,
                &order_text(36, 5_000),
            );
            let state = if is_replay {
                run.letters_of("payments-group").replayed();
                State::Discarded
            } else {
                State::Replayed
            };
            run.marks.push(("payments-group", state, vec![run.last_letter()]));
        }
        run.documents.push(("36".to_owned(), order_text(36, 5_000), 2));
        // Of topics that were there before these.
        run.documents.push(("old".to_owned(), "{}".to_owned(), 1));
        run
    }

    pub fn judged(&self) -> Findings {
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
        let (committed, end, unstable) = self.standing;
        judge.standing(&Standing {
            group: "fraud-group",
            topic: "orders",
            partition: 0,
            committed,
            begin: 0,
            end,
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
            for (_, state, spots) in self.marks.iter().filter(|(of, ..)| *of == group_name) {
                for record in marks(*state, spots) {
                    judge.mark(&letters, &record.as_record());
                    judge.dead_letter(&letters, &record.as_record());
                }
            }
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
