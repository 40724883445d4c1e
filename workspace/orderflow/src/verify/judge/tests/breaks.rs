//! Each way to break a run.

use domain::ids;

use super::run::{Run, alert, order_text};
use crate::dlq::State;
use crate::verify::findings::Check;
use crate::verify::table::Spot;

/// What breaks a run.
pub type Break = fn(&mut Run);

/// Each way to break a run, and the violations that it must show, and no others.
pub const BREAKS: &[(&str, Break, &[Check])] = &[
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
        "a replay is lost",
        |run| {
            run.payments.remove("33");
            run.charges.retain(|(_, id, _)| id != "33");
        },
        &[Check::PaymentMissing],
    ),
    (
        "a replay that failed again has no other dead letter",
        |run| {
            let again = run.letters_of("payments-group").0.pop();
            assert!(again.is_some_and(|letter| letter.headers.iter().any(|(name, _)| name == "replayed-at")));
            run.payments.0.pop();
        },
        &[Check::PaymentMissing],
    ),
    (
        "a replay says twice that it failed",
        |run| run.payments.again("36", "FAILED", "FAILED"),
        &[Check::PaymentDoubled],
    ),
    (
        "a replay that failed again does not say that it is one",
        |run| {
            let letters = run.letters_of("payments-group");
            for letter in &mut letters.0 {
                letter.headers.retain(|(name, _)| name != "replayed-at");
            }
        },
        &[Check::PaymentDoubled, Check::DeadLetterDoubled],
    ),
    (
        "the replay of poison is lost",
        |run| {
            let poison = run
                .letters_of("payments-group")
                .0
                .iter()
                .find(|letter| letter.value.as_deref() == Some(b"{"));
            let poison = poison.expect("poison");
            let spot = Spot {
                partition: poison.at.partition.0,
                offset: poison.offset.0,
            };
            run.marks.push(("payments-group", State::Replayed, vec![spot]));
        },
        &[Check::DeadLetterMissing],
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
