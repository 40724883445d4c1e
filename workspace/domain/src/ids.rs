//! Ids that follow from their order, so that doing the work again gives the same id again.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use crate::time::EventTime;

/// The payment's id, which is also the gateway's idempotency key: `pay_` and the first 128 bits of the
/// SHA-256 of the order id's text.
///
/// ```
/// // printf 1 | sha256sum
/// assert_eq!(domain::ids::payment_id("1"), "pay_6b86b273ff34fce19d6b804eff5a3f57");
/// ```
pub fn payment_id(order_id: &str) -> String {
    with_hash("pay_".to_owned(), order_id, 16)
}

/// The alert's id: `ALERT-`, the order's event time in milliseconds (13 digits, zeros where it has none), and
/// the first 64 bits of the SHA-256 of the order id's text. 64 bits, because orders of foreign producers may
/// lack the time, and then the hash alone tells alerts apart.
pub fn alert_id(event_time: Option<EventTime>, order_id: &str) -> String {
    let millis = event_time.unwrap_or_default().0;
    with_hash(format!("ALERT-{millis:013}-"), order_id, 8)
}

/// An event's id: `evt_`, its time in milliseconds and a random number that the caller draws.
pub fn event_id(time: EventTime, random: u64) -> String {
    format!("evt_{}_{random:016x}", time.0)
}

fn with_hash(mut id: String, order_id: &str, bytes: usize) -> String {
    for byte in Sha256::digest(order_id.as_bytes()).iter().take(bytes) {
        // Writing into a string can not fail.
        write!(id, "{byte:02x}").unwrap_or_default();
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_from_the_order_alone() {
        assert_eq!(
            alert_id(Some(EventTime(1_705_048_291_234)), "1"),
            "ALERT-1705048291234-6b86b273ff34fce1"
        );
        assert_eq!(alert_id(None, "1"), "ALERT-0000000000000-6b86b273ff34fce1");
        assert_eq!(event_id(EventTime(5), 255), "evt_5_00000000000000ff");
        assert_ne!(payment_id("1"), payment_id("2"));
    }
}
