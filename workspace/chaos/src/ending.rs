//! Which ends of processes are allowed, and what explains them.
//!
//! Whoever was told to end may end so. Everybody else may end with 75 (fenced) only when it was frozen or
//! its broker did wrong, and with 69 (unreachable) only when it started while there was no broker.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use testkit::Signal;

use crate::plan::Worker;

/// So long after the broker did wrong somebody may still be fenced for it: the sessions that ended
/// meanwhile (4 s), the transactions that were left open (10 s), and a busy machine.
const TROUBLE_LASTS: Duration = Duration::from_secs(25);
/// Who gave up on the broker may need so long to end.
const OUTAGE_LASTS: Duration = Duration::from_secs(5);
/// Who started so shortly before the broker went away had not reached it yet.
const START_TAKES: Duration = Duration::from_secs(5);

/// What a process went through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// What it was asked for.
    pub asked: Asked,
    /// It slept past its session.
    pub was_frozen: bool,
    /// The broker was away or treated this worker badly, a moment ago at the latest.
    pub in_trouble: bool,
    /// The broker is away and was so when it started.
    pub started_without_broker: bool,
}

/// What a process was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// To work.
    Work,
    /// SIGTERM.
    Terminate,
    /// SIGKILL.
    Kill,
}

/// Why a process has ended, as far as that is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By SIGKILL.
    Killed,
    /// By SIGTERM, in order.
    Terminated,
    /// A zombie met its successor.
    Fenced,
    /// A process that was awake was taken for dead because of its broker.
    FencedAwake,
    /// It started while the broker was away, and gave up.
    Unreachable,
}

impl End {
    /// As the record calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Killed => "killed",
            Self::Terminated => "terminated",
            Self::Fenced => "fenced",
            Self::FencedAwake => "fenced awake",
            Self::Unreachable => "unreachable",
        }
    }
}

/// Judges the end of a process.
///
/// # Errors
/// What is wrong with it.
pub fn judge(life: Life, status: ExitStatus) -> Result<End, String> {
    let is_killed = status.signal() == Some(Signal::KILL.as_raw());
    match (life.asked, status.code()) {
        (Asked::Kill, None) if is_killed => Ok(End::Killed),
        // It was about to end anyhow.
        (Asked::Terminate | Asked::Kill, Some(0)) => Ok(End::Terminated),
        (_, Some(75)) if life.was_frozen => Ok(End::Fenced),
        (_, Some(75)) if life.in_trouble => Ok(End::FencedAwake),
        (_, Some(69)) if life.started_without_broker => Ok(End::Unreachable),
        _ => Err(format!("ended with {status}, no fault explains that: {life:?}")),
    }
}

/// What explains ends that nobody asked for.
#[derive(Debug, Default)]
pub struct Excuses(Mutex<Books>);

#[derive(Debug, Default)]
struct Books {
    /// Each time in which the broker treated these workers badly; without an end while it lasts.
    troubles: Vec<Trouble>,
}

#[derive(Debug)]
struct Trouble {
    workers: Vec<Worker>,
    is_outage: bool,
    began: Instant,
    ended: Option<Instant>,
}

impl Trouble {
    fn is_felt(&self, now: Instant, lasts: Duration) -> bool {
        self.ended
            .is_none_or(|ended| now.saturating_duration_since(ended) <= lasts)
    }
}

/// Ends with this value.
#[derive(Debug)]
pub struct InTrouble<'a> {
    excuses: &'a Excuses,
    number: usize,
}

impl Drop for InTrouble<'_> {
    fn drop(&mut self) {
        if let Some(trouble) = self.excuses.books().troubles.get_mut(self.number) {
            trouble.ended = Some(Instant::now());
        }
    }
}

