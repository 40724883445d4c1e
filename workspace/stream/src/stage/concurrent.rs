//! Work that waits for somebody else, thousands of records at a time. Results come in any order and
//! wait in the ledger until all records before them have ended.

use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::error::StreamError;
use crate::failure::Failure;
use crate::handler::{ConcurrentHandler, OutputRecord};
use crate::ledger::Ticket;
use crate::metrics::StreamMetrics;
use crate::record::{OwnedRecord, Record};
use crate::stage::{Desk, Ending, RetryPolicy, Stage, Wake, cause_of};

/// A record whose attempts are over.
type Finished = (Ticket, Result<Ending, StreamError>);

pub(crate) struct Concurrent<H> {
    handler: Arc<H>,
    runtime: Handle,
    done: mpsc::Sender<Finished>,
    finished: mpsc::Receiver<Finished>,
    in_flight: usize,
}

impl<H: ConcurrentHandler> Concurrent<H> {
    /// `most` is how many records can be in flight at once: the budget and one batch.
    pub fn new(handler: Arc<H>, runtime: Handle, most: usize) -> Self {
        let (done, finished) = mpsc::channel(most.max(1));
        Self {
            handler,
            runtime,
            done,
            finished,
            in_flight: 0,
        }
    }
}

impl<H: ConcurrentHandler> Stage for Concurrent<H> {
    const KEEPS_ENDINGS: bool = true;

    fn accept(
        &mut self,
        ticket: Ticket,
        record: &Record<'_>,
        desk: &mut Desk<'_>,
    ) -> Result<(), StreamError> {
        let job = match self.handler.decode(record) {
            Ok(job) => job,
            Err(failure) => {
                let ending = Ending::dead_letter(record.to_owned(), cause_of(failure, 1)?, Vec::new());
                desk.ledger.end(&ticket, ending);
                return Ok(());
            }
        };
        let work = Work {
            handler: Arc::clone(&self.handler),
            job,
            record: record.to_owned(),
            retry: desk.retry,
            metrics: desk.metrics.clone(),
        };
        let (done, wake): (_, Arc<Wake>) = (self.done.clone(), Arc::clone(desk.wake));
        self.runtime.spawn(async move {
            let ending = work.run().await;
            // Nobody listens any more when the pump has ended; the record was not committed then.
            if done.send((ticket, ending)).await.is_ok() {
                wake.call();
            }
        });
        self.in_flight += 1;
        Ok(())
    }

    fn batch_is_over(&mut self, _: &mut Desk<'_>) {}

    fn collect(&mut self, desk: &mut Desk<'_>) -> Result<(), StreamError> {
        while let Ok((ticket, ending)) = self.finished.try_recv() {
            self.in_flight = self.in_flight.saturating_sub(1);
            if !desk.ledger.end(&ticket, ending?) {
                desk.metrics.records_dropped.inc();
            }
        }
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }
}

struct Work<H: ConcurrentHandler> {
    handler: Arc<H>,
    job: H::Job,
    record: OwnedRecord,
    retry: RetryPolicy,
    metrics: StreamMetrics,
}

impl<H: ConcurrentHandler> Work<H> {
    async fn run(self) -> Result<Ending, StreamError> {
        let started = Instant::now();
        let mut attempts = 1;
        let failure = loop {
            let failure = match self.handler.attempt(&self.job, attempts).await {
                Ok(outputs) => return Ok(Ending::outputs(outputs)),
                Err(failure) => failure,
            };
            let Failure::Transient {
                code, retry_after, ..
            } = &failure
            else {
                break failure;
            };
            let Some(pause) = self.retry.next_pause(attempts, started.elapsed(), *retry_after) else {
                break failure;
            };
            self.metrics.retries.with_label_values(&[code.as_ref()]).inc();
            tokio::time::sleep(pause).await;
            attempts += 1;
        };
        let outputs: Vec<OutputRecord> = match &failure {
            Failure::Transient { .. } => self.handler.give_up(&self.job, attempts),
            Failure::Poison { .. } | Failure::Fatal { .. } => Vec::new(),
        };
        Ok(Ending::dead_letter(
            self.record,
            cause_of(failure, attempts)?,
            outputs,
        ))
    }
}
