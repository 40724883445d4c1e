//! The consume loop: one thread, one consumer, one ledger.
//!
//! A turn of the loop is always the same: answer what the group wants; read a batch, or wait for one;
//! hand its records to the stage; take back what was finished; commit when it is time; pause or resume
//! partitions. Everything is owned by this thread, so nothing here needs a lock, and the order of the
//! steps is the argument for its correctness:
//!
//! - A rebalance is answered between turns, never inside a callback: what is finished is committed
//!   first, then the partition's account is closed, and only then it is given up. A result that comes
//!   later finds its ticket void.
//! - Offsets come from the ledger alone, and the outputs that they stand for were acknowledged before.
//! - A unit of work that failed is never continued. Stages that keep their endings publish them again;
//!   the others read their records again, under a new epoch. Where a transaction failed in its commit,
//!   the group is asked first whether it counts.
//! - While nobody knows what became of a unit, nothing is read and nothing is committed; rebalances are
//!   answered all the same.
//! - Polling never stops: a full budget pauses partitions, and reading goes on for the others.

mod braking;
mod growth;
mod intake;
mod joining;
mod rebalance;
mod renewal;
mod settlement;
#[cfg(test)]
mod tests;
mod watchdog;

pub(crate) use braking::{BrakeSign, Braking};
use watchdog::Watchdog;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use service::{Heartbeat, now_ms};

use crate::backoff::Backoff;
use crate::budget::{Budget, BudgetLimits};
use crate::deadlines::Deadlines;
use crate::error::StreamError;
use crate::handler::Repeats;
use crate::ledger::{Ledger, Volume};
use crate::lookout::Lookout;
use crate::metrics::StreamMetrics;
use crate::position::{Epoch, TopicPartition};
use crate::restore::Restorer;
use crate::seen::SeenWindows;
use crate::settings::{KafkaSettings, LEAVE_TIMEOUT, StreamSettings};
use crate::source::Source;
use crate::stage::{Desk, Ending, RetryPolicy, Stage, Wake};
use crate::takeover::Takeover;
use crate::unit_of_work::{Indefinite, UnitConfig, UnitOfWork};

/// With nothing to do, a turn takes so long: short enough for the heartbeat.
const IDLE_WAIT: Duration = Duration::from_millis(500);
/// One question for committed offsets may take so long. The client itself waits for stable ones in it.
const COMMITTED_TIMEOUT: Duration = Duration::from_secs(1);
/// The pauses between units of work that fail.
const BROKER_AWAY: Backoff = Backoff {
    first: Duration::from_millis(100),
    most: Duration::from_secs(5),
};
const SEEK_TIMEOUT: Duration = Duration::from_secs(10);
/// While there is no room for anything more, what was finished is looked for so often, and for so long nobody
/// polls: a rebalance waits at most as long for its answer.
const REST_STEP: Duration = Duration::from_millis(2);
const REST_LIMIT: Duration = Duration::from_secs(1);
/// Records that are remembered over all partitions of a pump: about 15 MB.
const SEEN_IN_ALL: usize = 400_000;
/// Offsets of retry topics in which nothing happens are committed again so often: the group does not
/// subscribe to them, and Kafka forgets such offsets after `offsets.retention.minutes`, a week by default.
const IDLE_COMMIT_INTERVAL: Duration = Duration::from_secs(3_600);
/// The gauges are set so often.
const OBSERVE_INTERVAL: Duration = Duration::from_millis(100);
/// The same complaint of the client is logged at most this often.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// What a pump is made of, apart from its source and its stage.
pub(crate) struct PumpParts {
    pub settings: StreamSettings,
    pub unit: Arc<UnitConfig>,
    pub wake: Arc<Wake>,
    pub metrics: StreamMetrics,
    /// What becomes of a record with the key of an earlier one.
    pub repeats: Repeats,
    /// Who reads from the outputs what a new owner has to know of repeats.
    pub restorer: Option<Restorer>,
    /// Which pump of its process this is.
    pub number: usize,
    /// With transactions: who ends what former owners left open.
    pub takeover: Option<Takeover>,
    /// Who asks the cluster beside the work.
    pub lookout: Lookout,
    /// Beats at least twice a second while the loop turns.
    pub heartbeat: Heartbeat,
    /// Where the release of a brake is waited for.
    pub kafka: KafkaSettings,
    pub events: String,
    pub sign: BrakeSign,
}