impl Excuses {
    /// The broker treats these workers badly, until the value is dropped.
    pub fn trouble(&self, workers: &[Worker]) -> InTrouble<'_> {
        self.begin(workers, false)
    }

    /// The broker is away, until the value is dropped.
    pub fn outage(&self, workers: &[Worker]) -> InTrouble<'_> {
        self.begin(workers, true)
    }

    fn begin(&self, workers: &[Worker], is_outage: bool) -> InTrouble<'_> {
        let mut books = self.books();
        books.troubles.push(Trouble {
            workers: workers.to_vec(),
            is_outage,
            began: Instant::now(),
            ended: None,
        });
        InTrouble {
            excuses: self,
            number: books.troubles.len() - 1,
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // Each change is one assignment, so a panic elsewhere leaves them whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the broker did this worker wrong, now or a moment ago.
    #[must_use]
    pub fn is_in_trouble(&self, worker: Worker) -> bool {
        let now = Instant::now();
        let books = self.books();
        books
            .troubles
            .iter()
            .any(|trouble| trouble.workers.contains(&worker) && trouble.is_felt(now, TROUBLE_LASTS))
    }

    /// Whether a process that started then has never met a broker, and the broker is away or was so a
    /// moment ago.
    #[must_use]
    pub fn is_start_without_broker(&self, started: Instant) -> bool {
        let now = Instant::now();
        let books = self.books();
        books.troubles.iter().any(|trouble| {
            trouble.is_outage && trouble.is_felt(now, OUTAGE_LASTS) && started + START_TAKES >= trouble.began
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Life = Life {
        asked: Asked::Work,
        was_frozen: false,
        in_trouble: false,
        started_without_broker: false,
    };

    #[test]
    fn only_an_end_that_was_asked_for_or_that_a_fault_explains_is_allowed() {
        let killed = ExitStatus::from_raw(9);
        let code = |code: i32| ExitStatus::from_raw(code << 8);
        let asked = |asked| Life { asked, ..LIFE };
        let frozen = Life {
            was_frozen: true,
            ..LIFE
        };
        let in_trouble = Life {
            in_trouble: true,
            ..LIFE
        };
        let without_broker = Life {
            started_without_broker: true,
            ..LIFE
        };
        assert_eq!(judge(asked(Asked::Kill), killed), Ok(End::Killed));
        assert_eq!(judge(asked(Asked::Terminate), code(0)), Ok(End::Terminated));
        assert_eq!(judge(frozen, code(75)), Ok(End::Fenced));
        assert_eq!(judge(in_trouble, code(75)), Ok(End::FencedAwake));
        assert_eq!(judge(without_broker, code(69)), Ok(End::Unreachable));
        for (life, status) in [
            (LIFE, killed),
            (LIFE, code(0)),
            (LIFE, code(69)),
            (LIFE, code(70)),
            (LIFE, code(75)),
            (in_trouble, code(69)),
            (in_trouble, code(70)),
            (without_broker, code(70)),
            (asked(Asked::Terminate), code(70)),
            (asked(Asked::Terminate), code(75)),
            (asked(Asked::Terminate), killed),
            (asked(Asked::Kill), ExitStatus::from_raw(11)),
        ] {
            assert!(judge(life, status).is_err(), "{life:?} {status:?}");
        }
    }

    #[test]
    fn trouble_excuses_its_workers_and_an_outage_those_that_started_in_it() {
        let excuses = Excuses::default();
        let long_ago = Instant::now().checked_sub(START_TAKES * 2).unwrap();
        assert!(!excuses.is_in_trouble(Worker::Payment));
        let trouble = excuses.trouble(&[Worker::Payment]);
        assert!(excuses.is_in_trouble(Worker::Payment));
        assert!(!excuses.is_in_trouble(Worker::Fraud));
        assert!(!excuses.is_start_without_broker(Instant::now()), "it is there");
        drop(trouble);
        assert!(excuses.is_in_trouble(Worker::Payment), "a moment later too");
        let outage = excuses.outage(&Worker::ALL);
        assert!(excuses.is_start_without_broker(Instant::now()));
        assert!(
            !excuses.is_start_without_broker(long_ago),
            "it had met the broker"
        );
        drop(outage);
        assert!(excuses.is_start_without_broker(Instant::now()));
        assert!(!excuses.is_start_without_broker(long_ago));
    }

    #[test]
    fn trouble_is_felt_for_a_while_and_not_for_good() {
        let now = Instant::now();
        let trouble = |ended| Trouble {
            workers: Vec::new(),
            is_outage: false,
            began: now,
            ended,
        };
        let later = now + TROUBLE_LASTS + Duration::from_millis(1);
        assert!(trouble(None).is_felt(later, TROUBLE_LASTS));
        assert!(trouble(Some(now)).is_felt(now, TROUBLE_LASTS));
        assert!(!trouble(Some(now)).is_felt(later, TROUBLE_LASTS));
    }
}
