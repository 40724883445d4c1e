//! The worker processes of a run.
//!
//! Whoever ends is looked at: an end that was asked for, or that a fault explains, is followed by a new
//! start; every other end is a defect and fails the run ([`crate::ending`]).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use testkit::{Launch, Running, Signal};
use tokio::sync::Mutex;

use crate::ending::{Asked, End, Excuses, Life, judge};
use crate::plan::{INSTANCES, SESSION_TIMEOUT_MS, Worker};

/// Between two looks at the processes.
const INTERVAL: Duration = Duration::from_millis(50);
/// The service's own limit is 45 s.
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// The delays of deploy/topics.toml, and what they are here: a run must not wait for minutes.
pub const RETRY_DELAYS: [(&str, &str); 3] = [("5s", "1s"), ("1m", "3s"), ("10m", "10s")];
/// The circuit tries again after so long at the most.
const CIRCUIT_OPEN_MOST_MS: u64 = 4_000;

struct Slot {
    worker: Worker,
    number: u64,
    /// Its `service.instance`.
    name: String,
    starts: u32,
    started: Instant,
    asked: Asked,
    was_frozen: bool,
    running: Running,
}

/// The worker processes.
pub struct Fleet {
    launcher: Launcher,
    slots: Vec<Mutex<Slot>>,
    ends: std::sync::Mutex<BTreeMap<&'static str, u64>>,
    excuses: Excuses,
}

/// How workers are started.
#[derive(Clone, Debug)]
pub struct Launcher {
    /// The program `orderflow`.
    pub orderflow: PathBuf,
    /// Where logs and the store go.
    pub work: PathBuf,
    /// The brokers.
    pub brokers: String,
    /// The gateway; its charges are listed below it.
    pub gateway: String,
}

impl Launcher {
    fn start(&self, worker: Worker, number: u64, name: &str) -> Running {
        // A write past a file-size limit has to be an error, as on a full disk, and not a signal.
        let launch = Launch::new("/bin/sh")
            .arg("-c")
            .arg(r#"trap "" XFSZ; exec "$0" "$@""#)
            .arg(&self.orderflow)
            .arg("run")
            .arg(worker.name());
        let launch = self
            .settings()
            .into_iter()
            .fold(launch, |launch, (key, value)| launch.env(key, value))
            .env("ORDERFLOW__SERVICE__INSTANCE", name);
        launch
            .log_to(&self.work.join(format!("{}-{number}.log", worker.name())))
            .start()
    }

    /// The configuration of this run, which its judge has to know too.
    #[must_use]
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let store = self.store().to_string_lossy().into_owned();
        vec![
            ("KAFKA_BROKERS", self.brokers.clone()),
            (
                "ORDERFLOW__STREAM__SESSION_TIMEOUT_MS",
                SESSION_TIMEOUT_MS.to_string(),
            ),
            (
                "ORDERFLOW__STREAM__RETRY_DELAYS",
                RETRY_DELAYS.map(|(_, here)| here).join(","),
            ),
            ("ORDERFLOW__PAYMENT__GATEWAY__KIND", "http".to_owned()),
            (
                "ORDERFLOW__PAYMENT__GATEWAY__URL",
                format!("{}/charges", self.gateway),
            ),
            (
                "ORDERFLOW__PAYMENT__GATEWAY__CIRCUIT_OPEN_MOST_MS",
                CIRCUIT_OPEN_MOST_MS.to_string(),
            ),
            ("ORDERFLOW__STORE__SQLITE__PATH", store),
        ]
    }

    /// The file of the store.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.work.join("orderflow.db")
    }
}

impl Fleet {
    /// Starts all workers.
    #[must_use]
    pub fn start(launcher: Launcher) -> Self {
        let mut slots = Vec::new();
        for worker in Worker::ALL {
            for number in 0..INSTANCES {
                let name = format!("{}-{number}", worker.name());
                slots.push(Mutex::new(Slot {
                    worker,
                    number,
                    running: launcher.start(worker, number, &name),
                    name,
                    starts: 1,
                    started: Instant::now(),
                    asked: Asked::Work,
                    was_frozen: false,
                }));
            }
        }
        Self {
            launcher,
            slots,
            ends: std::sync::Mutex::default(),
            excuses: Excuses::default(),
        }
    }

