//! A source that reads the retry topics beside it.
//!
//! The group shares out the partitions of the sources only. Whoever owns one also reads the partitions
//! of its retry topics with the same number, on a second consumer that is no member of the group: an
//! assignor would give them to others. To the pump they come and go with their source.
//!
//! A record is handed out when it is due, and not before. What is not due lets its partition wait: the
//! partition is paused, and read again from that record on when its time has come. Records of one retry
//! topic were parked for the same time, so nobody waits behind one that is due later.

use std::collections::{BTreeMap, HashMap};
use std::ffi::CStr;
use std::time::{Duration, Instant};

use service::now_ms;

use super::{Entry, GroupOffset, RebalanceKind, Source};
use crate::error::StreamError;
use crate::ffi::GroupOffsets;
use crate::metrics::StreamMetrics;
use crate::parking::{self, RetryPlan};
use crate::position::{Offset, StartAt, TopicPartition};

/// Going to a record that has become due may take so long.
const SEEK_TIMEOUT: Duration = Duration::from_secs(3);
/// Where that fails, it is tried again after this time.
const SEEK_PAUSE_MS: i64 = 500;

/// One partition of a retry topic.
struct Lane {
    /// What is read next.
    next: StartAt,
    /// The time of the record that is read next, where it is not due yet. The partition is paused then.
    waits_until_ms: Option<i64>,
    /// The pump wants nothing of it for now.
    is_paused: bool,
}

/// The retry side: a consumer without membership, and how far it is with each partition.
struct Side<S> {
    consumer: S,
    lanes: BTreeMap<TopicPartition, Lane>,
}

/// A source and the retry topics that go with it; without such topics only the source.
pub(crate) struct Retrying<S> {
    main: S,
    side: Option<Side<S>>,
    plan: RetryPlan,
    metrics: StreamMetrics,
    clock: fn() -> i64,
    complaint: Option<StreamError>,
}

/// What one read gave.
pub(crate) struct Batch<B> {
    main: B,
    /// And for each entry of the retry side whether it is handed out.
    side: Option<(B, Vec<bool>)>,
}

impl<S: Source> Side<S> {
    /// Looks through a batch: what is due moves its lane on, what is not lets it wait.
    fn admit(&mut self, batch: &S::Batch, now_ms: i64) -> Vec<bool> {
        let lanes = &mut self.lanes;
        self.consumer
            .entries(batch)
            .map(|entry| {
                let Entry::Record(record) = entry else { return true };
                let Some(lane) = lanes.get_mut(&record.at) else {
                    return false;
                };
                let is_behind = matches!(lane.next, StartAt::Offset(next) if record.offset < next);
                if is_behind || lane.waits_until_ms.is_some() {
                    return false;
                }
                let due_ms = parking::due_ms(&record);
                if due_ms > now_ms {
                    lane.next = StartAt::Offset(record.offset);
                    lane.waits_until_ms = Some(due_ms);
                    return false;
                }
                lane.next = StartAt::Offset(record.offset.next());
                true
            })
            .collect()
    }

    /// What was read, what of it is handed out, and whether the partitions that wait could be paused:
    /// where they could not, what comes of them is only read in vain.
    fn read(&mut self, most: usize, now_ms: i64) -> ((S::Batch, Vec<bool>), Result<(), StreamError>) {
        let waiting_before: Vec<_> = self.waiting().collect();
        let batch = self.consumer.read(Duration::ZERO, most);
        let admitted = self.admit(&batch, now_ms);
        let waiting: Vec<_> = self.waiting().filter(|at| !waiting_before.contains(at)).collect();
        let paused = if waiting.is_empty() {
            Ok(())
        } else {
            self.consumer.pause(&waiting)
        };
        ((batch, admitted), paused)
    }

