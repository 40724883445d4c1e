//! What became of the transactions in a log, as its markers tell.

use std::collections::HashMap;

use crate::batch::{Outcome, outcome};
use crate::log::StoredBatch;

/// The last word on the records of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Part of a transaction that was committed, or of none.
    Committed,
    Aborted,
    /// There is no last word.
    Open,
}

/// The markers of each producer, in order.
#[derive(Debug)]
pub(super) struct Transactions {
    markers: HashMap<i64, Vec<(i64, Fate)>>,
}

impl Transactions {
    pub(super) fn of(batches: &[StoredBatch]) -> Self {
        let mut markers: HashMap<i64, Vec<(i64, Fate)>> = HashMap::new();
        for batch in batches.iter().filter(|batch| batch.header.control) {
            let fate = match outcome(&batch.bytes) {
                Some(Outcome::Commit) => Fate::Committed,
                Some(Outcome::Abort) => Fate::Aborted,
                None => Fate::Open,
            };
            if let Some(sequenced) = batch.header.sequenced {
                let ended = (batch.base_offset, fate);
                markers.entry(sequenced.producer_id).or_default().push(ended);
            }
        }
        Self { markers }
    }

    /// The first marker of the producer behind a batch decides about the batch.
    pub(super) fn fate(&self, batch: &StoredBatch) -> Fate {
        let Some(sequenced) = batch.header.sequenced.filter(|_| batch.header.transactional) else {
            return Fate::Committed;
        };
        let markers = self.markers.get(&sequenced.producer_id);
        let markers = markers.map_or(&[][..], Vec::as_slice);
        let next = markers.partition_point(|(offset, _)| *offset < batch.base_offset);
        markers.get(next).map_or(Fate::Open, |(_, fate)| *fate)
    }
}
