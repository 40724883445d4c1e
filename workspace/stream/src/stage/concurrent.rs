//! Work that waits for somebody else, thousands of records at a time. Results come in any order and
//! wait in the ledger until all records before them have ended.
//!
//! A task always reports, also when its handler panics or its partition is given up, so that nothing
//! waits for a word that never comes.

mod turns;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use service::now_ms;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::dead_letter::Cause;
use crate::error::StreamError;
use crate::failure::Failure;
use crate::handler::{ConcurrentHandler, LastWord, OutputRecord};
use crate::ledger::Ticket;
use crate::metrics::StreamMetrics;
use crate::parking::{Origin, RetryPlan};
use crate::position::TopicPartition;
use crate::record::{OwnedRecord, Record};
use crate::seen::{Digest, Place};
use crate::settings::Ordering;
use crate::stage::{Desk, Ending, Reporter, RetryPolicy, Stage, Wake, cause_of};
use turns::{Turn, Turns};

/// The code of a dead letter whose work may have had its effect, and nobody could say.
const OUTCOME_UNKNOWN: &str = "outcome_unknown";

/// A record whose attempts are over.
struct Finished {
    ticket: Ticket,
    /// Where it came from a retry topic, what it is there.
    retried: Option<Retried>,
    /// Where its key has an order, whose turn was this.
    turn: Option<Turn>,
    /// `None` when its partition was given up meanwhile.
    ending: Result<Option<Ending>, StreamError>,
}

/// A record of a retry topic, as the window of seen records knows it.
#[derive(Clone)]
struct Retried {
    origin: Origin,
    key: Vec<u8>,
    place: Place,
}

/// How records are worked on.
#[derive(Clone)]
pub(crate) struct ConcurrentConfig {
    /// How many can be in flight at once: the budget and one batch.
    pub most: usize,
    pub attempt_limit: Duration,
    pub ordering: Ordering,
    /// With an order per key: how long a record waits in its place whose attempts were over, each time.
    pub delays_in_place: Arc<[Duration]>,
}

/// A record that is about to be worked on.
struct Started<H: ConcurrentHandler> {
    ticket: Ticket,
    retried: Option<Retried>,
    work: Work<H>,
}

pub(crate) struct Concurrent<H: ConcurrentHandler> {
    handler: Arc<H>,
    runtime: Handle,
    done: mpsc::Sender<Finished>,
    finished: mpsc::Receiver<Finished>,
    in_flight: usize,
    /// Ends the tasks of a partition that is given up: its next owner does their work.
    tokens: HashMap<TopicPartition, CancellationToken>,
    config: ConcurrentConfig,
    /// Made with the first record.
    common: Option<Arc<Common<H>>>,
    /// With an order per key: those that wait for others of their key.
    turns: Turns<Started<H>>,
}

impl<H: ConcurrentHandler> Concurrent<H> {
    pub fn new(handler: Arc<H>, runtime: Handle, config: ConcurrentConfig) -> Self {
        let (done, finished) = mpsc::channel(config.most.max(1));
        Self {
            handler,
            runtime,
            done,
            finished,
            in_flight: 0,
            tokens: HashMap::new(),
            config,
            common: None,
            turns: Turns::default(),
        }
    }

