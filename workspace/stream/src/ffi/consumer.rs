//! A consumer that reads batches and leaves rebalances to its owner.
//!
//! The rebalance callback only writes down what the group wants. The owner of the consumer sees it
//! after the read that it interrupted, settles its work with everything it owns, and answers with
//! [`Consumer::assign`] or [`Consumer::unassign`]; librdkafka waits for that answer. So no work is
//! ever done inside a callback.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::types::RDKafkaErrorCode;
use rdkafka_sys::bindings as sys;
use rdkafka_sys::types::{RDKafkaRespErr, RDKafkaType};

use super::list::{List, entries};
use super::message::{Message, MessageBatch, bytes};
use super::rebalance::{answer_rebalance, leave, on_rebalance, unassign};
use super::transaction::GroupOffsets;
use super::{Client, checked, failed, lock, millis, response_at, text};
use crate::error::{StreamError, is_permanent_for_group};
use crate::position::{Offset, Partition, StartAt, TopicIndex, TopicPartition};
use crate::record::Record;
use crate::settings::INSTANCE_PROPERTY;
use crate::source::{Entry, GroupOffset, RebalanceKind, Source};

const COMMITTING: &str = "committing offsets";
const NO_ERROR: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;

const fn number(start: StartAt) -> i64 {
    match start {
        StartAt::Earliest => sys::RD_KAFKA_OFFSET_BEGINNING as i64,
        StartAt::Offset(offset) => offset.0,
    }
}

/// The consumer's own queue; dropped before the client that it belongs to.
struct Queue {
    pointer: *mut sys::rd_kafka_queue_t,
    client: Client,
    /// While the consumer is closed nobody may wake it: a wake would end the close, too, and the member
    /// would stay in its group until its session times out.
    closed: Mutex<bool>,
}

// SAFETY: librdkafka queues are thread-safe.
unsafe impl Send for Queue {}
// SAFETY: as above.
unsafe impl Sync for Queue {}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: the reference was taken in `Consumer::open` and is given back once.
        unsafe { sys::rd_kafka_queue_destroy(self.pointer) };
    }
}

pub(crate) struct Consumer {
    queue: Arc<Queue>,
    topics: Vec<CString>,
    brokers: String,
    group: String,
    is_static: bool,
}

impl Consumer {
    /// Opens a consumer; it reads nothing before it subscribes or is assigned something.
    pub fn open(
        brokers: &str,
        group: &str,
        properties: &[(String, String)],
        topics: &[String],
    ) -> Result<Self, StreamError> {
        let client = Client::create(RDKafkaType::RD_KAFKA_CONSUMER, properties, |conf| {
            // SAFETY: `conf` is alive while this closure runs.
            unsafe { sys::rd_kafka_conf_set_rebalance_cb(conf, Some(on_rebalance)) };
        })?;
        let names: Result<Vec<CString>, _> = topics.iter().map(|name| CString::new(name.as_str())).collect();
        let topics = names.map_err(|_| StreamError::Config {
            message: "a topic name contains a zero byte".to_owned(),
        })?;
        // SAFETY: the handle is alive; the queue reference is owned by `Queue`.
        let pointer = unsafe {
            sys::rd_kafka_poll_set_consumer(client.handle);
            sys::rd_kafka_queue_get_consumer(client.handle)
        };
        Ok(Self {
            queue: Arc::new(Queue {
                pointer,
                client,
                closed: Mutex::new(false),
            }),
            topics,
            brokers: brokers.to_owned(),
            group: group.to_owned(),
            is_static: properties.iter().any(|(key, _)| key == INSTANCE_PROPERTY),
        })
    }

    fn handle(&self) -> *mut sys::rd_kafka_t {
        self.queue.client.handle
    }

    /// A handle that makes a waiting [`Consumer::read`] return at once.
    pub fn waker(&self) -> ReadWaker {
        ReadWaker(Arc::clone(&self.queue))
    }

