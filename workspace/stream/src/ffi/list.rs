//! Lists of partitions as librdkafka passes them.

use std::ffi::{CStr, CString};

use rdkafka_sys::bindings as sys;
use rdkafka_sys::types::RDKafkaRespErr;

use super::response_at;

/// One entry of a list of librdkafka.
pub(super) struct ListEntry {
    pub topic: CString,
    pub partition: i32,
    pub offset: i64,
    pub error: RDKafkaRespErr,
}

/// A topic partition list that is ours.
pub(super) struct List(pub *mut sys::rd_kafka_topic_partition_list_t);

impl List {
    pub fn new<'a>(partitions: impl Iterator<Item = (&'a CStr, i32, i64)>) -> Self {
        // SAFETY: the list is ours; entries that were added are written to before the next call.
        unsafe {
            let list = sys::rd_kafka_topic_partition_list_new(8);
            for (topic, partition, offset) in partitions {
                let entry = sys::rd_kafka_topic_partition_list_add(list, topic.as_ptr(), partition);
                (*entry).offset = offset;
            }
            Self(list)
        }
    }

    pub fn entries(&self) -> impl Iterator<Item = ListEntry> {
        // SAFETY: the list is alive as long as `self`.
        unsafe { entries(self.0) }
    }
}

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: the list is ours and is destroyed once.
        unsafe { sys::rd_kafka_topic_partition_list_destroy(self.0) };
    }
}

/// The entries of a list that somebody else owns.
///
/// # Safety
/// `list` is null or alive while the iterator is used.
pub(super) unsafe fn entries(
    list: *const sys::rd_kafka_topic_partition_list_t,
) -> impl Iterator<Item = ListEntry> {
    // SAFETY: the caller's promise; `elems` has `cnt` entries.
    let slice = unsafe {
        if list.is_null() || (*list).cnt == 0 {
            &[]
        } else {
            std::slice::from_raw_parts((*list).elems, usize::try_from((*list).cnt).unwrap_or(0))
        }
    };
    slice.iter().map(|entry| ListEntry {
        // SAFETY: the topic of an entry is a string.
        topic: unsafe { CStr::from_ptr(entry.topic) }.to_owned(),
        partition: entry.partition,
        offset: entry.offset,
        // SAFETY: the entry is alive.
        error: unsafe { response_at(&raw const entry.err) },
    })
}
