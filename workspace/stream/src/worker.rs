//! Running a worker: topics checked, pumps started, one way to end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use service::Process;

use crate::admin;
use crate::error::StreamError;
use crate::ffi::Consumer;
use crate::handler::{ConcurrentHandler, Handler, Repeats, Sink};
use crate::lookout::{Lookout, LookoutConfig};
use crate::metrics::StreamMetrics;
use crate::parking::{Delays, RetryPlan};
use crate::pump::{BrakeSign, Pump, PumpParts};
use crate::restore::{RestoreConfig, Restorer};
use crate::retired;
use crate::settings::{Delivery, KafkaSettings, Ordering, StreamSettings, dead_letter_topic};
use crate::source::retry::Retrying;
use crate::stage::Stage;
use crate::stage::Wake;
use crate::stage::concurrent::{Concurrent, ConcurrentConfig};
use crate::stage::immediate::Immediate;
use crate::stage::store::Store;
use crate::takeover::{Takeover, TakeoverConfig};
use crate::unit_of_work::UnitConfig;

/// At start, Kafka may be away for so long.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);

/// A pump that has not turned for so long hangs: its longest single step is bounded well below.
const PUMP_FRESH: Duration = Duration::from_secs(30);

/// A lookout asks a few questions and ends a few transactional ids at most, each with a bound.
const LOOKOUT_FRESH: Duration = Duration::from_secs(60);

/// Giving the clients back is for order's sake, and the process does not wait longer for it.
const GIVE_BACK_LIMIT: Duration = Duration::from_secs(1);

/// What a worker reads and writes.
#[derive(Clone, Debug)]
pub struct WorkerSpec {
    /// Its name to the brokers, as in `orderflow-fraud`.
    pub service: &'static str,
    /// Its consumer group.
    pub group: String,
    /// The topics that it reads; a record's topic is its place here.
    pub inputs: Vec<String>,
    /// The topics that it writes; an [`crate::OutputTopic`] is a place here.
    pub outputs: Vec<String>,
    /// What becomes of a record with the key of an earlier one.
    pub repeats: Repeats,
    /// The topic of events, over which an operator releases a brake.
    pub events: String,
}

/// What a worker runs in.
#[derive(Clone)]
pub struct Surroundings {
    /// The process: its health, its metrics, and the one signal to stop.
    pub process: Process,
    /// Where Kafka is.
    pub kafka: KafkaSettings,
    /// How the consume loop works.
    pub stream: StreamSettings,
}

/// Runs a worker whose work is done at once; `make` makes the handler of each pump.
///
/// # Errors
/// What made going on impossible; `Ok` after the process was told to stop.
pub async fn run_handler<H: Handler>(
    spec: WorkerSpec,
    surroundings: Surroundings,
    make: impl Fn() -> H,
) -> Result<(), StreamError> {
    run(spec, surroundings, &Delays::default(), || Immediate::new(make())).await
}

/// Runs a worker that waits for somebody else, many records at a time.
///
/// # Errors
/// What made going on impossible; `Ok` after the process was told to stop.
pub async fn run_concurrent<H: ConcurrentHandler>(
    spec: WorkerSpec,
    surroundings: Surroundings,
    handler: Arc<H>,
) -> Result<(), StreamError> {
    let most = usize::try_from(surroundings.stream.budget_records)
        .unwrap_or(usize::MAX)
        .saturating_add(surroundings.stream.batch_records)
        .min(tokio::sync::Semaphore::MAX_PERMITS);
    let attempt_limit = Duration::from_millis(surroundings.stream.attempt_timeout_ms);
    let runtime = Handle::current();
    let delays = Delays::parse(&surroundings.stream.retry_delays).map_err(|message| StreamError::Config {
        message: format!("`stream.retry_delays`: {message}"),
    })?;
    let ordering = surroundings.stream.ordering;
    let (topics, in_place) = match ordering {
        Ordering::Any => (delays, Vec::new()),
        Ordering::PerKey => (Delays::default(), delays.durations()),
    };
    let config = ConcurrentConfig {
        most,
        attempt_limit,
        ordering,
        delays_in_place: in_place.into(),
    };
    run(spec, surroundings, &topics, || {
        Concurrent::new(Arc::clone(&handler), runtime.clone(), config.clone())
    })
    .await
}

