//! One record's way through its attempts, on paused time and without a broker.

use std::collections::VecDeque;
use std::sync::Mutex;

use prometheus::Registry;

use super::*;
use crate::backoff::Backoff;
use crate::handler::OutputTopic;
use crate::position::{Offset, Partition, TopicIndex};
use crate::stage::{Fate, Publication};

const AT: TopicPartition = TopicPartition {
    topic: TopicIndex(0),
    partition: Partition(0),
};

/// Answers as it was told to, attempts and last words each in their order.
#[derive(Default)]
struct Scripted {
    attempts: Mutex<VecDeque<Result<&'static str, Failure>>>,
    last_words: Mutex<VecDeque<Result<LastWord, Failure>>>,
    /// How long each attempt takes, and how long it has to wait before it.
    takes: Duration,
    waits: Duration,
    delays_in_place: Vec<Duration>,
    numbers: Mutex<Vec<u32>>,
    places: Arc<Mutex<usize>>,
}

/// A place among the attempts that are under way.
struct Place(Arc<Mutex<usize>>);

impl Drop for Place {
    fn drop(&mut self) {
        *self.0.lock().unwrap() -= 1;
    }
}

impl ConcurrentHandler for Scripted {
    type Job = ();

    fn decode(&self, _: &Record<'_>) -> Result<(), Failure> {
        Ok(())
    }

    async fn ready(&self) -> impl Send {
        tokio::time::sleep(self.waits).await;
        *self.places.lock().unwrap() += 1;
        Place(Arc::clone(&self.places))
    }

    async fn attempt(&self, (): &(), number: u32) -> Result<Vec<OutputRecord>, Failure> {
        assert_eq!(*self.places.lock().unwrap(), 1, "an attempt has its place");
        self.numbers.lock().unwrap().push(number);
        tokio::time::sleep(self.takes).await;
        let next = self.attempts.lock().unwrap().pop_front();
        next.unwrap_or_else(refused).map(output)
    }

    async fn give_up(&self, (): &(), _: u32) -> Result<LastWord, Failure> {
        assert_eq!(*self.places.lock().unwrap(), 1, "a last word has its place");
        let next = self.last_words.lock().unwrap().pop_front();
        match next {
            Some(word) => word,
            None => std::future::pending().await,
        }
    }
}

fn refused() -> Result<&'static str, Failure> {
    Err(Failure::transient("refused", "not now"))
}

fn away<T>() -> Result<T, Failure> {
    Err(Failure::away("away", "nobody is there"))
}

fn output(value: &str) -> Vec<OutputRecord> {
    vec![OutputRecord {
        topic: OutputTopic(0),
        key: Vec::new(),
        value: value.as_bytes().to_vec(),
    }]
}

/// Runs a record to its end: the numbers of its attempts, its outputs, and code and attempts of its
/// dead letter.
async fn run(handler: Scripted) -> (Vec<u32>, Vec<OutputRecord>, Option<(String, u32)>) {
    let handler = Arc::new(handler);
    let common = Common {
        handler: Arc::clone(&handler),
        plan: RetryPlan::none(),
        retry: RetryPolicy {
            backoff: Backoff {
                first: Duration::from_millis(100),
                most: Duration::from_secs(2),
            },
            deadline: Duration::from_secs(2),
        },
        attempt_limit: Duration::from_secs(30),
        delays_in_place: handler.delays_in_place.clone().into(),
        metrics: StreamMetrics::register(&Registry::new()).expect("fresh registry"),
    };
    let work = Work {
        common: Arc::new(common),
        job: (),
        record: OwnedRecord {
            at: AT,
            offset: Offset(0),
            record_time_ms: 0,
            key: None,
            value: None,
            headers: Vec::new(),
        },
        origin: Origin {
            at: AT,
            offset: Offset(0),
            record_time_ms: 0,
            attempts: 0,
        },
    };
    let ending = work.run().await.expect("goes on");
    let Ending::Publish(publication) = ending else {
        panic!("something is published")
    };
    let Publication { outputs, fate, .. } = *publication;
    let numbers = handler.numbers.lock().unwrap().clone();
    assert_eq!(*handler.places.lock().unwrap(), 0, "all places were given back");
    let letter = match fate {
        Fate::DeadLetter(_, cause) => Some((cause.code, cause.attempts)),
        Fate::Settled => None,
        Fate::Parked(..) => panic!("there are no retry topics here"),
    };
    (numbers, outputs, letter)
}