    fn index_of(&self, topic: &CStr) -> Option<TopicIndex> {
        let index = self.topics.iter().position(|known| known.as_c_str() == topic)?;
        u16::try_from(index).ok().map(TopicIndex)
    }

    fn list(&self, partitions: impl Iterator<Item = (TopicPartition, i64)>) -> List {
        List::new(partitions.filter_map(|(at, offset)| {
            let topic = self.topics.get(usize::from(at.topic.0))?;
            Some((topic.as_c_str(), at.partition.0, offset))
        }))
    }

    fn is_cooperative(&self) -> bool {
        // SAFETY: the handle is alive; the answer is a static string or null.
        let protocol = unsafe { text(sys::rd_kafka_rebalance_protocol(self.handle())) };
        protocol == "COOPERATIVE"
    }
}

impl Source for Consumer {
    type Batch = MessageBatch;

    fn subscribe(&mut self, sources: usize) -> Result<(), StreamError> {
        let topics = self.topics.iter().take(sources);
        let list = List::new(topics.map(|topic| (topic.as_c_str(), -1, 0)));
        // SAFETY: handle and list are alive; librdkafka copies the list.
        let result = unsafe { sys::rd_kafka_subscribe(self.handle(), list.0) };
        checked("subscribing", result)
    }

    fn read(&mut self, wait: Duration, most: usize) -> MessageBatch {
        let mut messages: Vec<Message> = Vec::new();
        // SAFETY: `consumer_poll` gives one message that is ours; `consume_batch_queue` writes at most
        // the given number of messages into the reserved space, all of them ours.
        unsafe {
            let first = sys::rd_kafka_consumer_poll(self.handle(), millis(wait));
            if first.is_null() {
                return MessageBatch { messages };
            }
            messages.reserve(most.max(1));
            messages.push(Message(first));
            let room = most.saturating_sub(1);
            if room > 0 {
                let spare = messages
                    .as_mut_ptr()
                    .add(1)
                    .cast::<*mut sys::rd_kafka_message_t>();
                let count = sys::rd_kafka_consume_batch_queue(self.queue.pointer, 0, spare, room);
                messages.set_len(1 + usize::try_from(count).unwrap_or(0));
            }
        }
        MessageBatch { messages }
    }

    fn entries<'a>(&'a self, batch: &'a MessageBatch) -> impl Iterator<Item = Entry<'a>> {
        // Messages of one topic follow each other, and a topic handle stays the same while its messages
        // are alive: its name is compared once per run.
        let mut last: (*mut sys::rd_kafka_topic_t, TopicIndex) = (std::ptr::null_mut(), TopicIndex(0));
        batch.messages.iter().filter_map(move |message| {
            // SAFETY: the message is alive as long as the batch, and so is all that it points to.
            unsafe {
                let raw = message.0;
                if (*raw).rkt.is_null() {
                    return Some(Entry::Error(None, self.error_of(message, String::new())));
                }
                if (*raw).rkt != last.0 {
                    let name = CStr::from_ptr(sys::rd_kafka_topic_name((*raw).rkt));
                    last = ((*raw).rkt, self.index_of(name)?);
                }
                let at = TopicPartition {
                    topic: last.1,
                    partition: Partition((*raw).partition),
                };
                match response_at(&raw const (*raw).err) {
                    NO_ERROR => Some(Entry::Record(Record {
                        at,
                        offset: Offset((*raw).offset),
                        record_time_ms: sys::rd_kafka_message_timestamp(raw, std::ptr::null_mut()),
                        key: bytes((*raw).key, (*raw).key_len),
                        value: bytes((*raw).payload, (*raw).len),
                        headers: message,
                    })),
                    RDKafkaRespErr::RD_KAFKA_RESP_ERR__PARTITION_EOF => {
                        Some(Entry::EndOfPartition(at, Offset((*raw).offset)))
                    }
                    _ => {
                        let topic = text(sys::rd_kafka_topic_name((*raw).rkt));
                        Some(Entry::Error(Some(at), self.error_of(message, topic)))
                    }
                }
            }
        })
    }

