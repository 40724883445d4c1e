//! A gateway for demonstrations: it waits as a real one does, and its outcomes follow from seed and
//! order id alone, so that a run can be repeated.

use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::config::SimulatedSettings;
use crate::gateway::{Charge, Found, GatewayError, PaymentGateway, Settled};

/// The simulated gateway.
#[derive(Clone, Copy, Debug)]
pub struct SimulatedGateway {
    settings: SimulatedSettings,
}

impl SimulatedGateway {
    /// A gateway with these outcomes.
    #[must_use]
    pub const fn new(settings: SimulatedSettings) -> Self {
        Self { settings }
    }

    /// What this gateway says about an order, always the same.
    fn outcome(&self, order_id: &str) -> Result<Settled, GatewayError> {
        let draw = draw(self.settings.seed, order_id);
        if draw < self.settings.decline_share {
            return Ok(Settled::Declined);
        }
        if draw < self.settings.decline_share + self.settings.fail_share {
            let message = "simulated outage (`payment.simulated.fail_share`)".to_owned();
            return Err(GatewayError::Unavailable {
                message,
                retry_after: None,
            });
        }
        Ok(Settled::Paid)
    }
}

/// A number in `[0, 1)` that depends on seed and id, and looks random.
fn draw(seed: u64, order_id: &str) -> f64 {
    let digest = Sha256::new()
        .chain_update(seed.to_be_bytes())
        .chain_update(order_id)
        .finalize();
    let head = digest
        .iter()
        .take(4)
        .fold(0_u32, |number, byte| (number << 8) | u32::from(*byte));
    f64::from(head) / (f64::from(u32::MAX) + 1.0)
}

impl PaymentGateway for SimulatedGateway {
    async fn charge(&self, charge: Charge<'_>) -> Result<Settled, GatewayError> {
        tokio::time::sleep(Duration::from_millis(self.settings.delay_ms)).await;
        self.outcome(charge.order_id.text())
    }

    /// It remembers nothing, and charging anew gives the same outcome again.
    async fn lookup(&self, _: &str) -> Result<Found, GatewayError> {
        Ok(Found::Nothing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_met_and_depend_on_the_seed_alone() {
        let settings = SimulatedSettings {
            decline_share: 0.2,
            fail_share: 0.1,
            ..SimulatedSettings::default()
        };
        let count = |seed: u64| {
            let gateway = SimulatedGateway::new(SimulatedSettings { seed, ..settings });
            let outcomes: Vec<_> = (0..10_000).map(|id| gateway.outcome(&id.to_string())).collect();
            let declined = outcomes
                .iter()
                .filter(|outcome| **outcome == Ok(Settled::Declined))
                .count();
            let failed = outcomes.iter().filter(|outcome| outcome.is_err()).count();
            (declined, failed, outcomes)
        };
        let (declined, failed, outcomes) = count(1);
        // 10,000 draws: three standard deviations are 120 and 90.
        assert!((1_880..=2_120).contains(&declined), "{declined}");
        assert!((910..=1_090).contains(&failed), "{failed}");
        assert_eq!(outcomes, count(1).2);
        assert_ne!(outcomes, count(2).2);
    }

    #[test]
    fn by_default_everything_is_paid() {
        let gateway = SimulatedGateway::new(SimulatedSettings::default());
        assert!((0..1_000).all(|id| gateway.outcome(&id.to_string()) == Ok(Settled::Paid)));
    }
}