#[tokio::test(start_paused = true)]
async fn waiting_uses_up_neither_attempts_nor_their_time() {
    let handler = Scripted {
        attempts: Mutex::new([away(), away(), refused(), away(), refused(), Ok("done")].into()),
        takes: Duration::from_millis(10),
        // Each of the six attempts waits for longer than all of them may take together.
        waits: Duration::from_secs(3_600),
        ..Scripted::default()
    };
    let (numbers, outputs, letter) = run(handler).await;
    assert_eq!(numbers, [1, 1, 1, 2, 2, 3]);
    assert_eq!((outputs, letter), (output("done"), None));
}

#[tokio::test(start_paused = true)]
async fn what_an_attempt_takes_away_from_the_deadline_is_its_own_time_and_the_pauses() {
    let handler = Scripted {
        // Two of a second each are over the deadline of two, and a third one never starts.
        takes: Duration::from_secs(1),
        last_words: Mutex::new([Ok(LastWord::GaveUp(output("gave up")))].into()),
        ..Scripted::default()
    };
    let (numbers, outputs, letter) = run(handler).await;
    assert_eq!(numbers, [1, 2]);
    assert_eq!(
        (outputs, letter),
        (output("gave up"), Some(("refused".to_owned(), 2)))
    );
}

#[tokio::test(start_paused = true)]
async fn a_last_word_can_be_that_it_had_its_effect_after_all() {
    let handler = Scripted {
        takes: Duration::from_secs(2),
        last_words: Mutex::new([away(), away(), Ok(LastWord::Settled(output("found")))].into()),
        ..Scripted::default()
    };
    let (_, outputs, letter) = run(handler).await;
    assert_eq!((outputs, letter), (output("found"), None));
}

#[tokio::test(start_paused = true)]
async fn an_outcome_that_nobody_knows_is_a_dead_letter_that_says_so_and_claims_nothing() {
    for last_words in [vec![Err(Failure::transient("silent", "no answer"))], Vec::new()] {
        let handler = Scripted {
            takes: Duration::from_secs(2),
            last_words: Mutex::new(last_words.into()),
            ..Scripted::default()
        };
        let (_, outputs, letter) = run(handler).await;
        assert_eq!(
            (outputs, letter),
            (Vec::new(), Some(("outcome_unknown".to_owned(), 1)))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn poison_ends_at_once_and_without_a_last_word() {
    let handler = Scripted {
        attempts: Mutex::new([Err(Failure::poison("bad", "never"))].into()),
        last_words: Mutex::new([Ok(LastWord::GaveUp(output("gave up")))].into()),
        ..Scripted::default()
    };
    let (numbers, outputs, letter) = run(handler).await;
    assert_eq!(numbers, [1]);
    assert_eq!((outputs, letter), (Vec::new(), Some(("bad".to_owned(), 1))));
}

#[tokio::test(start_paused = true)]
async fn with_an_order_per_key_a_record_waits_in_its_place_as_long_as_it_would_in_retry_topics() {
    let began = Instant::now();
    let handler = Scripted {
        // Longer than attempts in place may take: each visit is one attempt.
        takes: Duration::from_secs(2),
        delays_in_place: vec![Duration::from_secs(5), Duration::from_secs(60)],
        last_words: Mutex::new([Ok(LastWord::GaveUp(output("gave up")))].into()),
        ..Scripted::default()
    };
    let (numbers, outputs, letter) = run(handler).await;
    assert_eq!(numbers, [1, 2, 3]);
    assert_eq!(
        (outputs, letter),
        (output("gave up"), Some(("refused".to_owned(), 3)))
    );
    assert_eq!(began.elapsed(), Duration::from_secs(2 + 5 + 2 + 60 + 2));
}