    fn take_rebalance(&mut self) -> Option<(RebalanceKind, Vec<TopicPartition>)> {
        let rebalance = lock(&self.queue.client.shared.rebalance).take()?;
        let partitions = rebalance.partitions.iter().filter_map(|(topic, partition)| {
            Some(TopicPartition {
                topic: self.index_of(topic)?,
                partition: Partition(*partition),
            })
        });
        Some((rebalance.kind, partitions.collect()))
    }

    fn committed(
        &self,
        partitions: &[TopicPartition],
        timeout: Duration,
    ) -> Result<HashMap<TopicPartition, Option<GroupOffset>>, StreamError> {
        let list = self.list(
            partitions
                .iter()
                .map(|at| (*at, i64::from(sys::RD_KAFKA_OFFSET_INVALID))),
        );
        // SAFETY: handle and list are alive; the answer is written into the list.
        let result = unsafe { sys::rd_kafka_committed(self.handle(), list.0, millis(timeout)) };
        checked("reading the committed offsets", result)?;
        let mut committed = HashMap::new();
        for entry in list.entries() {
            checked("reading the committed offsets", entry.error)?;
            if let Some(topic) = self.index_of(&entry.topic) {
                let at = TopicPartition {
                    topic,
                    partition: Partition(entry.partition),
                };
                let offset = (entry.offset >= 0).then_some(GroupOffset {
                    next: Offset(entry.offset),
                    note: entry.note,
                });
                committed.insert(at, offset);
            }
        }
        Ok(committed)
    }

    fn assign(&mut self, partitions: &[(TopicPartition, StartAt)]) -> Result<(), StreamError> {
        let list = self.list(partitions.iter().map(|(at, start)| (*at, number(*start))));
        // SAFETY: handle and list are alive; librdkafka copies the list.
        unsafe {
            if self.is_cooperative() {
                return failed(
                    "taking partitions",
                    sys::rd_kafka_incremental_assign(self.handle(), list.0),
                );
            }
            checked("taking partitions", sys::rd_kafka_assign(self.handle(), list.0))
        }
    }

    fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<(), StreamError> {
        let list = self.list(
            partitions
                .iter()
                .map(|at| (*at, i64::from(sys::RD_KAFKA_OFFSET_INVALID))),
        );
        // SAFETY: handle and list are alive.
        unsafe { unassign(self.handle(), self.is_cooperative(), list.0) }
    }

    fn commit(
        &self,
        offsets: &[(TopicPartition, Offset)],
        note: &CStr,
        timeout: Duration,
    ) -> Result<(), StreamError> {
        let mut list = self.list(offsets.iter().map(|(at, next)| (*at, next.0)));
        list.note(note);
        let answer = OwnedQueue::new(&self.queue.client);
        // SAFETY: handle, list and queue are alive; the event is ours and is destroyed once.
        unsafe {
            let asked =
                sys::rd_kafka_commit_queue(self.handle(), list.0, answer.0, None, std::ptr::null_mut());
            checked(COMMITTING, asked)?;
            let event = sys::rd_kafka_queue_poll(answer.0, millis(timeout));
            if event.is_null() {
                return Err(StreamError::Timeout {
                    what: COMMITTING.to_owned(),
                    limit_ms: timeout.as_millis(),
                    cause: "the group coordinator does not answer".to_owned(),
                });
            }
            let result = sys::rd_kafka_event_error(event);
            let refused = entries(sys::rd_kafka_event_topic_partition_list(event))
                .map(|entry| entry.error)
                .find(|error| *error != NO_ERROR);
            sys::rd_kafka_event_destroy(event);
            checked(COMMITTING, result)?;
            checked(COMMITTING, refused.unwrap_or(NO_ERROR))
        }
    }