pub(crate) struct Pump<S: Source, G: Stage> {
    source: S,
    stage: G,
    parts: PumpParts,
    ledger: Ledger<Ending>,
    budget: Budget,
    seen: SeenWindows,
    /// Partitions whose window of seen records is being restored, and in which life of theirs: they are
    /// paused until it is there.
    restoring: BTreeMap<TopicPartition, Epoch>,
    /// Partitions of sources that topics downstream do not have yet: they are paused until those have grown.
    growing: BTreeSet<TopicPartition>,
    /// Since when the group has not taken this pump in, where the client would not tell.
    joining_since: Option<Instant>,
    unit: UnitOfWork,
    deadlines: Deadlines,
    braking: Braking,
    watchdog: Watchdog,
    retry: RetryPolicy,
    /// How long finished records wait for their commit while more are coming, and while none are.
    commit_interval: Duration,
    idle_commit_interval: Duration,
    last_settled: Instant,
    /// How often idle offsets are committed again, and when they were.
    idle_offsets: (Duration, Instant),
    /// Partitions were paused while the pump only polled, and what came meanwhile was dropped.
    polled_only: bool,
    /// The last read got all that was there.
    drained: bool,
    last_observed: Instant,
    /// Since when there is no room for anything more.
    full_since: Option<Instant>,
    last_complaint: Option<Instant>,
    /// The last unit of work failed because something was not acknowledged or answered in time.
    is_broker_away: bool,
    /// Units of work that failed since the last commit.
    failed_units: u32,
    /// The process is about to end: what is paused stays paused.
    stopped_reading: bool,
}

impl<S: Source, G: Stage> Pump<S, G> {
    pub fn new(source: S, stage: G, parts: PumpParts) -> Self {
        let deadlines = Deadlines::new(Arc::clone(&parts.wake), &parts.settings);
        let unopened = Indefinite::unopened(
            Arc::clone(&parts.unit),
            parts.heartbeat.clone(),
            deadlines.clone(),
        );
        let limits = BudgetLimits {
            records: parts.settings.budget_records,
            bytes: parts.settings.budget_bytes,
        };
        Self {
            source,
            stage,
            ledger: Ledger::default(),
            budget: Budget::new(limits),
            seen: SeenWindows::new(
                match parts.repeats {
                    Repeats::Count => 0,
                    Repeats::End(_) | Repeats::EndOrDeadLetter(_) => parts.settings.seen_records,
                },
                SEEN_IN_ALL,
            ),
            restoring: BTreeMap::new(),
            growing: BTreeSet::new(),
            joining_since: None,
            watchdog: Watchdog::default(),
            braking: Braking::new(parts.settings.brake_limits()),
            unit: UnitOfWork::Indefinite(unopened),
            deadlines,
            retry: RetryPolicy::new(&parts.settings),
            commit_interval: Duration::from_millis(parts.settings.commit_interval_ms),
            idle_commit_interval: Duration::from_millis(parts.settings.idle_commit_interval_ms),
            last_settled: Instant::now(),
            idle_offsets: (IDLE_COMMIT_INTERVAL, Instant::now()),
            last_observed: Instant::now(),
            full_since: None,
            last_complaint: None,
            failed_units: 0,
            is_broker_away: false,
            stopped_reading: false,
            drained: true,
            polled_only: false,
            parts,
        }
    }

    /// Turns until it is told to stop, then drains, commits and leaves the group.
    ///
    /// # Errors
    /// What made going on impossible. Nothing is committed after it, so nothing is passed over.
    pub fn run(mut self) -> Result<(), StreamError> {
        let worked = self.work();
        self.unit.abandon();
        match self.source.close(LEAVE_TIMEOUT) {
            Ok(()) => tracing::info!("left the group"),
            Err(error) => tracing::warn!(%error, "leaving the group"),
        }
        // Whoever gets the result knows how it ended; only a panic leaves the heart unfinished.
        self.parts.heartbeat.finish();
        worked
    }

