//! Draws that follow from a seed alone.

/// A generator of numbers that look random (SplitMix64 by Steele, Lea and Flood, 2014).
///
/// The standard ones may give other numbers in a newer version; a seed in a record of runs has to
/// give the same plan for good.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator of its own for each purpose: a draw more for the one leaves the others as they are.
    #[must_use]
    pub fn new(seed: u64, purpose: &str) -> Self {
        // FNV-1a over the purpose.
        let mixed = purpose.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut random = Self(seed ^ mixed);
        random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from `least` to `most`, both included; `least` where they are in the wrong order.
    pub fn within(&mut self, least: u64, most: u64) -> u64 {
        let span = most.saturating_sub(least).saturating_add(1);
        least + self.next() % span
    }

    /// True for so many of a thousand draws.
    pub fn per_mille(&mut self, share: u64) -> bool {
        self.within(0, 999) < share
    }

    /// One of them; `None` of none.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        let last = u64::try_from(from.len()).ok()?.checked_sub(1)?;
        from.get(usize::try_from(self.within(0, last)).ok()?)
    }

    /// Puts them into a drawn order.
    pub fn shuffle<T>(&mut self, all: &mut [T]) {
        for index in (1..all.len()).rev() {
            let other = self.within(0, index as u64);
            all.swap(index, usize::try_from(other).unwrap_or(index));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_publication() {
        // The first outputs for the state 1234567, as other implementations print them.
        let mut random = Random(1_234_567);
        let drawn: Vec<u64> = (0..3).map(|_| random.next()).collect();
        assert_eq!(
            drawn,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }

    #[test]
    fn seed_and_purpose_decide_alone() {
        let draw = |seed, purpose| {
            let mut random = Random::new(seed, purpose);
            [(); 8].map(|()| random.within(1, 6))
        };
        assert_eq!(draw(1, "orders"), draw(1, "orders"));
        assert_ne!(draw(1, "orders"), draw(2, "orders"));
        assert_ne!(draw(1, "orders"), draw(1, "plan"));
    }

    #[test]
    fn a_draw_keeps_its_bounds_and_meets_both() {
        let mut random = Random::new(3, "bounds");
        let drawn: Vec<u64> = (0..200).map(|_| random.within(5, 8)).collect();
        assert!(drawn.iter().all(|number| (5..=8).contains(number)));
        assert!((5..=8).all(|number| drawn.contains(&number)));
        assert_eq!(random.within(4, 4), 4);
    }

    #[test]
    fn a_shuffle_keeps_what_is_there() {
        let mut all: Vec<u32> = (0..50).collect();
        Random::new(9, "shuffle").shuffle(&mut all);
        assert_ne!(all, (0..50).collect::<Vec<_>>());
        all.sort_unstable();
        assert_eq!(all, (0..50).collect::<Vec<_>>());
    }
}
