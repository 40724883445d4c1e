//! Faults that a test injects: which there are, and which request they strike.
//!
//! A request is struck by at most one fault: the first that was injected of those that apply. While
//! no fault can strike, a request costs one relaxed load. A fault stays known after its last strike,
//! for its count and so that what it stopped can be released, until it is removed; their number is
//! bounded.
//!
//! - `plan`: pure; what goes wrong, with which requests, and how often.
//! - `strike`: carries a fault out, around the handling of a request.

mod plan;
mod strike;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(crate) use plan::Names;
pub use plan::{Fault, Injection};
pub(crate) use strike::answer;

use crate::sync::lock;
use plan::{Header, Rule};

/// Faults that may be known at the same time.
const MAX_FAULTS: usize = 1_000;

#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// How many can still strike: all that is looked at where there are none.
    armed: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last_id: u64,
    /// In the order of injection.
    entries: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    rule: Rule,
    struck: watch::Sender<u64>,
    /// Cancelled when the fault is removed.
    removed: CancellationToken,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.removed.cancel();
    }
}

/// A fault that a request has met.
#[derive(Debug)]
pub(crate) struct Strike {
    id: u64,
    fault: Fault,
    struck: watch::Sender<u64>,
    removed: CancellationToken,
}

/// A fault as it stands.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) id: u64,
    pub(crate) injection: Injection,
    pub(crate) struck: u64,
    pub(crate) armed: bool,
}

impl Faults {
    /// Why an injection is refused is an `Err`.
    pub(crate) fn inject(&self, injection: Injection) -> Result<u64, String> {
        if let Some(problem) = injection.problem() {
            return Err(problem);
        }
        let mut state = lock(&self.state);
        if state.entries.len() >= MAX_FAULTS {
            return Err(format!(
                "{MAX_FAULTS} faults are known already; remove some first, also those that struck their last"
            ));
        }
        state.last_id += 1;
        let id = state.last_id;
        tracing::info!(id, ?injection, "fault injected");
        let entry = Entry {
            rule: Rule::new(injection),
            struck: watch::Sender::new(0),
            removed: CancellationToken::new(),
        };
        state.entries.insert(id, entry);
        self.count_armed(&state);
        Ok(id)
    }

    /// Whether there was such a fault.
    pub(crate) fn remove(&self, id: u64) -> bool {
        let mut state = lock(&self.state);
        let removed = state.entries.remove(&id).is_some();
        self.count_armed(&state);
        removed
    }

    /// Removes all faults and returns how many there were.
    pub(crate) fn clear(&self) -> usize {
        let mut state = lock(&self.state);
        let removed = std::mem::take(&mut state.entries).len();
        self.count_armed(&state);
        removed
    }

    pub(crate) fn known(&self) -> Vec<Known> {
        let state = lock(&self.state);
        let known = state.entries.iter().map(|(id, entry)| Known {
            id: *id,
            injection: entry.rule.injection.clone(),
            struck: *entry.struck.borrow(),
            armed: entry.rule.is_armed(),
        });
        known.collect()
    }

    /// The fault that strikes this request, if one does. `names` is asked only when a fault looks for
    /// what the body names.
    pub(crate) fn strike(&self, request: &Header<'_>, names: impl FnOnce() -> Names) -> Option<Strike> {
        if self.armed.load(Ordering::Relaxed) == 0 {
            return None;
        }
        // Decoding a request is no work for a lock, so the names are known before it is taken again.
        let names = self.look_for_names(request).then(names);
        let mut state = lock(&self.state);
        let strike = state.entries.iter_mut().find_map(|(id, entry)| {
            let injection = &entry.rule.injection;
            let applies = injection.concerns(request)
                && match &names {
                    Some(names) => injection.is_about(names),
                    None => !injection.looks_for_names(),
                };
            (applies && entry.rule.strikes()).then(|| Strike {
                id: *id,
                fault: entry.rule.injection.fault,
                struck: entry.struck.clone(),
                removed: entry.removed.clone(),
            })
        })?;
        self.count_armed(&state);
        Some(strike)
    }

    fn look_for_names(&self, request: &Header<'_>) -> bool {
        lock(&self.state).entries.values().any(|entry| {
            let injection = &entry.rule.injection;
            entry.rule.is_armed() && injection.looks_for_names() && injection.concerns(request)
        })
    }

    fn count_armed(&self, state: &State) {
        let armed = state.entries.values().filter(|entry| entry.rule.is_armed());
        self.armed.store(armed.count(), Ordering::Relaxed);
    }

    fn struck(&self, id: u64) -> Option<watch::Receiver<u64>> {
        let state = lock(&self.state);
        state.entries.get(&id).map(|entry| entry.struck.subscribe())
    }
}

/// A fault that was injected. It is removed when this is dropped.
#[derive(Debug)]
#[must_use = "the fault is removed when its handle is dropped"]
pub struct FaultHandle {
    faults: Arc<Faults>,
    id: u64,
    struck: watch::Receiver<u64>,
}

