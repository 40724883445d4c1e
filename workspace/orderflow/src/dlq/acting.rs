//! `orderflow dlq replay` and `discard`: choosing, and dealing with what was chosen, batch by batch.
//!
//! What makes it safe to stop, to kill and to run twice:
//! - A batch is one transaction: the records for the retry topic, the marks that say that these letters were
//!   dealt with, and the event. It counts as a whole or not at all, so no letter is replayed without its mark.
//! - All who act on one topic share one transactional id. Whoever comes later shuts the earlier one out before
//!   it reads what was marked, so that everything which the other did is seen, and nothing can be added to it.
//!   The one that was shut out ends with 75.
//! - Where the topic ends is asked after that, and everything is read up to there: a letter that comes because
//!   its replay failed again waits for the next run. And it is waited until no transaction is open before that
//!   end, for a mark behind it would not be seen.
//! - A dry run only reads.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use service::{Exit, Throttle, now_ms};
use stream::StreamError;
use stream::transactions::TransactionalPublisher;

use super::batch::{Batch, Chosen, MOST_LETTERS};
use super::choice::{Retries, Unfit};
use super::letter::{Letter, printable};
use super::mark::{Act, State};
use super::{MOST_CODES, Reading};

/// What all have who act on this topic of dead letters.
pub(super) fn transactional_id(topic: &str) -> String {
    format!("orderflow-dlq-{topic}")
}

/// Letters that a dry run shows.
const MOST_SHOWN: usize = 20;
/// While it waits for its rate it looks so often whether it shall stop.
const RATE_STEP: Duration = Duration::from_millis(50);

static PROGRESS_LINES: Throttle = Throttle::every_seconds(5);

/// What is done.
#[derive(Debug)]
pub(super) enum Deed {
    Replay(Retries),
    Discard { reason: String },
}

impl Deed {
    const fn name(&self) -> &'static str {
        match self {
            Self::Replay(_) => "replay",
            Self::Discard { .. } => "discard",
        }
    }

    const fn done(&self) -> &'static str {
        match self {
            Self::Replay(_) => "replayed",
            Self::Discard { .. } => "discarded",
        }
    }
}

/// How it is done.
#[derive(Clone, Debug)]
pub(super) struct Manner {
    pub by: String,
    pub limit: u64,
    pub rate: Option<u32>,
    /// The topic of events.
    pub events: String,
}

/// Letters of one topic and code, and where they go.
type Kind = (String, String, Option<String>);

/// What was chosen and done.
#[derive(Debug, Default)]
struct Tally {
    kinds: BTreeMap<Kind, u64>,
    /// As many as there are groups and topics.
    left_out: BTreeMap<Unfit, u64>,
    shown: Vec<String>,
    chosen: u64,
    done: u64,
    transactions: u64,
}

impl Tally {
    fn choose(&mut self, letter: &Letter, to: Option<&str>) {
        self.chosen += 1;
        let mut kind = (letter.topic.clone(), letter.code(), to.map(str::to_owned));
        if !self.kinds.contains_key(&kind) && self.kinds.len() >= MOST_CODES {
            kind.1 = "other codes".to_owned();
        }
        *self.kinds.entry(kind).or_default() += 1;
        if self.shown.len() < MOST_SHOWN {
            self.shown.push(letter.line());
        }
    }
}

/// Deals with dead letters as they are read.
pub(super) struct Acting {
    deed: Deed,
    manner: Manner,
    /// That of the topic at hand; `None` for a dry run.
    publisher: Option<TransactionalPublisher>,
    is_dry: bool,
    batch: Batch,
    tally: Tally,
    failure: Option<Exit>,
    stop: Arc<AtomicBool>,
}

impl Acting {
    pub fn new(deed: Deed, manner: Manner, is_dry: bool, stop: Arc<AtomicBool>) -> Self {
        Self {
            deed,
            manner,
            is_dry,
            publisher: None,
            batch: Batch::default(),
            tally: Tally::default(),
            failure: None,
            stop,
        }
    }

    pub const fn is_dry(&self) -> bool {
        self.is_dry
    }

    /// From now on letters are of the topic that this publisher is for.
    pub fn begin(&mut self, publisher: TransactionalPublisher) {
        self.publisher = Some(publisher);
    }

    /// Deals with what is left of the topic at hand, and lets go of it. Blocks.
    pub fn end(&mut self) {
        if self.failure.is_none() {
            self.failure = self.publish().err();
        }
        self.publisher = None;
    }

    /// Whether no more letters are wanted.
    pub fn is_over(&self) -> bool {
        self.failure.is_some() || self.tally.chosen >= self.manner.limit || self.stop.load(Ordering::Acquire)
    }

    /// Letters of a transaction: with a rate no more than of half a second, so that they come evenly.
    fn batch_size(&self) -> usize {
        let of_rate = self.manner.rate.map(|rate| (rate / 2).max(1) as usize);
        of_rate.unwrap_or(MOST_LETTERS)
    }

