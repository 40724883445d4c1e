//! The transactional calls of a producer, and what their errors mean for it.
//!
//! They go straight to librdkafka: the wrapper's own commit sleeps in steps of 100 ms. librdkafka tells
//! of an error whether it is fatal, whether the transaction must be aborted, and whether the same call
//! may be made again; [`Verdict`] adds what it does not know. It speaks the protocol before KIP-890, in
//! which a late request can end a *later* transaction, so after a time-out nobody may use the producer
//! any more.

use std::ffi::CStr;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use rdkafka::types::RDKafkaErrorCode;
use rdkafka_sys::bindings as sys;

use super::list::List;
use super::producer::Producer;
use super::{millis, text};
use crate::error::{StreamError, is_authorization};

/// Whoever waits for a call looks up so often.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// What a failed call means for the producer that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The same call may be made again.
    Again,
    /// The transaction has to be aborted; the producer is well.
    Abort,
    /// Nobody knows what became of the transaction, or the producer is broken.
    Indefinite,
    /// Another producer has taken over the transactional id.
    Fenced,
    /// No new producer would be allowed it either.
    Refused,
}

/// A transactional call that failed.
#[derive(Debug)]
pub(crate) struct TransactionError {
    pub verdict: Verdict,
    pub error: StreamError,
}

/// What librdkafka says about an error.
#[derive(Clone, Copy, Debug)]
struct Flags {
    fatal: bool,
    requires_abort: bool,
    retriable: bool,
}

fn verdict(code: RDKafkaErrorCode, flags: Flags) -> Verdict {
    use RDKafkaErrorCode as Code;
    if is_authorization(code) {
        return Verdict::Refused;
    }
    if flags.fatal {
        return match code {
            Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch => Verdict::Fenced,
            _ => Verdict::Indefinite,
        };
    }
    match code {
        // librdkafka calls them retriable, or wants an abort through the same producer; see above why
        // neither is safe.
        Code::OperationTimedOut | Code::RequestTimedOut | Code::BrokerTransportFailure => Verdict::Indefinite,
        _ if flags.requires_abort => Verdict::Abort,
        _ if flags.retriable => Verdict::Again,
        _ => Verdict::Indefinite,
    }
}

/// Next offsets of a group, with who its owner is in the group now: both go into a transaction together,
/// so that a former owner is refused (KIP-447).
pub(crate) struct GroupOffsets {
    list: List,
    metadata: *mut sys::rd_kafka_consumer_group_metadata_t,
}

impl GroupOffsets {
    /// Asks the consumer who it is in its group at this moment.
    ///
    /// # Safety
    /// `consumer` is the live handle of a consumer.
    pub(super) unsafe fn of<'a>(
        consumer: *mut sys::rd_kafka_t,
        offsets: impl Iterator<Item = (&'a CStr, i32, i64)>,
    ) -> Option<Self> {
        // SAFETY: the caller's promise; the answer is ours, or null for a client without a group.
        let metadata = unsafe { sys::rd_kafka_consumer_group_metadata(consumer) };
        (!metadata.is_null()).then(|| Self {
            list: List::new(offsets),
            metadata,
        })
    }

    /// Whether the consumer was a member of its group. The offsets of nobody pass unchecked, as for
    /// clients older than KIP-447: a member that was thrown out must not commit so.
    pub fn are_of_a_member(&self) -> bool {
        // SAFETY: the metadata is ours and alive.
        unsafe { sys::rd_kafka_consumer_group_metadata_generation_id(self.metadata) >= 0 }
    }

    /// Tells whoever owns the partitions later which transactional id they were committed with.
    pub fn note(&mut self, note: &CStr) {
        self.list.note(note);
    }
}

// SAFETY: both pointers are to memory that is ours alone; a shared reference only reads it.
unsafe impl Send for GroupOffsets {}
// SAFETY: as above.
unsafe impl Sync for GroupOffsets {}

