//! When to stop asking a gateway that is away, and when to ask again.
//!
//! *Closed*: everybody asks. *Open*: nobody asks until a time. *Half open*: one asks, the probe, and its
//! answer closes the circuit or opens it again for twice as long. The circuit opens when so many answers
//! in a row were failures, when half of the last 32 were, or at once when the gateway would refuse every
//! order.
//!
//! - An answer counts in the time in which its question was asked. What was asked before the last opening
//!   says nothing about the gateway of now.
//! - There is one probe at the most, and a probe that ends without a word frees its place.
//! - Nothing here fails an order: who may not ask waits.
//!
//! Pure: times are given. The property test below compares it with these sentences.

use std::time::Duration;

use tokio::time::Instant;

/// So many answers are remembered.
const REMEMBERED: u32 = 32;

/// When it opens, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Failures in a row that open it.
    pub failures: u32,
    /// How long it is open the first time; doubled each time that a probe fails.
    pub first: Duration,
    /// It is never open for longer, unless the gateway asks for it.
    pub most: Duration,
}

/// What an answer says about the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// It works, whatever it said.
    Works,
    /// It gave no answer, or could not serve.
    Fails {
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// It would refuse every order.
    RefusesUs,
}

/// Why the circuit is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The gateway does not work.
    Outage,
    /// It refuses us.
    Configuration,
}

/// The time between two openings. A question keeps the one in which it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Era(u64);

/// Whether somebody may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Yes, as everybody.
    Go,
    /// Yes, alone: the probe of this era.
    Probe(Era),
    /// Not before this time.
    NotBefore(Instant),
    /// Not before the probe has ended.
    AfterProbe,
}

/// What an answer changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is open now.
    Opened {
        /// Why.
        why: Why,
        /// For how long.
        pause: Duration,
        /// How often it has opened since it was closed, with this time.
        openings: u32,
    },
    /// It is closed again.
    Closed,
}

/// The circuit breaker.
#[derive(Clone, Copy, Debug)]
pub struct Circuit {
    limits: Limits,
    era: Era,
    openings: u32,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Closed(Memory),
    Open { until: Instant },
    HalfOpen { probing: bool },
}

/// The last answers, the newest in the lowest bit; a set bit is a failure.
#[derive(Clone, Copy, Debug, Default)]
struct Memory {
    failed: u32,
    count: u32,
}

impl Memory {
    fn remember(&mut self, failed: bool) {
        self.failed = self.failed << 1 | u32::from(failed);
        self.count = (self.count + 1).min(REMEMBERED);
    }

    fn is_bad(self, in_a_row: u32) -> bool {
        self.failed.trailing_ones() >= in_a_row
            || self.count == REMEMBERED && self.failed.count_ones() >= REMEMBERED / 2
    }
}

