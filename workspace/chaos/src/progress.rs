//! How far each group has come.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use crate::plan::Worker;

/// Between two questions.
const INTERVAL: Duration = Duration::from_millis(50);
/// One question may take so long: the broker may be away.
const QUESTION: Duration = Duration::from_secs(2);

/// Asks for the committed offsets of each group, in a thread for each.
#[derive(Debug)]
pub struct Progress {
    committed: [Arc<AtomicU64>; 3],
    stop: Arc<AtomicBool>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Progress {
    /// Begins to ask.
    ///
    /// # Errors
    /// A client that can not be made.
    pub fn watch(brokers: &str, topic: &str, partitions: i32) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let committed: [Arc<AtomicU64>; 3] = Default::default();
        let mut threads = Vec::new();
        for (worker, count) in Worker::ALL.into_iter().zip(&committed) {
            let consumer: BaseConsumer = ClientConfig::new()
                .set("bootstrap.servers", brokers)
                .set("group.id", worker.group())
                .set("enable.auto.commit", "false")
                // Offsets of an open transaction are not waited for.
                .set("isolation.level", "read_uncommitted")
                .set("reconnect.backoff.max.ms", "500")
                .set("enable.metrics.push", "false")
                .create()
                .context("the client that asks for offsets")?;
            let mut wanted = TopicPartitionList::new();
            wanted.add_partition_range(topic, 0, partitions - 1);
            let (stop, count) = (Arc::clone(&stop), Arc::clone(count));
            let ask = move || {
                while !stop.load(Ordering::Relaxed) {
                    if let Ok(answer) = consumer.committed_offsets(wanted.clone(), QUESTION) {
                        count.store(sum(&answer), Ordering::Relaxed);
                    }
                    // This consumer reads nothing; its poll is the pause, and serves its callbacks.
                    drop(consumer.poll(INTERVAL));
                }
            };
            threads.push(std::thread::spawn(ask));
        }
        Ok(Self {
            committed,
            stop,
            threads: Mutex::new(threads),
        })
    }

    /// How many records a worker's group has committed.
    #[must_use]
    pub fn committed(&self, worker: Worker) -> u64 {
        let index = Worker::ALL.iter().position(|other| *other == worker);
        let count = index.and_then(|index| self.committed.get(index));
        count.map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Waits until a worker's group has committed so many records.
    ///
    /// # Errors
    /// No progress for longer than `patience`.
    pub async fn reached(&self, worker: Worker, wanted: u64, patience: Duration) -> anyhow::Result<()> {
        let mut best = self.committed(worker);
        let mut since = Instant::now();
        loop {
            let now = self.committed(worker);
            if now >= wanted {
                return Ok(());
            }
            if now > best {
                (best, since) = (now, Instant::now());
            }
            if since.elapsed() > patience {
                bail!(
                    "{} committed nothing for {patience:?}: it stands at {now} of {wanted} records",
                    worker.group()
                );
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            if thread.join().is_err() {
                eprintln!("chaos: a thread that asks for offsets has panicked");
            }
        }
    }
}

fn sum(answer: &TopicPartitionList) -> u64 {
    let offsets = answer.elements().into_iter().map(|element| element.offset());
    offsets
        .filter_map(|offset| match offset {
            Offset::Offset(offset) => u64::try_from(offset).ok(),
            _ => None,
        })
        .sum()
}
