//! Producer ids, none of which is ever given out twice.
//!
//! With a data folder they are taken from it in blocks, before the first of a block is given out; what
//! a process does not use of its last block is lost with it, and nothing else is.

use std::sync::{Arc, Mutex};

use crate::storage::{Entry, Storage, WriteError};
use crate::sync::lock;

/// Ids that are taken at a time.
const BLOCK: i64 = 10_000;
/// The next block is taken while this many are left: more than there can be requests at work.
const HEADROOM: i64 = 5_000;

#[derive(Debug)]
pub(crate) struct ProducerIds {
    block: Mutex<Block>,
    storage: Option<Arc<Storage>>,
}

#[derive(Debug)]
struct Block {
    next: i64,
    below: i64,
}

impl ProducerIds {
    pub(crate) fn new(storage: Option<Arc<Storage>>) -> Self {
        Self {
            block: Mutex::new(Block { next: 1, below: 1 }),
            storage,
        }
    }

    /// Every id below this one may have been given out by an earlier process.
    pub(crate) fn restore(&self, below: i64) {
        let mut block = lock(&self.block);
        block.next = block.next.max(below);
        block.below = block.next;
    }

    /// Sees to it that there is one to take.
    pub(crate) fn ensure(&self) -> Result<(), WriteError> {
        let Some(storage) = &self.storage else {
            return Ok(());
        };
        let mut block = lock(&self.block);
        if block.below - block.next < HEADROOM {
            let below = block.below + BLOCK;
            storage.record(vec![Entry::ProducerIdsTaken { below }])?;
            block.below = below;
        }
        Ok(())
    }

    /// An id that nobody had before, after [`ProducerIds::ensure`].
    pub(crate) fn take(&self) -> i64 {
        let mut block = lock(&self.block);
        block.next += 1;
        block.next - 1
    }
}
