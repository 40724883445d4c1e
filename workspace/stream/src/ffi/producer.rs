//! An idempotent producer. Delivery is reported in one of two ways, chosen per record: to whoever
//! waits for that very record, or, for records that nobody waits for, as a count of failures that the
//! owner asks for after a flush.

use std::ffi::{CString, c_char, c_int, c_void};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::types::RDKafkaErrorCode;
use rdkafka_sys::bindings as sys;
use rdkafka_sys::types::{RDKafkaRespErr, RDKafkaType};

use super::{Client, Shared, lock, millis, response_at, text};
use crate::error::{StreamError, delivery_error};
use crate::position::{Offset, Partition};

/// `RD_KAFKA_PURGE_F_QUEUE` and `RD_KAFKA_PURGE_F_INFLIGHT`, which the bindings leave out.
const PURGE_QUEUED: c_int = 1;
const PURGE_IN_FLIGHT: c_int = 2;

/// A flush looks up so often.
const FLUSH_STEP: Duration = Duration::from_millis(500);

type Value = sys::rd_kafka_vu_s__bindgen_ty_1;

/// Where a record came to stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Acknowledgement {
    pub partition: Partition,
    pub offset: Offset,
}

/// What became of a record that somebody waits for.
pub(crate) type DeliveryReport = Result<Acknowledgement, (RDKafkaErrorCode, String)>;

type Waiting = Box<dyn FnOnce(DeliveryReport) + Send>;

/// Records that were not delivered and that nobody waited for.
#[derive(Default)]
pub(super) struct Failures {
    count: u64,
    first: Option<(String, RDKafkaErrorCode, String)>,
}

/// A topic that was looked up once.
#[derive(Clone)]
pub(crate) struct Topic(Arc<TopicHandle>);

struct TopicHandle {
    pointer: *mut sys::rd_kafka_topic_t,
    /// A topic handle must not outlive its client.
    _client: Arc<Client>,
}

// SAFETY: librdkafka topic handles are thread-safe.
unsafe impl Send for TopicHandle {}
// SAFETY: as above.
unsafe impl Sync for TopicHandle {}

impl Drop for TopicHandle {
    fn drop(&mut self) {
        // SAFETY: the handle is ours, is given back once, and its client is still alive.
        unsafe { sys::rd_kafka_topic_destroy(self.pointer) };
    }
}

/// One record on its way out.
pub(crate) struct Outgoing<'a> {
    pub topic: &'a Topic,
    /// `None` lets the key decide.
    pub partition: Option<Partition>,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: &'a [(&'a str, &'a [u8])],
}

/// Why a record was not taken.
#[derive(Clone, Debug)]
pub(crate) enum ProduceError {
    /// The local queue is full: poll and try again.
    QueueFull,
    /// This record will never be taken.
    Refused { code: RDKafkaErrorCode, message: String },
}

pub(crate) struct Producer {
    client: Arc<Client>,
    brokers: String,
}

impl Producer {
    /// Opens a producer. With `reports` every record is reported, else only those that failed.
    pub fn open(brokers: &str, properties: &[(String, String)], reports: bool) -> Result<Self, StreamError> {
        let mut properties = properties.to_vec();
        properties.push(("delivery.report.only.error".to_owned(), (!reports).to_string()));
        let client = Client::create(RDKafkaType::RD_KAFKA_PRODUCER, &properties, |conf| {
            // SAFETY: `conf` is alive while this closure runs.
            unsafe { sys::rd_kafka_conf_set_dr_msg_cb(conf, Some(on_delivery)) };
        })?;
        Ok(Self {
            client: Arc::new(client),
            brokers: brokers.to_owned(),
        })
    }

    /// Checks that the brokers answer and let us in.
    pub fn probe(&self, timeout: Duration) -> Result<(), StreamError> {
        self.client.probe(&self.brokers, timeout)
    }

    pub fn topic(&self, name: &str) -> Result<Topic, StreamError> {
        let refused = || StreamError::Config {
            message: format!("`{name}` can not be a topic name"),
        };
        let c_name = CString::new(name).map_err(|_| refused())?;
        // SAFETY: handle and name are alive; a null configuration means the client's own.
        let pointer =
            unsafe { sys::rd_kafka_topic_new(self.client.handle, c_name.as_ptr(), std::ptr::null_mut()) };
        if pointer.is_null() {
            return Err(refused());
        }
        Ok(Topic(Arc::new(TopicHandle {
            pointer,
            _client: Arc::clone(&self.client),
        })))
    }

