//! The id of an order in 16 bytes.
//!
//! Up to 15 bytes of an id stand there as they are, so that the ids of almost all orders can be told apart
//! exactly and named in a finding. A longer one is replaced by 120 bits of its SHA-256: among 10 million of
//! them two are the same with a probability of 4 in 10^23. The first byte says which it is.

use std::fmt;

use sha2::{Digest, Sha256};

const LONG: u8 = u8::MAX;

/// An order's id, whole or as its fingerprint.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key([u8; 16]);

impl Key {
    pub fn of(id: &str) -> Self {
        let mut key = [0_u8; 16];
        let [first, rest @ ..] = &mut key;
        match rest.get_mut(..id.len()) {
            Some(place) => {
                // At most 15.
                *first = id.len() as u8;
                place.copy_from_slice(id.as_bytes());
            }
            None => {
                *first = LONG;
                for (place, byte) in rest.iter_mut().zip(Sha256::digest(id.as_bytes())) {
                    *place = byte;
                }
            }
        }
        Self(key)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, rest @ ..] = &self.0;
        if let Some(text) = rest.get(..usize::from(*first)) {
            return out.write_str(&String::from_utf8_lossy(text));
        }
        // The payment's id begins like this, and so the order can be found by it.
        out.write_str("of pay_")?;
        rest.iter().try_for_each(|byte| write!(out, "{byte:02x}"))?;
        out.write_str("...")
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_id_is_itself_and_a_long_one_is_named_by_its_payment() {
        assert_eq!(Key::of("7").to_string(), "7");
        assert_eq!(Key::of("A-2345678901234").to_string(), "A-2345678901234");
        let long = "A-23456789012345";
        let payment = domain::ids::payment_id(long);
        let named = Key::of(long).to_string();
        assert_eq!(
            named
                .strip_prefix("of ")
                .and_then(|name| name.strip_suffix("...")),
            payment.get(..4 + 30)
        );
    }

    #[test]
    fn ids_that_only_begin_alike_are_different_keys() {
        let ids = [
            "1",
            "10",
            "01",
            "123456789012345",
            "1234567890123456",
            "1234567890123457",
        ];
        for (at, id) in ids.iter().enumerate() {
            assert!(
                ids.iter().skip(at + 1).all(|other| Key::of(id) != Key::of(other)),
                "{id}"
            );
        }
    }
}
