//! The payment gateway of a run.
//!
//! It lives in this process, so that its ledger outlives whatever happens: what a worker asked for before
//! the gateway went away is charged all the same, and the verdict sees it.

use std::time::{Duration, Instant};

use anyhow::bail;
use testkit::{FakeGateway, GatewayFaults};
use tokio::sync::Mutex;

use crate::plan::{Disturbance, Manner};
use crate::ports;
use crate::random::Random;

/// Charges come with every order, so that a disturbance meets some soon.
const STRIKE_LIMIT: Duration = Duration::from_secs(60);
/// With the circuit open there are only probes: what has struck is enough then.
const QUIET_LIMIT: Duration = Duration::from_secs(4);
const ASK_INTERVAL: Duration = Duration::from_millis(20);
/// Share of the orders that it declines.
const DECLINED: f64 = 0.05;

/// The gateway of a run.
#[derive(Debug)]
pub struct Gateway {
    fake: FakeGateway,
    /// When nothing is wrong with it.
    usual: GatewayFaults,
    /// One thing is wrong with it at a time.
    turn: Mutex<()>,
}

impl Gateway {
    /// Starts a gateway whose answers follow from the seed.
    ///
    /// # Errors
    /// There is no port for it.
    pub async fn start(seed: u64) -> anyhow::Result<Self> {
        let mut random = Random::new(seed, "gateway");
        let usual = GatewayFaults {
            seed,
            delay: Duration::from_millis(random.within(0, 40)),
            declined: DECLINED,
            ..GatewayFaults::default()
        };
        let [port] = ports::free()?;
        Ok(Self {
            fake: FakeGateway::listen(([127, 0, 0, 1], port).into(), usual).await?,
            usual,
            turn: Mutex::default(),
        })
    }

    /// Where it lists its charges, below `/charges`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.fake.address())
    }

    /// Treats some charges badly until enough were met, and tells how many.
    ///
    /// # Errors
    /// It met none.
    pub async fn disturb(&self, disturbance: Disturbance) -> anyhow::Result<u64> {
        let _turn = self.turn.lock().await;
        let before = self.fake.struck();
        self.fake.set_faults(with(self.usual, disturbance));
        let struck = self.wait_until_struck(before, disturbance.times).await;
        self.fake.set_faults(self.usual);
        if struck == 0 {
            bail!("{disturbance:?} met no charge within {STRIKE_LIMIT:?}");
        }
        Ok(struck)
    }

    async fn wait_until_struck(&self, before: u64, times: u64) -> u64 {
        let begun = Instant::now();
        let (mut best, mut since) = (0, begun);
        loop {
            let struck = self.fake.struck() - before;
            if struck > best {
                (best, since) = (struck, Instant::now());
            }
            let is_quiet = best > 0 && since.elapsed() > QUIET_LIMIT;
            if best >= times || is_quiet || begun.elapsed() > STRIKE_LIMIT {
                return best;
            }
            tokio::time::sleep(ASK_INTERVAL).await;
        }
    }

    /// Is away for so long.
    pub async fn leave(&self, time: Duration) {
        let _turn = self.turn.lock().await;
        self.fake.go_down();
        tokio::time::sleep(time).await;
        self.fake.come_up();
    }
}

fn with(usual: GatewayFaults, disturbance: Disturbance) -> GatewayFaults {
    let share = f64::from(disturbance.per_mille) / 1_000.0;
    match disturbance.manner {
        Manner::LosesAnswer => GatewayFaults { lost: share, ..usual },
        Manner::TakesLong { ms } => GatewayFaults {
            slow: share,
            slow_delay: Duration::from_millis(ms),
            ..usual
        },
        Manner::Fails => GatewayFaults {
            failed: share,
            ..usual
        },
        Manner::Throttles { retry_after_s } => GatewayFaults {
            throttled: share,
            retry_after_seconds: retry_after_s,
            ..usual
        },
    }
}