    fn work(&mut self) -> Result<(), StreamError> {
        self.renew()?;
        self.source.subscribe(self.parts.unit.plan.sources())?;
        self.begin_to_join();
        while !self.parts.wake.is_stopping() {
            self.turn()?;
        }
        self.drain()?;
        self.settle()?;
        self.note_brake()?;
        let left = self.ledger.outstanding().records;
        if left > 0 {
            tracing::warn!(
                records = left,
                "not committed, they are worked on again by their next owner"
            );
        }
        Ok(())
    }

    fn turn(&mut self) -> Result<(), StreamError> {
        self.parts.heartbeat.beat();
        self.answer_rebalance()?;
        if let UnitOfWork::Indefinite(_) = self.unit {
            self.renew()?;
            return Ok(());
        }
        self.tend_brake()?;
        self.tend_growth()?;
        if self.rests() {
            std::thread::park_timeout(REST_STEP);
            self.parts.wake.answer();
        } else {
            let batch = self.source.read(self.wait(), self.parts.settings.batch_records);
            self.parts.wake.answer();
            let taken = self.take(&batch);
            drop(batch);
            self.survive(taken)?;
        }
        self.collect()?;
        self.tell_unit(self.unit.is_unfinished());
        self.take_restored()?;
        if self.last_settled.elapsed() >= self.commit_age() || self.budget.is_half_used() {
            self.settle()?;
        }
        if self.last_observed.elapsed() >= OBSERVE_INTERVAL {
            self.observe();
            self.watch_joining()?;
            self.watch()?;
        }
        if let Some(error) = self.source.take_complaint() {
            complain(&mut self.last_complaint, &error);
        }
        self.gate()
    }

    /// How old the oldest finished record may become. A commit costs the same for one record and for
    /// thousands: while more are coming they share it, else nobody is kept waiting for company. Without a
    /// transaction nobody waits: outputs are seen before their offsets are committed.
    fn commit_age(&self) -> Duration {
        if self.drained && self.parts.unit.transactional_id.is_some() {
            self.idle_commit_interval.min(self.commit_interval)
        } else {
            self.commit_interval
        }
    }

    /// How long the next read may wait for its first record.
    fn wait(&self) -> Duration {
        if self.budget.used() == Volume::default() {
            return IDLE_WAIT;
        }
        let due = self.commit_age().saturating_sub(self.last_settled.elapsed());
        due.clamp(Duration::from_millis(1), IDLE_WAIT)
    }

    fn collect(&mut self) -> Result<(), StreamError> {
        self.at_desk(|stage, desk, _| stage.collect(desk))
    }

