//! What a pump does with its brake: pulls it, notes it beside the offsets, and waits for its release.
//!
//! While the brake of a partition is pulled the pump stays in the group and polls, but reads nothing of
//! the partition and commits nothing of it. What has ended already is kept where endings are kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use service::{Health, now_ms};

use super::Pump;
use crate::brake::{Brake, BrakeLimits, brake_name};
use crate::error::StreamError;
use crate::position::TopicPartition;
use crate::release::{ReleaseConfig, ReleaseWatch};
use crate::source::Source;
use crate::stage::Stage;
use crate::unit_of_work::{Committed, UnitOfWork};

/// Whether the process is ready, while some of its pumps may have their brake pulled.
#[derive(Clone)]
pub(crate) struct BrakeSign {
    health: Health,
    pulled: Arc<AtomicUsize>,
}

impl BrakeSign {
    pub fn new(health: Health) -> Self {
        Self {
            health,
            pulled: Arc::default(),
        }
    }

    fn show(&self, reason: &str) {
        self.pulled.fetch_add(1, Ordering::AcqRel);
        self.health.not_ready(reason);
    }

    fn take_down(&self, is_stopping: bool) {
        if self.pulled.fetch_sub(1, Ordering::AcqRel) == 1 && !is_stopping {
            self.health.ready();
        }
    }
}

/// A partition whose brake is pulled.
struct Held {
    name: String,
    /// The group has it beside its offset.
    is_noted: bool,
}

/// The brake of a pump.
pub(crate) struct Braking {
    brake: Brake,
    /// As of the last commit: a unit that fails is counted again.
    committed: Brake,
    held: BTreeMap<TopicPartition, Held>,
    watch: Option<ReleaseWatch>,
}

impl Braking {
    pub fn new(limits: BrakeLimits) -> Self {
        Self {
            brake: Brake::new(limits),
            committed: Brake::new(limits),
            held: BTreeMap::new(),
            watch: None,
        }
    }

    /// Counts a record that has ended.
    pub fn count(&mut self, is_dead: bool) -> Result<(), StreamError> {
        match self.brake.count(is_dead) {
            Some(pulled) => Err(StreamError::Brake {
                why: pulled.to_string(),
            }),
            None => Ok(()),
        }
    }

    /// What was counted is committed; something of it was records.
    pub fn keep(&mut self, some: bool) {
        if some {
            self.committed = self.brake.clone();
        }
    }

    /// What was counted since the last commit is counted again.
    pub fn take_back(&mut self) {
        self.brake = self.committed.clone();
    }

    /// Whether this partition of a source must not be read.
    pub fn holds(&self, source: TopicPartition) -> bool {
        self.held.contains_key(&source)
    }

    /// The partition is somebody else's now.
    pub fn give_up(&mut self, source: TopicPartition) -> bool {
        self.held.remove(&source).is_some()
    }
}

impl<S: Source, G: Stage> Pump<S, G> {
    /// Stops the work on all partitions of this pump: what is wrong is not wrong with one of them.
    pub(super) fn pull_brake(&mut self, why: &str) -> Result<(), StreamError> {
        let name = brake_name(now_ms(), rand::random());
        let plan = &self.parts.unit.plan;
        let sources: Vec<_> = self
            .ledger
            .assigned()
            .filter(|at| !plan.is_retry(at.topic) && !self.braking.holds(*at))
            .collect();
        tracing::error!(
            brake = name,
            why,
            group = self.parts.unit.group,
            "the brake is pulled: nothing more is committed until `orderflow brake release --group {}`",
            self.parts.unit.group
        );
        self.parts.metrics.brakes_pulled.inc();
        for at in &sources {
            self.hold(*at, &name, false);
        }
        self.wait_for_release(why)?;
        let all: Vec<_> = sources.iter().flat_map(|at| self.with_retries(*at)).collect();
        self.source.pause(&all)
    }

    /// The group says that the brake of a partition is pulled, which was just assigned.
    pub(super) fn stay_braked(&mut self, at: TopicPartition, name: &str) -> Result<(), StreamError> {
        tracing::warn!(
            brake = name,
            topic = self.topic(at),
            partition = at.partition.0,
            "the brake is pulled"
        );
        self.hold(at, name, true);
        self.wait_for_release("the brake was pulled before this partition was assigned")
    }

    fn hold(&mut self, at: TopicPartition, name: &str, is_noted: bool) {
        for held in self.with_retries(at) {
            self.ledger.hold(held, true);
        }
        let name = name.to_owned();
        self.braking.held.insert(at, Held { name, is_noted });
    }

