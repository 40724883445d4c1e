//! What goes wrong, drawn from seed, key and count. Pure.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use super::ledger::Outcome;

/// How a gateway behaves. Shares are of its requests, 0 to 1, and add up to 1 at the most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GatewayFaults {
    /// Another seed, other requests.
    pub seed: u64,
    /// How long a charge takes.
    pub delay: Duration,
    /// How long a slow one takes.
    pub slow_delay: Duration,
    /// What `Retry-After` says.
    pub retry_after_seconds: u64,
    /// Of the orders, not of the requests: those that are declined.
    pub declined: f64,
    /// The connection ends after the charge and before its answer; lookups are spared.
    pub lost: f64,
    /// The answer takes `slow_delay`.
    pub slow: f64,
    /// 500, and nothing is charged.
    pub failed: f64,
    /// 429 with `Retry-After`, and nothing is charged.
    pub throttled: f64,
}

impl Default for GatewayFaults {
    /// Nothing goes wrong, and nothing takes time.
    fn default() -> Self {
        Self {
            seed: 0,
            delay: Duration::ZERO,
            slow_delay: Duration::from_secs(1),
            retry_after_seconds: 1,
            declined: 0.0,
            lost: 0.0,
            slow: 0.0,
            failed: 0.0,
            throttled: 0.0,
        }
    }
}

/// What goes wrong with one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Fault {
    LosesAnswer,
    IsSlow,
    Fails,
    Throttles,
}

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Subject {
    Charge,
    Lookup,
    Outcome,
}

impl GatewayFaults {
    /// What goes wrong with the `nth` request under a key.
    pub(super) fn draw(&self, subject: Subject, key: &str, nth: u32) -> Option<Fault> {
        let draw = self.number(subject, key, nth);
        let faults = [
            (self.lost, Fault::LosesAnswer),
            (self.slow, Fault::IsSlow),
            (self.failed, Fault::Fails),
            (self.throttled, Fault::Throttles),
        ];
        let mut below = 0.0;
        faults.into_iter().find_map(|(share, fault)| {
            below += share;
            (draw < below).then_some(fault)
        })
    }

    pub(super) fn outcome(&self, key: &str) -> Outcome {
        if self.number(Subject::Outcome, key, 0) < self.declined {
            Outcome::Declined
        } else {
            Outcome::Paid
        }
    }

    /// A number in `[0, 1)` that looks random.
    fn number(&self, subject: Subject, key: &str, nth: u32) -> f64 {
        // Its keys are fixed, so that it gives the same on each run.
        let mut hasher = DefaultHasher::new();
        (self.seed, subject, key, nth).hash(&mut hasher);
        let head = u32::try_from(hasher.finish() >> 32).unwrap_or_default();
        f64::from(head) / (f64::from(u32::MAX) + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_met_and_a_run_can_be_repeated() {
        let faults = GatewayFaults {
            lost: 0.1,
            failed: 0.2,
            declined: 0.3,
            ..GatewayFaults::default()
        };
        let all = |faults: GatewayFaults| {
            let draw = move |nth| faults.draw(Subject::Charge, "k", nth);
            (0..10_000).map(draw).collect::<Vec<_>>()
        };
        let drawn = all(faults);
        let count = |wanted| drawn.iter().filter(|fault| **fault == wanted).count();
        // 10,000 draws: four standard deviations are 120, 160 and 184.
        assert!((880..=1_120).contains(&count(Some(Fault::LosesAnswer))));
        assert!((1_840..=2_160).contains(&count(Some(Fault::Fails))));
        assert!((6_816..=7_184).contains(&count(None)));
        assert_eq!(drawn, all(faults));
        assert_ne!(drawn, all(GatewayFaults { seed: 1, ..faults }));
        let declined = (0..10_000)
            .filter(|number| faults.outcome(&number.to_string()) == Outcome::Declined)
            .count();
        assert!((2_816..=3_184).contains(&declined), "{declined}");
    }
}
