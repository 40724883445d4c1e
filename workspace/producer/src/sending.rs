//! The loop that sends what a source gives: paced, bounded, and done only when everything is acknowledged.
//!
//! One task owns all state. In `select!` acknowledgements come first, because each frees a place; then the
//! signal to stop; then the order whose time has come; then new entries, which are taken only while no order
//! waits for its time. What is in flight is bounded by [`MAX_IN_FLIGHT`] and [`MAX_IN_FLIGHT_BYTES`].

use std::collections::VecDeque;
use std::time::Duration;

use domain::AdmittedOrder;
use service::{Exit, Shutdown, Throttle};
use stream::StreamError;
use stream::publisher::Acknowledged;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::metrics::ProducerMetrics;
use crate::outlet::Outlet;
use crate::pace::Pace;
use crate::progress::Progress;
use crate::reading::Batch;
use crate::source::{Entry, Rejected, SourceError};
use crate::summary::Summary;

/// Most orders that are sent and not acknowledged, and most bytes of them (and one order more): less than the
/// client queues at most (64 MiB), so that this loop waits and not the client.
const MAX_IN_FLIGHT: usize = 50_000;
const MAX_IN_FLIGHT_BYTES: usize = 48 * 1024 * 1024;
/// How often the progress is looked at.
const TICK: Duration = Duration::from_millis(200);
/// After so long without an acknowledgement a line says what the connection complains about.
const QUIET: Duration = Duration::from_secs(10);
/// Bad lines that are shown one by one.
const SHOWN_REJECTIONS: u64 = 20;

static MORE_REJECTIONS: Throttle = Throttle::every_seconds(10);

/// How to send.
pub(crate) struct Manner {
    /// Orders per second.
    pub(crate) rate: Option<f64>,
    /// Stop at the first bad line.
    pub(crate) strict: bool,
    /// Whether an end by signal is a success: a generator without a count has no other.
    pub(crate) endless: bool,
    /// How long to wait for acknowledgements after the signal to stop.
    pub(crate) flush_timeout: Duration,
}

/// Why sending ended before its time. The summary tells how far it came.
pub(crate) type Ended = (Summary, Result<(), Exit>);

struct InFlight<D> {
    line: u64,
    bytes: usize,
    delivery: D,
}

struct Sender<'a, O: Outlet> {
    outlet: &'a O,
    metrics: &'a ProducerMetrics,
    manner: Manner,
    progress: Progress,
    summary: Summary,
    in_flight: VecDeque<InFlight<O::Delivery>>,
    in_flight_bytes: usize,
    entries: std::vec::IntoIter<Entry>,
    /// The order that waits for its time.
    waiting: Option<(u64, AdmittedOrder, Instant)>,
    pace: Pace,
    reading: bool,
    last_line: u64,
    last_acknowledged: Instant,
    /// Why the source ended early; it counts once the entries before it are sent.
    source_error: Option<Exit>,
    failure: Option<Exit>,
}

/// Sends everything that `batches` gives.
pub(crate) async fn send_all<O: Outlet>(
    mut batches: mpsc::Receiver<Batch>,
    outlet: &O,
    metrics: &ProducerMetrics,
    manner: Manner,
    progress: Progress,
    source: String,
    shutdown: &Shutdown,
) -> Ended {
    let started = Instant::now();
    let pace = Pace::new(manner.rate);
    let mut sender = Sender {
        outlet,
        metrics,
        manner,
        progress,
        summary: Summary {
            source,
            ..Summary::default()
        },
        in_flight: VecDeque::new(),
        in_flight_bytes: 0,
        entries: Vec::new().into_iter(),
        waiting: None,
        pace,
        reading: true,
        last_line: 0,
        last_acknowledged: started,
        source_error: None,
        failure: None,
    };
    let interrupted = sender.run(&mut batches, shutdown).await;
    sender.finish(started, interrupted, shutdown)
}