impl Circuit {
    /// A closed circuit.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            era: Era(0),
            openings: 0,
            state: State::Closed(Memory::default()),
        }
    }

    /// The present era.
    #[must_use]
    pub const fn era(&self) -> Era {
        self.era
    }

    /// Whether everybody may ask.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed(_))
    }

    /// Asks for admission at a time.
    pub fn admit(&mut self, now: Instant) -> Admission {
        match self.state {
            State::Closed(_) => Admission::Go,
            State::Open { until } if now < until => Admission::NotBefore(until),
            State::HalfOpen { probing: true } => Admission::AfterProbe,
            State::Open { .. } | State::HalfOpen { probing: false } => {
                self.state = State::HalfOpen { probing: true };
                Admission::Probe(self.era)
            }
        }
    }

    /// Takes in what an answer says whose question was asked in `asked_in`.
    pub fn report(&mut self, asked_in: Era, sign: Sign, now: Instant) -> Option<Change> {
        if asked_in != self.era {
            return None;
        }
        match (&mut self.state, sign) {
            // The question slipped through as the circuit opened; the probe decides.
            (State::Open { .. }, _) => None,
            (State::Closed(memory), Sign::Works) => {
                memory.remember(false);
                None
            }
            (State::HalfOpen { .. }, Sign::Works) => {
                self.state = State::Closed(Memory::default());
                self.openings = 0;
                Some(Change::Closed)
            }
            (State::Closed(memory), Sign::Fails { retry_after }) => {
                memory.remember(true);
                let is_bad = memory.is_bad(self.limits.failures);
                is_bad.then(|| self.open(Why::Outage, retry_after, now))
            }
            (State::HalfOpen { .. }, Sign::Fails { retry_after }) => {
                Some(self.open(Why::Outage, retry_after, now))
            }
            (_, Sign::RefusesUs) => Some(self.open(Why::Configuration, None, now)),
        }
    }

    /// The probe of an era has ended; if it brought no answer, somebody else may probe.
    pub fn end_probe(&mut self, era: Era) {
        if era == self.era && matches!(self.state, State::HalfOpen { .. }) {
            self.state = State::HalfOpen { probing: false };
        }
    }

    fn open(&mut self, why: Why, asked: Option<Duration>, now: Instant) -> Change {
        let doublings = self.openings.min(20);
        let pause = self.limits.first.saturating_mul(1 << doublings);
        let pause = pause.min(self.limits.most).max(asked.unwrap_or_default());
        self.era = Era(self.era.0 + 1);
        self.openings = self.openings.saturating_add(1);
        self.state = State::Open { until: now + pause };
        Change::Opened {
            why,
            pause,
            openings: self.openings,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FAILS: Sign = Sign::Fails { retry_after: None };
    const LIMITS: Limits = Limits {
        failures: 3,
        first: Duration::from_secs(1),
        most: Duration::from_secs(8),
    };

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn opened(why: Why, pause: u64, openings: u32) -> Option<Change> {
        Some(Change::Opened {
            why,
            pause: seconds(pause),
            openings,
        })
    }

    /// Fails as often as it takes to open a closed circuit.
    fn open(circuit: &mut Circuit, now: Instant) {
        for _ in 0..LIMITS.failures {
            circuit.report(circuit.era(), FAILS, now);
        }
        assert!(!circuit.is_closed());
    }

    #[tokio::test]
    async fn failures_in_a_row_open_it_and_one_good_answer_starts_the_row_anew() {
        let (mut circuit, now) = (Circuit::new(LIMITS), Instant::now());
        let signs = [FAILS, FAILS, Sign::Works, FAILS, FAILS];
        for sign in signs {
            assert_eq!(circuit.report(circuit.era(), sign, now), None);
        }
        assert_eq!(
            circuit.report(circuit.era(), FAILS, now),
            opened(Why::Outage, 1, 1)
        );
    }

    #[tokio::test]
    async fn half_of_the_last_answers_open_it() {
        let limits = Limits {
            failures: 100,
            ..LIMITS
        };
        let (mut circuit, now) = (Circuit::new(limits), Instant::now());
        // One more good answer than failures are remembered until the last one.
        let signs = [Sign::Works, FAILS].repeat(15);
        for sign in signs.into_iter().chain([Sign::Works]) {
            assert_eq!(circuit.report(circuit.era(), sign, now), None);
        }
        assert_eq!(
            circuit.report(circuit.era(), FAILS, now),
            opened(Why::Outage, 1, 1)
        );
    }

    #[tokio::test]
    async fn refused_credentials_open_it_at_once() {
        let (mut circuit, now) = (Circuit::new(LIMITS), Instant::now());
        let change = circuit.report(circuit.era(), Sign::RefusesUs, now);
        assert_eq!(change, opened(Why::Configuration, 1, 1));
    }

    #[tokio::test]
    async fn pauses_double_up_to_the_limit_or_what_the_gateway_asks_for() {
        let (mut circuit, mut now) = (Circuit::new(LIMITS), Instant::now());
        open(&mut circuit, now);
        for (openings, pause) in [(2, 2), (3, 4), (4, 8), (5, 8)] {
            now += seconds(10);
            assert_eq!(circuit.admit(now), Admission::Probe(circuit.era()));
            assert_eq!(
                circuit.report(circuit.era(), FAILS, now),
                opened(Why::Outage, pause, openings)
            );
        }
        now += seconds(8);
        circuit.admit(now);
        let asked = Sign::Fails {
            retry_after: Some(seconds(60)),
        };
        assert_eq!(
            circuit.report(circuit.era(), asked, now),
            opened(Why::Outage, 60, 6)
        );
        assert_eq!(
            circuit.admit(now + seconds(59)),
            Admission::NotBefore(now + seconds(60))
        );
        // After a good answer it begins from the first pause.
        now += seconds(60);
        circuit.admit(now);
        assert_eq!(
            circuit.report(circuit.era(), Sign::Works, now),
            Some(Change::Closed)
        );
        for _ in 1..LIMITS.failures {
            circuit.report(circuit.era(), FAILS, now);
        }
        assert_eq!(
            circuit.report(circuit.era(), FAILS, now),
            opened(Why::Outage, 1, 1)
        );
    }

    #[tokio::test]
    async fn an_answer_to_a_question_of_an_earlier_era_changes_nothing() {
        let (mut circuit, mut now) = (Circuit::new(LIMITS), Instant::now());
        let before = circuit.era();
        open(&mut circuit, now);
        now += seconds(1);
        assert_eq!(circuit.admit(now), Admission::Probe(circuit.era()));
        for sign in [Sign::Works, FAILS, Sign::RefusesUs] {
            assert_eq!(circuit.report(before, sign, now), None);
        }
        assert_eq!(circuit.admit(now), Admission::AfterProbe);
    }

    #[tokio::test]
    async fn a_probe_that_ends_without_an_answer_leaves_its_place_to_the_next() {
        let (mut circuit, mut now) = (Circuit::new(LIMITS), Instant::now());
        open(&mut circuit, now);
        now += seconds(1);
        let era = circuit.era();
        assert_eq!(circuit.admit(now), Admission::Probe(era));
        circuit.end_probe(era);
        assert_eq!(circuit.admit(now), Admission::Probe(era));
        // A late word of a former probe frees nobody else's place.
        circuit.report(era, FAILS, now);
        now += seconds(2);
        assert_eq!(circuit.admit(now), Admission::Probe(circuit.era()));
        circuit.end_probe(era);
        assert_eq!(circuit.admit(now), Admission::AfterProbe);
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Wait(u64),
        Ask,
        Answer(usize, bool),
        Cancel(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0_u64..3).prop_map(Step::Wait),
            Just(Step::Ask),
            Just(Step::Ask),
            (any::<usize>(), any::<bool>()).prop_map(|(who, works)| Step::Answer(who, works)),
            any::<usize>().prop_map(Step::Cancel),
        ]
    }

    proptest! {
        /// Whatever happens: while it is not closed one asks at the most, and it is never stuck: after
        /// its pause, and when nobody asks any more, the next one may.
        #[test]
        fn there_is_one_probe_at_the_most_and_always_a_way_on(steps in prop::collection::vec(step(), 1..200)) {
            let (mut circuit, mut now) = (Circuit::new(LIMITS), Instant::now());
            // Who asks: in which era, and whether as the probe.
            let mut asking: Vec<(Era, Option<Era>)> = Vec::new();
            for step in steps {
                match step {
                    Step::Wait(count) => now += seconds(count),
                    Step::Ask => match circuit.admit(now) {
                        Admission::Go => {
                            prop_assert!(circuit.is_closed());
                            asking.push((circuit.era(), None));
                        }
                        Admission::Probe(era) => {
                            prop_assert_eq!(era, circuit.era());
                            asking.push((era, Some(era)));
                        }
                        Admission::NotBefore(until) => prop_assert!(now < until),
                        Admission::AfterProbe => {
                            let era = circuit.era();
                            prop_assert!(asking.iter().any(|(_, probe)| *probe == Some(era)));
                        }
                    },
                    Step::Answer(who, works) if !asking.is_empty() => {
                        let (era, probe) = asking.swap_remove(who % asking.len());
                        circuit.report(era, if works { Sign::Works } else { FAILS }, now);
                        if let Some(probe) = probe {
                            circuit.end_probe(probe);
                        }
                    }
                    Step::Cancel(who) if !asking.is_empty() => {
                        if let (_, Some(probe)) = asking.swap_remove(who % asking.len()) {
                            circuit.end_probe(probe);
                        }
                    }
                    Step::Answer(..) | Step::Cancel(_) => {}
                }
                let era = circuit.era();
                let probes = asking.iter().filter(|(_, probe)| *probe == Some(era)).count();
                prop_assert!(probes <= 1 || circuit.is_closed());
            }
            for (_, probe) in asking {
                if let Some(probe) = probe {
                    circuit.end_probe(probe);
                }
            }
            let admission = circuit.admit(now + LIMITS.most);
            prop_assert!(matches!(admission, Admission::Go | Admission::Probe(_)), "{admission:?}");
        }
    }
}
