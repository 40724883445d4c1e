//! Questions about offsets that a consumer's own client does not answer: the end of a partition as each
//! isolation sees it, and what a group has committed last, with the note that came with it.

use std::ffi::{CStr, CString, c_char, c_int};
use std::time::Duration;

use rdkafka::types::RDKafkaErrorCode;
use rdkafka_sys::bindings as sys;
use rdkafka_sys::types::{RDKafkaRespErr, RDKafkaType};

use super::list::{List, ListEntry, entries};
use super::{Client, millis, response_at, text};
use crate::error::StreamError;

const NO_ERROR: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;

/// A partition by its topic's name.
pub(crate) type Place = (CString, i32);

/// Which end of a partition, in whose view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The oldest offset that is there.
    First,
    /// The end of everything: the high watermark.
    OfAll,
    /// Where the oldest open transaction begins: the last stable offset.
    OfCommitted,
}

/// A client for questions only.
pub(crate) struct Inquirer {
    client: Client,
}

/// The options of one question.
struct Options(*mut sys::rd_kafka_AdminOptions_t);

impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: the options are ours and are destroyed once.
        unsafe { sys::rd_kafka_AdminOptions_destroy(self.0) };
    }
}

/// An answer; what it lends lives as long as it does.
struct Event(*mut sys::rd_kafka_event_t);

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: the event is ours and is destroyed once.
        unsafe { sys::rd_kafka_event_destroy(self.0) };
    }
}

impl Inquirer {
    pub fn open(properties: &[(String, String)]) -> Result<Self, StreamError> {
        let client = Client::create(RDKafkaType::RD_KAFKA_PRODUCER, properties, |_| ())?;
        Ok(Self { client })
    }

    /// The ends of partitions, as (topic, partition, offset); those without an answer are left out.
    pub fn ends(
        &self,
        partitions: &[Place],
        end: End,
        timeout: Duration,
    ) -> Result<Vec<(CString, i32, i64)>, StreamError> {
        let spec = match end {
            End::First => sys::rd_kafka_OffsetSpec_t::RD_KAFKA_OFFSET_SPEC_EARLIEST,
            End::OfAll | End::OfCommitted => sys::rd_kafka_OffsetSpec_t::RD_KAFKA_OFFSET_SPEC_LATEST,
        };
        let list = List::new(
            partitions
                .iter()
                .map(|(topic, partition)| (topic.as_c_str(), *partition, spec as i64)),
        );
        let isolation = match end {
            End::First | End::OfAll => {
                sys::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED
            }
            End::OfCommitted => sys::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED,
        };
        let options = self.options(sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS, timeout)?;
        let what = "asking for the ends of partitions";
        // SAFETY: client, options and list are alive during the call, which copies what it keeps; the
        // infos belong to the event, which lives to the end of the block.
        unsafe {
            ignored(sys::rd_kafka_AdminOptions_set_isolation_level(
                options.0, isolation,
            ));
            let event = self.ask(what, timeout, |queue| {
                sys::rd_kafka_ListOffsets(self.client.handle, list.0, options.0, queue);
            })?;
            let result = sys::rd_kafka_event_ListOffsets_result(event.0);
            if result.is_null() {
                return Ok(Vec::new());
            }
            let mut count = 0;
            let infos = sys::rd_kafka_ListOffsets_result_infos(result, &raw mut count);
            let mut ends = Vec::with_capacity(count);
            for index in 0..count {
                let entry = sys::rd_kafka_ListOffsetsResultInfo_topic_partition(*infos.add(index));
                if response_at(&raw const (*entry).err) == NO_ERROR {
                    let topic = CStr::from_ptr((*entry).topic).to_owned();
                    ends.push((topic, (*entry).partition, (*entry).offset));
                }
            }
            Ok(ends)
        }
    }

    /// How many partitions a topic has, 0 where there is none.
    pub fn partitions(&self, topic: &CStr, timeout: Duration) -> Result<i32, StreamError> {
        // SAFETY: handle and name are alive; the topic handle is ours and is given back once.
        unsafe {
            let topic = sys::rd_kafka_topic_new(self.client.handle, topic.as_ptr(), std::ptr::null_mut());
            if topic.is_null() {
                return Ok(0);
            }
            let count = self.client.partitions(topic, timeout);
            sys::rd_kafka_topic_destroy(topic);
            count
        }
    }

    /// The notes that came with what the group has committed last in these partitions, whether or not an
    /// open transaction is about to move it.
    pub fn notes(
        &self,
        group: &str,
        partitions: &[Place],
        timeout: Duration,
    ) -> Result<Vec<(Place, String)>, StreamError> {
        let entries = self.group_offsets(group, partitions, false, timeout)?;
        let noted = entries
            .into_iter()
            .map(|entry| ((entry.topic, entry.partition), entry.note));
        Ok(noted.collect())
    }

