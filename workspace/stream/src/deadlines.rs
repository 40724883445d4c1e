//! When the steps of a shutdown have to be over.
//!
//! Every deadline counts from the moment of the signal and not from the beginning of its step: what one step
//! leaves is there for the next, and whatever the pump was at when it was told to stop, the sum is kept.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::settings::{CALL_OVERRUN, COMMIT_TIMEOUT, FLUSH_TIMEOUT, StreamSettings};
use crate::stage::Wake;

/// The deadlines of one pump.
#[derive(Clone)]
pub(crate) struct Deadlines {
    wake: Arc<Wake>,
    drain: Duration,
}

impl Deadlines {
    pub fn new(wake: Arc<Wake>, settings: &StreamSettings) -> Self {
        Self {
            wake,
            drain: Duration::from_millis(settings.drain_timeout_ms),
        }
    }

    pub fn is_stopping(&self) -> bool {
        self.wake.is_stopping()
    }

    /// What would usually end at `usual` ends so long after the signal, if that is sooner.
    fn after_stop(&self, usual: Instant, allowed: Duration) -> Instant {
        let stopped = self.wake.stopped_at();
        stopped.map_or(usual, |stopped| usual.min(stopped + allowed))
    }

    /// Until when work in flight may finish.
    pub fn of_draining(&self, usual: Instant) -> Instant {
        self.after_stop(usual, self.drain)
    }

    /// Until when outputs may be acknowledged.
    pub fn of_delivery(&self, usual: Instant) -> Instant {
        self.after_stop(usual, self.drain + FLUSH_TIMEOUT)
    }

    /// Until when a call of the client about a transaction may be told to take: it may take a little longer.
    pub fn of_calls(&self, usual: Instant) -> Instant {
        self.after_stop(usual, self.drain + FLUSH_TIMEOUT + COMMIT_TIMEOUT - CALL_OVERRUN)
    }
}