    fn group_offsets(&self, offsets: &[(TopicPartition, Offset)]) -> Result<GroupOffsets, StreamError> {
        let entries = offsets.iter().filter_map(|(at, next)| {
            let topic = self.topics.get(usize::from(at.topic.0))?;
            Some((topic.as_c_str(), at.partition.0, next.0))
        });
        // SAFETY: this is the live handle of a consumer.
        let offsets = unsafe { GroupOffsets::of(self.handle(), entries) };
        offsets.ok_or_else(|| StreamError::Halted {
            message: format!("the consumer of group `{}` does not know its group", self.group),
        })
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), StreamError> {
        let list = self.list(partitions.iter().map(|at| (*at, 0)));
        // SAFETY: handle and list are alive.
        checked("pausing partitions", unsafe {
            sys::rd_kafka_pause_partitions(self.handle(), list.0)
        })
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), StreamError> {
        let list = self.list(partitions.iter().map(|at| (*at, 0)));
        // SAFETY: handle and list are alive.
        checked("resuming partitions", unsafe {
            sys::rd_kafka_resume_partitions(self.handle(), list.0)
        })
    }

    fn seek(
        &mut self,
        partitions: &[(TopicPartition, StartAt)],
        timeout: Duration,
    ) -> Result<(), StreamError> {
        let list = self.list(partitions.iter().map(|(at, start)| (*at, number(*start))));
        // SAFETY: handle and list are alive.
        unsafe {
            failed(
                "seeking",
                sys::rd_kafka_seek_partitions(self.handle(), list.0, millis(timeout)),
            )?;
        }
        list.entries()
            .try_for_each(|entry| checked("seeking", entry.error))
    }

    fn positions(&self, partitions: &[TopicPartition]) -> Result<Vec<(TopicPartition, Offset)>, StreamError> {
        let list = self.list(
            partitions
                .iter()
                .map(|at| (*at, i64::from(sys::RD_KAFKA_OFFSET_INVALID))),
        );
        // SAFETY: handle and list are alive; the answer is written into the list.
        checked("asking for positions", unsafe {
            sys::rd_kafka_position(self.handle(), list.0)
        })?;
        let known = list
            .entries()
            .filter(|entry| entry.error == NO_ERROR && entry.offset >= 0);
        Ok(known
            .filter_map(|entry| {
                let topic = self.index_of(&entry.topic)?;
                Some((
                    TopicPartition {
                        topic,
                        partition: Partition(entry.partition),
                    },
                    Offset(entry.offset),
                ))
            })
            .collect())
    }

    fn is_waiting(&self, _: TopicPartition) -> bool {
        false
    }

    fn take_complaint(&mut self) -> Option<StreamError> {
        let error = self.queue.client.last_error()?;
        self.queue.client.clear_last_error();
        Some(error.into_stream_error(&self.brokers))
    }

    fn high_watermark(&self, at: TopicPartition) -> Option<Offset> {
        let topic = self.topics.get(usize::from(at.topic.0))?;
        let (mut low, mut high) = (-1_i64, -1_i64);
        // SAFETY: handle and topic are alive; this reads what is cached.
        let result = unsafe {
            sys::rd_kafka_get_watermark_offsets(
                self.handle(),
                topic.as_ptr(),
                at.partition.0,
                &raw mut low,
                &raw mut high,
            )
        };
        (result == NO_ERROR && high >= 0).then_some(Offset(high))
    }

    fn close(mut self, deadline: Duration) -> Result<(), StreamError> {
        let queue = Arc::clone(&self.queue);
        *lock(&queue.closed) = true;
        // A wake that came before is still remembered, and is used up by a read that does not wait.
        drop(self.read(Duration::ZERO, 1));
        queue.client.shared.closing.store(true, Ordering::SeqCst);
        let (done, closed) = std::sync::mpsc::sync_channel(1);
        let leave_until = self.is_static.then(|| Instant::now() + deadline / 2);
        let closing = std::thread::Builder::new()
            .name("kafka-close".to_owned())
            .spawn(move || {
                // SAFETY: the handle is alive: this thread holds a reference to it.
                let result = unsafe {
                    answer_rebalance(queue.client.handle, &queue.client.shared);
                    if let Some(until) = leave_until {
                        leave(queue.client.handle, until);
                    }
                    sys::rd_kafka_consumer_close(queue.client.handle)
                };
                drop(queue);
                // The owner has gone on when it no longer waits for the answer.
                let _answered = done.send(result).is_ok();
            });
        if closing.is_err() {
            return Err(StreamError::Client {
                what: "leaving the group".to_owned(),
                cause: "no thread can be started".to_owned(),
                retriable: false,
            });
        }
        match closed.recv_timeout(deadline) {
            Ok(result) => checked("leaving the group", result),
            Err(_) => Err(StreamError::Timeout {
                what: "leaving the group".to_owned(),
                limit_ms: deadline.as_millis(),
                cause: "the group takes this member out when its session times out".to_owned(),
            }),
        }
    }
}

