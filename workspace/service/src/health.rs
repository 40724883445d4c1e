//! Which components live, and whether the process is ready.
//!
//! Each long-running component holds a [`Heartbeat`] and beats it in its loop. A component whose
//! beat is older than it promised makes `/live` fail, and the orchestrator restarts the process. A
//! component whose last handle is dropped without [`Heartbeat::finish`] has died, by a panic or by
//! an early return, and the shell ends the process.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::shutdown::Shutdown;

/// The watchdog looks so often, and calls a component hanging after so many looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
const LOOKS: u32 = 3;

/// The health of one process. Clones share the state.
#[derive(Clone, Debug)]
pub struct Health {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    started: Instant,
    shutdown: Shutdown,
    tasks: Mutex<BTreeMap<String, Arc<Task>>>,
    readiness: Mutex<Readiness>,
    died: watch::Sender<Option<String>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Readiness {
    Ready,
    Not(String),
}

#[derive(Debug)]
struct Task {
    name: String,
    fresh_for: Duration,
    /// Milliseconds since the process started.
    last_beat: AtomicU64,
    finished: AtomicBool,
}

/// A component's sign of life. Cheap to clone and to beat; clones are one component.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    task: Arc<Task>,
    health: Arc<Inner>,
}

impl Health {
    /// Nothing runs yet, and the process is not ready. Once `shutdown` is requested, components end
    /// in any order and none of them counts as dead.
    pub fn new(shutdown: Shutdown) -> Self {
        Self {
            inner: Arc::new(Inner {
                started: Instant::now(),
                shutdown,
                tasks: Mutex::default(),
                readiness: Mutex::new(Readiness::Not("starting".to_owned())),
                died: watch::Sender::new(None),
            }),
        }
    }

    /// Registers a component that beats at least every `fresh_for`. A name that is registered again
    /// replaces the earlier component: it was restarted.
    pub fn task(&self, name: &str, fresh_for: Duration) -> Heartbeat {
        let task = Arc::new(Task {
            name: name.to_owned(),
            fresh_for,
            last_beat: AtomicU64::new(self.inner.elapsed_ms()),
            finished: AtomicBool::new(false),
        });
        lock(&self.inner.tasks).insert(name.to_owned(), Arc::clone(&task));
        Heartbeat {
            handle: Arc::new(Handle {
                task,
                health: Arc::clone(&self.inner),
            }),
        }
    }

    /// The process does its work from now on.
    pub fn ready(&self) {
        self.set(Readiness::Ready);
    }

    /// The process should get no work, for a reason that `/ready` shows.
    pub fn not_ready(&self, reason: &str) {
        self.set(Readiness::Not(reason.to_owned()));
    }

    fn set(&self, next: Readiness) {
        let mut current = lock(&self.inner.readiness);
        if *current == next {
            return;
        }
        match &next {
            Readiness::Ready => tracing::info!("ready"),
            Readiness::Not(reason) => tracing::info!(reason, "not ready"),
        }
        *current = next;
    }

    /// Why the process is not ready, or `None` when it is.
    pub fn not_ready_reason(&self) -> Option<String> {
        match &*lock(&self.inner.readiness) {
            Readiness::Ready => None,
            Readiness::Not(reason) => Some(reason.clone()),
        }
    }

    /// What is wrong with the components, a sentence each; empty when all of them live.
    pub fn stale(&self) -> Vec<String> {
        let mut stale: Vec<String> = self.inner.died.borrow().iter().cloned().collect();
        for (name, age, fresh_for) in self.ages() {
            if age > fresh_for {
                let (age, fresh_for) = (age.as_millis(), fresh_for.as_millis());
                stale.push(format!(
                    "`{name}` gave no sign of life for {age} ms, promised {fresh_for} ms"
                ));
            }
        }
        stale
    }

    /// Name, age of the last beat and promise of each running component.
    pub(crate) fn ages(&self) -> Vec<(String, Duration, Duration)> {
        let now = self.inner.elapsed_ms();
        let tasks = lock(&self.inner.tasks);
        tasks
            .values()
            .map(|task| {
                let age = now.saturating_sub(task.last_beat.load(Ordering::Relaxed));
                (task.name.clone(), Duration::from_millis(age), task.fresh_for)
            })
            .collect()
    }

