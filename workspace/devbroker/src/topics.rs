//! All topics of the broker, by name and by id.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, RwLock};

use kafka_protocol::error::ResponseError;
use uuid::Uuid;

use crate::batch::Refusal;
use crate::partition::Partition;
use crate::retention::Retention;
use crate::storage::{Entry, PartitionFiles, Storage};
use crate::sync::{read, write};
use crate::topic_config::{TopicConfig, check_name, collision_key};

#[derive(Debug)]
pub(crate) struct Topic {
    name: Arc<str>,
    id: Uuid,
    config: RwLock<Arc<TopicConfig>>,
    partitions: RwLock<Vec<Arc<Partition>>>,
}

impl Topic {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn id(&self) -> Uuid {
        self.id
    }

    /// The settings as they are now; whoever works with them is not disturbed by a change.
    pub(crate) fn config(&self) -> Arc<TopicConfig> {
        Arc::clone(&read(&self.config))
    }

    pub(crate) fn partition_count(&self) -> i32 {
        i32::try_from(read(&self.partitions).len()).unwrap_or(i32::MAX)
    }

    pub(crate) fn partition(&self, index: i32) -> Option<Arc<Partition>> {
        let index = usize::try_from(index).ok()?;
        read(&self.partitions).get(index).cloned()
    }

    pub(crate) fn partitions(&self) -> Vec<Arc<Partition>> {
        read(&self.partitions).clone()
    }
}

#[derive(Debug)]
pub(crate) struct Topics {
    by_name: RwLock<Directory>,
    retention: Arc<Retention>,
    storage: Option<Arc<Storage>>,
    max_partitions: usize,
}

#[derive(Debug, Default)]
struct Directory {
    topics: BTreeMap<Arc<str>, Arc<Topic>>,
    names_by_id: HashMap<Uuid, Arc<str>>,
    /// What [`collision_key`] makes of each name.
    names_by_collision_key: HashMap<String, Arc<str>>,
    partition_count: usize,
}

impl Directory {
    fn insert(&mut self, topic: Arc<Topic>) {
        let name = Arc::clone(&topic.name);
        self.partition_count += read(&topic.partitions).len();
        self.names_by_id.insert(topic.id, Arc::clone(&name));
        self.names_by_collision_key
            .insert(collision_key(&name), Arc::clone(&name));
        self.topics.insert(name, topic);
    }
}

