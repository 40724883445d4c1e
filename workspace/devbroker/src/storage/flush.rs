//! Bringing to the disk what was written: many writers share one sync.
//!
//! A writer writes (into the kernel's cache), then says that its target is dirty; whoever wants to give
//! an answer waits until everything that is dirty by then is [`Flusher::settled`]. One thread of its
//! own works the rounds of syncs off, so no tokio worker ever waits for a disk; while it syncs, further
//! writers gather for the round after, which makes the cost per writer fall as their number grows.
//! After the wait, each target is asked whether it is sound.
//!
//! A sync that failed is never tried again: the kernel may have dropped the pages that it could not
//! write, and would say yes the second time. The target refuses all further work instead.
//!
//! Once the thread has ended, however that came, nothing is synced any more: whoever waits for a round
//! that did not run hears so, and so does everybody who comes later. Nobody waits for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::error::WriteError;
use crate::sync::lock;

/// A longer interval is this long.
const LONGEST_INTERVAL: Duration = Duration::from_secs(24 * 3_600);

/// When the broker syncs what it wrote to its data folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flush {
    /// Before the client hears that it was accepted. Many requests share one sync.
    #[default]
    Always,
    /// This often. A killed process loses nothing, a power loss what came in since.
    Interval(Duration),
    /// When the operating system finds it right. A killed process loses nothing.
    Never,
}

/// Something that is written to and synced later.
pub(crate) trait Flushable: std::fmt::Debug + Send + Sync {
    /// Syncs everything that was written before the call. Only the flusher's thread calls it.
    fn flush(&self);
}

/// By address, so that a target is synced once in a round.
type Targets = BTreeMap<usize, Arc<dyn Flushable>>;

#[derive(Debug)]
pub(crate) struct Flusher {
    policy: Flush,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    rounds: Mutex<Rounds>,
    changed: Condvar,
    progress: watch::Sender<Progress>,
}

/// What the thread tells those who wait.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    /// The last round that was worked off.
    completed: u64,
    /// There will be no further one.
    ended: bool,
}

#[derive(Debug)]
struct Rounds {
    dirty: Targets,
    /// What the round that runs, or ran last, syncs.
    running: BTreeSet<usize>,
    /// The number of the round that takes what is dirty now.
    next: u64,
    urgent: bool,
    stopping: bool,
    /// The thread has ended: targets are not taken any more.
    ended: bool,
}

