//! What a group wants of a consumer, and how it is answered and left.

use std::ffi::{CString, c_int, c_void};
use std::sync::atomic::Ordering;
use std::time::Instant;

use rdkafka_sys::bindings as sys;
use rdkafka_sys::types::RDKafkaRespErr;

use super::list::{List, entries};
use super::message::Message;
use super::{Shared, checked, failed, lock, text};
use crate::error::StreamError;
use crate::source::RebalanceKind;

#[derive(Clone, Debug)]
pub(crate) struct Rebalance {
    pub kind: RebalanceKind,
    pub(super) partitions: Vec<(CString, i32)>,
}

/// Leaves the group explicitly. Closing alone does not, for a static member (KIP-345): its partitions would
/// wait for it until its session times out. A member that ends its subscription leaves, whatever it is.
pub(super) unsafe fn leave(handle: *mut sys::rd_kafka_t, until: Instant) {
    /// The client forgets who it is in the group when it has asked to leave.
    const STEP_MS: c_int = 20;
    // SAFETY: the caller passes a live handle; messages and names are ours and are given back once.
    unsafe {
        let result = checked("leaving the group", sys::rd_kafka_unsubscribe(handle));
        if let Err(error) = result {
            tracing::debug!(%error, "the subscription was not ended");
        }
        while Instant::now() < until {
            // Answers the revocation, in the callback.
            let message = sys::rd_kafka_consumer_poll(handle, STEP_MS);
            if !message.is_null() {
                drop(Message(message));
            }
            let name = sys::rd_kafka_memberid(handle);
            let is_gone = text(name).is_empty();
            if !name.is_null() {
                sys::rd_kafka_mem_free(handle, name.cast());
            }
            if is_gone {
                return;
            }
        }
    }
}

pub(super) unsafe fn unassign(
    handle: *mut sys::rd_kafka_t,
    cooperative: bool,
    list: *const sys::rd_kafka_topic_partition_list_t,
) -> Result<(), StreamError> {
    // SAFETY: the caller passes a live handle and list.
    unsafe {
        if cooperative {
            return failed(
                "giving partitions up",
                sys::rd_kafka_incremental_unassign(handle, list),
            );
        }
        checked(
            "giving partitions up",
            sys::rd_kafka_assign(handle, std::ptr::null()),
        )
    }
}

/// Answers a rebalance that nobody will settle any more, because the consumer is being closed.
pub(super) unsafe fn answer_rebalance(handle: *mut sys::rd_kafka_t, shared: &Shared) {
    let Some(rebalance) = lock(&shared.rebalance).take() else {
        return;
    };
    let list = List::new(rebalance.partitions.iter().map(|(topic, partition)| {
        (
            topic.as_c_str(),
            *partition,
            i64::from(sys::RD_KAFKA_OFFSET_INVALID),
        )
    }));
    // SAFETY: the caller passes a live handle.
    let result = unsafe {
        let cooperative = text(sys::rd_kafka_rebalance_protocol(handle)) == "COOPERATIVE";
        match rebalance.kind {
            RebalanceKind::Assign if cooperative => {
                failed("closing", sys::rd_kafka_incremental_assign(handle, list.0))
            }
            RebalanceKind::Assign => checked("closing", sys::rd_kafka_assign(handle, list.0)),
            RebalanceKind::Revoke | RebalanceKind::Lose => unassign(handle, cooperative, list.0),
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a rebalance during close was not answered");
    }
}

pub(super) unsafe extern "C" fn on_rebalance(
    handle: *mut sys::rd_kafka_t,
    code: RDKafkaRespErr,
    partitions: *mut sys::rd_kafka_topic_partition_list_t,
    opaque: *mut c_void,
) {
    // SAFETY: `opaque` is the `Shared` of this client; the list is alive during the callback.
    let (shared, list) = unsafe { (&*opaque.cast::<Shared>(), entries(partitions)) };
    // SAFETY: the handle is alive during its callback.
    let lost = unsafe { sys::rd_kafka_assignment_lost(handle) } != 0;
    let kind = match code {
        RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => RebalanceKind::Assign,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS if !lost => RebalanceKind::Revoke,
        _ => RebalanceKind::Lose,
    };
    let partitions = list.map(|entry| (entry.topic, entry.partition)).collect();
    *lock(&shared.rebalance) = Some(Rebalance { kind, partitions });
    // SAFETY: as above. While polling, this ends the running read, so that the owner answers soon.
    unsafe {
        if shared.closing.load(Ordering::SeqCst) {
            answer_rebalance(handle, shared);
        } else {
            sys::rd_kafka_yield(handle);
        }
    }
}
