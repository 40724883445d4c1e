//! Work that is done when the call returns: on the pump's own thread, without a task, a channel or an
//! allocation per record. It waits for nobody, so a transient failure has nothing to wait for either:
//! it ends the record as poison does, under its own code.

use crate::error::StreamError;
use crate::handler::{Handler, OutputTopic, Outputs};
use crate::ledger::Ticket;
use crate::position::TopicPartition;
use crate::record::Record;
use crate::seen::Digest;
use crate::stage::{Desk, Ending, Stage, cause_of};
use crate::unit_of_work::SourceMark;

/// The outputs of one record; its memory is used again for the next one. They are sent when the
/// handler has succeeded, so that outputs before an error count for nothing.
#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    outputs: Vec<(OutputTopic, usize, usize)>,
}

impl Buffer {
    fn clear(&mut self) {
        self.bytes.clear();
        self.outputs.clear();
    }

    /// Topic, key and value of each output.
    fn iter(&self) -> impl Iterator<Item = (OutputTopic, &[u8], &[u8])> {
        let mut rest = self.bytes.as_slice();
        self.outputs.iter().filter_map(move |(topic, key, value)| {
            let (key, after_key) = rest.split_at_checked(*key)?;
            let (value, after_value) = after_key.split_at_checked(*value)?;
            rest = after_value;
            Some((*topic, key, value))
        })
    }
}

impl Outputs for Buffer {
    fn send(&mut self, topic: OutputTopic, key: &[u8], value: &[u8]) {
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        self.outputs.push((topic, key.len(), value.len()));
    }
}

pub(crate) struct Immediate<H> {
    handler: H,
    buffer: Buffer,
}

impl<H: Handler> Immediate<H> {
    pub fn new(handler: H) -> Self {
        Self {
            handler,
            buffer: Buffer::default(),
        }
    }
}

impl<H: Handler> Stage for Immediate<H> {
    const KEEPS_ENDINGS: bool = false;

    fn accept(
        &mut self,
        ticket: Ticket,
        record: &Record<'_>,
        desk: &mut Desk<'_>,
    ) -> Result<(), StreamError> {
        self.buffer.clear();
        match self.handler.handle(record, &mut self.buffer) {
            Ok(()) if self.buffer.outputs.is_empty() => desk.braking.count(false)?,
            Ok(()) => {
                desk.braking.count(false)?;
                let open = desk.unit.open()?;
                let source = SourceMark {
                    at: record.at,
                    offset: record.offset,
                    digest: Some(Digest::of(record.value)),
                };
                for (topic, key, value) in self.buffer.iter() {
                    open.send(source, topic, key, value)?;
                }
            }
            Err(failure) => {
                let cause = cause_of(failure, 1)?;
                desk.braking.count(true)?;
                desk.seen
                    .forget(record.at, record.offset, record.key.unwrap_or_default());
                desk.unit.open()?.send_dead_letter(record, &cause)?;
            }
        }
        desk.ledger.end(&ticket, Ending::Done);
        Ok(())
    }

    fn batch_is_over(&mut self, _: &mut Desk<'_>) {}

    fn collect(&mut self, _: &mut Desk<'_>) -> Result<(), StreamError> {
        Ok(())
    }

    fn given_up(&mut self, _: &[TopicPartition]) {}

    fn in_flight(&self) -> usize {
        0
    }
}