    /// Learns how many partitions a topic has now: until then records for a new one are refused.
    pub fn refresh(&self, topic: &Topic, timeout: Duration) -> Result<(), StreamError> {
        // SAFETY: the topic handle is alive and of this client.
        unsafe { self.client.partitions(topic.0.pointer, timeout) }.map(|_| ())
    }

    /// Queues a record; key, value and headers are copied.
    pub fn produce(&self, record: &Outgoing<'_>, waiting: Option<Waiting>) -> Result<(), ProduceError> {
        let names: Result<Vec<CString>, _> = record
            .headers
            .iter()
            .map(|(name, _)| CString::new(*name))
            .collect();
        let names = names.map_err(|_| ProduceError::Refused {
            code: RDKafkaErrorCode::InvalidArgument,
            message: "a header name contains a zero byte".to_owned(),
        })?;
        // A boxed closure is two words; the box around it makes it one, which fits the message's opaque.
        let opaque: *mut Waiting =
            waiting.map_or(std::ptr::null_mut(), |waiting| Box::into_raw(Box::new(waiting)));
        let mut values = vec![
            value(
                sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_RKT,
                Value {
                    rkt: record.topic.0.pointer,
                },
            ),
            value(
                sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_PARTITION,
                Value {
                    i32_: record.partition.map_or(-1, |partition| partition.0),
                },
            ),
            value(
                sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_MSGFLAGS,
                Value {
                    i: sys::RD_KAFKA_MSG_F_COPY,
                },
            ),
            value(sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_KEY, memory(record.key)),
            value(sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_VALUE, memory(record.value)),
            value(
                sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_OPAQUE,
                Value { ptr: opaque.cast() },
            ),
        ];
        for (name, (_, content)) in names.iter().zip(record.headers) {
            values.push(value(
                sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_HEADER,
                Value {
                    header: sys::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_2 {
                        name: name.as_ptr(),
                        val: content.as_ptr().cast(),
                        size: isize::try_from(content.len()).unwrap_or(isize::MAX),
                    },
                },
            ));
        }
        // SAFETY: all pointers are valid during the call, which copies what it keeps. The opaque comes
        // back in exactly one delivery report, unless the call fails: then it is taken back here.
        unsafe {
            let error = sys::rd_kafka_produceva(self.client.handle, values.as_ptr(), values.len());
            if error.is_null() {
                return Ok(());
            }
            let code = RDKafkaErrorCode::from(sys::rd_kafka_error_code(error));
            let message = text(sys::rd_kafka_error_string(error));
            sys::rd_kafka_error_destroy(error);
            if !opaque.is_null() {
                drop(Box::from_raw(opaque));
            }
            Err(match code {
                RDKafkaErrorCode::QueueFull => ProduceError::QueueFull,
                _ => ProduceError::Refused { code, message },
            })
        }
    }

    pub(super) fn handle(&self) -> *mut sys::rd_kafka_t {
        self.client.handle
    }

    pub(super) fn client(&self) -> Arc<Client> {
        Arc::clone(&self.client)
    }

    /// The error that broke this producer for good, if one did.
    pub(super) fn fatal_error(&self) -> Option<(RDKafkaErrorCode, String)> {
        let mut reason = [0 as c_char; 512];
        // SAFETY: the handle is alive; a string that ends in a zero byte is written within the length.
        unsafe {
            let code = sys::rd_kafka_fatal_error(self.client.handle, reason.as_mut_ptr(), reason.len());
            let broken = code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
            broken.then(|| (RDKafkaErrorCode::from(code), text(reason.as_ptr())))
        }
    }

    /// Serves delivery reports.
    pub fn poll(&self, wait: Duration) {
        // SAFETY: the handle is alive.
        unsafe { sys::rd_kafka_poll(self.client.handle, millis(wait)) };
    }

    /// Records that are queued or on their way.
    pub fn in_flight(&self) -> usize {
        // SAFETY: the handle is alive.
        usize::try_from(unsafe { sys::rd_kafka_outq_len(self.client.handle) }).unwrap_or(0)
    }

