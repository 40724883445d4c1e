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
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::brake::Note;
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
    pub pumps: u16,
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

/// Looks after what former owners left open. Clones share it.
#[derive(Clone)]
pub(crate) struct Takeover {
    config: Arc<TakeoverConfig>,
    shared: Arc<Mutex<Shared>>,
    /// By pump: how often its unit of work has begun and ended; odd while one is unfinished.
    units: Arc<[AtomicU64]>,
}

impl Takeover {
    pub fn new(config: TakeoverConfig) -> Self {
        let units = (0..config.pumps).map(|_| AtomicU64::new(0)).collect();
        Self {
            config: Arc::new(config),
            shared: Arc::default(),
            units,
        }
    }

    /// Who looks.
    pub fn watch(&self) -> Watch {
        Watch {
            takeover: self.clone(),
            last: None,
            hidden: BTreeMap::new(),
            told: BTreeSet::new(),
        }
    }

    /// Whether a pump has an unfinished unit of work now: what it has open hides its own outputs.
    pub fn works(&self, pump: usize, is_unfinished: bool) {
        if let Some(units) = self.units.get(pump)
            && (units.load(Ordering::Relaxed) % 2 == 1) != is_unfinished
        {
            units.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn units_of(&self, pump: usize) -> u64 {
        self.units
            .get(pump)
            .map_or(0, |units| units.load(Ordering::Relaxed))
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
        for at in partitions {
            let former = shared.notes.remove(&at);
            let new = || Owned {
                pump,
                since: Instant::now(),
                former,
            };
            shared.owned.entry(at).or_insert_with(new).pump = pump;
        }
    }

    pub fn stop(&self) {
        self.lock().stopping = true;
    }

    /// Ends what former owners of these partitions left open, because it holds up their offsets. Tells
    /// whether anybody was ended.
    pub fn end_former(
        &self,
        partitions: &[TopicPartition],
        is_stopping: impl Fn() -> bool,
    ) -> Result<bool, StreamError> {
        let named: Vec<_> = partitions
            .iter()
            .filter_map(|at| {
                let topic = self.config.inputs.get(usize::from(at.topic.0))?;
                Some((CString::new(topic.as_str()).ok()?, at.partition.0))
            })
            .collect();
        let inquirer = Inquirer::open(&self.config.client_properties)?;
        let notes = inquirer.notes(&self.config.group, &named, ASK_TIMEOUT)?;
        // A slow answer is no proof: only whoever holds offsets up at this moment is fenced.
        let unstable = inquirer.unstable(&self.config.group, &named, ASK_TIMEOUT)?;
        let former = notes
            .into_iter()
            .filter(|(place, _)| unstable.contains(place))
            .map(|(_, note)| Note::parse(&note).transactional_id.to_owned())
            .filter(|note| self.is_of_a_former_owner(note));
        let former: BTreeSet<String> = former.collect();
        self.take_over(&former, is_stopping)?;
        Ok(!former.is_empty())
    }

    /// Whether the id is of another instance of this service.
    fn is_of_a_former_owner(&self, id: &str) -> bool {
        let TakeoverConfig {
            service_prefix,
            own_prefix,
            pumps,
            ..
        } = &*self.config;
        id.starts_with(service_prefix) && !is_own(id, own_prefix, *pumps)
    }

    /// Fences the producers with these ids, and aborts what they left open. A stop comes between two of them.
    fn take_over(&self, ids: &BTreeSet<String>, is_stopping: impl Fn() -> bool) -> Result<(), StreamError> {
        let mut result = Ok(());
        for id in ids.iter().take_while(|_| !is_stopping()) {
            // One that can not be ended does not keep the others open.
            result = result.and(self.take_over_one(id));
        }
        result
    }

    fn take_over_one(&self, id: &str) -> Result<(), StreamError> {
        tracing::info!(
            transactional_id = id,
            "ending what a former owner of a partition left open"
        );
        let mut properties = self.config.producer_properties.clone();
        properties.extend(transaction_properties(id));
        let producer = Producer::open(&self.config.brokers, &properties, false)?;
        producer
            .init_transactions(TAKE_TIMEOUT)
            .map_err(|failed| failed.error)
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // A holder can not panic while it holds it.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an id is that of a pump of this process. An instance's name may begin with another's.
fn is_own(id: &str, own_prefix: &str, pumps: u16) -> bool {
    let number = id.strip_prefix(own_prefix).map(str::parse::<u16>);
    matches!(number, Some(Ok(number)) if number < pumps)
}

/// An output partition that readers of committed records do not see to its end.
struct Hidden {
    stable: i64,
    /// How far the units of the pump that owns the partition had come.
    units: u64,
    /// Since when it is hidden by something else than our own unit of work.
    since: Instant,
}

impl Hidden {
    /// Whether the same thing hides the output still, and is not a unit of work of our own: that has
    /// finished since, or was not there.
    fn is_still(&self, stable: i64, units: u64) -> bool {
        let finished = units.is_multiple_of(2) || units >= self.units + 2;
        self.stable == stable && finished
    }
}

/// Looks from time to time, in somebody's thread.
pub(crate) struct Watch {
    takeover: Takeover,
    last: Option<Instant>,
    /// By topic and partition.
    hidden: BTreeMap<(CString, i32), Hidden>,
    /// The series of the gauge.
    told: BTreeSet<(String, i32)>,
}

impl Watch {
    /// Looks when it is time to.
    pub fn look_when_due(&mut self, inquirer: &Inquirer) {
        let owned = self.takeover.lock().owned.clone();
        let is_new = owned.values().any(Owned::is_new);
        let interval = if is_new { NEW_INTERVAL } else { OLD_INTERVAL };
        if self.last.is_some_and(|last| last.elapsed() < interval) {
            return;
        }
        self.last = Some(Instant::now());
        if let Err(error) = self.look(inquirer, &owned) {
            tracing::debug!(%error, "looking for what a former owner left open");
        }
    }

    fn look(
        &mut self,
        inquirer: &Inquirer,
        owned: &BTreeMap<TopicPartition, Owned>,
    ) -> Result<(), StreamError> {
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
        let stable = inquirer.ends(&outputs, End::OfCommitted, ASK_TIMEOUT)?;
        let all = inquirer.ends(&outputs, End::OfAll, ASK_TIMEOUT)?;
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
                let owner = owned
                    .iter()
                    .find(|(at, _)| at.partition.0 == partition)
                    .map_or(usize::MAX, |(_, owned)| owned.pump);
                let units = self.takeover.units_of(owner);
                let before = self
                    .hidden
                    .get(&key)
                    .filter(|before| before.is_still(stable, units));
                let since = before.map_or_else(Instant::now, |before| before.since);
                hidden.insert(key, Hidden { stable, units, since });
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
        self.takeover
            .take_over(&former, || self.takeover.lock().stopping)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_whose_name_begins_with_ours_is_not_ours() {
        let own = "orderflow-fraud-a-";
        for (id, wanted) in [
            ("orderflow-fraud-a-0", true),
            ("orderflow-fraud-a-1", true),
            ("orderflow-fraud-a-2", false),
            ("orderflow-fraud-a-1-0", false),
            ("orderflow-fraud-b-0", false),
            ("orderflow-fraud-a-x", false),
        ] {
            assert_eq!(is_own(id, own, 2), wanted, "{id}");
        }
    }

    #[test]
    fn what_our_own_unit_hides_is_nobody_elses_doing() {
        let hidden = |units| Hidden {
            stable: 5,
            units,
            since: Instant::now(),
        };
        assert!(!hidden(1).is_still(5, 1), "ours is open all the time");
        assert!(
            hidden(1).is_still(5, 2),
            "ours has finished and it is hidden still"
        );
        assert!(
            hidden(1).is_still(5, 3),
            "ours has finished, and another one is open"
        );
        assert!(!hidden(2).is_still(5, 3), "ours may be what hides it now");
        assert!(hidden(2).is_still(5, 2), "there was none of ours");
        assert!(!hidden(2).is_still(6, 2), "it moved");
    }
}