    fn waiting(&self) -> impl Iterator<Item = TopicPartition> + '_ {
        self.lanes
            .iter()
            .filter(|(_, lane)| lane.waits_until_ms.is_some())
            .map(|(at, _)| *at)
    }

    fn next_due_ms(&self) -> Option<i64> {
        self.lanes.values().filter_map(|lane| lane.waits_until_ms).min()
    }

    /// Reads on where a record has become due.
    fn release(&mut self, now_ms: i64) -> Result<(), StreamError> {
        let due: Vec<_> = self
            .lanes
            .iter()
            .filter(|(_, lane)| lane.waits_until_ms.is_some_and(|until| until <= now_ms))
            .map(|(at, lane)| (*at, lane.next))
            .collect();
        if due.is_empty() {
            return Ok(());
        }
        let read_on = self.read_on(&due, SEEK_TIMEOUT);
        if read_on.is_err() {
            for (at, _) in &due {
                if let Some(lane) = self.lanes.get_mut(at) {
                    lane.waits_until_ms = Some(now_ms.saturating_add(SEEK_PAUSE_MS));
                }
            }
        }
        read_on
    }

    /// Reads these partitions from these places on, and holds none of them.
    fn read_on(
        &mut self,
        starts: &[(TopicPartition, StartAt)],
        timeout: Duration,
    ) -> Result<(), StreamError> {
        self.consumer.seek(starts, timeout)?;
        let mut readable = Vec::new();
        for (at, start) in starts {
            if let Some(lane) = self.lanes.get_mut(at) {
                lane.next = *start;
                if lane.waits_until_ms.take().is_some() && !lane.is_paused {
                    readable.push(*at);
                }
            }
        }
        if readable.is_empty() {
            return Ok(());
        }
        self.consumer.resume(&readable)
    }

    /// Tells the consumer what it has to read now. Pauses of the partitions begin anew.
    fn assign(&mut self) -> Result<(), StreamError> {
        let starts: Vec<_> = self.lanes.iter().map(|(at, lane)| (*at, lane.next)).collect();
        self.consumer.assign(&starts)?;
        let (still, free): (Vec<_>, Vec<_>) = self
            .lanes
            .iter()
            .map(|(at, lane)| (*at, lane.is_paused || lane.waits_until_ms.is_some()))
            .partition(|(_, is_still)| *is_still);
        let places =
            |list: Vec<(TopicPartition, bool)>| -> Vec<_> { list.into_iter().map(|(at, _)| at).collect() };
        // The client remembers a pause beyond the assignment.
        self.consumer.resume(&places(free))?;
        self.consumer.pause(&places(still))
    }

    fn set_paused(&mut self, partitions: &[TopicPartition], is_paused: bool) -> Vec<TopicPartition> {
        let mut changed = Vec::new();
        for at in partitions {
            if let Some(lane) = self.lanes.get_mut(at) {
                lane.is_paused = is_paused;
                if lane.waits_until_ms.is_none() {
                    changed.push(*at);
                }
            }
        }
        changed
    }
}

impl<S: Source> Retrying<S> {
    /// A source that comes alone.
    pub fn alone(main: S, metrics: StreamMetrics) -> Self {
        Self {
            main,
            side: None,
            plan: RetryPlan::none(),
            metrics,
            // Records are due by the wall clock, whoever parked them.
            clock: now_ms,
            complaint: None,
        }
    }

    /// A source and a consumer for the retry topics of this plan; both know the same list of topics.
    pub fn new(main: S, side: S, plan: RetryPlan, metrics: StreamMetrics) -> Self {
        Self {
            side: Some(Side {
                consumer: side,
                lanes: BTreeMap::new(),
            }),
            plan,
            ..Self::alone(main, metrics)
        }
    }

    /// The partitions of the sources, and those of the retry topics.
    fn split<T: Copy>(&self, list: &[T], at: impl Fn(&T) -> TopicPartition) -> (Vec<T>, Vec<T>) {
        list.iter().partition(|one| !self.plan.is_retry(at(one).topic))
    }

    fn read_side(&mut self, most: usize) -> Option<(S::Batch, Vec<bool>)> {
        let side = self.side.as_mut().filter(|side| !side.lanes.is_empty())?;
        let now_ms = (self.clock)();
        let released = side.release(now_ms);
        let (read, paused) = side.read(most, now_ms);
        self.metrics.set_waiting("not_due", side.next_due_ms().is_some());
        if let Err(error) = released.and(paused) {
            self.complaint = Some(error);
        }
        Some(read)
    }
}

impl<S: Source> Source for Retrying<S> {
    type Batch = Batch<S::Batch>;

    fn subscribe(&mut self, sources: usize) -> Result<(), StreamError> {
        self.main.subscribe(sources)
    }

    fn read(&mut self, wait: Duration, most: usize) -> Self::Batch {
        let due_ms = self.side.as_ref().and_then(Side::next_due_ms);
        let until_due = due_ms.map_or(wait, |due| {
            let ahead_ms = due.saturating_sub((self.clock)()).max(0);
            Duration::from_millis(u64::try_from(ahead_ms).unwrap_or_default())
        });
        let main = self.main.read(wait.min(until_due), most);
        let side = self.read_side(most);
        Batch { main, side }
    }

    fn entries<'a>(&'a self, batch: &'a Self::Batch) -> impl Iterator<Item = Entry<'a>> {
        let side = self.side.as_ref().zip(batch.side.as_ref());
        let admitted = side.into_iter().flat_map(|(side, (batch, admitted))| {
            side.consumer
                .entries(batch)
                .zip(admitted)
                .filter_map(|(entry, is_admitted)| is_admitted.then_some(entry))
        });
        self.main.entries(&batch.main).chain(admitted)
    }

    fn take_rebalance(&mut self) -> Option<(RebalanceKind, Vec<TopicPartition>)> {
        let (kind, mut partitions) = self.main.take_rebalance()?;
        let retries: Vec<_> = partitions.iter().flat_map(|at| self.plan.retries(*at)).collect();
        partitions.extend(retries);
        Some((kind, partitions))
    }