impl Drop for GroupOffsets {
    fn drop(&mut self) {
        // SAFETY: the metadata is ours and is destroyed once.
        unsafe { sys::rd_kafka_consumer_group_metadata_destroy(self.metadata) };
    }
}

/// What a call of another thread returned.
struct ErrorObject(*mut sys::rd_kafka_error_t);

// SAFETY: an error object is memory that nobody else knows of.
unsafe impl Send for ErrorObject {}

impl ErrorObject {
    fn take(&mut self) -> *mut sys::rd_kafka_error_t {
        std::mem::replace(&mut self.0, std::ptr::null_mut())
    }
}

impl Drop for ErrorObject {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: the error is ours and is destroyed once.
            unsafe { sys::rd_kafka_error_destroy(self.0) };
        }
    }
}

impl Producer {
    /// Takes over the transactional id: what a former producer with it left open is aborted, and that
    /// producer is fenced. The call may be made again after a time-out.
    pub fn init_transactions(&self, timeout: Duration) -> Result<(), TransactionError> {
        // SAFETY: the handle is alive; the error is ours.
        unsafe {
            let error = sys::rd_kafka_init_transactions(self.handle(), millis(timeout));
            self.checked("taking over the transactional id", error)
        }
    }

    /// Begins a transaction. Nothing is sent by it.
    pub fn begin_transaction(&self) -> Result<(), TransactionError> {
        // SAFETY: as above.
        unsafe {
            let error = sys::rd_kafka_begin_transaction(self.handle());
            self.checked("beginning a transaction", error)
        }
    }

    /// Makes the offsets part of the transaction.
    ///
    /// The call has a thread of its own: while the group's coordinator is away, librdkafka waits for it to
    /// come back, whatever the time-out (`rd_kafka_coord_req`, 2.12.1), and its request goes out then. So a
    /// call is left behind only where `give_up_at` says so, which is asked again and again: at the end of the
    /// process, and of the client with it. A request that came late could hold up the offsets of others.
    pub fn send_offsets(
        &self,
        offsets: &Arc<GroupOffsets>,
        timeout: Duration,
        give_up_at: impl Fn() -> Option<Instant>,
    ) -> Result<(), TransactionError> {
        let what = "sending offsets to a transaction";
        let (client, offsets) = (self.client(), Arc::clone(offsets));
        let (done, answer) = sync_channel(1);
        let call = move || {
            // SAFETY: handle, list and metadata are alive; librdkafka copies what it keeps.
            let error = unsafe {
                sys::rd_kafka_send_offsets_to_transaction(
                    client.handle,
                    offsets.list.0,
                    offsets.metadata,
                    millis(timeout),
                )
            };
            // The pump goes on being the owner of the client.
            drop(client);
            // Whoever asked has given it up when nobody listens.
            let _told = done.send(ErrorObject(error)).is_ok();
        };
        let indefinite = |cause: &str| TransactionError {
            verdict: Verdict::Indefinite,
            error: StreamError::Transaction {
                what: what.to_owned(),
                cause: cause.to_owned(),
            },
        };
        let started = std::thread::Builder::new()
            .name("send-offsets".to_owned())
            .spawn(call);
        if started.is_err() {
            return Err(indefinite("no thread can be started"));
        }
        let mut error = loop {
            match answer.recv_timeout(LOOK_INTERVAL) {
                Ok(error) => break error,
                Err(RecvTimeoutError::Timeout) if give_up_at().is_none_or(|end| Instant::now() < end) => {}
                Err(_) => return Err(indefinite("the group's coordinator is away")),
            }
        };
        // SAFETY: the error is ours, and is given on once.
        unsafe { self.checked(what, error.take()) }
    }

    /// Commits the transaction, after everything that was queued in it.
    pub fn commit_transaction(&self, timeout: Duration) -> Result<(), TransactionError> {
        // SAFETY: as above.
        unsafe {
            let error = sys::rd_kafka_commit_transaction(self.handle(), millis(timeout));
            self.checked("committing a transaction", error)
        }
    }

