//! An order in, a payment out.

use std::borrow::Cow;

use domain::{Currency, EventTime, Money, Order, OrderId, Payment, PaymentStatus, ids};
use stream::{ConcurrentHandler, Failure, LastWord, OutputRecord, OutputTopic, Record};

use crate::gateway::{Charge, GatewayError, PaymentGateway, Settled};

const PAYMENTS: OutputTopic = OutputTopic(0);

/// Settles orders with a gateway.
pub struct Settle<G> {
    gateway: G,
    default_currency: Currency,
    clock: fn() -> EventTime,
}

/// An order that is being settled.
#[derive(Debug)]
pub struct Job {
    order_id: OrderId<'static>,
    payment_id: String,
    money: Money,
}

impl<G: PaymentGateway> Settle<G> {
    /// Settles with this gateway; `clock` tells when a payment ended.
    pub const fn new(gateway: G, default_currency: Currency, clock: fn() -> EventTime) -> Self {
        Self {
            gateway,
            default_currency,
            clock,
        }
    }

    fn payment(&self, job: &Job, status: PaymentStatus, attempts: u32) -> Vec<OutputRecord> {
        let payment = Payment {
            order_id: job.order_id.clone(),
            status,
            payment_id: Cow::Borrowed(&job.payment_id),
            money: job.money,
            attempts,
            timestamp: (self.clock)(),
        };
        let mut value = Vec::with_capacity(192);
        payment.encode(&mut value);
        vec![OutputRecord {
            topic: PAYMENTS,
            key: job.order_id.text().as_bytes().to_vec(),
            value,
        }]
    }
}

impl<G: PaymentGateway> ConcurrentHandler for Settle<G> {
    type Job = Job;

    fn decode(&self, record: &Record<'_>) -> Result<Job, Failure> {
        let value = record
            .value
            .ok_or_else(|| Failure::poison("empty", "the record has no value, must be an order"))?;
        let order = Order::decode(value, self.default_currency)
            .map_err(|rejection| Failure::poison(rejection.code.as_str(), rejection.message))?;
        Ok(Job {
            payment_id: ids::payment_id(order.id.text()),
            money: order.money,
            order_id: order.id.into_owned(),
        })
    }

    async fn attempt(&self, job: &Job, attempt: u32) -> Result<Vec<OutputRecord>, Failure> {
        let charge = Charge {
            payment_id: &job.payment_id,
            order_id: job.order_id.text(),
            money: job.money,
        };
        match self.gateway.charge(charge).await {
            Ok(Settled::Paid) => Ok(self.payment(job, PaymentStatus::Paid, attempt)),
            Ok(Settled::Declined) => Ok(self.payment(job, PaymentStatus::Declined, attempt)),
            Err(error) => Err(classify(error)),
        }
    }

    async fn give_up(&self, job: &Job, attempts: u32) -> Result<LastWord, Failure> {
        Ok(LastWord::GaveUp(self.payment(
            job,
            PaymentStatus::Failed,
            attempts,
        )))
    }
}

/// What an error of the gateway means for the record.
fn classify(error: GatewayError) -> Failure {
    let message = error.to_string();
    match error {
        GatewayError::Unavailable { retry_after, .. } => Failure::Transient {
            code: "gateway_unavailable".into(),
            message,
            retry_after,
        },
    }
}

#[cfg(test)]
mod tests {
    use stream::position::{Offset, Partition, TopicIndex, TopicPartition};
    use stream::record::NoHeaders;

    use super::*;
    use crate::config::SimulatedSettings;
    use crate::simulated::SimulatedGateway;

    fn settle(settings: SimulatedSettings) -> Settle<SimulatedGateway> {
        let gateway = SimulatedGateway::new(SimulatedSettings {
            delay_ms: 0,
            ..settings
        });
        Settle::new(gateway, Currency::USD, || EventTime(1_705_029_300_000))
    }

    fn record(value: &str) -> Record<'_> {
        Record {
            at: TopicPartition {
                topic: TopicIndex(0),
                partition: Partition(0),
            },
            offset: Offset(0),
            record_time_ms: 0,
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
}
