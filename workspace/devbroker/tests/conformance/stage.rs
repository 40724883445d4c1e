//! What a scenario works on, and what it leaves behind.

use std::fmt::Display;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::client::Client;

/// One thing that both engines must do alike.
#[derive(Clone, Copy)]
pub struct Scenario {
    pub name: &'static str,
    /// One sentence on what it shows.
    pub shows: &'static str,
    pub run: for<'a> fn(&'a mut Stage) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>,
    /// Where devbroker answers otherwise on purpose.
    pub difference: Option<Difference>,
}

/// A difference that is meant.
#[derive(Clone, Copy)]
pub struct Difference {
    pub reason: &'static str,
    /// The lines that devbroker gives in place of Kafka's: `(Kafka's, devbroker's)`.
    pub lines: &'static [(&'static str, &'static str)],
}

/// Lists functions as scenarios: `name: "what it shows"`, and after `differs` the difference.
#[macro_export]
macro_rules! scenarios {
    ($($function:ident: $shows:literal $(differs $difference:expr)?;)*) => {
        pub const SCENARIOS: &[$crate::stage::Scenario] = &[$($crate::stage::Scenario {
            name: stringify!($function),
            shows: $shows,
            run: |stage| Box::pin($function(stage)),
            difference: $crate::stage::only([$($difference)?].as_slice()),
        }),*];
    };
}

/// The difference of a scenario that has one.
pub const fn only(differences: &[Difference]) -> Option<Difference> {
    match differences {
        [difference] => Some(*difference),
        _ => None,
    }
}

/// A broker, names that nobody else uses, and the lines that the scenario has noted.
pub struct Stage {
    address: String,
    tag: String,
    names: u32,
    lines: Arc<Mutex<Vec<String>>>,
    producers: Vec<(i64, String)>,
}

impl Stage {
    pub fn new(address: &str) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_millis();
        Self {
            address: address.to_owned(),
            tag: format!("{now:x}-{:x}-{count}", std::process::id()),
            names: 0,
            lines: Arc::default(),
            producers: Vec::new(),
        }
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// A connection of its own.
    pub async fn client(&self) -> Client {
        Client::connect(&self.address).await
    }

    /// A name for a topic, group or transactional id that nobody else has, on a shared broker too.
    pub fn name(&mut self, base: &str) -> String {
        self.names += 1;
        format!("{base}-{}-{}", self.tag, self.names)
    }

    /// Creates a topic and waits until its partitions are led.
    pub async fn topic(&mut self, partitions: i32) -> String {
        self.topic_with(partitions, &[]).await
    }

    /// Creates a topic with settings and waits until its partitions are led.
    pub async fn topic_with(&mut self, partitions: i32, settings: &[(&str, &str)]) -> String {
        let name = self.name("topic");
        let mut client = self.client().await;
        let code = client.create_topic(&name, partitions, settings).await;
        assert_eq!(code, 0, "the topic of a scenario is created");
        client.until_led(&name, partitions).await;
        name
    }

    /// Adds a line to the outcome.
    pub fn note(&mut self, what: impl Display, seen: impl Display) {
        let line = format!("{what}: {seen}");
        self.lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(line);
    }

    /// Gives a producer id a name, because the ids differ from run to run.
    pub fn named(&mut self, producer_id: i64, name: &str) {
        self.producers.push((producer_id, name.to_owned()));
    }

    /// The name of a producer id.
    pub fn producer(&self, producer_id: i64) -> &str {
        let known = self.producers.iter().find(|(id, _)| *id == producer_id);
        known.map_or("somebody", |(_, name)| name)
    }

    /// The lines so far, shared: what was noted before a failure is worth reading.
    pub fn lines(&self) -> Arc<Mutex<Vec<String>>> {
        Arc::clone(&self.lines)
    }
}