/// Runs a worker that writes to a store.
///
/// # Errors
/// What made going on impossible; `Ok` after the process was told to stop.
pub async fn run_sink<K: Sink>(
    spec: WorkerSpec,
    surroundings: Surroundings,
    sink: Arc<K>,
) -> Result<(), StreamError> {
    let runtime = Handle::current();
    // The store is no part of a transaction: its writes are guarded, and may come twice.
    let surroundings = Surroundings {
        stream: StreamSettings {
            delivery: Delivery::AtLeastOnce,
            ..surroundings.stream
        },
        ..surroundings
    };
    run(spec, surroundings, &Delays::default(), || {
        Store::new(Arc::clone(&sink), runtime.clone())
    })
    .await
}

async fn run<G: Stage + Send + 'static>(
    spec: WorkerSpec,
    surroundings: Surroundings,
    delays: &Delays,
    make: impl Fn() -> G,
) -> Result<(), StreamError> {
    let Surroundings {
        process,
        kafka,
        stream,
    } = surroundings;
    let metrics = StreamMetrics::register(&process.metrics).map_err(|error| StreamError::Halted {
        message: format!("the metrics can not be registered: {error}"),
    })?;
    let mut shutdown = std::pin::pin!(process.shutdown.requested());
    let dead_letter_topics: Vec<String> = spec
        .inputs
        .iter()
        .map(|input| dead_letter_topic(input, &spec.group))
        .collect();
    let retries_of = |source: &String| -> Vec<String> { delays.topics(source, &spec.group).collect() };
    let retry_topics: Vec<Vec<String>> = spec.inputs.iter().map(retries_of).collect();
    let plan = RetryPlan::new(spec.inputs.len(), delays);
    let derived = Derived {
        dead_letters: &dead_letter_topics,
        retries: &retry_topics,
    };
    let sources = derived.by_source(&spec);
    let Some(counts) = topics_are_ready(&kafka, &spec, &derived, &mut shutdown).await? else {
        return Ok(());
    };
    let retry_topics = retry_topics.concat();
    retired::check(&kafka, spec.service, &spec.group, &spec.inputs, &retry_topics).await?;
    let mut producer_properties = kafka.properties(spec.service);
    producer_properties.extend(kafka.producer_properties());
    let inputs = [spec.inputs.clone(), retry_topics.clone()].concat();
    let unit = UnitConfig {
        transactional_id: None,
        brokers: kafka.brokers.clone(),
        producer_properties,
        group: spec.group.clone(),
        inputs: inputs.clone(),
        plan: plan.clone(),
        outputs: spec.outputs.clone(),
        dead_letter_topics,
        metrics: metrics.clone(),
    };
    let service_prefix = format!("orderflow-{}-", spec.service);
    let own_prefix = format!("{service_prefix}{}-", process.instance);
    let takeover = (stream.delivery == Delivery::ExactlyOnce).then(|| {
        Takeover::new(TakeoverConfig {
            brokers: kafka.brokers.clone(),
            client_properties: kafka.properties(spec.service),
            producer_properties: unit.producer_properties.clone(),
            group: spec.group.clone(),
            inputs: inputs.clone(),
            derived: [
                unit.outputs.as_slice(),
                unit.dead_letter_topics.as_slice(),
                retry_topics.as_slice(),
            ]
            .concat(),
            service_prefix,
            own_prefix: own_prefix.clone(),
            pumps: stream.pumps,
            metrics: metrics.clone(),
        })
    });
    let lookout = Lookout::new(
        LookoutConfig {
            client_properties: kafka.properties(spec.service),
            sources,
            inputs: inputs.clone(),
            metrics: metrics.clone(),
        },
        counts,
    );
    lookout.start(
        takeover.as_ref().map(Takeover::watch),
        process.health.task("lookout", LOOKOUT_FRESH),
    )?;
    let mut consumer_properties = kafka.properties(spec.service);
    consumer_properties.extend(stream.consumer_properties(&spec.group));
    let remembers = stream.seen_records > 0 && spec.repeats.names_by_key().is_some();
    if remembers && spec.inputs.len() > 1 {
        // The outputs name the offset of their input and not its topic.
        return Err(StreamError::Halted {
            message: "a worker of several inputs can not remember what it has seen".to_owned(),
        });
    }
    let mut reader_properties = consumer_properties.clone();
    reader_properties.extend(
        [
            ("fetch.wait.max.ms", "10"),
            ("enable.partition.eof", "true"),
            // Retention may have taken the beginning of a tail.
            ("auto.offset.reset", "earliest"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned())),
    );
    let restore = RestoreConfig {
        brokers: kafka.brokers.clone(),
        group: spec.group.clone(),
        client_properties: kafka.properties(spec.service),
        consumer_properties: reader_properties,
        outputs: spec.outputs.clone(),
        inputs: inputs.clone(),
    };
    let retry_consumer_properties = retry_consumer_properties(&consumer_properties);
    let open =
        |properties: &[(String, String)]| Consumer::open(&kafka.brokers, &spec.group, properties, &inputs);
    let pumps = usize::from(stream.pumps);
    let sign = BrakeSign::new(process.health.clone());
    let (ended, mut ends) = mpsc::channel(pumps.max(1));
    let mut wakes = Vec::new();
    let mut opened = Vec::new();
    for number in 0..pumps {
        let metrics = metrics.of_a_pump();
        let member_properties = stream.member_properties(number);
        let consumer = open(&[consumer_properties.as_slice(), &member_properties].concat())?;
        let wake = Arc::new(Wake::new(consumer.waker()));
        wakes.push(Arc::clone(&wake));
        let heartbeat = process.health.task(&format!("pump-{number}"), PUMP_FRESH);
        let restorer = (remembers && !spec.outputs.is_empty())
            .then(|| Restorer::start(number, restore.clone(), Arc::clone(&wake)))
            .transpose()?;
        let parts = PumpParts {
            settings: stream.clone(),
            unit: Arc::new(UnitConfig {
                transactional_id: takeover.as_ref().map(|_| format!("{own_prefix}{number}")),
                metrics: metrics.clone(),
                ..unit.clone()
            }),
            wake,
            metrics: metrics.clone(),
            repeats: spec.repeats.clone(),
            restorer,
            number,
            takeover: takeover.clone(),
            lookout: lookout.clone(),
            heartbeat,
            kafka: kafka.clone(),
            events: spec.events.clone(),
            sign: sign.clone(),
        };
        let source = if retry_topics.is_empty() {
            Retrying::alone(consumer, metrics.clone())
        } else {
            let retries = open(&retry_consumer_properties)?;
            Retrying::new(consumer, retries, plan.clone(), metrics.clone())
        };
        opened.push(Pump::new(source, make(), parts));
    }
    // Before the pumps: one of them may find its brake pulled.
    process.health.ready();
    // Only when all of them could be opened does anybody join the group.
    for (number, pump) in opened.into_iter().enumerate() {
        start_thread(number, pump, ended.clone())?;
    }
    drop(ended);
    tracing::info!(group = %spec.group, topics = spec.inputs.join(" "), pumps, "consuming");
    let mut result = Ok(());
    let mut left = pumps;
    let mut stopping = false;
    while left > 0 {
        tokio::select! {
            () = &mut shutdown, if !stopping => {
                stopping = true;
                process.health.not_ready("shutting down");
                wakes.iter().for_each(|wake| wake.stop());
            }
            end = ends.recv() => {
                left -= 1;
                // A thread that panicked sent nothing, and all others have ended.
                let end = end.unwrap_or_else(|| Err(StreamError::Halted { message: "a pump ended without a word".to_owned() }));
                if end.is_err() && result.is_ok() {
                    result = end;
                }
                wakes.iter().for_each(|wake| wake.stop());
                stopping = true;
            }
        }
    }
    lookout.stop();
    if let Some(takeover) = takeover {
        takeover.stop();
    }
    // The last handles of the clients go with these, and giving a client back may block.
    let given_back = tokio::task::spawn_blocking(move || drop(wakes));
    if tokio::time::timeout(GIVE_BACK_LIMIT, given_back).await.is_err() {
        tracing::debug!("the process ends before its clients are given back");
    }
    result
}

