//! The thread that reads a source, and the bounded channel behind it.

use domain::EventTime;
use tokio::sync::mpsc;

use crate::source::{Entry, Source, SourceError};

/// Entries travel in batches, so that the channel costs little per order, of at most so many entries and bytes
/// (and one entry more): with the channel's depth that bounds what is read ahead.
const BATCH_ENTRIES: usize = 256;
const BATCH_BYTES: usize = 256 * 1024;
const BATCHES_AHEAD: usize = 8;
/// With a rate, no more is read ahead than is sent in this time (in seconds) per batch: an order that is made
/// up carries the time at which it was read.
const BATCH_SECONDS: f64 = 0.02;

/// How many entries a batch may have.
fn batch_entries(rate: Option<f64>) -> usize {
    // A rate is positive and at most ten million, and the cast of a float saturates.
    rate.map_or(BATCH_ENTRIES, |rate| {
        ((rate * BATCH_SECONDS) as usize).clamp(1, BATCH_ENTRIES)
    })
}

/// Entries in their order, or why there are no more.
pub(crate) struct Batch {
    pub(crate) entries: Vec<Entry>,
    /// How many orders the source has, once it knows.
    pub(crate) orders: Option<u64>,
    pub(crate) error: Option<SourceError>,
}

/// Reads `source` to its end on a thread of its own, little ahead of what `rate` sends. `clock` gives the time for orders that have none.
pub(crate) fn spawn(
    mut source: Box<dyn Source>,
    rate: Option<f64>,
    clock: fn() -> EventTime,
) -> mpsc::Receiver<Batch> {
    let (sender, receiver) = mpsc::channel(if rate.is_some() { 1 } else { BATCHES_AHEAD });
    let most = batch_entries(rate);
    // A blocking thread of the runtime: a file that does not answer must not hold up the process at its end.
    tokio::task::spawn_blocking(move || {
        loop {
            let batch = read_batch(source.as_mut(), most, clock);
            let last = batch.error.is_some() || batch.entries.is_empty();
            if sender.blocking_send(batch).is_err() || last {
                break;
            }
        }
    });
    receiver
}

fn read_batch(source: &mut dyn Source, most: usize, clock: fn() -> EventTime) -> Batch {
    let mut batch = Batch {
        entries: Vec::new(),
        orders: None,
        error: None,
    };
    let mut bytes = 0;
    while batch.entries.len() < most && bytes < BATCH_BYTES {
        match source.next_entry(clock()) {
            Ok(Some(entry)) => {
                bytes += match &entry {
                    Entry::Order { order, .. } => order.value.len(),
                    Entry::Rejected { rejection, .. } => rejection.message.len(),
                    Entry::Skipped => 0,
                };
                batch.entries.push(entry);
            }
            Ok(None) => break,
            Err(error) => {
                batch.error = Some(error);
                break;
            }
        }
    }
    batch.orders = source.orders();
    batch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_a_rate_little_is_read_ahead() {
        assert_eq!(batch_entries(None), 256);
        assert_eq!(batch_entries(Some(50.0)), 1);
        assert_eq!(batch_entries(Some(1_000.0)), 20);
        assert_eq!(batch_entries(Some(1e7)), 256);
    }
}
