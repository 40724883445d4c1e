//! Waiting for an operator to release a brake.
//!
//! The word comes over the topic of events: a record with the key [`release_key`] whose value contains the
//! name of the brake. So it reaches whoever owns the partitions, on whatever machine, it is kept where
//! everything else that happens is kept, and only who may write events can give it. The topic is read in a
//! thread of its own, while a brake is pulled and no longer.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;

use crate::admin::{client_config, partitions_of};
use crate::backoff::Backoff;
use crate::brake::pulled_at_ms;
use crate::settings::KafkaSettings;
use crate::stage::Wake;

const ASK_TIMEOUT: Duration = Duration::from_secs(5);
const READ_STEP: Duration = Duration::from_millis(250);
/// The topic of events is looked at for new partitions so often.
const PARTITIONS_INTERVAL: Duration = Duration::from_secs(30);
/// The clocks of operators and workers differ by less.
const CLOCKS_DIFFER_MS: i64 = 600_000;
const BROKER_AWAY: Backoff = Backoff {
    first: Duration::from_millis(250),
    most: Duration::from_secs(5),
};

/// The key of the record that releases brakes of a group.
#[must_use]
pub fn release_key(group: &str) -> String {
    format!("brake-release:{group}")
}

/// Where the word is waited for.
#[derive(Clone, Debug)]
pub(crate) struct ReleaseConfig {
    pub kafka: KafkaSettings,
    /// The topic of events.
    pub topic: String,
    pub group: String,
}

/// Waits for the release of some brakes; dropping it ends its thread.
pub(crate) struct ReleaseWatch {
    shared: Arc<Shared>,
}

struct Shared {
    released: Mutex<Vec<String>>,
    over: AtomicBool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.released.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ReleaseWatch {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Release);
    }
}

impl ReleaseWatch {
    /// Waits for the release of brakes with these names.
    pub fn start(
        config: ReleaseConfig,
        names: BTreeSet<String>,
        wake: Arc<Wake>,
    ) -> Result<Self, std::io::Error> {
        let shared = Arc::new(Shared {
            released: Mutex::default(),
            over: AtomicBool::new(false),
        });
        let watching = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("brake".to_owned())
            .spawn(move || watch(&config, names, &watching, &wake))?;
        Ok(Self { shared })
    }

    /// The brakes that were released since the last call.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.shared.lock())
    }
}

fn watch(config: &ReleaseConfig, mut names: BTreeSet<String>, shared: &Shared, wake: &Wake) {
    let mut failed = 0_u32;
    let is_over = || shared.over.load(Ordering::Acquire) || wake.is_stopping();
    while !names.is_empty() && !is_over() {
        let read = read(config, &mut names, &is_over, |name| {
            shared.lock().push(name);
            wake.call();
        });
        if let Err(error) = read {
            failed += 1;
            if failed.is_power_of_two() {
                tracing::warn!(attempts = failed, topic = config.topic, %error, "the word that releases the brake can not be read, trying again");
            }
            std::thread::park_timeout(BROKER_AWAY.pause(failed, &mut rand::rng()));
        }
    }
}

fn read(
    config: &ReleaseConfig,
    names: &mut BTreeSet<String>,
    is_over: &impl Fn() -> bool,
    mut released: impl FnMut(String),
) -> Result<(), KafkaError> {
    let mut client = client_config(&config.kafka, "brake");
    client
        .set("group.id", &config.group)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "latest")
        .set("queued.max.messages.kbytes", "1024");
    let consumer: BaseConsumer = client.create()?;
    let since_ms = names.iter().filter_map(|name| pulled_at_ms(name)).min();
    let since = Offset::Offset(since_ms.unwrap_or(0).saturating_sub(CLOCKS_DIFFER_MS).max(0));
    let mut asked = partitions_of(&consumer, std::slice::from_ref(&config.topic))?;
    asked.set_all_offsets(since)?;
    let starts = consumer.offsets_for_times(asked, ASK_TIMEOUT)?;
    starts.elements().iter().try_for_each(|start| start.error())?;
    consumer.assign(&starts)?;
    let key = release_key(&config.group);
    let mut looked = Instant::now();
    while !names.is_empty() && !is_over() {
        if looked.elapsed() >= PARTITIONS_INTERVAL {
            looked = Instant::now();
            // The word may stand in a partition that came later: whoever called begins anew.
            if partitions_of(&consumer, std::slice::from_ref(&config.topic))?.count() != starts.count() {
                return Ok(());
            }
        }
        let Some(record) = consumer.poll(READ_STEP).transpose()? else {
            continue;
        };
        if record.key() != Some(key.as_bytes()) {
            continue;
        }
        let value = String::from_utf8_lossy(record.payload().unwrap_or_default());
        let named: Vec<String> = names
            .iter()
            .filter(|name| value.contains(*name))
            .cloned()
            .collect();
        for name in named {
            names.remove(&name);
            released(name);
        }
    }
    Ok(())
}