    /// Waits until everything that was queued has been reported. Goes straight to librdkafka: the
    /// wrapper's own flush sleeps in steps of 100 ms. `deadline` is asked twice a second, because a
    /// shutdown may draw it nearer; `idle` is called as often.
    pub fn flush(&self, deadline: impl Fn() -> Instant, mut idle: impl FnMut()) -> Result<(), StreamError> {
        let started = Instant::now();
        loop {
            let left = deadline().saturating_duration_since(Instant::now());
            let step = millis(left.min(FLUSH_STEP));
            // SAFETY: the handle is alive.
            let result = unsafe { sys::rd_kafka_flush(self.client.handle, step) };
            if result == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                return Ok(());
            }
            if left.is_zero() {
                let last = self.client.last_error();
                return Err(StreamError::Timeout {
                    what: format!("delivering {} records", self.in_flight()),
                    limit_ms: started.elapsed().as_millis(),
                    cause: last.map_or_else(|| "no answer".to_owned(), |error| error.reason),
                });
            }
            idle();
        }
    }

    /// What was not delivered since the last call.
    pub fn take_failures(&self) -> Result<(), StreamError> {
        let failures = std::mem::take(&mut *lock(&self.client.shared.failures));
        match failures.first {
            None => Ok(()),
            Some((topic, code, message)) => Err(delivery_error(topic, failures.count, code, &message)),
        }
    }

    /// Gives up what is queued and on its way; each record is reported as purged.
    pub fn purge(&self) {
        // SAFETY: the handle is alive.
        let result = unsafe { sys::rd_kafka_purge(self.client.handle, PURGE_QUEUED | PURGE_IN_FLIGHT) };
        if result != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            tracing::warn!(code = ?RDKafkaErrorCode::from(result), "purging the producer failed");
        }
        // The reports of what was purged come with the next flush, which has nothing to wait for.
        // SAFETY: the handle is alive.
        unsafe { sys::rd_kafka_flush(self.client.handle, 500) };
    }

    pub fn last_error(&self) -> Option<StreamError> {
        self.client
            .last_error()
            .map(|error| error.into_stream_error(&self.brokers))
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        // Reports carry boxes that only a poll gives back: whoever still waits hears that it is over.
        if self.in_flight() > 0 {
            self.purge();
        }
    }
}

fn value(vtype: sys::rd_kafka_vtype_t, u: Value) -> sys::rd_kafka_vu_t {
    sys::rd_kafka_vu_t { vtype, u }
}

fn memory(bytes: Option<&[u8]>) -> Value {
    let (ptr, size) = bytes.map_or((std::ptr::null(), 0), |bytes| (bytes.as_ptr(), bytes.len()));
    Value {
        mem: sys::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 {
            ptr: ptr.cast_mut().cast(),
            size,
        },
    }
}

unsafe extern "C" fn on_delivery(
    _: *mut sys::rd_kafka_t,
    message: *const sys::rd_kafka_message_t,
    opaque: *mut c_void,
) {
    // SAFETY: `opaque` is the `Shared` of this client; the message is alive during the callback, and its
    // own opaque is null or the box that `produce` made, which comes back exactly once.
    unsafe {
        let shared = &*opaque.cast::<Shared>();
        let raw = &*message;
        let result = response_at(&raw const (*message).err);
        let delivered = result == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
        if !raw._private.is_null() {
            let waiting = *Box::from_raw(raw._private.cast::<Waiting>());
            waiting(if delivered {
                Ok(Acknowledgement {
                    partition: Partition(raw.partition),
                    offset: Offset(raw.offset),
                })
            } else {
                Err((
                    RDKafkaErrorCode::from(result),
                    text(sys::rd_kafka_message_errstr(message)),
                ))
            });
        } else if !delivered {
            let mut failures = lock(&shared.failures);
            failures.count += 1;
            if failures.first.is_none() {
                let topic = text(sys::rd_kafka_topic_name(raw.rkt));
                let reason = text(sys::rd_kafka_message_errstr(message));
                failures.first = Some((topic, RDKafkaErrorCode::from(result), reason));
            }
        }
    }
}
