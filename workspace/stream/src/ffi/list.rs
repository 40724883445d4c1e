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
    /// What is noted beside the offset.
    pub note: String,
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

    /// Writes the same note beside every offset; a group keeps it with them.
    pub fn note(&mut self, note: &CStr) {
        let bytes = note.to_bytes();
        // SAFETY: the list is ours and has `cnt` entries. It frees a note with the C library's `free`, so
        // that is where the memory comes from; without memory there is no note.
        unsafe {
            for index in 0..usize::try_from((*self.0).cnt).unwrap_or(0) {
                let entry = (*self.0).elems.add(index);
                let copy = libc::malloc(bytes.len().max(1));
                if copy.is_null() {
                    return;
                }
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), copy.cast::<u8>(), bytes.len());
                libc::free((*entry).metadata);
                (*entry).metadata = copy;
                (*entry).metadata_size = bytes.len();
            }
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
        note: unsafe { note_of(entry) },
        // SAFETY: the entry is alive.
        error: unsafe { response_at(&raw const entry.err) },
    })
}

/// # Safety
/// `entry` is an entry of a list that is alive.
unsafe fn note_of(entry: &sys::rd_kafka_topic_partition_t) -> String {
    if entry.metadata.is_null() || entry.metadata_size == 0 {
        return String::new();
    }
    // SAFETY: a note that is there has the given size.
    let bytes = unsafe { std::slice::from_raw_parts(entry.metadata.cast::<u8>(), entry.metadata_size) };
    String::from_utf8_lossy(bytes).into_owned()
}
