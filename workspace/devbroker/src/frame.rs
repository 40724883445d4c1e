//! Frames on the wire: a length of four bytes, then a request or a response.
//!
//! Reading never trusts the length: it is compared with the limit before a byte is stored, and the
//! buffer grows with what arrives. What is longer than a first piece takes its memory from a budget
//! that all connections share, and not before that piece is here: who announces much and sends
//! nothing holds up nobody.
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
/// The first reservation for a request, which each connection may have beside the budget; it doubles
/// as bytes arrive.
const FIRST_RESERVATION_BYTES: usize = 64 * 1024;
/// The unit of the memory budget.
const BUDGET_UNIT_BYTES: u32 = 1024;

/// How a handshake of TLS begins: the type of the record, and the first byte of its version.
const TLS_HANDSHAKE: [u8; 2] = [0x16, 0x03];

/// Why no more requests can be read from a connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("the connection ended inside a request: {missing} of {length} bytes are missing")]
    Truncated { length: u32, missing: u32 },
    #[error("length prefix `{length}` is out of range, a request has 1 to {limit} bytes")]
    Length { length: i32, limit: u32 },
    #[error(
        "the client speaks TLS, and this port does not: set its `security.protocol` to `PLAINTEXT` or \
         `SASL_PLAINTEXT`"
    )]
    Tls,
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
    _share: Option<OwnedSemaphorePermit>,
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

    /// The same memory, for connections whose requests must be shorter.
    pub(crate) fn limited_to(&self, max_frame_bytes: u32) -> Self {
        Self {
            limit_bytes: self.limit_bytes.min(max_frame_bytes),
            ..self.clone()
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
            _ if prefix.starts_with(&TLS_HANDSHAKE) => Err(FrameError::Tls),
            _ => Err(FrameError::Length {
                length,
                limit: self.limit_bytes,
            }),
        }
    }

    /// The request itself. A long one waits while other requests hold the memory.
    pub(crate) async fn read_body<R>(&self, socket: &mut R, length: u32) -> Result<Request, FrameError>
    where
        R: AsyncRead + Unpin,
    {
        let whole = length as usize;
        let mut share = None;
        let mut bytes = BytesMut::with_capacity(whole.min(FIRST_RESERVATION_BYTES));
        while bytes.len() < whole {
            if bytes.len() == bytes.capacity() {
                if share.is_none() {
                    share = Some(self.share(length).await?);
                }
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

    /// All of a request's memory at once, so that two half-read requests never wait for each other.
    async fn share(&self, length: u32) -> Result<OwnedSemaphorePermit, FrameError> {
        let units = (length / BUDGET_UNIT_BYTES + 1).min(self.all_units);
        let share = Arc::clone(&self.units).acquire_many_owned(units).await;
        // The semaphore is never closed; were it, the connection would end like any broken one.
        share.map_err(|_| std::io::Error::from(std::io::ErrorKind::BrokenPipe).into())
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;

    use super::*;

    proptest! {
        #[test]
        fn a_frame_is_its_length_and_its_parts_however_it_is_taken(
            parts in prop::collection::vec(0..10_000_usize, 0..10),
            steps in prop::collection::vec(1..7_000_usize, 1..50),
        ) {
            let mut builder = FrameBuilder::default();
            let mut expected = Vec::new();
            for (index, length) in parts.into_iter().enumerate() {
                builder.head().put_u8(index as u8);
                let part = vec![index as u8; length];
                expected.push(index as u8);
                expected.extend_from_slice(&part);
                builder.append(&Bytes::from(part));
            }
            let mut frame = builder.finish().unwrap();
            let mut taken = Vec::new();
            for step in steps.into_iter().cycle() {
                if frame.remaining() == 0 {
                    break;
                }
                let step = step.min(frame.remaining());
                let mut slices = [IoSlice::new(&[]); 4];
                let used = frame.chunks_vectored(&mut slices);
                let offered: Vec<u8> = slices[..used].iter().flat_map(|slice| slice.iter().copied()).collect();
                prop_assert!(offered.starts_with(frame.chunk()));
                taken.extend_from_slice(&frame.copy_to_bytes(step));
            }
            prop_assert_eq!(&taken[..4], (expected.len() as u32).to_be_bytes());
            prop_assert_eq!(&taken[4..], &expected);
        }
    }

    async fn read(budget: &FrameBudget, sent: &[u8]) -> Result<Option<Vec<u8>>, FrameError> {
        let (mut near, mut far) = tokio::io::duplex(64);
        let sent = sent.to_vec();
        let writing = tokio::spawn(async move { far.write_all(&sent).await });
        let Some(length) = budget.read_length(&mut near).await? else {
            return Ok(None);
        };
        let request = budget.read_body(&mut near, length).await?;
        writing.await.unwrap().unwrap();
        Ok(Some(request.bytes.to_vec()))
    }

    #[tokio::test]
    async fn lengths_out_of_range_and_cut_frames_are_told_apart() {
        let budget = FrameBudget::new(1_000_000, 0);
        assert_eq!(read(&budget, &[]).await.unwrap(), None);
        assert_eq!(
            read(&budget, &[0, 0, 0, 2, 7, 8]).await.unwrap(),
            Some(vec![7, 8])
        );
        assert!(matches!(
            read(&budget, &[0, 0]).await,
            Err(FrameError::Truncated {
                length: 4,
                missing: 2
            })
        ));
        assert!(matches!(
            read(&budget, &[0, 0, 0, 9, 1]).await,
            Err(FrameError::Truncated {
                length: 9,
                missing: 8
            })
        ));
        for length in [0, -1, i32::MAX, i32::MIN, 1_000_001] {
            let refused = read(&budget, &i32::to_be_bytes(length)).await;
            assert!(
                matches!(refused, Err(FrameError::Length { .. })),
                "{length}: {refused:?}"
            );
        }
        let mut long = 900_000_i32.to_be_bytes().to_vec();
        long.extend(std::iter::repeat_n(5, 900_000));
        assert_eq!(read(&budget, &long).await.unwrap().unwrap().len(), 900_000);
    }

    #[tokio::test]
    async fn the_memory_of_a_request_comes_back_when_it_was_handled() {
        let budget = FrameBudget::new(100_000, 0);
        let all = budget.units.available_permits();
        let mut sent = 80_000_i32.to_be_bytes().to_vec();
        sent.extend(std::iter::repeat_n(0, 80_000));
        let mut socket = &sent[..];
        let length = budget.read_length(&mut socket).await.unwrap().unwrap();
        let request = budget.read_body(&mut socket, length).await.unwrap();
        assert!(budget.units.available_permits() < all);
        drop(request);
        assert_eq!(budget.units.available_permits(), all);
    }
}
