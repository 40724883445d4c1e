//! The one signal to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

/// Asks a process to stop, once, for a reason. Clones share the state; it never goes back.
#[derive(Clone, Debug)]
pub struct Shutdown {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    // Beside the channel, because pump threads look at it on every turn of their loop.
    requested: AtomicBool,
    reason: watch::Sender<Option<String>>,
}

impl Shutdown {
    /// A shutdown that nobody has requested.
    pub fn new() -> Self {
        Self {
            inner: Arc::new(Inner {
                requested: AtomicBool::new(false),
                reason: watch::Sender::new(None),
            }),
        }
    }

    /// Resolves when the shutdown is requested, at once when it already was.
    pub async fn requested(&self) {
        let mut reason = self.inner.reason.subscribe();
        // The sender lives as long as `self`, so this can only end with a reason.
        let _reason = reason.wait_for(Option::is_some).await;
    }

    /// Whether the shutdown is requested.
    pub fn is_requested(&self) -> bool {
        self.inner.requested.load(Ordering::Acquire)
    }

    /// Requests the shutdown. The first reason stands.
    pub fn request(&self, reason: &str) {
        self.inner.reason.send_if_modified(|current| {
            let first = current.is_none();
            if first {
                // Said before anybody is woken: the process may end before another line is written.
                tracing::info!(reason, "shutting down");
                self.inner.requested.store(true, Ordering::Release);
                *current = Some(reason.to_owned());
            }
            first
        });
    }

    /// Why the shutdown was requested.
    pub fn reason(&self) -> Option<String> {
        self.inner.reason.borrow().clone()
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_wakes_all_who_wait_and_keeps_its_first_reason() {
        let shutdown = Shutdown::new();
        let waiting = [shutdown.clone(), shutdown.clone()]
            .map(|shutdown| tokio::spawn(async move { shutdown.requested().await }));
        assert!(!shutdown.is_requested());
        shutdown.request("SIGTERM");
        shutdown.request("SIGINT");
        for task in waiting {
            task.await.unwrap();
        }
        shutdown.requested().await;
        assert!(shutdown.is_requested());
        assert_eq!(shutdown.reason().as_deref(), Some("SIGTERM"));
    }
}
