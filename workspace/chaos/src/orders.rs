//! The orders of a seed, in the order of sending.
//!
//! About one in ten is suspicious, one in twenty comes a second time (near or far from the first), and
//! one in five hundred records is no order at all. Pure.

use crate::random::Random;

/// So many of a thousand orders are over the limit and from a country that is not exempt.
const SUSPICIOUS_PER_MILLE: u64 = 100;
const REPEATED_PER_MILLE: u64 = 50;
const POISON_PER_MILLE: u64 = 2;
/// A near repeat comes within so many orders.
const NEAR: u64 = 50;

const EXEMPT: [&str; 2] = ["US", "CA"];
const OTHERS: [&str; 4] = ["FR", "DE", "NG", "BR"];

/// What is no order, in several ways.
const POISON: [&str; 5] = [
    "",
    "no JSON",
    "[]",
    r#"{"order_id":"broken","amount":"-3.10","country":"FR"}"#,
    r#"{"order_id":"broken","amount":1"#,
];

/// One record for the topic `orders`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The order's id.
    pub key: String,
    /// The order.
    pub value: String,
}

/// The records of a run, and what is among them.
#[derive(Clone, Debug)]
pub struct Orders {
    /// In the order of sending.
    pub records: Vec<Sent>,
    /// Different orders.
    pub orders: u64,
    /// Of these, suspicious ones.
    pub suspicious: u64,
    /// Records that say an order again.
    pub repeats: u64,
    /// Records that are no orders.
    pub poison: u64,
}

impl Orders {
    /// The orders that follow from this seed.
    #[must_use]
    pub fn draw(seed: u64, count: u64) -> Self {
        let mut random = Random::new(seed, "orders");
        let (mut suspicious, mut repeats, mut poison) = (0, 0, 0);
        // Where each record stands, in halves: repeats and poison come between orders.
        let mut placed: Vec<(u64, Sent)> = Vec::new();
        for number in 0..count {
            let is_suspicious = random.per_mille(SUSPICIOUS_PER_MILLE);
            suspicious += u64::from(is_suspicious);
            let order = order(number + 1, is_suspicious, &mut random);
            if random.per_mille(REPEATED_PER_MILLE) {
                repeats += 1;
                let distance = if random.per_mille(500) { NEAR } else { count };
                let again = number + random.within(0, distance);
                placed.push((2 * again + 1, order.clone()));
            }
            placed.push((2 * number, order));
            // The first one early, so that a short run has one.
            if number == count / 10 || random.per_mille(POISON_PER_MILLE) {
                poison += 1;
                let value = random.pick(&POISON).copied().unwrap_or_default().to_owned();
                let key = format!("poison-{poison}");
                placed.push((2 * number + 1, Sent { key, value }));
            }
        }
        placed.sort_by_key(|(place, _)| *place);
        Self {
            records: placed.into_iter().map(|(_, record)| record).collect(),
            orders: count,
            suspicious,
            repeats,
            poison,
        }
    }
}

fn order(id: u64, is_suspicious: bool, random: &mut Random) -> Sent {
    let (country, cents) = if is_suspicious {
        (random.pick(&OTHERS), random.within(30_001, 90_000))
    } else if random.per_mille(500) {
        (random.pick(&EXEMPT), random.within(1, 90_000))
    } else {
        (random.pick(&OTHERS), random.within(1, 30_000))
    };
    let (country, major, minor) = (country.copied().unwrap_or("ZZ"), cents / 100, cents % 100);
    Sent {
        key: id.to_string(),
        value: format!(r#"{{"order_id":{id},"amount":{major}.{minor:02},"country":"{country}"}}"#),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_seed_gives_the_same_orders_again_and_another_seed_others() {
        let records = |seed| Orders::draw(seed, 500).records;
        assert_eq!(records(1), records(1));
        assert_ne!(records(1), records(2));
    }

    #[test]
    fn shares_are_about_what_they_are_meant_to_be() {
        let drawn = Orders::draw(7, 20_000);
        // Three standard deviations of 20,000 draws are 128, 93 and 19.
        assert!(
            (1_872..=2_128).contains(&drawn.suspicious),
            "{}",
            drawn.suspicious
        );
        assert!((907..=1_093).contains(&drawn.repeats), "{}", drawn.repeats);
        assert!((21..=60).contains(&drawn.poison), "{}", drawn.poison);
        let all = drawn.orders + drawn.repeats + drawn.poison;
        assert_eq!(drawn.records.len() as u64, all);
    }

    #[test]
    fn repeats_come_after_their_first_with_the_same_bytes_near_and_far() {
        let drawn = Orders::draw(3, 5_000);
        let mut first: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
        let mut distances = Vec::new();
        for (index, record) in drawn.records.iter().enumerate() {
            match first.get(record.key.as_str()) {
                None => {
                    first.insert(&record.key, (index, &record.value));
                }
                Some((at, value)) => {
                    assert_eq!(*value, record.value);
                    distances.push(index - at);
                }
            }
        }
        assert_eq!(distances.len() as u64, drawn.repeats);
        assert!(distances.iter().any(|distance| *distance <= 60));
        assert!(distances.iter().any(|distance| *distance > 1_000));
    }
}