    /// Resolves with a sentence when a component hangs: its beat is overdue by its whole promise once more,
    /// at several looks one after the other. A process that was stopped and goes on is overdue at the
    /// first look only.
    pub(crate) async fn hang(&self) -> String {
        let mut looks: BTreeMap<String, u32> = BTreeMap::new();
        let mut ticks = tokio::time::interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let mut overdue = BTreeMap::new();
            for (name, age, fresh_for) in self.ages() {
                if age <= fresh_for.saturating_mul(2) {
                    continue;
                }
                let seen = looks.get(&name).copied().unwrap_or(0) + 1;
                if seen >= LOOKS {
                    let (age, fresh_for) = (age.as_millis(), fresh_for.as_millis());
                    return format!(
                        "watchdog: `{name}` hangs, it gave no sign of life for {age} ms and promised {fresh_for} ms"
                    );
                }
                overdue.insert(name, seen);
            }
            looks = overdue;
        }
    }

    /// Resolves with a sentence when a component died.
    pub(crate) async fn death(&self) -> String {
        let mut died = self.inner.died.subscribe();
        match died.wait_for(Option::is_some).await {
            Ok(sentence) => sentence.clone().unwrap_or_default(),
            // The sender lives as long as `self`.
            Err(_closed) => std::future::pending().await,
        }
    }
}

impl Heartbeat {
    /// The component lives.
    pub fn beat(&self) {
        self.handle
            .task
            .last_beat
            .store(self.handle.health.elapsed_ms(), Ordering::Relaxed);
    }

    /// The component ends as intended; its handles may be dropped.
    pub fn finish(&self) {
        self.handle.task.finished.store(true, Ordering::Release);
        self.handle.health.forget(&self.handle.task);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.task.finished.load(Ordering::Acquire) {
            return;
        }
        if self.health.forget(&self.task) && !self.health.shutdown.is_requested() {
            let sentence = format!("`{}` ended without saying so", self.task.name);
            self.health.died.send_replace(Some(sentence));
        }
    }
}

impl Inner {
    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether the task was the registered one of its name.
    fn forget(&self, task: &Arc<Task>) -> bool {
        let mut tasks = lock(&self.tasks);
        let is_current = tasks
            .get(&task.name)
            .is_some_and(|current| Arc::ptr_eq(current, task));
        if is_current {
            tasks.remove(&task.name);
        }
        is_current
    }
}

/// A panic elsewhere leaves these maps whole, so a poisoned lock is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_speaks_of_a_component_that_hangs_and_not_of_one_that_was_late() {
        let health = Health::new(Shutdown::new());
        let late = health.task("late", Duration::from_secs(10));
        let hang = health.hang();
        tokio::pin!(hang);
        let mut beat = async |after: u64| {
            let spoken = tokio::time::timeout(Duration::from_secs(after), &mut hang).await;
            late.beat();
            spoken.ok()
        };
        assert_eq!(beat(19).await, None);
        assert_eq!(beat(21).await, None, "late once");
        assert_eq!(beat(19).await, None);
        let sentence = hang.await;
        assert!(sentence.starts_with("watchdog: `late` hangs"), "{sentence}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_component_is_stale_after_its_promise_and_fresh_after_a_beat() {
        let health = Health::new(Shutdown::new());
        let pump = health.task("pump-0", 2 * SECOND);
        tokio::time::advance(2 * SECOND).await;
        assert_eq!(health.stale(), Vec::<String>::new());
        tokio::time::advance(SECOND).await;
        assert_eq!(
            health.stale(),
            ["`pump-0` gave no sign of life for 3000 ms, promised 2000 ms"]
        );
        pump.clone().beat();
        assert_eq!(health.stale(), Vec::<String>::new());
        pump.finish();
        tokio::time::advance(10 * SECOND).await;
        assert_eq!(health.stale(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_component_died_when_its_last_handle_is_dropped_without_finish() {
        let health = Health::new(Shutdown::new());
        let first = health.task("pump-0", SECOND);
        let second = first.clone();
        let finished = health.task("replay", SECOND);
        finished.finish();
        drop(finished);
        drop(first);
        assert_eq!(health.stale(), Vec::<String>::new());
        drop(second);
        assert_eq!(health.death().await, "`pump-0` ended without saying so");
        assert_eq!(health.stale(), ["`pump-0` ended without saying so"]);
    }

    #[tokio::test]
    async fn components_may_end_in_any_order_once_the_process_stops() {
        let shutdown = Shutdown::new();
        let health = Health::new(shutdown.clone());
        let pump = health.task("pump-0", SECOND);
        shutdown.request("SIGTERM");
        drop(pump);
        assert_eq!(health.stale(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_restarted_component_replaces_the_earlier_one() {
        let health = Health::new(Shutdown::new());
        let first = health.task("pump-0", SECOND);
        let _second = health.task("pump-0", SECOND);
        drop(first);
        assert_eq!(health.stale(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn readiness_shows_its_reason() {
        let health = Health::new(Shutdown::new());
        assert_eq!(health.not_ready_reason().as_deref(), Some("starting"));
        health.ready();
        assert_eq!(health.not_ready_reason(), None);
        health.not_ready("braked");
        assert_eq!(health.not_ready_reason().as_deref(), Some("braked"));
    }
}
