//! Orders in, payments out, without Kafka.

use std::collections::VecDeque;
use std::sync::Mutex;

use stream::position::{Offset, Partition, TopicIndex, TopicPartition};
use stream::record::NoHeaders;

use super::*;
use crate::config::SimulatedSettings;
use crate::simulated::SimulatedGateway;

const NOW_MS: i64 = 1_705_029_300_000;

const TERMS: Terms = Terms {
    default_currency: Currency::USD,
    key_lifetime: Duration::from_millis(1_000),
    clock: || EventTime(NOW_MS),
};

fn settle(settings: SimulatedSettings) -> Settle<SimulatedGateway> {
    let gateway = SimulatedGateway::new(SimulatedSettings {
        delay_ms: 0,
        ..settings
    });
    Settle::new(gateway, TERMS)
}

fn record(value: &str) -> Record<'_> {
    Record {
        at: TopicPartition {
            topic: TopicIndex(0),
            partition: Partition(0),
        },
        offset: Offset(0),
        record_time_ms: NOW_MS,
        key: None,
        value: Some(value.as_bytes()),
        headers: &NoHeaders,
    }
}

const ORDER: &str = r#"{"order_id":"A-7","amount":"249.99","country":"FR","currency":"EUR"}"#;

#[tokio::test]
async fn a_paid_order_gives_the_documented_payment() {
    let settle = settle(SimulatedSettings::default());
    let job = settle.decode(&record(ORDER)).expect("job");
    let outputs = settle.attempt(&job, 2).await.expect("paid");
    let output = outputs.first().expect("one output");
    assert_eq!((output.key.as_slice(), outputs.len()), (&b"A-7"[..], 1));
    let payment = Payment::decode(&output.value).expect("payment");
    assert_eq!(payment.status, PaymentStatus::Paid);
    assert_eq!(payment.order_id.text(), "A-7");
    assert_eq!(
        (payment.money.minor.0, payment.money.currency.as_str()),
        (24_999, "EUR")
    );
    assert_eq!(payment.attempts, 2);
    assert_eq!(payment.payment_id, ids::payment_id("A-7"));
}

#[tokio::test]
async fn a_declined_order_is_final_and_an_outage_is_transient() {
    let declining = settle(SimulatedSettings {
        decline_share: 1.0,
        ..SimulatedSettings::default()
    });
    let job = declining.decode(&record(ORDER)).expect("job");
    let outputs = declining.attempt(&job, 1).await.expect("declined");
    let status = Payment::decode(&outputs[0].value).expect("payment").status;
    assert_eq!(status, PaymentStatus::Declined);
    let failing = settle(SimulatedSettings {
        fail_share: 1.0,
        ..SimulatedSettings::default()
    });
    let failure = failing.attempt(&job, 1).await.expect_err("outage");
    assert!(matches!(failure, Failure::Transient { ref code, .. } if code == "gateway_unavailable"));
    let last = failing.give_up(&job, 3).await.expect("known");
    let LastWord::GaveUp(outputs) = last else {
        panic!("{last:?}")
    };
    let last = Payment::decode(&outputs[0].value).expect("payment").status;
    assert_eq!(last, PaymentStatus::Failed);
}

#[test]
fn what_is_no_order_is_poison() {
    let settle = settle(SimulatedSettings::default());
    let failure = settle.decode(&record("[]")).expect_err("poison");
    assert!(
        matches!(failure, Failure::Poison { ref code, .. } if code == "not_an_object"),
        "{failure:?}"
    );
}

/// Answers lookups as it was told to, and writes down what it is asked.
#[derive(Default)]
struct Scripted {
    found: Mutex<VecDeque<Result<Found, GatewayError>>>,
    calls: Mutex<Vec<&'static str>>,
}

impl PaymentGateway for Scripted {
    async fn charge(&self, _: Charge<'_>) -> Result<Settled, GatewayError> {
        self.calls.lock().unwrap().push("charge");
        Ok(Settled::Paid)
    }

    async fn lookup(&self, payment_id: &str) -> Result<Found, GatewayError> {
        assert_eq!(payment_id, ids::payment_id("A-7"));
        self.calls.lock().unwrap().push("lookup");
        let next = self.found.lock().unwrap().pop_front();
        next.expect("a lookup that the test expects")
    }
}

fn scripted(found: impl IntoIterator<Item = Result<Found, GatewayError>>) -> Settle<Scripted> {
    let gateway = Scripted {
        found: Mutex::new(found.into_iter().collect()),
        ..Scripted::default()
    };
    Settle::new(gateway, TERMS)
}

fn no_answer<T>() -> Result<T, GatewayError> {
    Err(GatewayError::NoAnswer {
        message: "lost".to_owned(),
    })
}

