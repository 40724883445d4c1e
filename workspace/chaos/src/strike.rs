//! One fault, done.

use std::time::{Duration, Instant};

use anyhow::bail;
use tokio::sync::Mutex;

use crate::engine::{Admin, Broker};
use crate::fleet::{Fleet, Launcher};
use crate::gateway::Gateway;
use crate::plan::{Action, Injection, Strike, Worker};

/// A fault in the broker strikes within so long, or the run did not do what it says.
const STRIKE_LIMIT: Duration = Duration::from_secs(60);
const ASK_INTERVAL: Duration = Duration::from_millis(50);
/// Below this nothing of a store fits into a file.
const LEAST_FILE: u64 = 32 << 10;

/// What strikes have in their hands.
pub struct Stage {
    /// The broker. A crash holds it until the broker is back.
    pub broker: Mutex<Broker>,
    /// Who charges.
    pub gateway: Gateway,
    /// The workers.
    pub fleet: Fleet,
    /// Where the store is.
    pub launcher: Launcher,
}

/// Does a strike and tells how many times it hit.
///
/// # Errors
/// What could not be done.
pub async fn strike(stage: &Stage, strike: &Strike) -> anyhow::Result<u64> {
    let worker = strike.worker;
    match &strike.action {
        Action::Stop { kill, instances } => {
            for (number, rename) in instances {
                stage.fleet.end(worker, *number, *kill, *rename).await?;
            }
            Ok(instances.len() as u64)
        }
        Action::Freeze { instance, ms } => {
            stage
                .fleet
                .freeze(worker, *instance, Duration::from_millis(*ms))
                .await?;
            Ok(1)
        }
        Action::CrashBroker => {
            let mut broker = stage.broker.lock().await;
            let _troubles = stage.fleet.excuses().outage(&Worker::ALL);
            broker.crash().await?;
            Ok(1)
        }
        Action::Inject(injection) => inject(stage, worker, injection).await,
        Action::FillBrokerDisk { ms } => {
            // Held, because a broker that starts anew would have room again.
            let broker = stage.broker.lock().await;
            let _troubles = stage.fleet.excuses().trouble(&Worker::ALL);
            let admin = broker.admin()?;
            admin.disk(true).await?;
            tokio::time::sleep(Duration::from_millis(*ms)).await;
            admin.disk(false).await?;
            Ok(1)
        }
        Action::FillStoreDisk { ms } => {
            let mut log = stage.launcher.store().into_os_string();
            log.push("-wal");
            let size = std::fs::metadata(&log).map_or(0, |found| found.len());
            stage
                .fleet
                .limit_files(worker, Some(size.max(LEAST_FILE)))
                .await?;
            tokio::time::sleep(Duration::from_millis(*ms)).await;
            stage.fleet.limit_files(worker, None).await?;
            Ok(1)
        }
        Action::DisturbGateway(disturbance) => stage.gateway.disturb(*disturbance).await,
        Action::LeaveGateway { ms } => {
            stage.gateway.leave(Duration::from_millis(*ms)).await;
            Ok(1)
        }
    }
}

async fn inject(stage: &Stage, worker: Worker, injection: &Injection) -> anyhow::Result<u64> {
    // Held until it has struck: a broker that starts anew has forgotten its faults.
    let broker = stage.broker.lock().await;
    let _troubles = stage.fleet.excuses().trouble(&[worker]);
    let admin = broker.admin()?;
    let client_id = format!("orderflow-{}", worker.name());
    let id = admin.inject(injection, &client_id).await?;
    if injection.is_for_a_start() {
        stage.fleet.end(worker, 0, true, false).await?;
    }
    let struck = wait_until_struck(&admin, id, injection).await;
    admin.remove(id).await?;
    struck
}

/// Waits until the fault has struck as often as it was to, or at least once and no more for a while.
async fn wait_until_struck(admin: &Admin, id: u64, injection: &Injection) -> anyhow::Result<u64> {
    let begun = Instant::now();
    let (mut best, mut since) = (0, Instant::now());
    loop {
        let struck = admin.struck(id).await?;
        if struck > best {
            (best, since) = (struck, Instant::now());
        }
        if best >= injection.times || (best > 0 && since.elapsed() > STRIKE_LIMIT / 6) {
            return Ok(best);
        }
        if begun.elapsed() > STRIKE_LIMIT {
            bail!("{injection:?} did not strike within {STRIKE_LIMIT:?}");
        }
        tokio::time::sleep(ASK_INTERVAL).await;
    }
}
