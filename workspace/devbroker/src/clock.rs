//! The broker's only source of time.
//!
//! Everything pure takes the time as an argument; the shell asks this clock. One place, so that
//! tests can one day move it for the whole broker.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A point on the broker's monotonic clock: time since the broker started.
pub(crate) type Moment = Duration;

#[derive(Debug)]
pub(crate) struct Clock {
    started: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
        }
    }

    /// Monotonic time, for time-outs.
    pub(crate) fn now(&self) -> Moment {
        self.started.elapsed()
    }

    /// The instant at which [`Clock::now`] will read `moment`.
    pub(crate) fn instant(&self, moment: Moment) -> Instant {
        self.started + moment
    }

    /// Milliseconds since the epoch, for what is compared with record timestamps.
    pub(crate) fn unix_ms(&self) -> i64 {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
    }
}