    /// The offsets that the group has committed last in these partitions, whether or not an open transaction
    /// is about to move them. Partitions without one are left out.
    pub fn committed(
        &self,
        group: &str,
        partitions: &[Place],
        timeout: Duration,
    ) -> Result<Vec<(Place, i64)>, StreamError> {
        let entries = self.group_offsets(group, partitions, false, timeout)?;
        let committed = entries.into_iter().filter(|entry| entry.offset >= 0);
        Ok(committed
            .map(|entry| ((entry.topic, entry.partition), entry.offset))
            .collect())
    }

    /// The partitions whose committed offset an open transaction is about to move, at this moment.
    pub fn unstable(
        &self,
        group: &str,
        partitions: &[Place],
        timeout: Duration,
    ) -> Result<Vec<Place>, StreamError> {
        let entries = self.group_offsets(group, partitions, true, timeout)?;
        let unstable = entries
            .into_iter()
            .filter(|entry| entry.error == RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNSTABLE_OFFSET_COMMIT);
        Ok(unstable.map(|entry| (entry.topic, entry.partition)).collect())
    }

    fn group_offsets(
        &self,
        group: &str,
        partitions: &[Place],
        stable: bool,
        timeout: Duration,
    ) -> Result<Vec<ListEntry>, StreamError> {
        let list = List::new(
            partitions
                .iter()
                .map(|(topic, partition)| (topic.as_c_str(), *partition, 0)),
        );
        let group = CString::new(group).map_err(|_| StreamError::Config {
            message: format!("the group name `{group}` contains a zero byte"),
        })?;
        let operation = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS;
        let options = self.options(operation, timeout)?;
        let what = "asking for committed offsets";
        // SAFETY: as above; the request is ours and is destroyed once, after the call that reads it.
        unsafe {
            let set = sys::rd_kafka_AdminOptions_set_require_stable_offsets(options.0, c_int::from(stable));
            ignored(set);
            let mut request = sys::rd_kafka_ListConsumerGroupOffsets_new(group.as_ptr(), list.0);
            let event = self.ask(what, timeout, |queue| {
                sys::rd_kafka_ListConsumerGroupOffsets(
                    self.client.handle,
                    &raw mut request,
                    1,
                    options.0,
                    queue,
                );
            });
            sys::rd_kafka_ListConsumerGroupOffsets_destroy(request);
            let event = event?;
            let result = sys::rd_kafka_event_ListConsumerGroupOffsets_result(event.0);
            if result.is_null() {
                return Ok(Vec::new());
            }
            let mut count = 0;
            let groups = sys::rd_kafka_ListConsumerGroupOffsets_result_groups(result, &raw mut count);
            if count == 0 {
                return Ok(Vec::new());
            }
            let answered = entries(sys::rd_kafka_group_result_partitions(*groups));
            Ok(answered.collect())
        }
    }

    fn options(
        &self,
        operation: sys::rd_kafka_admin_op_t,
        timeout: Duration,
    ) -> Result<Options, StreamError> {
        let mut errstr = [0 as c_char; 512];
        // SAFETY: the handle is alive; `errstr` is written within its length.
        unsafe {
            let options = Options(sys::rd_kafka_AdminOptions_new(self.client.handle, operation));
            let set = sys::rd_kafka_AdminOptions_set_request_timeout(
                options.0,
                millis(timeout).max(1),
                errstr.as_mut_ptr(),
                errstr.len(),
            );
            if set == NO_ERROR {
                return Ok(options);
            }
            Err(StreamError::Config {
                message: text(errstr.as_ptr()),
            })
        }
    }

    /// Asks and waits for the answer, where anybody is there to give one: a question of this kind that
    /// meets an absent broker makes the client reconnect hundreds of times a second until it times out.
    fn ask(
        &self,
        what: &str,
        timeout: Duration,
        question: impl FnOnce(*mut sys::rd_kafka_queue_t),
    ) -> Result<Event, StreamError> {
        /// The answer to a question that timed out comes a little after its time.
        const GRACE_MS: c_int = 500;
        self.client
            .metadata(timeout)
            .map_err(|error| StreamError::client(what, error))?;
        // SAFETY: the handle is alive; the queue is ours and is given back once.
        let event = unsafe {
            let queue = sys::rd_kafka_queue_new(self.client.handle);
            question(queue);
            let event = sys::rd_kafka_queue_poll(queue, millis(timeout).saturating_add(GRACE_MS));
            sys::rd_kafka_queue_destroy(queue);
            event
        };
        if event.is_null() {
            return Err(StreamError::Timeout {
                what: what.to_owned(),
                limit_ms: timeout.as_millis(),
                cause: "no answer".to_owned(),
            });
        }
        let event = Event(event);
        // SAFETY: the event is alive.
        match unsafe { sys::rd_kafka_event_error(event.0) } {
            NO_ERROR => Ok(event),
            error => Err(StreamError::client(what, RDKafkaErrorCode::from(error))),
        }
    }
}

/// An option that this client version does not have leaves its default in force.
///
/// # Safety
/// `error` is null or an error object that is ours.
unsafe fn ignored(error: *mut sys::rd_kafka_error_t) {
    if !error.is_null() {
        // SAFETY: the caller's promise.
        unsafe { sys::rd_kafka_error_destroy(error) };
    }
}
