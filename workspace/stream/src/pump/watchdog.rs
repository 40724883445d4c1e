//! Whether a pump gets anywhere.
//!
//! A pump that turns and polls looks alive, and may all the same commit nothing for ever: a client that
//! does not fetch, a commit that is refused again and again. The watchdog looks at each partition: where
//! nothing was committed for a long time although committed records are there to read, and nobody has
//! declared a wait, it ends the pump with that reason.
//!
//! Declared waits are: work in flight, which has deadlines of its own; a brake; a record that is not due;
//! what former owners settled and is being read; topics that have to grow first; a broker that does not answer or does not take outputs.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::time::{Duration, Instant};

use super::Pump;
use crate::error::StreamError;
use crate::ffi::{End, Inquirer};
use crate::position::{Offset, TopicPartition};
use crate::source::Source;
use crate::stage::Stage;

/// The question for the end may take so long.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);

/// How far a partition is, since when, and up to where there was something to read in the middle of that time.
struct Look {
    committed: Offset,
    since: Instant,
    /// The end, and when it was heard of.
    end: Option<(Offset, Instant)>,
}

/// What follows from a look.
#[derive(Debug, PartialEq, Eq)]
enum Finding {
    /// It gets on, or waits for something, or not long enough has passed.
    Fine,
    /// Half of the limit has passed: is there anything to read?
    Ask,
    /// There was something to read up to this offset for half of the limit, and it was not read.
    Stuck(Offset),
}

/// Which partitions do not get anywhere.
#[derive(Default)]
pub(super) struct Watchdog {
    partitions: BTreeMap<TopicPartition, Look>,
}

impl Watchdog {
    /// Takes a look at a partition: how far it is, and whether it should get on now.
    fn look(
        &mut self,
        at: TopicPartition,
        committed: Offset,
        should_move: bool,
        limit: Duration,
        now: Instant,
    ) -> Finding {
        let fresh = || Look {
            committed,
            since: now,
            end: None,
        };
        let look = self.partitions.entry(at).or_insert_with(fresh);
        if look.committed != committed || !should_move {
            *look = fresh();
            return Finding::Fine;
        }
        let half_since = |when: Instant| now.saturating_duration_since(when) >= limit / 2;
        match look.end {
            Some((end, heard)) if half_since(heard) => Finding::Stuck(end),
            None if half_since(look.since) => Finding::Ask,
            _ => Finding::Fine,
        }
    }

    /// Takes in up to where there is something to read; `None` where nobody knows.
    fn hear(&mut self, at: TopicPartition, end: Option<Offset>, now: Instant) {
        if let Some(look) = self.partitions.get_mut(&at) {
            match end.filter(|end| *end > look.committed) {
                Some(end) => look.end = Some((end, now)),
                None => look.since = now,
            }
        }
    }

    fn keep(&mut self, assigned: &[TopicPartition]) {
        self.partitions.retain(|at, _| assigned.contains(at));
    }
}

impl<S: Source, G: Stage> Pump<S, G> {
    /// Looks at all partitions.
    pub(super) fn watch(&mut self) -> Result<(), StreamError> {
        let limit = Duration::from_millis(self.parts.settings.watchdog_ms);
        let now = Instant::now();
        let assigned: Vec<_> = self.ledger.assigned().collect();
        self.watchdog.keep(&assigned);
        let waits = self.polled_only || self.is_broker_away;
        let mut asked = Vec::new();
        for at in assigned {
            let Some(committed) = self.ledger.committed_offset(at) else {
                continue;
            };
            let is_unknown = self.ledger.begins(at).is_none();
            let is_waiting = is_unknown
                || waits
                || self.ledger.has_open(at)
                || self.must_wait(at)
                || self.source.is_waiting(at);
            match self.watchdog.look(at, committed, !is_waiting, limit, now) {
                Finding::Fine => {}
                Finding::Ask => asked.push(at),
                Finding::Stuck(end) => {
                    return Err(StreamError::Stuck {
                        topic: self.topic(at).to_owned(),
                        partition: at.partition.0,
                        committed: committed.0,
                        end: end.0,
                        limit_ms: limit.as_millis(),
                    });
                }
            }
        }
        if !asked.is_empty() {
            self.ask_for_ends(&asked, now);
        }
        Ok(())
    }

    /// Asks the broker, not the client: it may be the client that is stuck. What is hidden behind an open
    /// transaction is not there to read, and a broker that does not answer is a wait of its own.
    fn ask_for_ends(&mut self, asked: &[TopicPartition], now: Instant) {
        let places: Vec<_> = asked
            .iter()
            .filter_map(|at| Some((CString::new(self.topic(*at)).ok()?, at.partition.0)))
            .collect();
        let ends = Inquirer::open(&self.parts.kafka.properties("watchdog"))
            .and_then(|inquirer| inquirer.ends(&places, End::OfCommitted, ASK_TIMEOUT))
            .unwrap_or_else(|error| {
                tracing::debug!(%error, "the watchdog gets no answer");
                Vec::new()
            });
        for at in asked {
            let is_it = |topic: &CString, partition: i32| {
                partition == at.partition.0 && topic.to_bytes() == self.topic(*at).as_bytes()
            };
            let end = ends.iter().find(|(topic, partition, _)| is_it(topic, *partition));
            self.watchdog.hear(*at, end.map(|(_, _, end)| Offset(*end)), now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::{Partition, TopicIndex};

    #[test]
    fn only_a_partition_that_should_get_on_and_does_not_is_stuck() {
        let at = TopicPartition {
            topic: TopicIndex(0),
            partition: Partition(0),
        };
        let limit = Duration::from_secs(60);
        let start = Instant::now();
        let second = |second: u64| start + Duration::from_secs(second);
        let mut watchdog = Watchdog::default();
        let look = |watchdog: &mut Watchdog, when: u64, committed: i64, should_move: bool| {
            watchdog.look(at, Offset(committed), should_move, limit, second(when))
        };
        let w = &mut watchdog;
        assert_eq!(look(w, 0, 5, true), Finding::Fine);
        assert_eq!(look(w, 29, 5, true), Finding::Fine);
        assert_eq!(look(w, 30, 5, true), Finding::Ask);
        w.hear(at, Some(Offset(5)), second(30));
        assert_eq!(look(w, 59, 5, true), Finding::Fine, "nothing was there to read");
        assert_eq!(look(w, 60, 5, true), Finding::Ask);
        w.hear(at, Some(Offset(9)), second(60));
        assert_eq!(look(w, 89, 5, true), Finding::Fine, "that may have just come");
        assert_eq!(look(w, 90, 6, true), Finding::Fine, "it got on");
        assert_eq!(look(w, 120, 6, true), Finding::Ask);
        w.hear(at, Some(Offset(9)), second(120));
        assert_eq!(look(w, 140, 6, false), Finding::Fine, "it waits for something");
        assert_eq!(look(w, 170, 6, true), Finding::Ask);
        w.hear(at, None, second(170));
        assert_eq!(look(w, 199, 6, true), Finding::Fine, "nobody answers");
        assert_eq!(look(w, 200, 6, true), Finding::Ask);
        w.hear(at, Some(Offset(9)), second(200));
        assert_eq!(look(w, 230, 6, true), Finding::Stuck(Offset(9)));

        // Nobody looked while the broker was away.
        assert_eq!(look(w, 231, 7, true), Finding::Fine);
        assert_eq!(look(w, 900, 7, true), Finding::Ask);
        w.hear(at, Some(Offset(9)), second(900));
        assert_eq!(
            look(w, 901, 7, true),
            Finding::Fine,
            "half of the limit begins now"
        );
    }
}
