//! The worker processes of a run.
//!
//! Whoever ends is looked at: an end that was asked for, or that a fence explains, is followed by a new
//! start; every other end is a defect and fails the run.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use testkit::{Launch, Running, Signal};
use tokio::sync::Mutex;

use crate::plan::{INSTANCES, SESSION_TIMEOUT_MS, Worker};

/// Between two looks at the processes.
const INTERVAL: Duration = Duration::from_millis(50);
/// The service's own limit is 45 s.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// What a process went through.
#[derive(Clone, Copy, Debug)]
struct Life {
    asked: Asked,
    was_frozen: bool,
    /// The broker is away, or was a moment ago.
    broker_away: bool,
}

/// What a process was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// To work.
    Work,
    /// SIGTERM.
    Terminate,
    /// SIGKILL.
    Kill,
}

/// Why a process has ended, as far as that is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Killed,
    Terminated,
    /// A zombie met its successor.
    Fenced,
    /// A process that was awake all the time was taken for dead.
    FencedAwake,
    /// It started while the broker was away, and gave up.
    Unreachable,
}

impl End {
    const fn name(self) -> &'static str {
        match self {
            Self::Killed => "killed",
            Self::Terminated => "terminated",
            Self::Fenced => "fenced",
            Self::FencedAwake => "fenced awake",
            Self::Unreachable => "unreachable",
        }
    }
}

/// Judges the end of a process.
fn judge(life: Life, status: ExitStatus) -> Result<End, String> {
    let is_killed = status.signal() == Some(Signal::KILL.as_raw());
    match (life.asked, status.code()) {
        (Asked::Kill, None) if is_killed => Ok(End::Killed),
        // It was about to end anyhow.
        (Asked::Terminate | Asked::Kill, Some(0)) => Ok(End::Terminated),
        (_, Some(75)) if life.was_frozen => Ok(End::Fenced),
        (_, Some(75)) => Ok(End::FencedAwake),
        (_, Some(69)) if life.broker_away => Ok(End::Unreachable),
        _ => Err(format!("ended with {status}, asked for was {:?}", life.asked)),
    }
}

struct Slot {
    worker: Worker,
    number: u64,
    /// Its `service.instance`.
    name: String,
    starts: u32,
    asked: Asked,
    was_frozen: bool,
    running: Running,
}

/// The worker processes.
pub struct Fleet {
    launcher: Launcher,
    slots: Vec<Mutex<Slot>>,
    ends: std::sync::Mutex<BTreeMap<&'static str, u64>>,
    /// Until when the broker counts as away.
    away_until: std::sync::Mutex<Option<Instant>>,
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
            ("ORDERFLOW__PAYMENT__SIMULATED__DECLINE_SHARE", "0.05".to_owned()),
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
                    asked: Asked::Work,
                    was_frozen: false,
                }));
            }
        }
        Self {
            launcher,
            slots,
            ends: std::sync::Mutex::default(),
            away_until: std::sync::Mutex::default(),
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
                    (slot.asked, slot.was_frozen) = (Asked::Work, false);
                }
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    fn take_end(&self, slot: &Slot, status: ExitStatus) -> anyhow::Result<()> {
        let away_until = self.away_until.lock().map_or(None, |until| *until);
        let life = Life {
            asked: slot.asked,
            was_frozen: slot.was_frozen,
            broker_away: away_until.is_some_and(|until| Instant::now() < until),
        };
        let end = judge(life, status).map_err(|error| {
            let log = format!("{}-{}.log", slot.worker.name(), slot.number);
            anyhow::anyhow!("{} {error}; its log is {log}", slot.name)
        })?;
        if end == End::FencedAwake {
            let log = format!("{}-{}.log", slot.worker.name(), slot.number);
            let text = std::fs::read_to_string(self.launcher.work.join(log)).unwrap_or_default();
            let last = text
                .lines()
                .rfind(|line| line.contains("ERROR"))
                .unwrap_or_default();
            println!("  {} was fenced awake: {last}", slot.name);
        }
        if let Ok(mut ends) = self.ends.lock() {
            *ends.entry(end.name()).or_default() += 1;
        }
        Ok(())
    }

    /// The broker is away for so long at most.
    pub fn expect_outage(&self, time: Duration) {
        if let Ok(mut until) = self.away_until.lock() {
            *until = Instant::now().checked_add(time);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_end_that_was_asked_for_or_a_fence_is_allowed() {
        let killed = ExitStatus::from_raw(9);
        let code = |code: i32| ExitStatus::from_raw(code << 8);
        let life = |asked| Life {
            asked,
            was_frozen: false,
            broker_away: false,
        };
        let frozen = Life {
            was_frozen: true,
            ..life(Asked::Work)
        };
        let without_broker = Life {
            broker_away: true,
            ..life(Asked::Work)
        };
        assert_eq!(judge(life(Asked::Kill), killed), Ok(End::Killed));
        assert_eq!(judge(life(Asked::Terminate), code(0)), Ok(End::Terminated));
        assert_eq!(judge(frozen, code(75)), Ok(End::Fenced));
        assert_eq!(judge(life(Asked::Work), code(75)), Ok(End::FencedAwake));
        assert_eq!(judge(without_broker, code(69)), Ok(End::Unreachable));
        for (asked, status) in [
            (Asked::Work, killed),
            (Asked::Work, code(0)),
            (Asked::Work, code(70)),
            (Asked::Terminate, code(70)),
            (Asked::Terminate, killed),
            (Asked::Work, code(69)),
            (Asked::Kill, ExitStatus::from_raw(11)),
        ] {
            assert!(judge(life(asked), status).is_err(), "{asked:?} {status:?}");
        }
    }
}