impl Topics {
    pub(crate) fn new(
        retention: Arc<Retention>,
        max_partitions: usize,
        storage: Option<Arc<Storage>>,
    ) -> Self {
        Self {
            by_name: RwLock::default(),
            retention,
            storage,
            max_partitions,
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<Arc<Topic>> {
        read(&self.by_name).topics.get(name).cloned()
    }

    pub(crate) fn get_by_id(&self, id: Uuid) -> Option<Arc<Topic>> {
        let directory = read(&self.by_name);
        directory
            .names_by_id
            .get(&id)
            .and_then(|name| directory.topics.get(name))
            .cloned()
    }

    pub(crate) fn partition(&self, topic: &str, index: i32) -> Option<Arc<Partition>> {
        self.get(topic)?.partition(index)
    }

    /// All topics in the order of their names.
    pub(crate) fn all(&self) -> Vec<Arc<Topic>> {
        read(&self.by_name).topics.values().cloned().collect()
    }

    pub(crate) fn count(&self) -> usize {
        read(&self.by_name).topics.len()
    }

    pub(crate) fn partitions(&self) -> Vec<Arc<Partition>> {
        self.all().iter().flat_map(|topic| topic.partitions()).collect()
    }

    /// Creates a topic, or with `validate_only` says whether it could be created.
    pub(crate) fn create(
        &self,
        name: &str,
        partitions: i32,
        config: TopicConfig,
        validate_only: bool,
    ) -> Result<Arc<Topic>, Refusal> {
        check_name(name)?;
        let mut directory = write(&self.by_name);
        if directory.topics.contains_key(name) {
            let message = format!("topic `{name}` exists already");
            return Err(Refusal::new(ResponseError::TopicAlreadyExists, message));
        }
        let key = collision_key(name);
        if let Some(other) = directory.names_by_collision_key.get(&key) {
            let message = format!("topic `{name}` collides with topic `{other}`");
            return Err(Refusal::new(ResponseError::InvalidTopicException, message));
        }
        self.check_partition_count(directory.partition_count, 0, partitions)?;
        let name: Arc<str> = Arc::from(name);
        let id = Uuid::new_v4();
        let new = (0..partitions).map(|index| self.new_partition(&name, id, index));
        let topic = Arc::new(Topic {
            name: Arc::clone(&name),
            id,
            config: RwLock::new(Arc::new(config)),
            partitions: RwLock::new(new.collect()),
        });
        if !validate_only {
            self.keep(|| Entry::TopicCreated {
                name: name.to_string(),
                id,
                partitions,
                settings: topic.config().all_given().clone(),
            })?;
            say_what_has_no_effect(&name, &topic.config());
            tracing::info!(topic = &*name, partitions, topic_id = %topic.id, "topic created");
            directory.insert(Arc::clone(&topic));
        }
        Ok(topic)
    }

    /// Puts what `change` makes of a topic's settings in their place, or with `validate_only` says
    /// whether that could be done.
    pub(crate) fn alter(
        &self,
        name: &str,
        change: impl FnOnce(&TopicConfig) -> Result<TopicConfig, Refusal>,
        validate_only: bool,
    ) -> Result<Arc<Topic>, Refusal> {
        // Held until the change is kept, so that it is not kept of a later topic of the same name.
        let directory = read(&self.by_name);
        let topic = directory.topics.get(name).ok_or_else(|| unknown(name))?;
        let mut config = write(&topic.config);
        let changed = change(&config)?;
        if !validate_only && changed != **config {
            self.keep(|| Entry::TopicConfigured {
                name: name.to_owned(),
                settings: changed.all_given().clone(),
            })?;
            tracing::info!(topic = name, settings = ?changed.all_given(), "topic settings changed");
            say_what_has_no_effect(name, &changed);
            *config = Arc::new(changed);
        }
        Ok(Arc::clone(topic))
    }

    /// Grows a topic to `count` partitions.
    pub(crate) fn grow(&self, name: &str, count: i32, validate_only: bool) -> Result<(), Refusal> {
        let mut directory = write(&self.by_name);
        let Some(topic) = directory.topics.get(name).cloned() else {
            return Err(unknown(name));
        };
        let current = topic.partition_count();
        if count <= current {
            let message = format!("topic `{name}` has {current} partitions, and `{count}` is not more");
            return Err(Refusal::new(ResponseError::InvalidPartitions, message));
        }
        self.check_partition_count(directory.partition_count, current, count)?;
        if !validate_only {
            self.keep(|| Entry::TopicGrown {
                name: name.to_owned(),
                partitions: count,
            })?;
            let added = (current..count).map(|index| self.new_partition(&topic.name, topic.id, index));
            write(&topic.partitions).extend(added);
            directory.partition_count += usize::try_from(count - current).unwrap_or(0);
            tracing::info!(topic = name, partitions = count, "topic grew");
        }
        Ok(())
    }

    pub(crate) fn delete(&self, name: &str) -> Result<Arc<Topic>, Refusal> {
        let mut directory = write(&self.by_name);
        if !directory.topics.contains_key(name) {
            return Err(unknown(name));
        }
        self.keep(|| Entry::TopicDeleted {
            name: name.to_owned(),
        })?;
        let Some(topic) = directory.topics.remove(name) else {
            return Err(unknown(name));
        };
        let partitions = topic.partitions();
        directory.names_by_id.remove(&topic.id);
        directory.names_by_collision_key.remove(&collision_key(name));
        directory.partition_count -= partitions.len();
        // Before the name is free: what a partition still writes would be kept of a later topic.
        partitions.iter().for_each(|partition| partition.refuse_all());
        drop(directory);
        for partition in partitions {
            partition.delete();
        }
        if let Some(storage) = &self.storage {
            storage.remove_topic(name, topic.id);
        }
        tracing::info!(topic = name, "topic deleted");
        Ok(topic)
    }

    /// Takes a topic that a data folder has, with its partitions as they were read.
    pub(crate) fn restore(
        &self,
        name: &Arc<str>,
        id: Uuid,
        config: TopicConfig,
        partitions: Vec<Arc<Partition>>,
    ) {
        write(&self.by_name).insert(Arc::new(Topic {
            name: Arc::clone(name),
            id,
            config: RwLock::new(Arc::new(config)),
            partitions: RwLock::new(partitions),
        }));
    }

    fn new_partition(&self, topic: &Arc<str>, id: Uuid, index: i32) -> Arc<Partition> {
        let files = |storage: &Storage| storage.new_partition((topic, id), index);
        self.partition_of(topic, index, self.storage.as_deref().map(files))
    }

    /// A partition without records, and its files if there is a data folder.
    pub(crate) fn partition_of(
        &self,
        topic: &Arc<str>,
        index: i32,
        files: Option<PartitionFiles>,
    ) -> Arc<Partition> {
        let kept = self.storage.clone().zip(files);
        let retention = Arc::clone(&self.retention);
        Arc::new(Partition::new(Arc::clone(topic), index, retention, kept))
    }

    /// Writes what happened into the data folder, if there is one, before it happens.
    fn keep(&self, entry: impl FnOnce() -> Entry) -> Result<(), Refusal> {
        let Some(storage) = &self.storage else {
            return Ok(());
        };
        storage.record(vec![entry()]).map_err(Refusal::from)
    }

    fn check_partition_count(&self, existing: usize, from: i32, to: i32) -> Result<(), Refusal> {
        let added = usize::try_from(to - from).unwrap_or(0);
        if to < 1 {
            let message = format!("`{to}` partitions, must be 1 or more");
            return Err(Refusal::new(ResponseError::InvalidPartitions, message));
        }
        if existing + added > self.max_partitions {
            let limit = self.max_partitions;
            let message = format!("{added} more partitions would pass the broker's limit of {limit}");
            return Err(Refusal::new(ResponseError::InvalidPartitions, message));
        }
        Ok(())
    }
}

fn say_what_has_no_effect(topic: &str, config: &TopicConfig) {
    let ignored = config.without_effect();
    if !ignored.is_empty() {
        tracing::info!(topic, settings = ?ignored, "topic settings are kept and have no effect here");
    }
}

pub(crate) fn unknown(name: &str) -> Refusal {
    Refusal::new(
        ResponseError::UnknownTopicOrPartition,
        format!("topic `{name}` does not exist"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Counters;

    fn topics() -> Topics {
        Topics::new(
            Arc::new(Retention::new(1 << 20, Arc::new(Counters::default()))),
            10,
            None,
        )
    }

    fn create(topics: &Topics, name: &str, partitions: i32) -> Result<(), ResponseError> {
        let created = topics.create(name, partitions, TopicConfig::default(), false);
        created.map(drop).map_err(|refusal| refusal.error)
    }

    #[test]
    fn names_that_kafka_takes_for_one_are_refused_until_the_first_is_deleted() {
        let topics = topics();
        assert_eq!(create(&topics, "a.b", 1), Ok(()));
        assert_eq!(create(&topics, "a.b", 1), Err(ResponseError::TopicAlreadyExists));
        assert_eq!(
            create(&topics, "a_b", 1),
            Err(ResponseError::InvalidTopicException)
        );
        topics.delete("a.b").unwrap();
        assert_eq!(create(&topics, "a_b", 1), Ok(()));
    }

    #[test]
    fn partitions_are_limited_over_all_topics() {
        let topics = topics();
        assert_eq!(create(&topics, "a", 6), Ok(()));
        assert_eq!(create(&topics, "b", 5), Err(ResponseError::InvalidPartitions));
        assert_eq!(create(&topics, "b", 0), Err(ResponseError::InvalidPartitions));
        assert_eq!(create(&topics, "b", 2), Ok(()));
        assert_eq!(
            topics.grow("b", 5, false).unwrap_err().error,
            ResponseError::InvalidPartitions
        );
        assert_eq!(
            topics.grow("b", 2, false).unwrap_err().error,
            ResponseError::InvalidPartitions
        );
        topics.grow("b", 4, false).unwrap();
        topics.delete("a").unwrap();
        assert_eq!(create(&topics, "c", 6), Ok(()), "what was deleted counts no more");
        assert_eq!(topics.get("b").unwrap().partition_count(), 4);
    }

    #[test]
    fn to_validate_is_not_to_create() {
        let topics = topics();
        topics.create("a", 1, TopicConfig::default(), true).unwrap();
        assert!(topics.get("a").is_none());
        assert_eq!(create(&topics, "a", 1), Ok(()));
        topics.grow("a", 3, true).unwrap();
        assert_eq!(topics.get("a").unwrap().partition_count(), 1);
    }

    #[test]
    fn a_topic_is_found_by_its_id_and_a_new_one_of_the_same_name_has_another() {
        let topics = topics();
        create(&topics, "a", 1).unwrap();
        let first = topics.get("a").unwrap();
        assert_eq!(topics.get_by_id(first.id()).unwrap().name(), "a");
        topics.delete("a").unwrap();
        create(&topics, "a", 1).unwrap();
        assert!(topics.get_by_id(first.id()).is_none());
        assert_ne!(topics.get("a").unwrap().id(), first.id());
    }
}