fn status_of(outputs: &[OutputRecord]) -> PaymentStatus {
    Payment::decode(&outputs[0].value).expect("payment").status
}

#[tokio::test]
async fn an_order_that_is_older_than_its_key_is_looked_up_before_it_is_charged() {
    let table = [
        // As old as keys may be, and from a clock that is ahead: the key still protects.
        (1_000, None, &["charge"][..], PaymentStatus::Paid),
        (-5_000, None, &["charge"], PaymentStatus::Paid),
        (
            1_001,
            Some(Found::Settled(Settled::Declined)),
            &["lookup"],
            PaymentStatus::Declined,
        ),
        (
            1_001,
            Some(Found::Nothing),
            &["lookup", "charge"],
            PaymentStatus::Paid,
        ),
        // No record time at all.
        (
            NOW_MS + 1,
            Some(Found::Nothing),
            &["lookup", "charge"],
            PaymentStatus::Paid,
        ),
    ];
    for (age_ms, found, calls, status) in table {
        let settle = scripted(found.map(Ok));
        let old = Record {
            record_time_ms: NOW_MS - age_ms,
            ..record(ORDER)
        };
        let job = settle.decode(&old).expect("job");
        let outputs = settle.attempt(&job, 1).await.expect("settled");
        assert_eq!(status_of(&outputs), status, "{age_ms} ms");
        assert_eq!(*settle.gateway.calls.lock().unwrap(), calls, "{age_ms} ms");
    }
}

#[tokio::test]
async fn an_old_order_whose_lookup_is_not_answered_is_not_charged() {
    let settle = scripted([no_answer()]);
    let old = Record {
        record_time_ms: 0,
        ..record(ORDER)
    };
    let job = settle.decode(&old).expect("job");
    let failure = settle.attempt(&job, 1).await.expect_err("not known");
    assert!(matches!(failure, Failure::Transient { ref code, .. } if code == "gateway_no_answer"));
    assert_eq!(*settle.gateway.calls.lock().unwrap(), ["lookup"]);
}

#[tokio::test(start_paused = true)]
async fn nobody_gives_up_before_it_is_known_that_nothing_was_charged() {
    let job_of = |settle: &Settle<Scripted>| settle.decode(&record(ORDER)).expect("job");
    let paid = Ok(Found::Settled(Settled::Paid));

    let settle = scripted([no_answer(), no_answer(), paid]);
    let word = settle.give_up(&job_of(&settle), 3).await;
    assert!(matches!(word, Ok(LastWord::Settled(outputs)) if status_of(&outputs) == PaymentStatus::Paid));

    let settle = scripted([Ok(Found::Nothing)]);
    let word = settle.give_up(&job_of(&settle), 3).await;
    assert!(matches!(word, Ok(LastWord::GaveUp(outputs)) if status_of(&outputs) == PaymentStatus::Failed));

    let settle = scripted([no_answer(), no_answer(), no_answer()]);
    let word = settle.give_up(&job_of(&settle), 3).await;
    assert!(matches!(word, Err(Failure::Transient { code, .. }) if code == "gateway_no_answer"));

    // A wait is no answer, and none of the three.
    let away = Err(GatewayError::Away {
        message: "open".to_owned(),
    });
    let settle = scripted([away]);
    let word = settle.give_up(&job_of(&settle), 3).await;
    assert!(matches!(word, Err(Failure::Away { .. })));
}

#[test]
fn every_error_of_the_gateway_has_one_meaning_for_the_record() {
    let message = String::new;
    let retry_after = Some(Duration::from_secs(7));
    let table = [
        (
            GatewayError::NoAnswer { message: message() },
            "transient gateway_no_answer None",
        ),
        (
            GatewayError::Unavailable {
                message: message(),
                retry_after,
            },
            "transient gateway_unavailable Some(7s)",
        ),
        (
            GatewayError::InProgress {
                message: message(),
                retry_after,
            },
            "transient gateway_in_progress Some(7s)",
        ),
        (
            GatewayError::Refused { message: message() },
            "poison gateway_refused",
        ),
        (
            GatewayError::Misconfigured { message: message() },
            "away gateway_refuses_us",
        ),
        (GatewayError::Away { message: message() }, "away gateway_away"),
    ];
    for (error, wanted) in table {
        let found = match classify(error.clone()) {
            Failure::Transient {
                code, retry_after, ..
            } => format!("transient {code} {retry_after:?}"),
            Failure::Away { code, .. } => format!("away {code}"),
            Failure::Poison { code, .. } => format!("poison {code}"),
            Failure::Fatal { .. } => "fatal".to_owned(),
        };
        assert_eq!(found, wanted, "{error:?}");
    }
}