    /// Lets the stage work with what it needs of the pump.
    fn at_desk<T>(&mut self, work: impl FnOnce(&mut G, &mut Desk<'_>, &PumpParts) -> T) -> T {
        let Self {
            stage,
            ledger,
            unit,
            seen,
            parts,
            retry,
            braking,
            ..
        } = self;
        let mut desk = Desk {
            ledger,
            unit,
            seen,
            metrics: &parts.metrics,
            wake: &parts.wake,
            retry: *retry,
            plan: &parts.unit.plan,
            braking,
        };
        work(stage, &mut desk, parts)
    }

    fn count_ended(&self, at: TopicPartition, records: u64) {
        self.parts
            .metrics
            .records_ended
            .with_label_values(&[self.topic(at)])
            .inc_by(records);
    }

    fn topic(&self, at: TopicPartition) -> &str {
        self.parts
            .unit
            .inputs
            .get(usize::from(at.topic.0))
            .map_or("", String::as_str)
    }

    /// Whether nothing is read for a moment. Pausing a partition makes the client drop what it has fetched,
    /// and resuming all of them may take it a second (librdkafka 2.12 does not wake the thread that fetches).
    /// Where every partition is full, as with work that takes its time, it is mostly enough to wait.
    fn rests(&self) -> bool {
        self.full_since.is_some_and(|since| since.elapsed() < REST_LIMIT)
    }

    fn gate(&mut self) -> Result<(), StreamError> {
        if !self.budget.is_full() {
            self.full_since = None;
        } else if self.full_since.get_or_insert_with(Instant::now).elapsed() < REST_LIMIT {
            return Ok(());
        }
        let gate = self.budget.gate();
        if !gate.pause.is_empty() {
            self.parts.metrics.pauses.inc_by(gate.pause.len() as u64);
            self.source.pause(&gate.pause)?;
        }
        self.resume(gate.resume)
    }

    /// Whether a partition must not be read now, however much room there is.
    fn must_wait(&self, at: TopicPartition) -> bool {
        let source = self.parts.unit.plan.source(at);
        self.restoring.contains_key(&source) || self.growing.contains(&source) || self.is_braked(at)
    }

    /// Goes on reading these partitions, apart from those that must not be read for another reason.
    fn resume(&mut self, mut partitions: Vec<TopicPartition>) -> Result<(), StreamError> {
        partitions.retain(|at| !self.must_wait(*at) && !self.budget.is_paused(*at));
        if partitions.is_empty() || self.stopped_reading {
            return Ok(());
        }
        self.source.resume(&partitions)
    }

    /// Stops reading and waits for what is in flight, up to the deadline.
    fn drain(&mut self) -> Result<(), StreamError> {
        self.stopped_reading = true;
        let assigned: Vec<_> = self.ledger.assigned().collect();
        if !assigned.is_empty() {
            self.source.pause(&assigned)?;
        }
        let limit = Duration::from_millis(self.parts.settings.drain_timeout_ms);
        let deadline = self.deadlines.of_draining(Instant::now() + limit);
        tracing::info!(in_flight = self.stage.in_flight(), "stopped reading, draining");
        while self.stage.in_flight() > 0 && Instant::now() < deadline {
            self.parts.heartbeat.beat();
            self.answer_rebalance()?;
            // Polling goes on for the group's sake; what was fetched before the pause is dropped here
            // and read again by the next owner.
            let wait = deadline
                .saturating_duration_since(Instant::now())
                .min(Duration::from_millis(100));
            drop(self.source.read(wait, self.parts.settings.batch_records));
            self.parts.wake.answer();
            self.collect()?;
            if self.last_settled.elapsed() >= self.commit_interval {
                self.settle()?;
            }
        }
        if self.stage.in_flight() > 0 {
            tracing::warn!(
                in_flight = self.stage.in_flight(),
                limit_ms = limit.as_millis(),
                "drain deadline is over, what is left is worked on again by its next owner"
            );
        }
        Ok(())
    }

    fn observe(&mut self) {
        self.last_observed = Instant::now();
        self.parts.metrics.set_in_work(self.budget.used());
        let now_ms = now_ms();
        let assigned: Vec<_> = self.ledger.assigned().collect();
        let ahead = |at: &TopicPartition| self.source.high_watermark(*at) > self.ledger.frontier(*at);
        let behind: Vec<_> = assigned.iter().copied().filter(ahead).collect();
        let stable = self.parts.lookout.ends_of(self.parts.number, behind.clone());
        let stable: BTreeMap<_, _> = behind.into_iter().zip(stable).collect();
        for at in assigned {
            let (Some(frontier), Some(high)) = (self.ledger.frontier(at), self.source.high_watermark(at))
            else {
                continue;
            };
            let end = match stable.get(&at) {
                // The answer is a little old: what was read since is stable, too.
                Some(Some(stable)) => (*stable)
                    .min(high)
                    .max(self.ledger.position(at).unwrap_or(frontier)),
                _ => high,
            };
            let lag = (end.0 - frontier.0).max(0);
            let oldest = self
                .ledger
                .oldest_record_time_ms(at)
                .filter(|sent| lag > 0 && *sent >= 0);
            let age_ms = oldest.map_or(0, |sent| now_ms.saturating_sub(sent).max(0));
            self.parts
                .metrics
                .set_lag(self.topic(at), at.partition, lag, age_ms as f64 / 1_000.0);
        }
    }
}

fn complain(last: &mut Option<Instant>, error: &StreamError) {
    if last.is_none_or(|at| at.elapsed() >= COMPLAINT_INTERVAL) {
        *last = Some(Instant::now());
        tracing::warn!(%error, "kafka complains, trying again");
    }
}