impl FaultHandle {
    pub(crate) fn inject(faults: &Arc<Faults>, injection: Injection) -> Result<Self, String> {
        let id = faults.inject(injection)?;
        let gone = || "the fault was removed at once".to_owned();
        Ok(Self {
            struck: faults.struck(id).ok_or_else(gone)?,
            faults: Arc::clone(faults),
            id,
        })
    }

    /// How often it struck.
    pub fn struck(&self) -> u64 {
        *self.struck.borrow()
    }

    /// Returns when it struck so often in all: `true`. Or when it was removed before that, by
    /// [`Broker::clear_faults`](crate::Broker::clear_faults): `false`. A connection that drops after
    /// the effect counts when the effect has happened, one that stops when it has stopped.
    pub async fn wait_until_struck(&self, times: u64) -> bool {
        let mut struck = self.struck.clone();
        struck.wait_for(|struck| *struck >= times).await.is_ok()
    }

    /// Removes the fault: it strikes no more, and connections that it stopped go on.
    pub fn remove(self) {}
}

impl Drop for FaultHandle {
    fn drop(&mut self) {
        self.faults.remove(self.id);
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::ApiKey;

    use super::*;

    const NO_NAMES: fn() -> Names = || panic!("no fault looks for names");

    fn faults() -> Arc<Faults> {
        Arc::new(Faults::default())
    }

    fn inject(faults: &Arc<Faults>, injection: Injection) -> FaultHandle {
        FaultHandle::inject(faults, injection).unwrap()
    }

    fn request(api: ApiKey) -> Header<'static> {
        Header {
            api,
            client_id: "client",
            client_is_known: true,
        }
    }

    fn struck_by(faults: &Faults, api: ApiKey) -> Option<Fault> {
        let strike = faults.strike(&request(api), NO_NAMES);
        strike.map(|strike| strike.fault)
    }

    #[test]
    fn the_oldest_fault_that_applies_strikes_until_it_is_exhausted() {
        let faults = faults();
        let _first = inject(&faults, Fault::DropBefore.on(ApiKey::Produce));
        let _second = inject(&faults, Fault::DropAfter.on_any_request().times(2));
        assert_eq!(struck_by(&faults, ApiKey::Fetch), Some(Fault::DropAfter));
        assert_eq!(struck_by(&faults, ApiKey::Produce), Some(Fault::DropBefore));
        assert_eq!(struck_by(&faults, ApiKey::Produce), Some(Fault::DropAfter));
        assert_eq!(struck_by(&faults, ApiKey::Produce), None);
        assert_eq!(
            faults.armed.load(Ordering::Relaxed),
            0,
            "nothing is looked at any more"
        );
    }

    #[test]
    fn a_fault_is_removed_with_its_handle() {
        let faults = faults();
        let handle = inject(&faults, Fault::DropBefore.on_any_request().always());
        let strike = faults.strike(&request(ApiKey::Fetch), NO_NAMES).unwrap();
        assert!(!strike.removed.is_cancelled());
        drop(handle);
        assert!(strike.removed.is_cancelled(), "what it stopped is released");
        assert_eq!(struck_by(&faults, ApiKey::Fetch), None);
        assert!(faults.known().is_empty());
    }

    #[test]
    fn names_are_looked_at_only_for_a_fault_that_asks_for_them() {
        let faults = faults();
        let _fault = inject(&faults, Fault::DropBefore.on(ApiKey::Produce).of_topic("orders"));
        assert_eq!(struck_by(&faults, ApiKey::Fetch), None);
        let other = faults.strike(&request(ApiKey::Produce), Names::default);
        assert!(other.is_none());
        let orders = || Names {
            topics: vec!["orders".to_owned()],
            ..Names::default()
        };
        assert!(faults.strike(&request(ApiKey::Produce), orders).is_some());
    }

    #[test]
    fn the_number_of_faults_is_bounded() {
        let faults = faults();
        for _ in 0..MAX_FAULTS {
            faults.inject(Fault::DropBefore.on(ApiKey::Fetch)).unwrap();
        }
        let error = faults.inject(Fault::DropBefore.on(ApiKey::Fetch)).unwrap_err();
        assert!(error.contains("1000 faults"), "{error}");
        assert_eq!(faults.clear(), MAX_FAULTS);
        assert_eq!(struck_by(&faults, ApiKey::Fetch), None);
    }

    #[tokio::test]
    async fn whoever_waits_for_a_strike_learns_of_it_or_of_the_removal() {
        let faults = faults();
        let handle = inject(&faults, Fault::DropBefore.on_any_request().times(2));
        let strike = faults.strike(&request(ApiKey::Fetch), NO_NAMES).unwrap();
        assert_eq!(handle.struck(), 0, "decided, not done");
        strike.done();
        assert!(handle.wait_until_struck(1).await);
        drop(strike);
        faults.clear();
        assert!(!handle.wait_until_struck(2).await);
        assert_eq!(handle.struck(), 1);
    }
}