impl<O: Outlet> Sender<'_, O> {
    /// Until everything is acknowledged or nothing more can be; says whether the signal to stop came before.
    async fn run(&mut self, batches: &mut mpsc::Receiver<Batch>, shutdown: &Shutdown) -> bool {
        let stop = shutdown.requested();
        tokio::pin!(stop);
        let (mut stopping, mut interrupted) = (false, false);
        let mut give_up_at = None;
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.take_entries();
            if self.waiting.is_none() && !self.reading {
                // Only now: the entries before the error stand.
                self.failure = self.failure.take().or(self.source_error.take());
            }
            if self.failure.is_some() && give_up_at.is_none() {
                // What is in flight still gets its chance.
                self.stop_reading();
                give_up_at = Some(Instant::now() + self.manner.flush_timeout);
            }
            let idle = self.waiting.is_none() && !self.reading;
            if idle && self.in_flight.is_empty() {
                return interrupted;
            }
            let due = self.waiting.as_ref().map(|(_, _, due)| *due);
            let free = self.in_flight.len() < MAX_IN_FLIGHT && self.in_flight_bytes < MAX_IN_FLIGHT_BYTES;
            tokio::select! {
                biased;
                answer = front(&mut self.in_flight), if !self.in_flight.is_empty() => self.answered(answer),
                () = &mut stop, if !stopping => {
                    stopping = true;
                    interrupted = self.reading || self.waiting.is_some();
                    self.stop_reading();
                    give_up_at = Some(Instant::now() + self.manner.flush_timeout);
                }
                () = until(give_up_at), if give_up_at.is_some() => {
                    return interrupted;
                }
                _ = ticks.tick() => self.tick(),
                () = until(due), if due.is_some() && free => self.send_waiting(shutdown).await,
                batch = batches.recv(), if self.reading && self.waiting.is_none() => self.take_batch(batch),
            }
        }
    }

    fn stop_reading(&mut self) {
        self.reading = false;
        self.waiting = None;
        self.entries = Vec::new().into_iter();
    }

    fn take_batch(&mut self, batch: Option<Batch>) {
        let Some(batch) = batch else {
            self.reading = false;
            return;
        };
        if let Some(orders) = batch.orders {
            self.progress.measure_orders(orders);
        }
        self.entries = batch.entries.into_iter();
        if let Some(error) = batch.error {
            self.reading = false;
            self.source_error = Some(match error {
                SourceError::Layout(message) => Exit::config(message),
                SourceError::Unreadable(message) => Exit::failed(message),
            });
        }
    }

    /// Takes entries until an order waits for its time.
    fn take_entries(&mut self) {
        while self.waiting.is_none() && self.failure.is_none() {
            match self.entries.next() {
                None => return,
                Some(Entry::Order { line, order }) => {
                    self.waiting = Some((line, order, self.pace.due(Instant::now())));
                }
                Some(Entry::Skipped) => {
                    self.summary.skipped += 1;
                    self.metrics.skipped();
                }
                Some(Entry::Rejected {
                    line,
                    rejection,
                    counts,
                }) => self.rejected(line, &rejection, counts),
            }
        }
    }

    fn rejected(&mut self, line: u64, rejection: &Rejected, counts: bool) {
        *self
            .summary
            .rejected_by_code
            .entry(rejection.code.to_owned())
            .or_default() += 1;
        if counts {
            self.summary.rejected += 1;
            self.metrics.rejected(rejection.code);
        }
        let shown: u64 = self.summary.rejected_by_code.values().sum();
        if shown <= SHOWN_REJECTIONS {
            let source = &self.summary.source;
            self.progress.line(&format!(
                "{source}:{line}: rejected ({}): {}",
                rejection.code, rejection.message
            ));
        } else if let Some(suppressed) = MORE_REJECTIONS.allow() {
            let rejected = self.summary.rejected;
            tracing::warn!(
                line,
                code = rejection.code,
                rejected,
                suppressed,
                "more lines were rejected"
            );
        }
        if self.manner.strict {
            let source = &self.summary.source;
            let message = format!(
                "stopped at `{source}` line {line}: {} (`--strict`)",
                rejection.message
            );
            self.failure = Some(Exit::failed(message));
        }
    }

    async fn send_waiting(&mut self, shutdown: &Shutdown) {
        let Some((line, order, _)) = self.waiting.take() else {
            return;
        };
        let sent = tokio::select! {
            biased;
            sent = self.outlet.send(&order) => sent,
            // The client's queue is full and may stay so; the loop sees the signal next.
            () = shutdown.requested() => {
                self.waiting = Some((line, order, Instant::now()));
                return;
            }
        };
        match sent {
            Ok(delivery) => {
                let bytes = order.value.len();
                self.summary.sent += 1;
                self.last_line = line;
                self.in_flight_bytes += bytes;
                self.in_flight.push_back(InFlight {
                    line,
                    bytes,
                    delivery,
                });
            }
            Err(error) => self.undelivered(line, error),
        }
    }

    fn answered(&mut self, (line, bytes, answer): (u64, usize, Result<Acknowledged, StreamError>)) {
        self.in_flight_bytes -= bytes;
        match answer {
            Ok(_) => {
                self.summary.acknowledged += 1;
                self.metrics.acknowledged();
                self.last_acknowledged = Instant::now();
            }
            Err(error) => self.undelivered(line, error),
        }
    }

    /// The first failed delivery ends the reading; its cause is what the process ends with.
    fn undelivered(&mut self, line: u64, error: StreamError) {
        self.metrics.undelivered();
        if self.failure.is_none() {
            tracing::error!(line, %error, "an order was not delivered, nothing more is sent");
            self.failure = Some(error.into());
        }
    }

    fn tick(&mut self) {
        let summary = &self.summary;
        let ended = summary.acknowledged + summary.rejected + summary.skipped;
        let now = Instant::now();
        self.progress
            .show(summary.acknowledged, summary.rejected, ended, now);
        if !self.in_flight.is_empty() && now.duration_since(self.last_acknowledged) >= QUIET {
            self.last_acknowledged = now;
            let error = self
                .outlet
                .trouble()
                .unwrap_or_else(|| "no complaint of the client".to_owned());
            let in_flight = self.in_flight.len();
            tracing::warn!(
                error,
                in_flight,
                "no acknowledgement from Kafka for {} s",
                QUIET.as_secs()
            );
        }
    }

    fn finish(mut self, started: Instant, interrupted: bool, shutdown: &Shutdown) -> Ended {
        self.progress.finish();
        let lost = self.summary.sent - self.summary.acknowledged;
        self.summary.seconds = started.elapsed().as_secs_f64();
        self.summary.finished = self.failure.is_none() && !interrupted && lost == 0;
        if !self.summary.finished && self.last_line > 0 {
            self.summary.stopped_at_line = Some(self.last_line);
        }
        let reason = shutdown.reason().unwrap_or_default();
        let result = match self.failure {
            Some(failure) => Err(failure),
            None if lost > 0 => {
                let cause = self
                    .outlet
                    .trouble()
                    .unwrap_or_else(|| "Kafka did not answer in time".to_owned());
                Err(Exit::unavailable(format!(
                    "{lost} orders were sent and not acknowledged: {cause}"
                )))
            }
            None if interrupted && !self.manner.endless => {
                let place = match self.summary.stopped_at_line {
                    Some(line) => format!("`{}` line {line}", self.summary.source),
                    None => format!("order {} of `{}`", self.summary.sent, self.summary.source),
                };
                Err(Exit::failed(format!(
                    "stopped after {place} ({reason}); everything sent was acknowledged"
                )))
            }
            None => Ok(()),
        };
        (self.summary, result)
    }
}

/// Line, bytes and answer of the order that was sent first. Cancel safe: the order leaves the queue with its answer.
async fn front<D: Future<Output = Result<Acknowledged, StreamError>> + Unpin>(
    in_flight: &mut VecDeque<InFlight<D>>,
) -> (u64, usize, Result<Acknowledged, StreamError>) {
    match in_flight.front_mut() {
        Some(first) => {
            let answer = (&mut first.delivery).await;
            let (line, bytes) = (first.line, first.bytes);
            in_flight.pop_front();
            (line, bytes, answer)
        }
        None => std::future::pending().await,
    }
}

/// Resolves at the deadline. One that has passed costs nothing: a timer would round it up to the next millisecond,
/// and with it the time between two orders.
async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) if deadline <= Instant::now() => {}
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
