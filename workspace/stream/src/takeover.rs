//! What a dead worker left open.
//!
//! A worker that is killed leaves its transaction open, and until Kafka aborts it (ten seconds) readers
//! of committed records see nothing that stands behind it, also not what living workers write. Whoever
//! initialises the dead worker's transactional id ends it at once. Ids are unique per process, so a
//! successor has to be told the id: every commit leaves it as a note beside the offsets, and the next
//! owner of a partition finds it there.
//!
//! Only the owner of an input partition writes to the same partition of the outputs. So where a partition
//! was just assigned, and its output stays hidden for half a second, the open transaction is that of a
//! former owner, who was thought to be dead or does not know that it lost the partition: either way it
//! may be fenced. Later than that nobody is fenced: what hides an output then is a stranger's.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::CString;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use service::Heartbeat;

use crate::error::StreamError;
use crate::ffi::{End, Inquirer, Producer};
use crate::metrics::StreamMetrics;
use crate::position::{Partition, TopicPartition};
use crate::settings::{TRANSACTION_TIMEOUT, transaction_properties};

/// An output that is hidden for so long after an assignment is hidden by a former owner.
const HIDDEN_LIMIT: Duration = Duration::from_millis(500);
/// While partitions are new, they are looked at so often; later only for the gauge.
const NEW_INTERVAL: Duration = Duration::from_millis(250);
const OLD_INTERVAL: Duration = Duration::from_secs(5);
/// One question may take so long.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);
/// Taking over one id may take so long.
const TAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a takeover works with.
pub(crate) struct TakeoverConfig {
    pub brokers: String,
    pub client_properties: Vec<(String, String)>,
    pub producer_properties: Vec<(String, String)>,
    pub group: String,
    pub inputs: Vec<String>,
    /// Outputs and dead letters: whatever keeps the partition of its input.
    pub derived: Vec<String>,
    /// What the ids of all instances of this service begin with, and those of this one.
    pub service_prefix: String,
    pub own_prefix: String,
    pub metrics: StreamMetrics,
}

/// A partition of the inputs that was assigned to a pump of this process.
#[derive(Clone)]
struct Owned {
    pump: usize,
    since: Instant,
    /// The transactional id that its former owner committed with. Our own commits write over the note.
    former: Option<String>,
}

impl Owned {
    /// What hides an output later than this is not of a former owner.
    fn is_new(&self) -> bool {
        self.since.elapsed() < TRANSACTION_TIMEOUT
    }
}

#[derive(Default)]
struct Shared {
    owned: BTreeMap<TopicPartition, Owned>,
    /// Notes of partitions that are just being assigned.
    notes: HashMap<TopicPartition, String>,
    stopping: bool,
}

/// Looks after what former owners left open, in a thread of its own. Clones share it.
#[derive(Clone)]
pub(crate) struct Takeover {
    config: Arc<TakeoverConfig>,
    shared: Arc<(Mutex<Shared>, Condvar)>,
}

impl Takeover {
    pub fn new(config: TakeoverConfig) -> Self {
        Self {
            config: Arc::new(config),
            shared: Arc::default(),
        }
    }

    /// Starts the thread.
    pub fn start(&self, heartbeat: Heartbeat) -> Result<(), StreamError> {
        let watch = Watch {
            takeover: self.clone(),
            inquirer: Inquirer::open(&self.config.client_properties)?,
            hidden: BTreeMap::new(),
            told: BTreeSet::new(),
        };
        let started = std::thread::Builder::new()
            .name("takeover".to_owned())
            .spawn(move || watch.run(&heartbeat));
        started.map(|_| ()).map_err(|error| StreamError::Client {
            what: "starting the takeover".to_owned(),
            cause: error.to_string(),
            retriable: false,
        })
    }

    /// A partition that is just being assigned was committed last with this note.
    pub fn follows(&self, at: TopicPartition, note: &str) {
        if self.is_of_a_former_owner(note) {
            self.lock().notes.insert(at, note.to_owned());
        }
    }

    /// A pump owns exactly these partitions now.
    pub fn owns(&self, pump: usize, partitions: Vec<TopicPartition>) {
        let mut shared = self.lock();
        shared
            .owned
            .retain(|at, owned| owned.pump != pump || partitions.contains(at));
        let notes = std::mem::take(&mut shared.notes);
        for at in partitions {
            let former = notes.get(&at).cloned();
            let new = || Owned {
                pump,
                since: Instant::now(),
                former,
            };
            shared.owned.entry(at).or_insert_with(new).pump = pump;
        }
        self.shared.1.notify_all();
    }

    pub fn stop(&self) {
        self.lock().stopping = true;
        self.shared.1.notify_all();
    }

    /// Ends what former owners of these partitions left open, because it holds up their offsets.
    pub fn end_former(&self, partitions: &[TopicPartition]) -> Result<(), StreamError> {
        let named: Vec<_> = partitions
            .iter()
            .filter_map(|at| {
                let topic = self.config.inputs.get(usize::from(at.topic.0))?;
                Some((CString::new(topic.as_str()).ok()?, at.partition.0))
            })
            .collect();
        let inquirer = Inquirer::open(&self.config.client_properties)?;
        let notes = inquirer.notes(&self.config.group, &named, ASK_TIMEOUT)?;
        let former = notes.into_iter().filter(|note| self.is_of_a_former_owner(note));
        self.take_over(&former.collect())
    }