    /// Lets a record be worked on, and its report wake the pump.
    fn start(&mut self, started: Started<H>, turn: Option<Turn>, wake: &Arc<Wake>) {
        let Started {
            ticket,
            retried,
            work,
        } = started;
        let token = self.tokens.entry(ticket.at).or_default().clone();
        let reporter = Reporter::new(
            self.done.clone(),
            Arc::clone(wake),
            Finished {
                ticket,
                retried: None,
                turn,
                ending: Err(panicked()),
            },
        );
        // On the heap, or the task would hold it once more for each future that it is moved into.
        let run = Box::pin(work.run());
        self.runtime.spawn(async move {
            let ending = token.run_until_cancelled(run).await.transpose();
            reporter
                .report(Finished {
                    ticket,
                    retried,
                    turn,
                    ending,
                })
                .await;
        });
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
        let decoded = desk.plan.origin(record).ok_or_else(no_origin).and_then(|origin| {
            // A handler asks how old a record is, and not since when it is parked.
            let record = Record {
                record_time_ms: origin.record_time_ms,
                ..*record
            };
            Ok((origin, self.handler.decode(&record)?))
        });
        let (origin, job) = match decoded {
            Ok(decoded) => decoded,
            Err(failure) => {
                if let Some(origin) = desk.plan.origin(record) {
                    let key = record.key.unwrap_or_default();
                    desk.seen
                        .end_retry(origin.at, key, (record.at, record.offset), false);
                }
                let ending = Ending::dead_letter(record.to_owned(), cause_of(failure, 1)?, Vec::new());
                desk.end(&ticket, ending);
                return Ok(());
            }
        };
        let retried = desk.plan.is_retry(record.at.topic).then(|| Retried {
            origin,
            key: record.key.unwrap_or_default().to_vec(),
            place: (record.at, record.offset),
        });
        let common = self.common.get_or_insert_with(|| {
            Arc::new(Common {
                handler: Arc::clone(&self.handler),
                plan: desk.plan.clone(),
                retry: desk.retry,
                attempt_limit: self.config.attempt_limit,
                delays_in_place: Arc::clone(&self.config.delays_in_place),
                metrics: desk.metrics.clone(),
            })
        });
        let work = Work {
            common: Arc::clone(common),
            job,
            record: record.to_owned(),
            origin,
        };
        let started = Started {
            ticket,
            retried,
            work,
        };
        self.in_flight += 1;
        let turn = match (self.config.ordering, record.key) {
            (Ordering::PerKey, Some(key)) => Some(self.turns.of(&ticket, key)),
            // Records without a key are of nobody in common.
            (Ordering::PerKey, None) | (Ordering::Any, _) => None,
        };
        let now = match turn {
            Some(turn) => self.turns.take(turn, started),
            None => Some(started),
        };
        if let Some(started) = now {
            self.start(started, turn, desk.wake);
        }
        Ok(())
    }

    fn batch_is_over(&mut self, _: &mut Desk<'_>) {}

    fn collect(&mut self, desk: &mut Desk<'_>) -> Result<(), StreamError> {
        while let Ok(finished) = self.finished.try_recv() {
            self.in_flight = self.in_flight.saturating_sub(1);
            let Finished {
                ticket,
                retried,
                turn,
                ending,
            } = finished;
            if let Some(turn) = turn
                && let Some(next) = self.turns.pass(turn)
            {
                self.start(next, Some(turn), desk.wake);
            }
            let Some(ending) = ending? else { continue };
            if let Some(retried) = retried.filter(|_| desk.ledger.is_current(&ticket)) {
                let Retried { origin, key, place } = retried;
                desk.seen.end_retry(origin.at, &key, place, ending.is_settled());
            }
            desk.end(&ticket, ending);
        }
        Ok(())
    }

    fn given_up(&mut self, partitions: &[TopicPartition]) {
        self.in_flight = self.in_flight.saturating_sub(self.turns.give_up(partitions));
        for at in partitions {
            if let Some(token) = self.tokens.remove(at) {
                token.cancel();
            }
        }
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }
}

fn panicked() -> StreamError {
    StreamError::Halted {
        message: "a handler panicked, see the panic above".to_owned(),
    }
}

/// Somebody else wrote into a retry topic.
fn no_origin() -> Failure {
    Failure::poison(
        "retry_without_origin",
        "a record of a retry topic must name its `origin-offset` and `origin-timestamp`",
    )
}

/// What all records are worked on with.
struct Common<H> {
    handler: Arc<H>,
    plan: RetryPlan,
    retry: RetryPolicy,
    attempt_limit: Duration,
    delays_in_place: Arc<[Duration]>,
    metrics: StreamMetrics,
}

/// A record on its way through its attempts. There are thousands at once: what they share is not in it.
struct Work<H: ConcurrentHandler> {
    common: Arc<Common<H>>,
    job: H::Job,
    record: OwnedRecord,
    origin: Origin,
}

impl<H: ConcurrentHandler> Work<H> {
    async fn run(self) -> Result<Ending, StreamError> {
        let before = self.origin.attempts;
        let mut spent = Duration::ZERO;
        let (mut here, mut away) = (1, 0);
        // With an order per key the record waits in its place: what its attempts were before is over then.
        let (mut before_wait, mut waits) = (0, self.common.delays_in_place.iter());
        let failure = loop {
            let (result, took) = self.attempt(before.saturating_add(here)).await;
            let failure = match result {
                Ok(outputs) => return Ok(self.settled(outputs)),
                Err(failure) => failure,
            };
            let (code, pause) = match &failure {
                Failure::Away { code, .. } => {
                    away += 1;
                    (code, self.common.retry.backoff.pause(away, &mut rand::rng()))
                }
                Failure::Transient {
                    code, retry_after, ..
                } => {
                    spent += took;
                    let pause = match self
                        .common
                        .retry
                        .next_pause(here - before_wait, spent, *retry_after)
                    {
                        Some(pause) => {
                            spent += pause;
                            pause
                        }
                        None => {
                            let Some(wait) = waits.next() else {
                                break failure;
                            };
                            (before_wait, spent) = (here, Duration::ZERO);
                            *wait
                        }
                    };
                    here += 1;
                    (code, pause)
                }
                Failure::Poison { .. } | Failure::Fatal { .. } => break failure,
            };
            tokio::time::sleep(pause).await;
            let retries = &self.common.metrics.retries;
            retries.with_label_values(&[code.as_ref()]).inc();
        };
        let attempts = before.saturating_add(here);
        let is_transient = matches!(failure, Failure::Transient { .. });
        let cause = cause_of(failure, attempts)?;
        if !is_transient {
            return Ok(Ending::dead_letter(self.record, cause, Vec::new()));
        }
        let parked = self.common.plan.park(&self.record.as_record(), &cause, now_ms());
        match parked {
            Some(parked) => Ok(Ending::parked(self.record, parked)),
            None => Box::pin(self.give_up(cause)).await,
        }
    }

