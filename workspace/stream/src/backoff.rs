//! Growing pauses between attempts, with jitter so that many workers do not knock at once.

use std::time::Duration;

use rand::Rng;

/// Exponential backoff with full jitter on the upper half: the pause before attempt `n + 1` is drawn
/// from `[d/2, d]` with `d = min(first * 2^(n-1), most)`.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// The first pause.
    pub first: Duration,
    /// No pause is longer.
    pub most: Duration,
}

impl Backoff {
    /// The pause after `failed` attempts (1 = after the first).
    pub fn pause(&self, failed: u32, random: &mut impl Rng) -> Duration {
        let doublings = failed.saturating_sub(1).min(20);
        let full = self.first.saturating_mul(1 << doublings).min(self.most);
        full.mul_f64(random.random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn pauses_double_up_to_the_limit_and_stay_in_the_upper_half() {
        let backoff = Backoff {
            first: Duration::from_millis(100),
            most: Duration::from_secs(1),
        };
        let mut random = rand::rngs::StdRng::seed_from_u64(1);
        for (failed, full_ms) in [(1, 100), (2, 200), (3, 400), (4, 800), (5, 1000), (60, 1000)] {
            for _ in 0..100 {
                let pause = backoff.pause(failed, &mut random);
                assert!(pause <= Duration::from_millis(full_ms), "{failed}: {pause:?}");
                assert!(pause >= Duration::from_millis(full_ms / 2), "{failed}: {pause:?}");
            }
        }
    }
}
