//! Keeps a log line that would repeat from flooding the log.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Lets one line per code through per interval and counts the others. Bounded by the number of
/// codes, which are constants in the code.
#[derive(Debug)]
pub(crate) struct Repeats {
    every: Duration,
    last: HashMap<&'static str, (Instant, u64)>,
}

impl Repeats {
    pub(crate) fn new(every: Duration) -> Self {
        Self {
            every,
            last: HashMap::new(),
        }
    }

    /// `Some(n)` when a line is due: n lines of this code were left out since the last one.
    pub(crate) fn due(&mut self, code: &'static str, now: Instant) -> Option<u64> {
        match self.last.get_mut(code) {
            Some((at, left_out)) if now.duration_since(*at) < self.every => {
                *left_out += 1;
                None
            }
            Some((at, left_out)) => {
                *at = now;
                Some(std::mem::take(left_out))
            }
            None => {
                self.last.insert(code, (now, 0));
                Some(0)
            }
        }
    }

    /// Forgets a code, so that its next line appears at once. Says whether there was one.
    pub(crate) fn clear(&mut self) -> bool {
        let had = !self.last.is_empty();
        self.last.clear();
        had
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_are_counted_and_the_next_due_line_tells_how_many() {
        let mut repeats = Repeats::new(Duration::from_secs(10));
        let start = Instant::now();
        assert_eq!(repeats.due("locked", start), Some(0));
        assert_eq!(repeats.due("locked", start + Duration::from_secs(1)), None);
        assert_eq!(repeats.due("disk_full", start + Duration::from_secs(1)), Some(0));
        assert_eq!(repeats.due("locked", start + Duration::from_secs(9)), None);
        assert_eq!(repeats.due("locked", start + Duration::from_secs(10)), Some(2));
        assert_eq!(repeats.due("locked", start + Duration::from_secs(20)), Some(0));
        assert!(repeats.clear());
        assert_eq!(repeats.due("locked", start + Duration::from_secs(21)), Some(0));
    }
}
