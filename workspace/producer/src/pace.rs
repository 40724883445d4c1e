//! Even spacing of what is sent.

use std::time::Duration;

use tokio::time::Instant;

/// How far sending may lag behind its plan before the plan moves: a stall is not made up for by a flood.
const MAX_LAG: Duration = Duration::from_secs(1);

/// Says when the next order is due.
#[derive(Debug)]
pub(crate) struct Pace {
    interval: Option<Duration>,
    next: Option<Instant>,
}

impl Pace {
    /// So many orders per second, or no limit.
    pub(crate) fn new(rate: Option<f64>) -> Self {
        Self {
            interval: rate.map(|rate| Duration::from_secs_f64(1.0 / rate)),
            next: None,
        }
    }

    /// When the next order is due; each call plans one.
    pub(crate) fn due(&mut self, now: Instant) -> Instant {
        let Some(interval) = self.interval else { return now };
        let earliest = now.checked_sub(MAX_LAG).unwrap_or(now);
        let due = self.next.unwrap_or(now).max(earliest);
        self.next = Some(due + interval);
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn orders_are_spaced_evenly_and_lost_time_is_made_up_within_a_second() {
        let mut pace = Pace::new(Some(50.0));
        let start = Instant::now();
        for order in 0..100u32 {
            assert_eq!(pace.due(start), start + Duration::from_millis(20) * order);
        }
        // Ten seconds of silence: at most one second of orders is due at once.
        let later = start + Duration::from_secs(12);
        let at_once = (0..1000).take_while(|_| pace.due(later) <= later).count();
        assert_eq!(at_once, 51);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_everything_is_due_now() {
        let mut pace = Pace::new(None);
        let now = Instant::now();
        assert!((0..10).all(|_| pace.due(now) == now));
    }
}
