//! Where admitted orders go. A trait, so that everything before Kafka is tested without it.

use std::future::Future;

use domain::AdmittedOrder;
use service::{Exit, Process};
use stream::StreamError;
use stream::publisher::{Acknowledged, Delivery, NewRecord, Publisher};

use crate::config::Config;

/// Takes orders and answers for each.
pub trait Outlet: Clone + Send + Sync + 'static {
    /// Resolves when the order is safe, or never will be.
    type Delivery: Future<Output = Result<Acknowledged, StreamError>> + Send + Unpin + 'static;

    /// Queues an order; waits while the queue is full.
    fn send(&self, order: &AdmittedOrder)
    -> impl Future<Output = Result<Self::Delivery, StreamError>> + Send;

    /// The topic that orders go to.
    fn topic(&self) -> &str;

    /// What the connection complains about, for the line that says why nothing moves.
    fn trouble(&self) -> Option<String>;
}

/// The topic `orders`.
#[derive(Clone)]
pub struct OrdersTopic {
    publisher: Publisher,
    topic: String,
}

impl OrdersTopic {
    /// Waits for Kafka and for the topic; `None` when the shutdown came first.
    ///
    /// # Errors
    /// When no broker answers in time, or it refuses us.
    pub async fn open(config: &Config, process: &Process) -> Result<Option<Self>, Exit> {
        let limit = config.producer.connect_timeout();
        process.health.not_ready("waiting for Kafka");
        tokio::select! {
            connected = stream::admin::connect(&config.kafka, process.info.name, limit) => connected?,
            () = process.shutdown.requested() => return Ok(None),
        }
        let topic = config.topics.orders.clone();
        let names = [topic.clone()];
        let stop = process.shutdown.requested();
        if stream::admin::wait_for_topics(&config.kafka, process.info.name, &names, stop)
            .await?
            .is_none()
        {
            return Ok(None);
        }
        let publisher = Publisher::connect(&config.kafka, process.info.name)?;
        Ok(Some(Self { publisher, topic }))
    }
}

impl Outlet for OrdersTopic {
    type Delivery = Delivery;

    async fn send(&self, order: &AdmittedOrder) -> Result<Delivery, StreamError> {
        // The client stamps the record with the time of sending: retention and time resets work on it.
        let record = NewRecord {
            topic: &self.topic,
            key: order.key.as_bytes(),
            value: &order.value,
            headers: &[],
        };
        self.publisher.send(record).await
    }

    fn topic(&self) -> &str {
        &self.topic
    }

    fn trouble(&self) -> Option<String> {
        self.publisher.last_error().map(|error| error.to_string())
    }
}