/// A reader of retry topics has little to read and much to wait for.
fn retry_consumer_properties(properties: &[(String, String)]) -> Vec<(String, String)> {
    let own = [
        ("queued.max.messages.kbytes", "1024"),
        ("queued.min.messages", "100"),
    ];
    let own = own.map(|(key, value)| (key.to_owned(), value.to_owned()));
    properties.iter().cloned().chain(own).collect()
}

fn start_thread<S, G>(
    number: usize,
    pump: Pump<S, G>,
    ended: mpsc::Sender<Result<(), StreamError>>,
) -> Result<(), StreamError>
where
    S: crate::source::Source + Send + 'static,
    G: Stage + Send + 'static,
{
    let started = std::thread::Builder::new()
        .name(format!("pump-{number}"))
        .spawn(move || {
            let result = pump.run();
            if let Err(error) = &result {
                tracing::error!(pump = number, %error, "pump halted, nothing more is committed");
            }
            // The receiver outlives all pumps.
            let _told = ended.blocking_send(result).is_ok();
        });
    started.map(|_| ()).map_err(|error| StreamError::Client {
        what: "starting a pump".to_owned(),
        cause: error.to_string(),
        retriable: false,
    })
}

/// The topics that a worker writes to besides its outputs.
struct Derived<'a> {
    /// By source.
    dead_letters: &'a [String],
    /// By source.
    retries: &'a [Vec<String>],
}