impl Flusher {
    /// Starts the thread.
    pub(crate) fn start(policy: Flush) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            rounds: Mutex::new(Rounds {
                dirty: BTreeMap::new(),
                running: BTreeSet::new(),
                next: 1,
                urgent: false,
                stopping: false,
                ended: false,
            }),
            changed: Condvar::new(),
            progress: watch::Sender::default(),
        });
        let worker = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("devbroker-flush".to_owned());
        let thread = thread.spawn(move || worker.run(policy))?;
        Ok(Self {
            policy,
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Takes note of a write that was done.
    pub(crate) fn dirty(&self, target: Arc<dyn Flushable>) {
        match self.policy {
            Flush::Never => {}
            Flush::Interval(_) => self.note(target, false),
            Flush::Always => self.note(target, true),
        }
    }

    /// The same, synced as soon as possible whatever the policy says.
    pub(crate) fn urgent(&self, target: Arc<dyn Flushable>) {
        self.note(target, true);
    }

    fn note(&self, target: Arc<dyn Flushable>, urgent: bool) {
        let address = address(&target);
        let mut rounds = lock(&self.shared.rounds);
        if rounds.ended {
            return;
        }
        let wakes = rounds.dirty.is_empty() || (urgent && !rounds.urgent);
        rounds.dirty.insert(address, target);
        rounds.urgent |= urgent;
        drop(rounds);
        if wakes {
            self.shared.changed.notify_one();
        }
    }

    /// Returns when everything that was noted before is on the disk, or can not be brought there; at
    /// once where the policy makes nobody wait. An error where it can not be brought there because
    /// the thread has ended; a target that failed says so itself.
    pub(crate) async fn settled(&self) -> Result<(), WriteError> {
        self.wait_for(|rounds| {
            // What is dirty goes with the next round; otherwise at most the one before it still runs.
            if rounds.dirty.is_empty() {
                rounds.next - 1
            } else {
                rounds.next
            }
        })
        .await
    }

    /// The same for one target, without waiting for the others where it is not dirty.
    pub(crate) async fn settled_for(&self, target: &Arc<dyn Flushable>) -> Result<(), WriteError> {
        let address = address(target);
        self.wait_for(|rounds| {
            if rounds.dirty.contains_key(&address) {
                rounds.next
            } else if rounds.running.contains(&address) {
                rounds.next - 1
            } else {
                0
            }
        })
        .await
    }

    async fn wait_for(&self, round: impl FnOnce(&Rounds) -> u64) -> Result<(), WriteError> {
        if self.policy != Flush::Always {
            return Ok(());
        }
        let ended = || WriteError("the broker has stopped to sync its data folder".to_owned());
        let round = {
            let rounds = lock(&self.shared.rounds);
            if rounds.ended {
                return Err(ended());
            }
            round(&rounds)
        };
        let mut progress = self.shared.progress.subscribe();
        let reached = progress.wait_for(|progress| progress.completed >= round || progress.ended);
        // The sender lives as long as `self`.
        let completed = reached.await.is_ok_and(|progress| progress.completed >= round);
        completed.then_some(()).ok_or_else(ended)
    }

    /// Syncs what is dirty, and returns when the thread has ended. Blocks.
    pub(crate) fn stop(&self) {
        self.ask_to_stop();
        if let Some(thread) = lock(&self.thread).take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that syncs the data folder panicked");
        }
    }

    /// Lets the thread end once it has synced what is dirty.
    pub(crate) fn ask_to_stop(&self) {
        lock(&self.shared.rounds).stopping = true;
        self.shared.changed.notify_one();
    }
}

fn address(target: &Arc<dyn Flushable>) -> usize {
    Arc::as_ptr(target).cast::<()>() as usize
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.ask_to_stop();
    }
}

/// Tells everybody when the thread ends, also where it panics.
struct EndNotice<'a>(&'a Shared);

impl Drop for EndNotice<'_> {
    fn drop(&mut self) {
        let mut rounds = lock(&self.0.rounds);
        rounds.ended = true;
        // What came after the last look would hold the data folder, for each target holds it.
        let left = std::mem::take(&mut rounds.dirty);
        drop(rounds);
        drop(left);
        self.0.progress.send_modify(|progress| progress.ended = true);
    }
}

impl Shared {
    fn run(&self, policy: Flush) {
        let _notice = EndNotice(self);
        let interval = match policy {
            Flush::Interval(interval) => interval,
            Flush::Always | Flush::Never => Duration::ZERO,
        };
        while let Some((round, dirty)) = self.next_round(interval) {
            for target in dirty.values() {
                target.flush();
            }
            self.progress.send_modify(|progress| progress.completed = round);
        }
    }

