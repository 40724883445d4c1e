//! The facts from topics and store.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use docstore::{Collection, StoreError, StoreErrorKind, StoreSettings};
use service::Exit;
use stream::Record;
use stream::reader::read_to_end;

use super::judge::{Document, Extent, Judge};
use super::standing::{self, RetryTopics};
use super::{Config, Scope};

/// Nothing may come for so long before a topic's end is reached.
const IDLE_LIMIT: Duration = Duration::from_secs(30);
/// Documents that are read at once.
const PAGE: usize = 1_000;

/// Tells the judge of every record: of orders first, because the others are about them.
pub(super) async fn topics(config: &Config, scope: &Scope, mut judge: Judge) -> Result<Judge, Exit> {
    let topics = &config.topics;
    let retries = RetryTopics::find(config, scope).await?;
    let mut all = standing::written(config, scope, &retries);
    all.push(topics.orders.clone());
    let ends = standing::ends(config, &all).await?;
    if !ends.keys().any(|(topic, _)| *topic == topics.orders) {
        let message = format!("there is no topic `{}` (`topics.orders`)", topics.orders);
        return Err(Exit::unavailable(message));
    }
    // Reading an empty topic takes half a second, and most topics of dead letters are empty.
    let mut filled = BTreeSet::new();
    for ((topic, partition), ends) in ends {
        let extent = Extent {
            begin: ends.begin.0,
            end: ends.end.0,
        };
        judge.extent(&topic, partition.0, extent);
        if ends.begin < ends.last_stable {
            filled.insert(topic);
        }
    }
    let shared = Arc::new(Mutex::new(judge));
    let read = async |topic: &str, tell: Tell| {
        if !filled.contains(topic) {
            return Ok(0);
        }
        let judge = Arc::clone(&shared);
        let each = move |record: &Record<'_>| tell(&mut lock(&judge), record);
        read_to_end(&config.kafka, topic, IDLE_LIMIT, each).await
    };
    read(&topics.orders, Box::new(Judge::order)).await?;
    for letters in scope.groups.iter().flat_map(|group| config.letters(*group)) {
        let topic = letters.topic.clone();
        let of = letters.clone();
        let marks = move |judge: &mut Judge, record: &Record<'_>| judge.mark(&of, record);
        read(&topic, Box::new(marks)).await?;
        let tell = move |judge: &mut Judge, record: &Record<'_>| judge.dead_letter(&letters, record);
        read(&topic, Box::new(tell)).await?;
    }
    for retry in retries.behind() {
        let (topic, group) = (retry.topic.clone(), retry.group);
        let parked = move |judge: &mut Judge, record: &Record<'_>| {
            if retry.waits(record) {
                judge.parked(&retry.topic, group, record);
            }
        };
        read(&topic, Box::new(parked)).await?;
    }
    read(&topics.payments, Box::new(Judge::payment)).await?;
    read(&topics.fraud_alerts, Box::new(Judge::alert)).await?;
    let judge = Arc::into_inner(shared).ok_or_else(|| Exit::bug("a reader has not ended"))?;
    Ok(judge.into_inner().unwrap_or_else(PoisonError::into_inner))
}

type Tell = Box<dyn Fn(&mut Judge, &Record<'_>) + Send>;

fn lock(judge: &Mutex<Judge>) -> std::sync::MutexGuard<'_, Judge> {
    judge.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells the judge of every document of an order.
pub(super) async fn documents(settings: &StoreSettings, judge: &mut Judge) -> Result<(), Exit> {
    let settings = settings.clone();
    let opened = tokio::task::spawn_blocking(move || docstore::open(&settings)).await;
    let store = opened
        .map_err(|error| Exit::bug(error.to_string()))?
        .map_err(|error| exit_of(&error))?;
    judge.has_store();
    let mut after: Option<String> = None;
    loop {
        let page = store.page(Collection::Orders, after.as_deref(), PAGE).await;
        let page = page.map_err(|error| exit_of(&error))?;
        let Some(last) = page.last() else {
            return Ok(());
        };
        after = Some(last.key.clone());
        for document in &page {
            judge.document(Document {
                key: &document.key,
                body: &document.body,
                generation: document.version.generation,
            });
        }
    }
}

fn exit_of(error: &StoreError) -> Exit {
    match error.kind() {
        StoreErrorKind::Transient | StoreErrorKind::Fatal => Exit::unavailable(error.to_string()),
        StoreErrorKind::Poison => Exit::bug(error.to_string()),
    }
}