/// Wakes a read from any thread.
#[derive(Clone)]
pub(crate) struct ReadWaker(Arc<Queue>);

impl ReadWaker {
    pub fn wake(&self) {
        let closed = lock(&self.0.closed);
        if !*closed {
            // SAFETY: the queue is alive. A yield that comes before the read is remembered by the queue.
            unsafe { sys::rd_kafka_queue_yield(self.0.pointer) };
        }
    }
}

/// A queue for one answer.
struct OwnedQueue(*mut sys::rd_kafka_queue_t);

impl OwnedQueue {
    fn new(client: &Client) -> Self {
        // SAFETY: the handle is alive.
        Self(unsafe { sys::rd_kafka_queue_new(client.handle) })
    }
}

impl Drop for OwnedQueue {
    fn drop(&mut self) {
        // SAFETY: the queue is ours and is given back once.
        unsafe { sys::rd_kafka_queue_destroy(self.0) };
    }
}

impl Consumer {
    /// What has broken the client for good.
    fn fatal_code(&self) -> RDKafkaErrorCode {
        let mut errstr = [0 as c_char; 256];
        // SAFETY: the handle is alive; `errstr` is written within its length.
        let code = unsafe { sys::rd_kafka_fatal_error(self.handle(), errstr.as_mut_ptr(), errstr.len()) };
        match code {
            NO_ERROR => RDKafkaErrorCode::Fatal,
            code => RDKafkaErrorCode::from(code),
        }
    }

    /// What the client tells its reader, in our words.
    fn error_of(&self, message: &Message, topic: String) -> StreamError {
        // SAFETY: the message is alive; its error text is a string.
        let (partition, offset, code, cause) = unsafe {
            let raw = message.0;
            let cause = text(sys::rd_kafka_message_errstr(raw));
            let code = RDKafkaErrorCode::from(response_at(&raw const (*raw).err));
            ((*raw).partition, Offset((*raw).offset), code, cause)
        };
        let code = match code {
            RDKafkaErrorCode::Fatal => self.fatal_code(),
            code => code,
        };
        match code {
            RDKafkaErrorCode::FencedInstanceId => StreamError::FencedMember {
                group: self.group.clone(),
                cause,
            },
            RDKafkaErrorCode::UnsupportedFeature | RDKafkaErrorCode::UnsupportedVersion => {
                StreamError::GroupProtocol {
                    group: self.group.clone(),
                    cause,
                }
            }
            RDKafkaErrorCode::AutoOffsetReset => StreamError::LostRange {
                group: self.group.clone(),
                topic,
                partition,
                offset,
                cause,
            },
            RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => {
                StreamError::MissingTopic { topic }
            }
            RDKafkaErrorCode::GroupAuthorizationFailed | RDKafkaErrorCode::TopicAuthorizationFailed => {
                let what = format!("group `{}` to read topic `{topic}`", self.group);
                StreamError::Authorization { what, cause }
            }
            _ if is_permanent_for_group(code) => StreamError::Client {
                what: "consuming".to_owned(),
                cause,
                retriable: false,
            },
            // What is left passes by itself: the client reconnects, refreshes and goes on.
            _ => StreamError::Client {
                what: "consuming".to_owned(),
                cause,
                retriable: true,
            },
        }
    }
}
