//! The only unsafe code of orderflow: handles of librdkafka and its callbacks.
//!
//! What holds for all of it:
//! - A [`Client`] owns one `rd_kafka_t` and the state that its callbacks use. The state is dropped
//!   after the handle is destroyed, so a callback never sees it gone.
//! - librdkafka handles may be used from any thread; callbacks only run inside calls that poll.
//! - Strings from librdkafka are copied before the call that lent them returns.

mod consumer;
mod inquiry;
mod list;
mod message;
mod producer;
mod rebalance;
mod transaction;

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rdkafka::types::RDKafkaErrorCode;
use rdkafka_sys::bindings as sys;
use rdkafka_sys::types::{RDKafkaConfRes, RDKafkaRespErr, RDKafkaType};

pub(crate) use consumer::{Consumer, ReadWaker};
pub(crate) use inquiry::{End, Inquirer};
pub(crate) use producer::{DeliveryReport, Outgoing, ProduceError, Producer, Topic};
use rebalance::Rebalance;
pub(crate) use transaction::{GroupOffsets, TransactionError, Verdict};

use crate::error::StreamError;

/// What the client reported last through its error callback.
#[derive(Clone, Debug)]
pub(crate) struct ClientError {
    pub code: RDKafkaErrorCode,
    pub reason: String,
}

impl ClientError {
    pub fn is_authentication(&self) -> bool {
        matches!(
            self.code,
            RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed
        )
    }

    /// The error in our words.
    pub fn into_stream_error(self, brokers: &str) -> StreamError {
        let brokers = brokers.to_owned();
        if self.is_authentication() {
            return StreamError::Authentication {
                brokers,
                cause: self.reason,
            };
        }
        if self.code == RDKafkaErrorCode::SSL {
            return StreamError::Tls {
                brokers,
                cause: self.reason,
            };
        }
        StreamError::Unreachable {
            brokers,
            cause: self.reason,
        }
    }
}

/// What the callbacks of one client share with its owner.
#[derive(Default)]
struct Shared {
    last_error: Mutex<Option<ClientError>>,
    rebalance: Mutex<Option<Rebalance>>,
    /// The consumer is being closed: a rebalance is answered in the callback itself.
    closing: AtomicBool,
    failures: Mutex<producer::Failures>,
}

/// One `rd_kafka_t`.
struct Client {
    handle: *mut sys::rd_kafka_t,
    shared: Box<Shared>,
}

// SAFETY: librdkafka handles are thread-safe, and `Shared` is `Sync`.
unsafe impl Send for Client {}
// SAFETY: as above.
unsafe impl Sync for Client {}

impl Client {
    fn create(
        kind: RDKafkaType,
        properties: &[(String, String)],
        install: impl FnOnce(*mut sys::rd_kafka_conf_t),
    ) -> Result<Self, StreamError> {
        let shared = Box::new(Shared::default());
        // SAFETY: `conf` is ours until `rd_kafka_new` succeeds and takes it; on failure it is destroyed
        // here. `errstr` is written within its length. The opaque pointer stays valid, because `shared`
        // is boxed and outlives the handle (see `Drop`).
        unsafe {
            let conf = sys::rd_kafka_conf_new();
            for (key, value) in properties {
                if let Err(error) = set_property(conf, key, value) {
                    sys::rd_kafka_conf_destroy(conf);
                    return Err(error);
                }
            }
            sys::rd_kafka_conf_set_opaque(conf, std::ptr::from_ref::<Shared>(&shared).cast_mut().cast());
            sys::rd_kafka_conf_set_error_cb(conf, Some(on_error));
            sys::rd_kafka_conf_set_log_cb(conf, Some(on_log));
            install(conf);
            let mut errstr = [0 as c_char; 512];
            let handle = sys::rd_kafka_new(kind, conf, errstr.as_mut_ptr(), errstr.len());
            if handle.is_null() {
                sys::rd_kafka_conf_destroy(conf);
                return Err(StreamError::Config {
                    message: text(errstr.as_ptr()),
                });
            }
            Ok(Self { handle, shared })
        }
    }

    /// How many partitions a topic has now, 0 where there is none. The client knows it too from then on.
    ///
    /// # Safety
    /// `topic` is a live handle of this client.
    unsafe fn partitions(
        &self,
        topic: *mut sys::rd_kafka_topic_t,
        timeout: std::time::Duration,
    ) -> Result<i32, StreamError> {
        let mut metadata: *const sys::rd_kafka_metadata = std::ptr::null();
        // SAFETY: handle and topic are alive; on success `metadata` is ours to destroy, and its lists are
        // as long as it says.
        unsafe {
            let result = sys::rd_kafka_metadata(self.handle, 0, topic, &raw mut metadata, millis(timeout));
            if result != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                let what = format!("asking for topic `{}`", text(sys::rd_kafka_topic_name(topic)));
                return Err(StreamError::client(what, RDKafkaErrorCode::from(result)));
            }
            let topics = usize::try_from((*metadata).topic_cnt).unwrap_or(0);
            let counts = (0..topics).map(|index| (*(*metadata).topics.add(index)).partition_cnt);
            let count = counts.max().unwrap_or(0);
            sys::rd_kafka_metadata_destroy(metadata);
            Ok(count)
        }
    }

    fn last_error(&self) -> Option<ClientError> {
        lock(&self.shared.last_error).clone()
    }

    fn clear_last_error(&self) {
        *lock(&self.shared.last_error) = None;
    }

    /// Asks the brokers who they are: a cheap question that fails as every later one would.
    fn metadata(&self, timeout: Duration) -> Result<(), RDKafkaErrorCode> {
        let mut metadata: *const sys::rd_kafka_metadata = std::ptr::null();
        // SAFETY: the handle is alive; on success `metadata` is ours to destroy.
        unsafe {
            let result = sys::rd_kafka_metadata(
                self.handle,
                0,
                std::ptr::null_mut(),
                &raw mut metadata,
                millis(timeout),
            );
            // The reason for a refused connection reaches the error callback alone.
            sys::rd_kafka_poll(self.handle, 0);
            if result != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                return Err(RDKafkaErrorCode::from(result));
            }
            sys::rd_kafka_metadata_destroy(metadata);
        }
        Ok(())
    }

    /// Checks that the brokers answer and let us in.
    fn probe(&self, brokers: &str, timeout: Duration) -> Result<(), StreamError> {
        let Err(code) = self.metadata(timeout) else {
            return Ok(());
        };
        let last = self.last_error();
        let error = last.unwrap_or_else(|| ClientError {
            code,
            reason: code.to_string(),
        });
        Err(error.into_stream_error(brokers))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // SAFETY: nobody else uses the handle any more. Closing a consumer may block for long and is
        // done explicitly with a deadline before; here only memory is given back.
        unsafe {
            sys::rd_kafka_destroy_flags(self.handle, sys::RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
        }
    }
}