    fn publish(&mut self) -> Result<(), Exit> {
        let batch = std::mem::take(&mut self.batch);
        let Some(publisher) = self.publisher.take().filter(|_| batch.len() > 0) else {
            return Ok(());
        };
        let began = Instant::now();
        let (state, reason) = match &self.deed {
            Deed::Replay(_) => (State::Replayed, None),
            Deed::Discard { reason } => (State::Discarded, Some(reason.clone())),
        };
        let act = Act {
            state,
            by: self.manner.by.clone(),
            at: now_ms(),
            reason,
        };
        let records = batch.records(&act, &self.manner.events, rand::random())?;
        match publisher.publish(&records) {
            Ok(publisher) => self.publisher = Some(publisher),
            Err(error) => return Err(self.failed(error)),
        }
        self.tally.done += batch.len() as u64;
        self.tally.transactions += 1;
        if PROGRESS_LINES.allow().is_some() {
            let (command, done) = (self.deed.name(), self.tally.done);
            tracing::info!(command, done, "going on");
        }
        self.keep_the_rate(batch.len(), began);
        Ok(())
    }

    fn failed(&self, error: StreamError) -> Exit {
        let (done, name) = (self.tally.done, self.deed.name());
        let after = format!(
            "after {done} were {}: look at what is left (`orderflow dlq list --state open`), then run the {name} again, \
             which takes none twice",
            self.deed.done()
        );
        match error {
            StreamError::Fenced { .. } => Exit::fenced(format!(
                "somebody else began to replay or discard dead letters, {after}"
            )),
            error => {
                let cause = error.to_string();
                Exit::unavailable(format!("{cause}; {after}"))
            }
        }
    }

    /// Waits until one more batch is within the rate; time in which nothing was done is no credit.
    fn keep_the_rate(&self, letters: usize, began: Instant) {
        let Some(rate) = self.manner.rate else { return };
        let due = Duration::from_secs_f64(letters as f64 / f64::from(rate));
        while !self.stop.load(Ordering::Acquire) {
            let left = due.saturating_sub(began.elapsed());
            if left.is_zero() {
                return;
            }
            std::thread::park_timeout(left.min(RATE_STEP));
        }
    }

    /// For people.
    fn text(&self) -> String {
        let tally = &self.tally;
        let mut lines: Vec<String> = if self.is_dry {
            tally.shown.clone()
        } else {
            Vec::new()
        };
        let more = tally.chosen - tally.shown.len() as u64;
        if self.is_dry && more > 0 {
            lines.push(format!("... and {more} more"));
        }
        for ((topic, code, to), count) in &tally.kinds {
            let to = to.as_ref().map_or(String::new(), |to| format!("  -> {to}"));
            lines.push(format!("{count:>12}  {topic}  {}{to}", printable(code)));
        }
        for (unfit, count) in &tally.left_out {
            lines.push(format!("{count:>12}  left out: {}", printable(&unfit.sentence())));
        }
        let (done, chosen) = (self.deed.done(), tally.chosen);
        lines.push(if self.is_dry {
            format!("{chosen:>12}  dead letters would be {done}; nothing was done, `--yes` does it")
        } else {
            format!("{:>12}  dead letters {done}", tally.done)
        });
        lines.join("\n")
    }

    /// For programs.
    fn to_json(&self) -> Value {
        let mut left_out: BTreeMap<&str, u64> = BTreeMap::new();
        for (unfit, count) in &self.tally.left_out {
            *left_out.entry(unfit.name()).or_default() += count;
        }
        json!({
            "command": self.deed.name(),
            "dry_run": self.is_dry,
            "chosen": self.tally.chosen,
            "done": self.tally.done,
            "left_out": left_out,
            "transactions": self.tally.transactions,
            "by": self.manner.by,
        })
    }

    /// Tells what came of it, and says how the process ends.
    pub fn tell(self, is_json: bool) -> Result<(), Exit> {
        if is_json {
            eprintln!("{}", self.text());
            println!("{}", self.to_json());
        } else {
            println!("{}", self.text());
        }
        let (tally, done) = (self.tally, self.deed.done());
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        if self.stop.load(Ordering::Acquire) {
            let count = tally.done;
            return Err(Exit::failed(format!(
                "stopped before the end, {count} were {done}; the same command goes on with the others"
            )));
        }
        match tally.left_out.first_key_value() {
            Some((unfit, _)) if tally.chosen == 0 => {
                let count: u64 = tally.left_out.values().sum();
                Err(Exit::failed(format!(
                    "none of {count} dead letters can be {done}: {}",
                    printable(&unfit.sentence())
                )))
            }
            _ => Ok(()),
        }
    }
}

impl Reading for Acting {
    fn take(&mut self, letter: Letter) -> ControlFlow<()> {
        if self.is_over() {
            return ControlFlow::Break(());
        }
        let target = match &self.deed {
            Deed::Discard { .. } => Ok(None),
            Deed::Replay(retries) => retries.target(&letter).map(Some),
        };
        let target = match target {
            Ok(target) => target,
            Err(unfit) => {
                *self.tally.left_out.entry(unfit).or_default() += 1;
                return ControlFlow::Continue(());
            }
        };
        self.tally
            .choose(&letter, target.as_ref().map(|(_, to)| to.as_str()));
        if self.is_dry {
            return ControlFlow::Continue(());
        }
        self.batch.add(Chosen { letter, target });
        if self.batch.is_full(self.batch_size())
            && let Err(failure) = self.publish()
        {
            self.failure = Some(failure);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}
