//! The seam behind which the bytes come from.
//!
//! The consume loop knows this trait and nothing of the client behind it. Today that is librdkafka; an
//! own fetch path that walks record batches in place fits behind the same seam, so nothing outside of
//! the implementing module may assume how a record came.

pub(crate) mod retry;

use std::collections::HashMap;
use std::ffi::CStr;
use std::time::Duration;

use crate::error::StreamError;
use crate::ffi::GroupOffsets;
use crate::position::{Offset, StartAt, TopicPartition};
use crate::record::Record;

/// What the group wants of this member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RebalanceKind {
    /// Take these partitions.
    Assign,
    /// Finish these partitions and give them up.
    Revoke,
    /// These partitions have another owner already: only forget them.
    Lose,
}

/// One entry of a batch.
pub(crate) enum Entry<'a> {
    /// A record to work on.
    Record(Record<'a>),
    /// Nothing more is there to read for now; the next record can not stand before this offset. Only a
    /// reader that asked for it gets this.
    EndOfPartition(TopicPartition, Offset),
    /// Something that the reader has to be told, and the partition that it is about, if any.
    Error(Option<TopicPartition>, StreamError),
}

/// What a group has committed in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupOffset {
    /// The next offset to read.
    pub next: Offset,
    /// What was noted beside it: the transactional id that it was committed with.
    pub note: String,
}

/// Where records come from and where their offsets are committed.
pub(crate) trait Source {
    /// What one read gave; its memory is given back when it is dropped.
    type Batch;

    /// Joins the group for the first so many of its topics.
    fn subscribe(&mut self, sources: usize) -> Result<(), StreamError>;

    /// Waits for the first record and takes what else is there, `most` records in all. Returns empty
    /// when the wait is over, when somebody wakes it, or when the group wants something.
    fn read(&mut self, wait: Duration, most: usize) -> Self::Batch;

    /// The entries of a batch, in the order of reading.
    fn entries<'a>(&'a self, batch: &'a Self::Batch) -> impl Iterator<Item = Entry<'a>>;

    /// What the group is waiting for, if anything. It goes on waiting until it is answered by
    /// [`Source::assign`] or [`Source::unassign`].
    fn take_rebalance(&mut self) -> Option<(RebalanceKind, Vec<TopicPartition>)>;

    /// What the group has committed; `None` where it has nothing.
    fn committed(
        &self,
        partitions: &[TopicPartition],
        timeout: Duration,
    ) -> Result<HashMap<TopicPartition, Option<GroupOffset>>, StreamError>;

    /// Takes partitions, each from where it starts.
    fn assign(&mut self, partitions: &[(TopicPartition, StartAt)]) -> Result<(), StreamError>;

    /// Gives partitions up.
    fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<(), StreamError>;

    /// Commits next offsets with a note beside them, and waits for the answer.
    fn commit(
        &self,
        offsets: &[(TopicPartition, Offset)],
        note: &CStr,
        timeout: Duration,
    ) -> Result<(), StreamError>;

    /// Next offsets for a transaction, with who this member is in its group at this moment.
    fn group_offsets(&self, offsets: &[(TopicPartition, Offset)]) -> Result<GroupOffsets, StreamError>;

    /// Stops fetching these partitions.
    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), StreamError>;

    /// Goes on fetching these partitions.
    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), StreamError>;

    /// Goes on reading somewhere else.
    fn seek(
        &mut self,
        partitions: &[(TopicPartition, StartAt)],
        timeout: Duration,
    ) -> Result<(), StreamError>;

    /// Where reading of these partitions stands: after the last record that a read has given, and after
    /// the gaps behind it that were passed. Partitions without a position are left out.
    fn positions(&self, partitions: &[TopicPartition]) -> Result<Vec<(TopicPartition, Offset)>, StreamError>;

    /// Whether the next record of a partition is known and its time has not come.
    fn is_waiting(&self, at: TopicPartition) -> bool;

    /// What the connection complained about since the last call.
    fn take_complaint(&mut self) -> Option<StreamError>;

    /// The high watermark of a partition as of its last fetch.
    fn high_watermark(&self, at: TopicPartition) -> Option<Offset>;

    /// Leaves the group.
    fn close(self, deadline: Duration) -> Result<(), StreamError>;
}
