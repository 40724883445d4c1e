//! Records in, documents into the store.

use std::sync::Arc;

use docstore::{Collection, DocumentStore, StoreError, StoreErrorKind, Version, VersionedDocument};
use domain::Currency;
use stream::{Failure, Record, Sink, TopicIndex};

use crate::document::{Kind, Place, document};

/// What each of the consumed topics carries, in the order of the worker's inputs.
const KINDS: [(Kind, Collection); 3] = [
    (Kind::Order, Collection::Orders),
    (Kind::Alert, Collection::Alerts),
    (Kind::Payment, Collection::Payments),
];

/// Keeps documents in a store.
pub struct Keep {
    store: Arc<dyn DocumentStore>,
    default_currency: Currency,
    generation: i64,
    topics: Vec<String>,
}

/// A document on its way.
pub struct Item {
    collection: Collection,
    document: VersionedDocument,
}

impl Keep {
    /// Keeps documents of these topics: orders, alerts and payments, in this order.
    pub fn new(
        store: Arc<dyn DocumentStore>,
        default_currency: Currency,
        generation: i64,
        topics: Vec<String>,
    ) -> Self {
        Self {
            store,
            default_currency,
            generation,
            topics,
        }
    }
}

impl Sink for Keep {
    type Item = Item;

    fn prepare(&self, topic: TopicIndex, record: &Record<'_>) -> Result<Item, Failure> {
        let index = usize::from(topic.0);
        let (Some((kind, collection)), Some(name)) = (KINDS.get(index), self.topics.get(index)) else {
            return Err(Failure::fatal(format!("input topic {index} was not declared")));
        };
        let value = record
            .value
            .ok_or_else(|| Failure::poison("empty", "the record has no value"))?;
        let place = Place {
            topic: name,
            partition: record.at.partition.0,
            offset: record.offset.0,
            record_time_ms: record.record_time_ms,
        };
        let made = document(*kind, value, place, self.default_currency)
            .map_err(|rejection| Failure::poison(rejection.code.as_str(), rejection.message))?;
        let version = Version {
            generation: self.generation,
            offset: record.offset.0,
        };
        let document = VersionedDocument {
            key: made.key,
            body: made.body,
            version,
        };
        Ok(Item {
            collection: *collection,
            document,
        })
    }

    async fn write(&self, items: &[&Item]) -> Result<Vec<(usize, Failure)>, Failure> {
        let mut refused = Vec::new();
        for (_, collection) in KINDS {
            let chosen: Vec<usize> = items
                .iter()
                .enumerate()
                .filter(|(_, item)| item.collection == collection)
                .map(|(index, _)| index)
                .collect();
            if chosen.is_empty() {
                continue;
            }
            let documents: Vec<VersionedDocument> = chosen
                .iter()
                .filter_map(|index| items.get(*index))
                .map(|item| item.document.clone())
                .collect();
            let written = match collection {
                // Of repeated orders the first stands.
                Collection::Orders => self.store.insert_first(collection, &documents).await,
                _ => self.store.upsert_newer(collection, &documents).await,
            };
            let outcome = written.map_err(|error| classify(&error))?;
            for (index, error) in outcome.refused {
                if let Some(original) = chosen.get(index) {
                    refused.push((*original, classify(&error)));
                }
            }
        }
        Ok(refused)
    }
}

/// What an error of the store means for the records.
fn classify(error: &StoreError) -> Failure {
    match error.kind() {
        StoreErrorKind::Transient => Failure::transient(error.code(), error.message()),
        StoreErrorKind::Poison => Failure::poison(error.code(), error.message()),
        StoreErrorKind::Fatal => Failure::fatal(error.message()),
    }
}
