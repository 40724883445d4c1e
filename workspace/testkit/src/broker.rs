//! The broker of a test.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::oneshot;

use crate::{Observer, variable};

/// Names the broker that the tests use in place of the embedded one, as `host:port`.
const VARIABLE: &str = "ORDERFLOW_TEST_BROKER";

/// A broker for one test. It ends with this value.
#[derive(Debug)]
pub struct TestBroker {
    address: String,
    embedded: Option<Embedded>,
}

/// The embedded broker has a thread and a runtime of its own: a test that blocks its runtime, in a
/// client's poll for example, must not stop the broker that it polls.
#[derive(Debug)]
struct Embedded {
    broker: Arc<devbroker::Broker>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl TestBroker {
    /// The real Kafka of `$ORDERFLOW_TEST_BROKER`, or an embedded broker of its own.
    pub async fn start() -> Self {
        match variable(VARIABLE) {
            Some(address) => {
                let reached = tokio::net::TcpStream::connect(&address).await;
                reached.unwrap_or_else(|error| panic!("{VARIABLE} is `{address}`, not reachable: {error}"));
                Self {
                    address,
                    embedded: None,
                }
            }
            None => Self::embedded(devbroker::Options::default()).await,
        }
    }

    /// An embedded broker with options of its own, whatever the variable says: for tests of what
    /// only it can do.
    pub async fn embedded(options: devbroker::Options) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let (started, broker) = oneshot::channel::<Arc<devbroker::Broker>>();
        let thread = std::thread::Builder::new()
            .name("devbroker".to_owned())
            .spawn(move || serve(options, started, stopped))
            .expect("a thread can be started");
        let broker = broker.await.expect("the embedded broker starts");
        let address = broker.address();
        let embedded = Embedded {
            broker,
            stop: Some(stop),
            thread: Some(thread),
        };
        Self {
            address: address.to_string(),
            embedded: Some(embedded),
        }
    }

    /// Where it listens, `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// `devbroker` or `kafka`.
    pub fn engine(&self) -> &'static str {
        if self.embedded.is_some() {
            "devbroker"
        } else {
            "kafka"
        }
    }

    /// Lets something go wrong. For tests on the embedded broker alone.
    pub fn inject(&self, injection: devbroker::Injection) -> devbroker::FaultHandle {
        let embedded = self.embedded.as_ref().expect("faults need the embedded broker");
        embedded
            .broker
            .inject(injection)
            .expect("a fault that can be injected")
    }

    /// A name for a topic, group or transactional id that no other test has, also on a broker that
    /// is shared and was used before.
    pub fn name(&self, base: &str) -> String {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_millis();
        format!("{base}-{now:x}-{:x}-{count}", std::process::id())
    }

    /// A client that is not the code under test.
    pub fn observer(&self) -> Observer {
        Observer::new(&self.address)
    }
}

fn serve(
    options: devbroker::Options,
    started: oneshot::Sender<Arc<devbroker::Broker>>,
    stopped: oneshot::Receiver<()>,
) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime can be started");
    runtime.block_on(async {
        let broker = devbroker::Broker::start(options)
            .await
            .expect("the embedded broker starts");
        // A test that is gone already needs no address, and the other channel says so too.
        let broker = Arc::new(broker);
        let _sent = started.send(Arc::clone(&broker));
        let _closed = stopped.await;
        // Without a test that holds it, the broker ends with its last task; else with this runtime.
        if let Some(broker) = Arc::into_inner(broker) {
            broker.stop().await;
        }
    });
}

impl Drop for Embedded {
    fn drop(&mut self) {
        // The broker is stopped by its own thread, once it is the last one to hold it.
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // Its panic, if any, was printed; a second one while dropping would abort.
            let _ended = thread.join();
        }
    }
}