unsafe fn set_property(conf: *mut sys::rd_kafka_conf_t, key: &str, value: &str) -> Result<(), StreamError> {
    let refused = |message: String| StreamError::Config { message };
    let name = CString::new(key).map_err(|_| refused(format!("`{key}` contains a zero byte")))?;
    let setting =
        CString::new(value).map_err(|_| refused(format!("the value of `{key}` contains a zero byte")))?;
    let mut errstr = [0 as c_char; 512];
    // SAFETY: the caller owns `conf`; all strings end in a zero byte and outlive the call.
    let result = unsafe {
        sys::rd_kafka_conf_set(
            conf,
            name.as_ptr(),
            setting.as_ptr(),
            errstr.as_mut_ptr(),
            errstr.len(),
        )
    };
    if result == RDKafkaConfRes::RD_KAFKA_CONF_OK {
        return Ok(());
    }
    // SAFETY: librdkafka wrote a string that ends in a zero byte.
    Err(refused(unsafe { text(errstr.as_ptr()) }))
}

/// Copies a string of librdkafka.
///
/// # Safety
/// `pointer` is null or points to a string that ends in a zero byte.
unsafe fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

unsafe extern "C" fn on_error(
    _: *mut sys::rd_kafka_t,
    code: c_int,
    reason: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: `opaque` is the `Shared` of this client, alive as long as its handle; `reason` is a string.
    let (shared, reason) = unsafe { (&*opaque.cast::<Shared>(), text(reason)) };
    let code = RDKafkaErrorCode::from(response(code));
    tracing::debug!(?code, reason, "kafka client error");
    let error = ClientError { code, reason };
    let mut last = lock(&shared.last_error);
    // "All brokers are down" follows a refused login and would hide its cause.
    let hides_cause = code == RDKafkaErrorCode::AllBrokersDown && last.is_some();
    if !hides_cause {
        *last = Some(error);
    }
}

unsafe extern "C" fn on_log(
    _: *const sys::rd_kafka_t,
    level: c_int,
    facility: *const c_char,
    message: *const c_char,
) {
    // SAFETY: librdkafka passes strings that end in a zero byte.
    let (facility, message) = unsafe { (text(facility), text(message)) };
    // Syslog levels. What matters of these lines comes again as an error with a remedy.
    match level {
        0..=2 => tracing::error!(facility, "{message}"),
        3..=4 => tracing::warn!(facility, "{message}"),
        5..=6 => tracing::debug!(facility, "{message}"),
        _ => tracing::trace!(facility, "{message}"),
    }
}

/// The error with that number. A broker may send a number that this version does not list, and an enum
/// must never hold one: it becomes `Unknown`.
fn response(number: i32) -> RDKafkaRespErr {
    RDKafkaRespErr::try_from(number).unwrap_or(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN)
}

/// Reads an error out of a structure of librdkafka, by its number.
///
/// # Safety
/// `field` points to an error field of a structure that is alive.
unsafe fn response_at(field: *const RDKafkaRespErr) -> RDKafkaRespErr {
    // SAFETY: the caller's promise; the enum has the representation of an `i32`.
    response(unsafe { field.cast::<i32>().read() })
}

/// Locks a mutex whose holders can not panic while they hold it; a poisoned one is used all the same.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn millis(duration: Duration) -> c_int {
    c_int::try_from(duration.as_millis()).unwrap_or(c_int::MAX)
}

fn checked(what: &str, result: RDKafkaRespErr) -> Result<(), StreamError> {
    // Committing when nothing changed is no error.
    if result == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR
        || result == RDKafkaRespErr::RD_KAFKA_RESP_ERR__NO_OFFSET
    {
        return Ok(());
    }
    Err(StreamError::client(what, RDKafkaErrorCode::from(result)))
}

/// # Safety
/// `error` is null or an error object that is ours.
unsafe fn failed(what: &str, error: *mut sys::rd_kafka_error_t) -> Result<(), StreamError> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: the caller's promise.
    unsafe {
        let code = RDKafkaErrorCode::from(sys::rd_kafka_error_code(error));
        let cause = text(sys::rd_kafka_error_string(error));
        let retriable: c_int = sys::rd_kafka_error_is_retriable(error);
        sys::rd_kafka_error_destroy(error);
        Err(StreamError::Client {
            what: what.to_owned(),
            cause: format!("{cause} ({code})"),
            retriable: retriable != 0,
        })
    }
}
