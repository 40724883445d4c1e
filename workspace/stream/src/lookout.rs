//! What the cluster is asked beside the work: up to where readers of committed records can get, whether
//! topics downstream have grown, and what former owners left open (see [`crate::takeover`]).
//!
//! A thread of its own asks, so that no pump ever waits for an answer; the pumps look at what was answered
//! last. Where nobody is behind and nobody waits, nothing is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use service::Heartbeat;

use crate::error::StreamError;
use crate::ffi::{End, Inquirer};
use crate::metrics::StreamMetrics;
use crate::position::{Offset, TopicPartition};
use crate::takeover;

/// The thread looks so often whether it is time to ask something.
const STEP: Duration = Duration::from_millis(250);
/// While somebody waits or is behind, it is asked so often.
const ASK_INTERVAL: Duration = Duration::from_secs(1);
/// One question may take so long.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);

/// What a lookout works with.
pub(crate) struct LookoutConfig {
    pub client_properties: Vec<(String, String)>,
    /// The topics that are read from, and for each of them those that keep its partitions.
    pub sources: Vec<(String, Vec<String>)>,
    /// The sources, and behind them their retry topics.
    pub inputs: Vec<String>,
    pub metrics: StreamMetrics,
}

#[derive(Default)]
struct Shared {
    /// How many partitions a topic has, as far as is known. Topics never shrink.
    counts: BTreeMap<String, i32>,
    /// By pump: which partitions of sources wait for topics downstream.
    growing: BTreeMap<usize, BTreeSet<TopicPartition>>,
    /// By pump: which partitions seem to have more records than were worked on.
    behind: BTreeMap<usize, Vec<TopicPartition>>,
    /// Their last stable offsets.
    ends: BTreeMap<TopicPartition, Offset>,
    /// Somebody waits who did not before.
    is_urgent: bool,
    stopping: bool,
}

/// A topic that is smaller than its source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Lacking {
    topic: String,
    partitions: i32,
    source: String,
    /// The partition of the source that it does not have.
    partition: i32,
}

/// Asks the cluster. Clones share it.
#[derive(Clone)]
pub(crate) struct Lookout {
    config: Arc<LookoutConfig>,
    shared: Arc<(Mutex<Shared>, Condvar)>,
}

impl Lookout {
    /// Knows these numbers of partitions.
    pub fn new(config: LookoutConfig, mut counts: BTreeMap<String, i32>) -> Self {
        let downstream: BTreeSet<_> = config.sources.iter().flat_map(|(_, topics)| topics).collect();
        counts.retain(|topic, _| downstream.contains(topic));
        let shared = Shared {
            counts,
            ..Shared::default()
        };
        Self {
            config: Arc::new(config),
            shared: Arc::new((Mutex::new(shared), Condvar::new())),
        }
    }

    /// Starts the thread. With transactions it also looks after what former owners left open.
    pub fn start(&self, takeover: Option<takeover::Watch>, heartbeat: Heartbeat) -> Result<(), StreamError> {
        let watch = Watch {
            lookout: self.clone(),
            takeover,
            inquirer: Inquirer::open(&self.config.client_properties)?,
            last: None,
            told: BTreeSet::new(),
        };
        let started = std::thread::Builder::new()
            .name("lookout".to_owned())
            .spawn(move || watch.run(&heartbeat));
        started.map(|_| ()).map_err(|error| StreamError::Client {
            what: "starting the lookout".to_owned(),
            cause: error.to_string(),
            retriable: false,
        })
    }

    /// Whether a topic downstream of a source does not have this partition, as far as is known.
    pub fn lacks(&self, source: TopicPartition) -> bool {
        let shared = self.lock();
        self.lacking(&shared.counts, source).next().is_some()
    }