impl Derived<'_> {
    /// The sources, each with the topics that keep its partitions.
    fn by_source(&self, spec: &WorkerSpec) -> Vec<(String, Vec<String>)> {
        let own = self.dead_letters.iter().zip(self.retries);
        spec.inputs
            .iter()
            .zip(own)
            .map(|(source, (dead_letters, retries))| {
                let downstream = spec.outputs.iter().chain([dead_letters]).chain(retries);
                (source.clone(), downstream.cloned().collect())
            })
            .collect()
    }
}

/// Waits for Kafka and for all topics, and checks that derived topics can keep the partition of their
/// input. Tells how many partitions all topics have; `None` when the shutdown came first.
async fn topics_are_ready(
    kafka: &KafkaSettings,
    spec: &WorkerSpec,
    derived: &Derived<'_>,
    mut shutdown: impl Future<Output = ()> + Unpin,
) -> Result<Option<BTreeMap<String, i32>>, StreamError> {
    tokio::select! {
        connected = admin::connect(kafka, spec.service, CONNECT_LIMIT) => connected?,
        () = &mut shutdown => return Ok(None),
    }
    let by_source = derived.by_source(spec);
    let all: Vec<String> = by_source
        .iter()
        .flat_map(|(source, downstream)| std::iter::once(source).chain(downstream))
        .cloned()
        .collect();
    let Some(there) = admin::wait_for_topics(kafka, spec.service, &all, &mut shutdown).await? else {
        return Ok(None);
    };
    let count = |topic: &String| there.get(topic).copied().unwrap_or(0);
    for (source, downstream) in &by_source {
        if let Some(topic) = downstream.iter().find(|topic| count(topic) < count(source)) {
            return Err(StreamError::TooFewPartitions {
                topic: topic.clone(),
                partitions: count(topic),
                source_topic: source.clone(),
                wanted: count(source),
            });
        }
    }
    Ok(Some(there))
}