    fn committed(
        &self,
        partitions: &[TopicPartition],
        timeout: Duration,
    ) -> Result<HashMap<TopicPartition, Option<GroupOffset>>, StreamError> {
        self.main.committed(partitions, timeout)
    }

    fn assign(&mut self, partitions: &[(TopicPartition, StartAt)]) -> Result<(), StreamError> {
        let (sources, retries) = self.split(partitions, |(at, _)| *at);
        if let Some(side) = self.side.as_mut().filter(|_| !retries.is_empty()) {
            for (at, next) in retries {
                let lane = Lane {
                    next,
                    waits_until_ms: None,
                    is_paused: false,
                };
                side.lanes.insert(at, lane);
            }
            side.assign()?;
            // Retry topics that come later than their source: the answer to the group was given.
            if sources.is_empty() {
                return Ok(());
            }
        }
        self.main.assign(&sources)
    }

    fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<(), StreamError> {
        let (sources, retries) = self.split(partitions, |at| *at);
        if let Some(side) = self.side.as_mut().filter(|_| !retries.is_empty()) {
            side.lanes.retain(|at, _| !retries.contains(at));
            side.assign()?;
        }
        self.main.unassign(&sources)
    }

    fn commit(
        &self,
        offsets: &[(TopicPartition, Offset)],
        note: &CStr,
        timeout: Duration,
    ) -> Result<(), StreamError> {
        self.main.commit(offsets, note, timeout)
    }

    fn group_offsets(&self, offsets: &[(TopicPartition, Offset)]) -> Result<GroupOffsets, StreamError> {
        self.main.group_offsets(offsets)
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), StreamError> {
        let (sources, retries) = self.split(partitions, |at| *at);
        if let Some(side) = self.side.as_mut().filter(|_| !retries.is_empty()) {
            let changed = side.set_paused(&retries, true);
            side.consumer.pause(&changed)?;
        }
        if sources.is_empty() {
            return Ok(());
        }
        self.main.pause(&sources)
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), StreamError> {
        let (sources, retries) = self.split(partitions, |at| *at);
        if let Some(side) = self.side.as_mut().filter(|_| !retries.is_empty()) {
            let changed = side.set_paused(&retries, false);
            side.consumer.resume(&changed)?;
        }
        if sources.is_empty() {
            return Ok(());
        }
        self.main.resume(&sources)
    }

    fn seek(
        &mut self,
        partitions: &[(TopicPartition, StartAt)],
        timeout: Duration,
    ) -> Result<(), StreamError> {
        let began = Instant::now();
        let (sources, retries) = self.split(partitions, |(at, _)| *at);
        if let Some(side) = self.side.as_mut().filter(|_| !retries.is_empty()) {
            side.read_on(&retries, timeout)?;
        }
        if sources.is_empty() {
            return Ok(());
        }
        self.main.seek(&sources, timeout.saturating_sub(began.elapsed()))
    }

    fn positions(&self, partitions: &[TopicPartition]) -> Result<Vec<(TopicPartition, Offset)>, StreamError> {
        let (sources, mut retries) = self.split(partitions, |at| *at);
        let mut positions = Vec::new();
        if !sources.is_empty() {
            positions = self.main.positions(&sources)?;
        }
        if let Some(side) = &self.side {
            // The client has read a record that waits, and the pump has not.
            retries.retain(|at| {
                side.lanes
                    .get(at)
                    .is_some_and(|lane| lane.waits_until_ms.is_none())
            });
            if !retries.is_empty() {
                positions.extend(side.consumer.positions(&retries)?);
            }
        }
        Ok(positions)
    }

    fn is_waiting(&self, at: TopicPartition) -> bool {
        let lane = self.side.as_ref().and_then(|side| side.lanes.get(&at));
        lane.is_some_and(|lane| lane.waits_until_ms.is_some())
    }

    fn take_complaint(&mut self) -> Option<StreamError> {
        let of_side = || self.side.as_mut().and_then(|side| side.consumer.take_complaint());
        self.complaint
            .take()
            .or_else(|| self.main.take_complaint())
            .or_else(of_side)
    }

    fn high_watermark(&self, at: TopicPartition) -> Option<Offset> {
        match &self.side {
            Some(side) if self.plan.is_retry(at.topic) => side.consumer.high_watermark(at),
            _ => self.main.high_watermark(at),
        }
    }

    fn close(self, deadline: Duration) -> Result<(), StreamError> {
        let began = Instant::now();
        let closed = self.main.close(deadline);
        if let Some(side) = self.side
            && let Err(error) = side.consumer.close(deadline.saturating_sub(began.elapsed()))
        {
            tracing::debug!(%error, "closing the reader of retry topics");
        }
        closed
    }
}