    /// Whether nothing of this partition may be read or committed.
    pub(super) fn is_braked(&self, at: TopicPartition) -> bool {
        self.braking.holds(self.parts.unit.plan.source(at))
    }

    fn with_retries(&self, at: TopicPartition) -> Vec<TopicPartition> {
        std::iter::once(at)
            .chain(self.parts.unit.plan.retries(at))
            .collect()
    }

    /// Begins to wait, or goes on waiting for what is held now.
    fn wait_for_release(&mut self, why: &str) -> Result<(), StreamError> {
        let names: BTreeSet<String> = self.braking.held.values().map(|held| held.name.clone()).collect();
        self.parts.metrics.set_waiting("brake", !names.is_empty());
        if names.is_empty() {
            if self.braking.watch.take().is_some() {
                self.parts.sign.take_down(self.parts.wake.is_stopping());
            }
            return Ok(());
        }
        let config = ReleaseConfig {
            kafka: self.parts.kafka.clone(),
            topic: self.parts.events.clone(),
            group: self.parts.unit.group.clone(),
        };
        let watch = ReleaseWatch::start(config, names, Arc::clone(&self.parts.wake));
        let watch = watch.map_err(|error| StreamError::Halted {
            message: format!("nobody can wait for the release of the brake: {error}"),
        })?;
        if self.braking.watch.replace(watch).is_none() {
            self.parts.sign.show(&format!("the brake is pulled: {why}"));
        }
        Ok(())
    }

    /// Partitions were given up: what was held of them is held by their next owner.
    pub(super) fn leave_brakes(&mut self) -> Result<(), StreamError> {
        if self.braking.watch.is_some() && self.braking.held.is_empty() {
            return self.wait_for_release("");
        }
        Ok(())
    }

    /// Notes the brake where the group does not know it yet, and goes on where it was released.
    pub(super) fn tend_brake(&mut self) -> Result<(), StreamError> {
        let Some(watch) = &self.braking.watch else {
            return Ok(());
        };
        let released = watch.take();
        if !released.is_empty() {
            return self.release(&released);
        }
        self.note_brake()
    }

    fn release(&mut self, names: &[String]) -> Result<(), StreamError> {
        let is_released = |held: &Held| names.contains(&held.name);
        let free: Vec<_> = self
            .braking
            .held
            .iter()
            .filter(|(_, held)| is_released(held))
            .map(|(at, _)| *at)
            .collect();
        tracing::warn!(brakes = names.join(" "), "the brake was released, going on");
        self.braking.brake.forget();
        self.braking.committed.forget();
        let mut readable = Vec::new();
        for at in free {
            self.braking.held.remove(&at);
            readable.extend(self.with_retries(at));
        }
        for at in &readable {
            self.ledger.hold(*at, false);
            self.try_letters_again(*at)?;
        }
        if self.braking.held.is_empty() {
            self.wait_for_release("")?;
        }
        if self.polled_only {
            return Ok(());
        }
        self.resume(readable)
    }

    /// Commits what is committed already, once more, with the brake beside it.
    pub(super) fn note_brake(&mut self) -> Result<(), StreamError> {
        // What else is sent in a unit goes with its own offsets.
        if !matches!(self.unit, UnitOfWork::Ready(_)) {
            return Ok(());
        }
        let unnoted: Vec<_> = self
            .braking
            .held
            .iter()
            .filter(|(_, held)| !held.is_noted)
            .collect();
        let Some((_, first)) = unnoted.first() else {
            return Ok(());
        };
        let name = first.name.clone();
        let of_name: Vec<TopicPartition> = unnoted
            .iter()
            .filter(|(_, held)| held.name == name)
            .map(|(at, _)| **at)
            .collect();
        // Of a partition that was never read from there is nothing to keep anybody from.
        let commits = self.committed_again(of_name.iter().copied());
        if !commits.is_empty() {
            let begun = self.unit.open().map(|_| ());
            self.survive(begun)?;
            let Some(open) = self.unit.take_open() else {
                return Ok(());
            };
            let outcome = open.commit(&self.source, &commits, Some(&name));
            let is_noted = matches!(outcome, Committed::Yes(_));
            self.conclude(outcome, &[])?;
            if !is_noted {
                return Ok(());
            }
        }
        for at in of_name {
            if let Some(held) = self.braking.held.get_mut(&at) {
                held.is_noted = true;
            }
        }
        Ok(())
    }
}
