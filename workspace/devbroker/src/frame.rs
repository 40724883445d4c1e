//! Frames on the wire: a length of four bytes, then a request or a response.
//!
//! Reading never trusts the length: it is compared with the limit before a byte is stored, memory
//! is taken from a budget that all connections share, and the buffer grows with what arrives.
//! Writing keeps record batches as the handles that the log gave, so that they go from the log to
//! the socket without a copy in between.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Segments below this are copied into the neighbouring bytes: a copy is cheaper than a segment.
const INLINE_BYTES: usize = 4 * 1024;
/// The first reservation for a request; it doubles as bytes arrive.
const FIRST_RESERVATION_BYTES: usize = 64 * 1024;
/// The unit of the memory budget.
const BUDGET_UNIT_BYTES: u32 = 1024;

/// Why no more requests can be read from a connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("the connection ended inside a request: {missing} of {length} bytes are missing")]
    Truncated { length: u32, missing: u32 },
    #[error("length prefix `{length}` is out of range, a request has 1 to {limit} bytes")]
    Length { length: i32, limit: u32 },
    #[error(transparent)]
    Socket(#[from] std::io::Error),
}

/// Memory for requests, shared by all connections.
#[derive(Debug, Clone)]
pub(crate) struct FrameBudget {
    limit_bytes: u32,
    units: Arc<Semaphore>,
    all_units: u32,
}

/// A request with its share of the budget, which is given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) bytes: Bytes,
    _share: OwnedSemaphorePermit,
}

impl FrameBudget {
    pub(crate) fn new(max_frame_bytes: u32, memory_bytes: u32) -> Self {
        let all_units = memory_bytes.max(max_frame_bytes) / BUDGET_UNIT_BYTES + 1;
        let units = Arc::new(Semaphore::new(all_units as usize));
        Self {
            limit_bytes: max_frame_bytes,
            units,
            all_units,
        }
    }

    /// The length of the next request; `None` when the peer closed the connection between requests.
    pub(crate) async fn read_length<R>(&self, socket: &mut R) -> Result<Option<u32>, FrameError>
    where
        R: AsyncRead + Unpin,
    {
        let mut prefix = [0_u8; 4];
        let mut filled = 0;
        while filled < prefix.len() {
            let count = socket.read(prefix.get_mut(filled..).unwrap_or_default()).await?;
            match (count, filled) {
                (0, 0) => return Ok(None),
                (0, _) => {
                    return Err(FrameError::Truncated {
                        length: 4,
                        missing: 4 - filled as u32,
                    });
                }
                _ => filled += count,
            }
        }
        let length = i32::from_be_bytes(prefix);
        match u32::try_from(length) {
            Ok(bytes) if bytes > 0 && bytes <= self.limit_bytes => Ok(Some(bytes)),
            _ => Err(FrameError::Length {
                length,
                limit: self.limit_bytes,
            }),
        }
    }

    /// The request itself. Waits while other requests hold the memory.
    pub(crate) async fn read_body<R>(&self, socket: &mut R, length: u32) -> Result<Request, FrameError>
    where
        R: AsyncRead + Unpin,
    {
        let units = (length / BUDGET_UNIT_BYTES + 1).min(self.all_units);
        let share = Arc::clone(&self.units).acquire_many_owned(units).await;
        // The semaphore is never closed; were it, the connection would end like any broken one.
        let share = share.map_err(|_| std::io::Error::from(std::io::ErrorKind::BrokenPipe))?;
        let whole = length as usize;
        let mut bytes = BytesMut::with_capacity(whole.min(FIRST_RESERVATION_BYTES));
        while bytes.len() < whole {
            if bytes.len() == bytes.capacity() {
                bytes.reserve((whole - bytes.len()).min(bytes.len()));
            }
            let missing = whole - bytes.len();
            if socket.read_buf(&mut (&mut bytes).limit(missing)).await? == 0 {
                return Err(FrameError::Truncated {
                    length,
                    missing: missing as u32,
                });
            }
        }
        Ok(Request {
            bytes: bytes.freeze(),
            _share: share,
        })
    }
}

/// A response on its way to the socket: runs of bytes, sent one after the other.
#[derive(Debug, Default)]
pub(crate) struct Frame {
    segments: VecDeque<Bytes>,
    bytes: usize,
}

impl Frame {
    fn push(&mut self, segment: Bytes) {
        if !segment.is_empty() {
            self.bytes += segment.len();
            self.segments.push_back(segment);
        }
    }
}

impl Buf for Frame {
    fn remaining(&self) -> usize {
        self.bytes
    }

    fn chunk(&self) -> &[u8] {
        self.segments.front().map_or(&[], |segment| segment)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut used = 0;
        for (slice, segment) in slices.iter_mut().zip(&self.segments) {
            *slice = IoSlice::new(segment);
            used += 1;
        }
        used
    }

    fn advance(&mut self, mut count: usize) {
        self.bytes = self.bytes.saturating_sub(count);
        while let Some(front) = self.segments.front_mut() {
            if count < front.len() {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.segments.pop_front();
        }
    }
}

/// Builds a [`Frame`]: header fields are written, record batches are handed over.
#[derive(Debug, Default)]
pub(crate) struct FrameBuilder {
    head: BytesMut,
    frame: Frame,
}

impl FrameBuilder {
    /// Where fields are written.
    pub(crate) fn head(&mut self) -> &mut BytesMut {
        &mut self.head
    }

    /// Appends bytes, without copying them unless they are few.
    pub(crate) fn append(&mut self, bytes: &Bytes) {
        if bytes.len() < INLINE_BYTES {
            self.head.extend_from_slice(bytes);
        } else {
            let head = self.head.split().freeze();
            self.frame.push(head);
            self.frame.push(bytes.clone());
        }
    }

    /// The whole frame with its length in front; `None` if it is longer than a frame can be.
    pub(crate) fn finish(mut self) -> Option<Frame> {
        let tail = self.head.split().freeze();
        self.frame.push(tail);
        let length = i32::try_from(self.frame.bytes).ok()?;
        self.frame
            .segments
            .push_front(Bytes::copy_from_slice(&length.to_be_bytes()));
        self.frame.bytes += 4;
        Some(self.frame)
    }
}
