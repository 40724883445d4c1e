//! The broker's only source of time, and the way to move it.
//!
//! Everything pure takes the time as an argument; the shell asks this clock, and sleeps on it. So a
//! test can move the whole broker into its future: [`Clock::advance`] steps monotonic and wall time
//! together, never back, and wakes every sleeper, so that what became due is done at once and not
//! when the time would have passed by itself.
//!
//! What waits for a client keeps real time: long polls of Fetch, the silence that a connection may
//! keep, the pause after a failed accept. They measure the world outside, which no call can move.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;
use tokio::time::Instant;

/// A point on the broker's monotonic clock: time since the broker started.
pub(crate) type Moment = Duration;

#[derive(Debug)]
pub(crate) struct Clock {
    started: Instant,
    /// How far the clock was moved ahead of real time, over all steps; 584 years at most.
    advanced_nanos: AtomicU64,
    moved: Notify,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            advanced_nanos: AtomicU64::new(0),
            moved: Notify::new(),
        }
    }

    /// Monotonic time, for time-outs.
    pub(crate) fn now(&self) -> Moment {
        self.started.elapsed() + self.advanced()
    }

    /// Milliseconds since the epoch, for what is compared with record timestamps.
    pub(crate) fn unix_ms(&self) -> i64 {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from((since_epoch + self.advanced()).as_millis()).unwrap_or(i64::MAX)
    }

    /// Returns once [`Clock::now`] reads `moment` or later, whether time passed or was moved. It may
    /// be dropped and asked anew at any time.
    pub(crate) async fn sleep_until(&self, moment: Moment) {
        loop {
            // Made before the look at the clock: a step between the two still wakes this sleeper.
            let moved = self.moved.notified();
            let remaining = moment.saturating_sub(self.now());
            if remaining.is_zero() {
                return;
            }
            tokio::select! {
                () = moved => {}
                () = tokio::time::sleep(remaining) => {}
            }
        }
    }

    /// Moves the clock forward and wakes all who sleep on it.
    pub(crate) fn advance(&self, step: Duration) {
        let step = u64::try_from(step.as_nanos()).unwrap_or(u64::MAX);
        let later = |advanced: u64| Some(advanced.saturating_add(step));
        // The closure always has a value, so this can not fail.
        self.advanced_nanos
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, later)
            .ok();
        self.moved.notify_waiters();
    }

    fn advanced(&self) -> Duration {
        Duration::from_nanos(self.advanced_nanos.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    #[tokio::test(start_paused = true)]
    async fn a_sleeper_wakes_when_the_clock_is_moved_past_its_moment_and_not_before() {
        let clock = Arc::new(Clock::new());
        let sleeper = tokio::spawn({
            let clock = Arc::clone(&clock);
            async move {
                clock.sleep_until(HOUR).await;
                clock.now()
            }
        });
        let started = Instant::now();
        tokio::task::yield_now().await;
        clock.advance(HOUR / 2);
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished(), "half of the time is not enough");
        clock.advance(HOUR / 2);
        assert!(sleeper.await.unwrap() >= HOUR);
        assert!(
            started.elapsed() < Duration::from_secs(1),
            "nobody waited in earnest"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_of_a_sleep_after_a_step_passes_by_itself() {
        let clock = Clock::new();
        let started = Instant::now();
        clock.advance(HOUR / 4);
        clock.sleep_until(HOUR).await;
        let waited = started.elapsed();
        assert!(
            waited >= HOUR * 3 / 4 && waited < HOUR * 3 / 4 + Duration::from_secs(1),
            "{waited:?}"
        );
    }

    #[test]
    fn both_times_move_together_and_stop_at_the_end_of_their_range() {
        let clock = Clock::new();
        let (monotonic, wall) = (clock.now(), clock.unix_ms());
        clock.advance(HOUR);
        assert!(clock.now() >= monotonic + HOUR);
        assert!(clock.unix_ms() >= wall + 3_600_000);
        clock.advance(Duration::MAX);
        clock.advance(Duration::MAX);
        assert!(clock.now() > HOUR * 24 * 365 * 500);
        assert!(clock.unix_ms() > wall);
    }
}