    /// Whether the id is of another instance of this service.
    fn is_of_a_former_owner(&self, id: &str) -> bool {
        id.starts_with(&self.config.service_prefix) && !id.starts_with(&self.config.own_prefix)
    }

    /// Fences the producers with these ids, and aborts what they left open.
    fn take_over(&self, ids: &BTreeSet<String>) -> Result<(), StreamError> {
        for id in ids {
            tracing::info!(
                transactional_id = id,
                "ending what a former owner of a partition left open"
            );
            let mut properties = self.config.producer_properties.clone();
            properties.extend(transaction_properties(id));
            let producer = Producer::open(&self.config.brokers, &properties, false)?;
            producer
                .init_transactions(TAKE_TIMEOUT)
                .map_err(|failed| failed.error)?;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // A holder can not panic while it holds it.
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An output partition that readers of committed records do not see to its end.
struct Hidden {
    stable: i64,
    since: Instant,
}

struct Watch {
    takeover: Takeover,
    inquirer: Inquirer,
    /// By topic and partition.
    hidden: BTreeMap<(CString, i32), Hidden>,
    /// The series of the gauge.
    told: BTreeSet<(String, i32)>,
}

impl Watch {
    fn run(mut self, heartbeat: &Heartbeat) {
        loop {
            heartbeat.beat();
            let Some(owned) = self.wait() else {
                break;
            };
            if let Err(error) = self.look(&owned) {
                tracing::debug!(%error, "looking for what a former owner left open");
            }
        }
        heartbeat.finish();
    }

    /// Waits for the time of the next look. `None` when told to stop.
    fn wait(&self) -> Option<BTreeMap<TopicPartition, Owned>> {
        let mut shared = self.takeover.lock();
        let started = Instant::now();
        loop {
            if shared.stopping {
                return None;
            }
            let is_new = shared.owned.values().any(Owned::is_new);
            let interval = if is_new { NEW_INTERVAL } else { OLD_INTERVAL };
            let left = interval.saturating_sub(started.elapsed());
            if left.is_zero() {
                return Some(shared.owned.clone());
            }
            let waited = self.takeover.shared.1.wait_timeout(shared, left);
            shared = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn look(&mut self, owned: &BTreeMap<TopicPartition, Owned>) -> Result<(), StreamError> {
        let partitions: BTreeSet<i32> = owned.keys().map(|at| at.partition.0).collect();
        let mut outputs = Vec::new();
        for topic in &self.takeover.config.derived {
            if let Ok(topic) = CString::new(topic.as_str()) {
                outputs.extend(partitions.iter().map(|partition| (topic.clone(), *partition)));
            }
        }
        if outputs.is_empty() {
            self.hidden.clear();
            self.tell(&BTreeMap::new());
            return Ok(());
        }
        // In this order what is committed in between makes the distance larger, never hides it.
        let stable = self.inquirer.ends(&outputs, End::OfCommitted, ASK_TIMEOUT)?;
        let all = self.inquirer.ends(&outputs, End::OfAll, ASK_TIMEOUT)?;
        let all: HashMap<(CString, i32), i64> = all
            .into_iter()
            .map(|(topic, partition, end)| ((topic, partition), end))
            .collect();
        let mut distances = BTreeMap::new();
        let mut hidden = BTreeMap::new();
        for (topic, partition, stable) in stable {
            let key = (topic, partition);
            let distance = all.get(&key).map_or(0, |end| end - stable);
            distances.insert((key.0.to_string_lossy().into_owned(), partition), distance);
            if distance > 0 {
                let before = self.hidden.get(&key).filter(|before| before.stable == stable);
                let since = before.map_or_else(Instant::now, |before| before.since);
                hidden.insert(key, Hidden { stable, since });
            }
        }
        self.hidden = hidden;
        self.tell(&distances);
        self.end_what_hides(owned)
    }

    /// Fences the former owners of partitions that are new here and hidden for too long.
    fn end_what_hides(&self, owned: &BTreeMap<TopicPartition, Owned>) -> Result<(), StreamError> {
        let hidden: BTreeSet<i32> = self
            .hidden
            .iter()
            .filter(|(_, hidden)| hidden.since.elapsed() >= HIDDEN_LIMIT)
            .map(|((_, partition), _)| *partition)
            .collect();
        let hides =
            |(at, owned): &(&TopicPartition, &Owned)| owned.is_new() && hidden.contains(&at.partition.0);
        let former: BTreeSet<String> = owned
            .iter()
            .filter(hides)
            .filter_map(|(_, owned)| owned.former.clone())
            .collect();
        self.takeover.take_over(&former)?;
        // Once is enough: what is hidden still is hidden by somebody else.
        for owned in self.takeover.lock().owned.values_mut() {
            owned.former.take_if(|id| former.contains(id));
        }
        Ok(())
    }

    /// Sets the gauge, and removes the series of partitions that are somebody else's.
    fn tell(&mut self, distances: &BTreeMap<(String, i32), i64>) {
        let metrics = &self.takeover.config.metrics;
        for (topic, partition) in &self.told {
            if !distances.contains_key(&(topic.clone(), *partition)) {
                metrics.remove_hidden(topic, Partition(*partition));
            }
        }
        for ((topic, partition), distance) in distances {
            metrics.set_hidden(topic, Partition(*partition), *distance);
        }
        self.told = distances.keys().cloned().collect();
    }
}