    /// Aborts the transaction; what is queued in it is dropped.
    pub fn abort_transaction(&self, timeout: Duration) -> Result<(), TransactionError> {
        // SAFETY: as above.
        unsafe {
            let error = sys::rd_kafka_abort_transaction(self.handle(), millis(timeout));
            self.checked("aborting a transaction", error)
        }
    }

    /// # Safety
    /// `error` is null or an error object that is ours.
    unsafe fn checked(&self, what: &str, error: *mut sys::rd_kafka_error_t) -> Result<(), TransactionError> {
        if error.is_null() {
            return Ok(());
        }
        // SAFETY: the caller's promise.
        let (code, flags, cause) = unsafe {
            let code = RDKafkaErrorCode::from(sys::rd_kafka_error_code(error));
            let flags = Flags {
                fatal: sys::rd_kafka_error_is_fatal(error) != 0,
                requires_abort: sys::rd_kafka_error_txn_requires_abort(error) != 0,
                retriable: sys::rd_kafka_error_is_retriable(error) != 0,
            };
            let cause = text(sys::rd_kafka_error_string(error));
            sys::rd_kafka_error_destroy(error);
            (code, flags, cause)
        };
        // Later calls only say that something fatal happened before: what it was, is kept.
        let (code, cause) = match self.fatal_error() {
            Some(first) if flags.fatal => first,
            _ => (code, cause),
        };
        let verdict = verdict(code, flags);
        let cause = format!("{cause} ({code})");
        let what = what.to_owned();
        let error = match verdict {
            Verdict::Refused => StreamError::Authorization { what, cause },
            _ => StreamError::Transaction { what, cause },
        };
        Err(TransactionError { verdict, error })
    }
}

#[cfg(test)]
mod tests {
    use RDKafkaErrorCode as Code;

    use super::*;

    const PLAIN: Flags = Flags {
        fatal: false,
        requires_abort: false,
        retriable: false,
    };
    const FATAL: Flags = Flags { fatal: true, ..PLAIN };
    const ABORT: Flags = Flags {
        requires_abort: true,
        ..PLAIN
    };
    const RETRIABLE: Flags = Flags {
        retriable: true,
        ..PLAIN
    };

    #[test]
    fn every_error_of_a_transaction_has_one_meaning_for_its_producer() {
        for (code, flags, wanted) in [
            (Code::NotCoordinator, RETRIABLE, Verdict::Again),
            (Code::ConcurrentTransactions, RETRIABLE, Verdict::Again),
            (Code::OperationTimedOut, RETRIABLE, Verdict::Indefinite),
            (Code::RequestTimedOut, RETRIABLE, Verdict::Indefinite),
            (Code::OperationTimedOut, PLAIN, Verdict::Indefinite),
            (Code::OperationTimedOut, ABORT, Verdict::Indefinite),
            (Code::BrokerTransportFailure, ABORT, Verdict::Indefinite),
            (Code::MessageTimedOut, ABORT, Verdict::Abort),
            (Code::IllegalGeneration, ABORT, Verdict::Abort),
            (Code::UnknownMemberId, ABORT, Verdict::Abort),
            (Code::Fenced, FATAL, Verdict::Fenced),
            (Code::ProducerFenced, FATAL, Verdict::Fenced),
            (Code::InvalidProducerEpoch, FATAL, Verdict::Fenced),
            (Code::InvalidProducerIdMapping, FATAL, Verdict::Indefinite),
            (Code::InvalidTransactionalState, FATAL, Verdict::Indefinite),
            (Code::State, PLAIN, Verdict::Indefinite),
            (Code::TransactionalIdAuthorizationFailed, FATAL, Verdict::Refused),
            (Code::GroupAuthorizationFailed, ABORT, Verdict::Refused),
        ] {
            assert_eq!(verdict(code, flags), wanted, "{code:?} {flags:?}");
        }
    }
}
