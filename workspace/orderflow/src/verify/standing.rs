//! Where groups stand and where topics end; waiting until both agree.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use service::Exit;
use stream::offsets::{GroupOffset, NamedPartition, PartitionEnds, group_offsets, partition_ends};
use stream::reader::{read_to_end, with_records_from};
use stream::{Offset, Partition, Record, StreamError, admin};

use super::judge::{Judge, Standing};
use super::table::Group;
use super::{Config, INFO, Scope};

/// How often groups are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How long a cluster may be unable to answer, as while a coordinator moves.
const PATIENCE: Duration = Duration::from_secs(30);
const IDLE_LIMIT: Duration = Duration::from_secs(30);

/// Asks until the answer comes.
async fn patiently<T>(question: impl AsyncFn() -> Result<T, StreamError>) -> Result<T, StreamError> {
    let started = Instant::now();
    loop {
        match question().await {
            Err(error) if error.is_retriable() && started.elapsed() < PATIENCE => {
                tracing::debug!(%error, "asking again");
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
            result => return result,
        }
    }
}

/// The ends of topics.
pub(super) async fn ends(
    config: &Config,
    topics: &[String],
) -> Result<BTreeMap<NamedPartition, PartitionEnds>, StreamError> {
    patiently(async || partition_ends(&config.kafka, INFO.name, topics).await).await
}

/// One partition of a retry topic.
#[derive(Clone, Debug)]
struct Parking {
    group: Group,
    taken: GroupOffset,
    ends: PartitionEnds,
}

/// The retry topics of the groups, and how far these have taken them up.
pub(super) struct RetryTopics {
    partitions: BTreeMap<NamedPartition, Parking>,
}

/// A retry topic of which something may be left.
#[derive(Clone, Debug)]
pub(super) struct Behind {
    pub topic: String,
    pub group: Group,
    taken: BTreeMap<Partition, Offset>,
}

impl Behind {
    /// Whether a record of this topic waits for its attempt.
    pub fn waits(&self, record: &Record<'_>) -> bool {
        let next = self.taken.get(&record.at.partition);
        next.is_none_or(|next| record.offset >= *next)
    }
}

impl RetryTopics {
    pub async fn find(config: &Config, scope: &Scope) -> Result<Self, StreamError> {
        let all = patiently(async || admin::topics(&config.kafka, INFO.name).await).await?;
        let mut partitions = BTreeMap::new();
        for group in &scope.groups {
            let prefixes = config.retry_prefixes(*group);
            let names = all.keys().filter(|name| {
                let mut prefixes = prefixes.iter();
                prefixes.any(|prefix| name.starts_with(prefix.as_str()))
            });
            let names: Vec<String> = names.cloned().collect();
            if names.is_empty() {
                continue;
            }
            let taken = taken(config, *group, &names).await?;
            for (at, ends) in ends(config, &names).await? {
                let taken = taken.get(&at).copied().unwrap_or_default();
                let group = *group;
                partitions.insert(at, Parking { group, taken, ends });
            }
        }
        Ok(Self { partitions })
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.partitions.keys().map(|(topic, _)| topic.clone()).collect();
        names.dedup();
        names
    }

    /// The topics with something behind what was taken up, if only markers of transactions.
    pub fn behind(&self) -> Vec<Behind> {
        let mut topics: BTreeMap<&str, Behind> = BTreeMap::new();
        for ((topic, partition), parking) in &self.partitions {
            let behind = topics.entry(topic).or_insert_with(|| Behind {
                topic: topic.clone(),
                group: parking.group,
                taken: BTreeMap::new(),
            });
            let next = parking.taken.next.unwrap_or(parking.ends.begin);
            behind.taken.insert(*partition, next);
        }
        let left = |behind: &Behind| {
            let ends = self
                .partitions
                .iter()
                .filter(|((topic, _), _)| *topic == behind.topic);
            ends.into_iter().any(|((_, partition), parking)| {
                behind.taken.get(partition) < Some(&parking.ends.last_stable)
            })
        };
        topics.into_values().filter(left).collect()
    }
}

async fn taken(
    config: &Config,
    group: Group,
    topics: &[String],
) -> Result<BTreeMap<NamedPartition, GroupOffset>, StreamError> {
    let name = config.group_name(group);
    patiently(async || group_offsets(&config.kafka, INFO.name, name, topics).await).await
}

/// Where one group stands in one partition.
struct Stand {
    group: Group,
    at: NamedPartition,
    taken: GroupOffset,
    begin: Offset,
    /// Behind the last record that can be read. Markers and aborted records behind it are nothing that a
    /// group could have left out: a worker passes them, and none may be running any more.
    end: Offset,
}

impl Stand {
    /// Where the group goes on.
    fn from(&self) -> Offset {
        self.taken.next.map_or(self.begin, |next| next.max(self.begin))
    }

    fn fact<'a>(&'a self, config: &'a Config) -> Standing<'a> {
        Standing {
            group: config.group_name(self.group),
            topic: &self.at.0,
            partition: self.at.1.0,
            committed: self.taken.next.map(|next| next.0),
            begin: self.begin.0,
            end: self.end.0,
            unstable: self.taken.unstable,
        }
    }
}

/// Where all groups stand. Upstream first: what a group has ended is in the topics that the group after it
/// is asked about.
async fn stands(config: &Config, scope: &Scope) -> Result<Vec<Stand>, Exit> {
    let mut stands = Vec::new();
    for group in &scope.groups {
        let inputs: Vec<String> = config.inputs(*group).into_iter().map(str::to_owned).collect();
        let mut taken = taken(config, *group, &inputs).await?;
        let first = stands.len();
        for (at, ends) in ends(config, &inputs).await? {
            stands.push(Stand {
                group: *group,
                taken: taken.remove(&at).unwrap_or_default(),
                at,
                begin: ends.begin,
                end: ends.last_stable,
            });
        }
        for input in &inputs {
            let mut behind: Vec<&mut Stand> = stands
                .iter_mut()
                .skip(first)
                .filter(|stand| stand.at.0 == *input && stand.fact(config).lag() > 0)
                .collect();
            let starts: BTreeMap<_, _> = behind.iter().map(|stand| (stand.at.1, stand.from())).collect();
            let unread =
                patiently(async || with_records_from(&config.kafka, input, &starts, IDLE_LIMIT).await);
            let unread = unread.await?;
            for stand in behind.iter_mut().filter(|stand| !unread.contains(&stand.at.1)) {
                stand.end = stand.from();
            }
        }
    }
    Ok(stands)
}

/// Every topic that the groups write to.
pub(super) fn written(config: &Config, scope: &Scope, retries: &RetryTopics) -> Vec<String> {
    let letters = scope.groups.iter().flat_map(|group| config.letters(*group));
    let mut topics: Vec<String> = letters.map(|letters| letters.topic).collect();
    let names = &config.topics;
    topics.extend([names.payments.clone(), names.fraud_alerts.clone()]);
    topics.extend(retries.names());
    topics
}

/// Waits until every group is at its end, no transaction is open and nothing is parked, or the time is over.
pub(super) async fn wait(config: &Config, scope: &Scope, limit: Duration) -> Result<(), Exit> {
    let started = Instant::now();
    while started.elapsed() < limit {
        if is_settled(config, scope).await? {
            return Ok(());
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    Ok(())
}

async fn is_settled(config: &Config, scope: &Scope) -> Result<bool, Exit> {
    let stands = stands(config, scope).await?;
    if stands.is_empty()
        || stands
            .iter()
            .any(|stand| stand.taken.unstable || stand.fact(config).lag() != 0)
    {
        return Ok(false);
    }
    let retries = RetryTopics::find(config, scope).await?;
    let ends = ends(config, &written(config, scope, &retries)).await?;
    if ends.values().any(|ends| ends.last_stable != ends.end) {
        return Ok(false);
    }
    for retry in retries.behind() {
        if waiting(config, retry).await? > 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// How many records of a retry topic wait for their attempt.
async fn waiting(config: &Config, retry: Behind) -> Result<u64, StreamError> {
    let count = Arc::new(AtomicU64::new(0));
    let (counted, topic) = (Arc::clone(&count), retry.topic.clone());
    let each = move |record: &Record<'_>| {
        if retry.waits(record) {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    };
    read_to_end(&config.kafka, &topic, IDLE_LIMIT, each).await?;
    Ok(count.load(Ordering::Relaxed))
}

/// Tells the judge where groups stand and topics end. A range that ends is part of a run that may go on.
pub(super) async fn judge(config: &Config, scope: &Scope, judge: &mut Judge) -> Result<(), Exit> {
    if scope.range.to_ms.is_some() {
        return Ok(());
    }
    for stand in stands(config, scope).await? {
        judge.standing(&stand.fact(config));
    }
    let orders = [config.topics.orders.clone()];
    for ((topic, partition), ends) in ends(config, &orders).await? {
        judge.input(&topic, partition.0, ends.end.0);
        judge.ends(&topic, partition.0, ends.last_stable.0, ends.end.0);
    }
    let retries = RetryTopics::find(config, scope).await?;
    for ((topic, partition), ends) in ends(config, &written(config, scope, &retries)).await? {
        judge.ends(&topic, partition.0, ends.last_stable.0, ends.end.0);
    }
    Ok(())
}