    /// Looks after the processes until one ends that should not. Never returns otherwise.
    ///
    /// # Errors
    /// Which process has ended, and how.
    pub async fn tend(&self) -> anyhow::Result<()> {
        loop {
            for slot in &self.slots {
                let mut slot = slot.lock().await;
                if let Some(status) = slot.running.ended() {
                    self.take_end(&slot, status)?;
                    let (worker, number) = (slot.worker, slot.number);
                    slot.running = self.launcher.start(worker, number, &slot.name);
                    slot.starts += 1;
                    slot.started = Instant::now();
                    (slot.asked, slot.was_frozen) = (Asked::Work, false);
                }
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    fn take_end(&self, slot: &Slot, status: ExitStatus) -> anyhow::Result<()> {
        let life = Life {
            asked: slot.asked,
            was_frozen: slot.was_frozen,
            in_trouble: self.excuses.is_in_trouble(slot.worker),
            started_without_broker: self.excuses.is_start_without_broker(slot.started),
        };
        let log = format!("{}-{}.log", slot.worker.name(), slot.number);
        // A continuous integration may keep what is printed and nothing else.
        let last = || last_error(&self.launcher.work.join(&log));
        let end = judge(life, status).map_err(|error| {
            anyhow::anyhow!(
                "{} {error}; its log is {log}, the last error there: {}",
                slot.name,
                last()
            )
        })?;
        if end == End::FencedAwake {
            println!("  {} was fenced awake: {}", slot.name, last());
        }
        if let Ok(mut ends) = self.ends.lock() {
            *ends.entry(end.name()).or_default() += 1;
        }
        Ok(())
    }

    /// What explains ends that nobody asked for.
    #[must_use]
    pub const fn excuses(&self) -> &Excuses {
        &self.excuses
    }

    /// How many processes ended in which way.
    #[must_use]
    pub fn ends(&self) -> BTreeMap<&'static str, u64> {
        self.ends.lock().map(|ends| ends.clone()).unwrap_or_default()
    }

    /// Ends a process with SIGKILL or SIGTERM; its successor has a new name, or the same one.
    ///
    /// # Errors
    /// There is no such process.
    pub async fn end(&self, worker: Worker, number: u64, kill: bool, rename: bool) -> anyhow::Result<()> {
        let mut slot = self.slot(worker, number)?.lock().await;
        // A SIGTERM does not take back a SIGKILL that was sent before.
        if slot.asked != Asked::Kill {
            slot.asked = if kill { Asked::Kill } else { Asked::Terminate };
        }
        let signal = if kill { Signal::KILL } else { Signal::TERM };
        slot.running.signal(signal);
        if rename {
            slot.name = format!("{}-{number}-{}", worker.name(), slot.starts);
        }
        Ok(())
    }

    /// Stops a process where it is, and lets it go on after a while, unless it was replaced meanwhile.
    ///
    /// # Errors
    /// There is no such process.
    pub async fn freeze(&self, worker: Worker, number: u64, time: Duration) -> anyhow::Result<()> {
        let slot = self.slot(worker, number)?;
        let starts = {
            let mut slot = slot.lock().await;
            slot.was_frozen = true;
            slot.running.signal(Signal::STOP);
            slot.starts
        };
        tokio::time::sleep(time).await;
        let slot = slot.lock().await;
        if slot.starts == starts {
            slot.running.signal(Signal::CONT);
        }
        Ok(())
    }

    /// Lets no process of a worker make any file larger than so many bytes; `None` takes that back.
    ///
    /// # Errors
    /// The system refuses it.
    pub async fn limit_files(&self, worker: Worker, bytes: Option<u64>) -> anyhow::Result<()> {
        for slot in &self.slots {
            let slot = slot.lock().await;
            if slot.worker == worker {
                let limit = Rlimit {
                    current: bytes,
                    maximum: None,
                };
                let id = i32::try_from(slot.running.id()).ok().and_then(Pid::from_raw);
                // It may have ended just now; its successor begins without a limit.
                let result = prlimit(id, Resource::Fsize, limit);
                if let Err(error) = result
                    && error != rustix::io::Errno::SRCH
                {
                    bail!("a file-size limit for {}: {error}", slot.name);
                }
            }
        }
        Ok(())
    }

    /// Asks all processes to end, and waits for it.
    ///
    /// # Errors
    /// One that does not end, or not in order.
    pub async fn stop(self) -> anyhow::Result<()> {
        let slots: Vec<Slot> = self.slots.into_iter().map(Mutex::into_inner).collect();
        for slot in &slots {
            slot.running.terminate();
        }
        for slot in slots {
            let ended = slot.running.wait(STOP_LIMIT).await;
            if ended.code() != Some(0) {
                bail!("{} was told to stop and ended with {}", slot.name, ended.status);
            }
        }
        Ok(())
    }

    fn slot(&self, worker: Worker, number: u64) -> anyhow::Result<&Mutex<Slot>> {
        let first = Worker::ALL.iter().position(|other| *other == worker);
        let index = first.and_then(|first| {
            let first = u64::try_from(first).ok()?;
            usize::try_from(first * INSTANCES + number).ok()
        });
        index
            .and_then(|index| self.slots.get(index))
            .with_context(|| format!("there is no {} {number}", worker.name()))
    }
}

fn last_error(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let line = text.lines().rfind(|line| line.contains("ERROR"));
    line.unwrap_or("none").to_owned()
}
