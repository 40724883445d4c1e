//! One seed, from start to verdict.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use testkit::Launch;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::engine::{Broker, Places};
use crate::fault::Fault;
use crate::fleet::{Fleet, Launcher, RETRY_DELAYS};
use crate::gateway::Gateway;
use crate::orders::Orders;
use crate::plan::{self, EngineName, Strike, Worker};
use crate::progress::Progress;
use crate::strike::{Stage, strike};
use crate::{sender, verdict};

/// Partitions of every topic.
const PARTITIONS: i32 = 12;
const ORDERS_TOPIC: &str = "orders";
/// A group that commits nothing for so long is stuck: the longest outage of a plan is far shorter.
const PATIENCE: Duration = Duration::from_secs(90);
const TOPICS_LIMIT: Duration = Duration::from_secs(60);

/// What is run.
#[derive(Clone, Debug)]
pub struct Assignment {
    /// On which broker.
    pub engine: EngineName,
    /// From which seed.
    pub seed: u64,
    /// How many different orders.
    pub orders: u64,
    /// Only these faults; none means all.
    pub only: Vec<Fault>,
}

impl Assignment {
    /// The command that runs it.
    #[must_use]
    pub fn command(&self) -> String {
        let only: Vec<String> = self.only.iter().map(ToString::to_string).collect();
        let only = if only.is_empty() {
            String::new()
        } else {
            format!(" --only {}", only.join(","))
        };
        format!(
            "scripts/chaos --engine {} --seeds 1 --from {} --orders {}{only}",
            self.engine, self.seed, self.orders
        )
    }
}

/// What a run did.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How often each fault hit.
    pub faults: BTreeMap<Fault, u64>,
    /// How processes ended.
    pub ends: BTreeMap<&'static str, u64>,
    /// What `orderflow verify` counted.
    pub verdict: serde_json::Value,
    /// How long it took.
    pub seconds: u64,
}

/// Runs a seed.
///
/// # Errors
/// What went wrong: a process that ended by itself, a group that stands still, or the verdict.
pub async fn run(assignment: &Assignment, places: &Places) -> anyhow::Result<Outcome> {
    let begun = Instant::now();
    let Assignment {
        engine,
        seed,
        orders,
        ref only,
    } = *assignment;
    let orders = Arc::new(Orders::draw(seed, orders));
    let strikes = plan::draw(seed, engine, orders.orders, only);
    if strikes.is_empty() {
        bail!("none of these faults can be done on {engine}");
    }
    let broker = Broker::start(engine, places).await?;
    let brokers = broker.address().to_owned();
    create_topics(places, &brokers).await?;
    let gateway = Gateway::start(seed).await?;
    let launcher = Launcher {
        orderflow: places.orderflow.clone(),
        work: places.work.clone(),
        brokers: brokers.clone(),
        gateway: gateway.url(),
    };
    let stage = Stage {
        broker: Mutex::new(broker),
        gateway,
        fleet: Fleet::start(launcher.clone()),
        launcher,
    };
    let stage = Arc::new(stage);
    let progress = Arc::new(Progress::watch(&brokers, ORDERS_TOPIC, PARTITIONS)?);
    let worked = work(&stage, &progress, &brokers, &orders, strikes);
    let faults = unless_a_worker_ends(&stage, worked).await?;
    println!("  {:>3} s, caught up", begun.elapsed().as_secs());
    let verdict = unless_a_worker_ends(&stage, verdict::judge(&stage.launcher, orders.orders)).await?;
    println!("  {:>3} s, judged", begun.elapsed().as_secs());
    drop(progress);
    let stage = Arc::into_inner(stage).context("a strike goes on after the end")?;
    let ends = stage.fleet.ends();
    stage.fleet.stop().await?;
    stage.broker.into_inner().stop().await?;
    Ok(Outcome {
        faults,
        ends,
        verdict,
        seconds: begun.elapsed().as_secs(),
    })
}

/// Sends all orders, does all strikes, and waits until every group has caught up.
async fn work(
    stage: &Arc<Stage>,
    progress: &Arc<Progress>,
    brokers: &str,
    orders: &Arc<Orders>,
    strikes: Vec<Strike>,
) -> anyhow::Result<BTreeMap<Fault, u64>> {
    let cues = Arc::new(sender::Cues::default());
    // However this ends, the sender ends too: nothing waits for its thread but the end of the program.
    let _stop = StopsSending(Arc::clone(&cues));
    let sending = {
        let (brokers, orders, cues) = (brokers.to_owned(), Arc::clone(orders), Arc::clone(&cues));
        tokio::task::spawn_blocking(move || sender::send(&brokers, ORDERS_TOPIC, &orders.records, &cues))
    };
    let (begun, all) = (Instant::now(), orders.records.len() as u64);
    let mut open: JoinSet<anyhow::Result<(Fault, u64)>> = JoinSet::new();
    let mut faults = BTreeMap::new();
    for planned in strikes {
        let at = all * planned.at_per_mille / 1_000;
        progress.reached(planned.worker, at, PATIENCE).await?;
        let (second, worker) = (begun.elapsed().as_secs(), planned.worker.name());
        println!(
            "  {second:>3} s, {at} of {all} records: {worker}, {:?}",
            planned.action
        );
        let stage = Arc::clone(stage);
        // Strikes may overlap: a frozen process sleeps while the broker falls.
        open.spawn(async move { Ok((planned.fault, strike(&stage, &planned).await?)) });
        while let Some(done) = open.try_join_next() {
            let (fault, times) = done??;
            *faults.entry(fault).or_default() += times;
        }
    }
    while let Some(done) = open.join_next().await {
        let (fault, times) = done??;
        *faults.entry(fault).or_default() += times;
    }
    cues.faults_done.store(true, Ordering::Relaxed);
    sending.await??;
    for worker in Worker::ALL {
        progress.reached(worker, all, PATIENCE).await?;
    }
    Ok(faults)
}

struct StopsSending(Arc<sender::Cues>);

impl Drop for StopsSending {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

/// Waits for the work, while the workers are looked after.
async fn unless_a_worker_ends<T>(
    stage: &Stage,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    tokio::select! {
        done = work => done,
        ended = stage.fleet.tend() => match ended {
            Err(error) => Err(error),
            Ok(()) => bail!("nobody looks after the workers"),
        },
    }
}

/// The topics of deploy/topics.toml with more partitions, and with shorter delays of retries.
async fn create_topics(places: &Places, brokers: &str) -> anyhow::Result<()> {
    let source = places.root.join("deploy/topics.toml");
    let text = std::fs::read_to_string(&source).with_context(|| source.display().to_string())?;
    let mut changed = text;
    let partitions = ("partitions = 3".to_owned(), format!("partitions = {PARTITIONS}"));
    let delays = RETRY_DELAYS.map(|(old, new)| (format!(".retry.{old}\"]"), format!(".retry.{new}\"]")));
    for (old, new) in [partitions].into_iter().chain(delays) {
        if !changed.contains(&old) {
            bail!("`{}` has no `{old}`", source.display());
        }
        changed = changed.replacen(&old, &new, 1);
    }
    let file = places.work.join("topics.toml");
    std::fs::write(&file, changed)?;
    let applied = Launch::new(&places.orderflow)
        .arg("topics")
        .arg("apply")
        .arg("--file")
        .arg(&file)
        .env("KAFKA_BROKERS", brokers)
        .run(TOPICS_LIMIT)
        .await;
    if applied.code() != Some(0) {
        bail!("`orderflow topics apply` failed: {}", applied.stderr);
    }
    Ok(())
}