    fn settled(&self, outputs: Vec<OutputRecord>) -> Ending {
        let digest = Digest::of(self.record.value.as_deref());
        Ending::outputs(outputs, digest, Some(self.origin.offset))
    }

    /// One attempt as soon as the handler is ready, and how long it took. It may not hang.
    async fn attempt(&self, number: u32) -> (Result<Vec<OutputRecord>, Failure>, Duration) {
        let place = self.common.handler.ready().await;
        let started = Instant::now();
        let attempt = self.common.handler.attempt(&self.job, number);
        let result = self.in_time(attempt).await;
        drop(place);
        (result, started.elapsed())
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        tokio::time::timeout(self.common.attempt_limit, work)
            .await
            .unwrap_or_else(|_| {
                let limit_ms = self.common.attempt_limit.as_millis();
                Err(Failure::transient(
                    "attempt_timeout",
                    format!("no answer within {limit_ms} ms"),
                ))
            })
    }

    /// Ends a record whose attempts are used up. What is not known is not claimed.
    async fn give_up(self, cause: Cause) -> Result<Ending, StreamError> {
        let mut away = 0;
        let unknown = loop {
            let place = self.common.handler.ready().await;
            let word = self.common.handler.give_up(&self.job, cause.attempts);
            let word = self.in_time(word).await;
            drop(place);
            match word {
                Ok(LastWord::Settled(outputs)) => return Ok(self.settled(outputs)),
                Ok(LastWord::GaveUp(outputs)) => {
                    return Ok(Ending::dead_letter(self.record, cause, outputs));
                }
                Err(Failure::Away { .. }) => {
                    away += 1;
                    let pause = self.common.retry.backoff.pause(away, &mut rand::rng());
                    tokio::time::sleep(pause).await;
                }
                Err(unknown) => break unknown,
            }
        };
        let cause = Cause {
            code: OUTCOME_UNKNOWN.to_owned(),
            ..cause_of(unknown, cause.attempts)?
        };
        Ok(Ending::dead_letter(self.record, cause, Vec::new()))
    }
}

#[cfg(test)]
mod tests;
