//! Work that ends in a store. While one batch is written, the next one is read and prepared.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::backoff::Backoff;
use crate::error::StreamError;
use crate::failure::Failure;
use crate::handler::Sink;
use crate::ledger::Ticket;
use crate::metrics::StreamMetrics;
use crate::position::TopicPartition;
use crate::record::{OwnedRecord, Record};
use crate::stage::{Desk, Ending, Reporter, Stage, cause_of};

/// Items of one write at most.
const MOST_ITEMS: usize = 1_000;

/// The pauses while the store is away. It is a declared wait: attempts do not count, nothing is given up.
const STORE_AWAY: Backoff = Backoff {
    first: Duration::from_millis(100),
    most: Duration::from_secs(10),
};

struct Prepared<I> {
    ticket: Ticket,
    item: I,
    record: OwnedRecord,
}

/// What became of a write: the items, and those that the store refused for good.
type Written<I> = (Vec<Prepared<I>>, Result<Vec<(usize, Failure)>, Failure>);

pub(crate) struct Store<K: Sink> {
    sink: Arc<K>,
    runtime: Handle,
    prepared: VecDeque<Prepared<K::Item>>,
    writing: usize,
    done: mpsc::Sender<Written<K::Item>>,
    written: mpsc::Receiver<Written<K::Item>>,
}

impl<K: Sink> Store<K> {
    pub fn new(sink: Arc<K>, runtime: Handle) -> Self {
        let (done, written) = mpsc::channel(1);
        Self {
            sink,
            runtime,
            prepared: VecDeque::new(),
            writing: 0,
            done,
            written,
        }
    }

    fn start_write(&mut self, desk: &Desk<'_>) {
        if self.writing > 0 || self.prepared.is_empty() {
            return;
        }
        let count = self.prepared.len().min(MOST_ITEMS);
        let batch: Vec<_> = self.prepared.drain(..count).collect();
        self.writing = batch.len();
        let (sink, metrics) = (Arc::clone(&self.sink), desk.metrics.clone());
        let last_word = (
            Vec::new(),
            Err(Failure::fatal("a sink panicked, see the panic above")),
        );
        let reporter = Reporter::new(self.done.clone(), Arc::clone(desk.wake), last_word);
        self.runtime.spawn(async move {
            let result = write(&*sink, &batch, &metrics).await;
            reporter.report((batch, result)).await;
        });
    }
}

/// Writes until the store takes the batch.
async fn write<K: Sink>(
    sink: &K,
    batch: &[Prepared<K::Item>],
    metrics: &StreamMetrics,
) -> Result<Vec<(usize, Failure)>, Failure> {
    let items: Vec<&K::Item> = batch.iter().map(|prepared| &prepared.item).collect();
    let mut failed = 0_u32;
    loop {
        // To a store that is away everything waits anyhow, so the two are one here.
        let result = sink.write(&items).await.map_err(|failure| match failure {
            Failure::Away { code, message } => Failure::transient(code, message),
            other => other,
        });
        match result {
            Err(Failure::Transient {
                code,
                message,
                retry_after,
            }) => {
                failed += 1;
                metrics.set_waiting("store", true);
                // The first time, and then each time the number of attempts has doubled.
                if failed.is_power_of_two() {
                    tracing::warn!(
                        attempts = failed,
                        records = items.len(),
                        error = %message,
                        "store does not take documents, trying again"
                    );
                }
                let pause = STORE_AWAY
                    .pause(failed, &mut rand::rng())
                    .max(retry_after.unwrap_or_default());
                tokio::time::sleep(pause).await;
                metrics.retries.with_label_values(&[code.as_ref()]).inc();
            }
            result => {
                if failed > 0 {
                    metrics.set_waiting("store", false);
                    tracing::info!(attempts = failed, "store takes documents again");
                }
                return result;
            }
        }
    }
}

impl<K: Sink> Stage for Store<K> {
    const KEEPS_ENDINGS: bool = true;

    fn accept(
        &mut self,
        ticket: Ticket,
        record: &Record<'_>,
        desk: &mut Desk<'_>,
    ) -> Result<(), StreamError> {
        match self.sink.prepare(record.at.topic, record) {
            Ok(item) => self.prepared.push_back(Prepared {
                ticket,
                item,
                record: record.to_owned(),
            }),
            Err(failure) => {
                let ending = Ending::dead_letter(record.to_owned(), cause_of(failure, 1)?, Vec::new());
                desk.ledger.end(&ticket, ending);
            }
        }
        Ok(())
    }

    fn batch_is_over(&mut self, desk: &mut Desk<'_>) {
        self.start_write(desk);
    }

    fn collect(&mut self, desk: &mut Desk<'_>) -> Result<(), StreamError> {
        while let Ok((batch, result)) = self.written.try_recv() {
            self.writing = 0;
            let refused = result.map_err(|failure| StreamError::Fatal {
                message: failure.to_string(),
            })?;
            let mut endings: Vec<Ending> = batch.iter().map(|_| Ending::Done).collect();
            for (index, failure) in refused {
                if let (Some(ending), Some(prepared)) = (endings.get_mut(index), batch.get(index)) {
                    *ending = Ending::dead_letter(prepared.record.clone(), cause_of(failure, 1)?, Vec::new());
                }
            }
            for (prepared, ending) in batch.iter().zip(endings) {
                desk.ledger.end(&prepared.ticket, ending);
            }
        }
        self.start_write(desk);
        Ok(())
    }

    /// What was not written yet need not be written any more; what is being written is harmless,
    /// because writes are guarded.
    fn given_up(&mut self, partitions: &[TopicPartition]) {
        self.prepared
            .retain(|prepared| !partitions.contains(&prepared.ticket.at));
    }

    fn in_flight(&self) -> usize {
        self.writing + self.prepared.len()
    }
}