    /// Waits for work, then for its time. `None` when there is none any more.
    fn next_round(&self, interval: Duration) -> Option<(u64, Targets)> {
        let mut rounds = lock(&self.rounds);
        while rounds.dirty.is_empty() {
            if rounds.stopping {
                return None;
            }
            rounds = self.changed.wait(rounds).unwrap_or_else(PoisonError::into_inner);
        }
        let due = Instant::now() + interval.min(LONGEST_INTERVAL);
        while !rounds.urgent && !rounds.stopping {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.changed.wait_timeout(rounds, left);
            rounds = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let round = rounds.next;
        rounds.next += 1;
        rounds.urgent = false;
        let dirty = std::mem::take(&mut rounds.dirty);
        rounds.running = dirty.keys().copied().collect();
        Some((round, dirty))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// Counts its syncs; a sync waits while the gate is closed.
    #[derive(Debug, Default)]
    struct Target {
        written: AtomicU64,
        synced: AtomicU64,
        syncs: AtomicU64,
        gate: Mutex<()>,
    }

    impl Flushable for Target {
        fn flush(&self) {
            let written = self.written.load(Ordering::SeqCst);
            drop(lock(&self.gate));
            self.syncs.fetch_add(1, Ordering::SeqCst);
            self.synced.store(written, Ordering::SeqCst);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_redeemed_ticket_means_that_the_write_was_synced_and_many_share_a_sync() {
        let flusher = Arc::new(Flusher::start(Flush::Always).unwrap());
        let target = Arc::new(Target::default());
        let writers = (0..50).map(|_| {
            let (flusher, target) = (Arc::clone(&flusher), Arc::clone(&target));
            tokio::spawn(async move {
                for _ in 0..100 {
                    let written = target.written.fetch_add(1, Ordering::SeqCst) + 1;
                    flusher.dirty(target.clone());
                    flusher.settled().await.unwrap();
                    assert!(target.synced.load(Ordering::SeqCst) >= written);
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.unwrap();
        }
        assert!(target.syncs.load(Ordering::SeqCst) <= 5_000);
        flusher.stop();
    }

    #[tokio::test]
    async fn writers_that_come_while_a_sync_runs_share_the_next_one() {
        let flusher = Flusher::start(Flush::Always).unwrap();
        let target = Arc::new(Target::default());
        let gate = lock(&target.gate);
        (0..100).for_each(|_| flusher.dirty(target.clone()));
        drop(gate);
        flusher.settled().await.unwrap();
        let syncs = target.syncs.load(Ordering::SeqCst);
        assert!(
            syncs <= 2,
            "one that had begun and one for all the others, not {syncs}"
        );
        flusher.stop();
    }

    #[tokio::test]
    async fn an_interval_makes_nobody_wait_and_stopping_syncs_the_rest() {
        let flusher = Flusher::start(Flush::Interval(Duration::from_secs(3_600))).unwrap();
        let target = Arc::new(Target::default());
        flusher.dirty(target.clone());
        flusher.settled().await.unwrap();
        assert_eq!(target.syncs.load(Ordering::SeqCst), 0);
        flusher.stop();
        assert_eq!(target.syncs.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn what_is_urgent_is_synced_whatever_the_policy() {
        let flusher = Flusher::start(Flush::Never).unwrap();
        let target = Arc::new(Target::default());
        flusher.dirty(target.clone());
        flusher.settled().await.unwrap();
        assert_eq!(target.syncs.load(Ordering::SeqCst), 0);
        flusher.urgent(target.clone());
        flusher.stop();
        assert_eq!(target.syncs.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn after_the_end_of_the_thread_nobody_waits_and_nobody_hears_that_a_write_is_safe() {
        let flusher = Flusher::start(Flush::Always).unwrap();
        let target = Arc::new(Target::default());
        flusher.dirty(target.clone());
        flusher.settled().await.unwrap();
        flusher.stop();
        flusher.dirty(target.clone());
        flusher.settled().await.unwrap_err();
        let same = target.clone() as Arc<dyn Flushable>;
        flusher.settled_for(&same).await.unwrap_err();
        assert_eq!(target.syncs.load(Ordering::SeqCst), 1);
        drop(same);
        assert_eq!(
            Arc::strong_count(&target),
            1,
            "nothing is held that is never synced"
        );
    }

    /// Lets the thread end as no other target does.
    #[derive(Debug)]
    struct Panics;

    impl Flushable for Panics {
        fn flush(&self) {
            panic!("a test wants it so");
        }
    }

    #[tokio::test]
    async fn whoever_waits_while_the_thread_panics_hears_of_it() {
        let flusher = Flusher::start(Flush::Always).unwrap();
        flusher.dirty(Arc::new(Panics));
        flusher.settled().await.unwrap_err();
    }
}
