//! Messages as librdkafka gives them.

use std::ffi::{CStr, c_void};

use rdkafka_sys::bindings as sys;
use rdkafka_sys::types::RDKafkaRespErr;

use crate::record::Headers;

const NO_ERROR: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;

/// One message of librdkafka, given back when dropped.
#[repr(transparent)]
pub(super) struct Message(pub *mut sys::rd_kafka_message_t);

impl Drop for Message {
    fn drop(&mut self) {
        // SAFETY: the message is ours and is destroyed once.
        unsafe { sys::rd_kafka_message_destroy(self.0) };
    }
}

impl Headers for Message {
    fn get(&self, index: usize) -> Option<(&str, &[u8])> {
        let mut headers = std::ptr::null_mut();
        let mut name = std::ptr::null();
        let mut value = std::ptr::null();
        let mut size = 0_usize;
        // SAFETY: the message is alive and owns its headers; names are strings, values have `size` bytes,
        // and both live as long as the message.
        unsafe {
            if sys::rd_kafka_message_headers(self.0, &raw mut headers) != NO_ERROR {
                return None;
            }
            let found =
                sys::rd_kafka_header_get_all(headers, index, &raw mut name, &raw mut value, &raw mut size);
            if found != NO_ERROR || name.is_null() {
                return None;
            }
            let name = CStr::from_ptr(name).to_str().unwrap_or("(not UTF-8)");
            Some((name, bytes(value, size).unwrap_or_default()))
        }
    }
}

/// Borrows bytes of librdkafka.
///
/// # Safety
/// `pointer` is null or points to `length` bytes that live as long as `'a`.
pub(super) unsafe fn bytes<'a>(pointer: *const c_void, length: usize) -> Option<&'a [u8]> {
    if pointer.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    Some(unsafe { std::slice::from_raw_parts(pointer.cast(), length) })
}

/// What one read gave.
pub(crate) struct MessageBatch {
    pub(super) messages: Vec<Message>,
}