    fn lacking<'a>(
        &'a self,
        counts: &'a BTreeMap<String, i32>,
        at: TopicPartition,
    ) -> impl Iterator<Item = Lacking> + 'a {
        let named = self.config.sources.get(usize::from(at.topic.0));
        named.into_iter().flat_map(move |(source, downstream)| {
            downstream.iter().filter_map(move |topic| {
                let partitions = counts.get(topic).copied().unwrap_or(0);
                (partitions <= at.partition.0).then(|| Lacking {
                    topic: topic.clone(),
                    partitions,
                    source: source.clone(),
                    partition: at.partition.0,
                })
            })
        })
    }

    /// A pump waits for topics downstream of exactly these partitions.
    pub fn waits(&self, pump: usize, growing: &BTreeSet<TopicPartition>) {
        let mut shared = self.lock();
        let before = shared.growing.insert(pump, growing.clone()).unwrap_or_default();
        if before != *growing {
            shared.is_urgent = true;
            self.shared.1.notify_all();
        }
    }

    /// A pump seems to be behind in exactly these partitions. Tells their last stable offsets, as far as
    /// they are known.
    pub fn ends_of(&self, pump: usize, behind: Vec<TopicPartition>) -> Vec<Option<Offset>> {
        let mut shared = self.lock();
        let known = behind.iter().map(|at| shared.ends.get(at).copied()).collect();
        shared.behind.insert(pump, behind);
        known
    }

    pub fn stop(&self) {
        self.lock().stopping = true;
        self.shared.1.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // A holder can not panic while it holds it.
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Watch {
    lookout: Lookout,
    takeover: Option<takeover::Watch>,
    inquirer: Inquirer,
    /// When it was asked last.
    last: Option<Instant>,
    /// What an operator was told of.
    told: BTreeSet<Lacking>,
}

impl Watch {
    fn run(mut self, heartbeat: &Heartbeat) {
        while let Some(is_urgent) = self.wait() {
            heartbeat.beat();
            if let Some(takeover) = &mut self.takeover {
                takeover.look_when_due(&self.inquirer);
            }
            if !is_urgent && self.last.is_some_and(|last| last.elapsed() < ASK_INTERVAL) {
                continue;
            }
            self.last = Some(Instant::now());
            heartbeat.beat();
            if let Err(error) = self.look_ahead().and(self.look_downstream()) {
                tracing::debug!(%error, "asking the cluster beside the work");
            }
        }
        heartbeat.finish();
    }

    /// Waits a little, and tells whether somebody waits anew. `None` when told to stop.
    fn wait(&self) -> Option<bool> {
        let mut shared = self.lookout.lock();
        let started = Instant::now();
        loop {
            let left = STEP.saturating_sub(started.elapsed());
            if shared.stopping {
                return None;
            }
            if shared.is_urgent || left.is_zero() {
                return Some(std::mem::take(&mut shared.is_urgent));
            }
            let waited = self.lookout.shared.1.wait_timeout(shared, left);
            shared = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What is missing now of all that is waited for.
    fn lacking(&self) -> BTreeSet<Lacking> {
        let shared = self.lookout.lock();
        let waiting = shared.growing.values().flatten();
        waiting
            .flat_map(|at| self.lookout.lacking(&shared.counts, *at))
            .collect()
    }

    /// Asks for the last stable offsets of partitions that somebody is behind in: what stands after them
    /// can not be read yet, and is nobody's lag.
    fn look_ahead(&self) -> Result<(), StreamError> {
        let behind: Vec<TopicPartition> = self.lookout.lock().behind.values().flatten().copied().collect();
        let inputs = &self.lookout.config.inputs;
        let names: Vec<CString> = inputs
            .iter()
            .filter_map(|name| CString::new(name.as_str()).ok())
            .collect();
        let place = |at: &TopicPartition| Some((names.get(usize::from(at.topic.0))?.clone(), at.partition.0));
        let places: Vec<_> = behind.iter().filter_map(place).collect();
        let mut answers = BTreeMap::new();
        if !places.is_empty() {
            for (topic, partition, end) in self.inquirer.ends(&places, End::OfCommitted, ASK_TIMEOUT)? {
                answers.insert((topic, partition), Offset(end));
            }
        }
        let end_of = |at: TopicPartition| Some((at, *answers.get(&place(&at)?)?));
        self.lookout.lock().ends = behind.into_iter().filter_map(end_of).collect();
        Ok(())
    }

    fn look_downstream(&mut self) -> Result<(), StreamError> {
        let topics: BTreeSet<String> = self.lacking().into_iter().map(|lacking| lacking.topic).collect();
        for topic in topics {
            let Ok(name) = CString::new(topic.as_str()) else {
                continue;
            };
            let count = self.inquirer.partitions(&name, ASK_TIMEOUT)?;
            // A broker that has not heard of the growth yet takes nothing back.
            let mut shared = self.lookout.lock();
            let known = shared.counts.entry(topic).or_default();
            *known = count.max(*known);
        }
        self.tell(self.lacking());
        Ok(())
    }

    fn tell(&mut self, lacking: BTreeSet<Lacking>) {
        self.lookout
            .config
            .metrics
            .set_waiting("growth", !lacking.is_empty());
        for one in lacking.difference(&self.told) {
            tracing::warn!(
                source = one.source,
                partition = one.partition,
                topic = one.topic,
                partitions = one.partitions,
                "a new partition waits until the topic downstream has it too: grow it with `orderflow topics apply`"
            );
        }
        if lacking.is_empty() && !self.told.is_empty() {
            tracing::info!("all topics downstream have grown, going on");
        }
        self.told = lacking;
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::*;
    use crate::position::{Partition, TopicIndex};

    #[test]
    fn a_partition_waits_for_each_topic_that_keeps_its_number_and_for_no_other() {
        let config = LookoutConfig {
            client_properties: Vec::new(),
            sources: vec![
                ("a".to_owned(), vec!["out".to_owned(), "a.dlq".to_owned()]),
                ("b".to_owned(), vec!["b.dlq".to_owned()]),
            ],
            inputs: Vec::new(),
            metrics: StreamMetrics::register(&Registry::new()).expect("fresh registry"),
        };
        let counts = [("out", 3), ("a.dlq", 2), ("b.dlq", 9)];
        let counts = counts.map(|(topic, count)| (topic.to_owned(), count));
        let lookout = Lookout::new(config, BTreeMap::from(counts));
        let lacks = |topic, partition| {
            lookout.lacks(TopicPartition {
                topic: TopicIndex(topic),
                partition: Partition(partition),
            })
        };
        assert!(!lacks(0, 1));
        assert!(lacks(0, 2), "the dead letters have two");
        assert!(lacks(0, 3));
        assert!(!lacks(1, 8));
        assert!(lacks(1, 9));
    }
}
