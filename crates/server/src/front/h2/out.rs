//! What a connection has to write: one growing buffer with large shared pieces in between.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::Bytes;

use super::frame::{self, HEADER_BYTES, PAYLOAD_BYTES_MAX};

#[cfg(test)]
mod tests;

/// Pieces at least this long are kept as they are instead of being copied.
const SHARED_BYTES_MIN: usize = 4096;
/// Written bytes at the front of the buffer are removed when there are this many.
const COMPACT_BYTES: usize = 128 * 1024;
/// How many pieces one write takes.
pub(crate) const SLICES_MAX: usize = 32;

struct Shared {
    /// Where in `buffer` the piece belongs.
    at: usize,
    bytes: Bytes,
}

/// A DATA frame at the end of the buffer, which may still grow.
struct OpenFrame {
    stream: u32,
    /// Where in `buffer` its header is.
    at: usize,
    payload: usize,
}

/// Invariants: `taken <= shared[0].at <= … <= buffer.len()`; `shared_bytes` is the sum of the
/// pieces' lengths.
#[derive(Default)]
pub(crate) struct OutBuffer {
    buffer: Vec<u8>,
    /// Bytes of `buffer` that are written.
    taken: usize,
    shared: VecDeque<Shared>,
    shared_bytes: usize,
    /// Nothing of it is written. Not open any more when something else was appended since.
    open: Option<OpenFrame>,
}

impl OutBuffer {
    pub(crate) fn len(&self) -> usize {
        self.buffer.len() - self.taken + self.shared_bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The buffer, to append to.
    pub(crate) fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Begins a DATA frame of so many bytes of payload, or makes room for them in the one of the
    /// same stream that was appended last; the payload is to be appended by the caller. A peer
    /// pays for every frame, and some end the connection over many small ones.
    pub(crate) fn data(&mut self, stream: u32, payload: usize) -> &mut Vec<u8> {
        if let Some(open) = &mut self.open
            && open.stream == stream
            && open.at + HEADER_BYTES + open.payload == self.buffer.len()
            && open.payload + payload <= PAYLOAD_BYTES_MAX
            && self.shared.back().is_none_or(|last| last.at <= open.at)
        {
            open.payload += payload;
            let header = frame::header(open.payload, frame::DATA, 0, stream);
            self.buffer[open.at..open.at + HEADER_BYTES].copy_from_slice(&header);
        } else {
            let at = self.buffer.len();
            let header = frame::header(payload, frame::DATA, 0, stream);
            self.buffer.extend_from_slice(&header);
            self.open = Some(OpenFrame {
                stream,
                at,
                payload,
            });
        }
        &mut self.buffer
    }

    pub(crate) fn push(&mut self, bytes: Bytes) {
        if bytes.len() < SHARED_BYTES_MIN {
            self.buffer.extend_from_slice(&bytes);
        } else {
            self.shared_bytes += bytes.len();
            self.shared.push_back(Shared {
                at: self.buffer.len(),
                bytes,
            });
        }
    }

    /// The first pieces, in order; returns how many slices were filled.
    pub(crate) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; SLICES_MAX]) -> usize {
        let mut count = 0;
        let mut from = self.taken;
        for shared in &self.shared {
            if count + 2 > SLICES_MAX {
                return count;
            }
            if shared.at > from {
                slices[count] = IoSlice::new(&self.buffer[from..shared.at]);
                count += 1;
                from = shared.at;
            }
            slices[count] = IoSlice::new(&shared.bytes);
            count += 1;
        }
        if count < SLICES_MAX && from < self.buffer.len() {
            slices[count] = IoSlice::new(&self.buffer[from..]);
            count += 1;
        }
        count
    }

    /// Removes `written` bytes from the front.
    pub(crate) fn consume(&mut self, mut written: usize) {
        assert!(
            written <= self.len(),
            "wrote {written} of {} bytes",
            self.len()
        );
        self.open = None;
        while let Some(first) = self.shared.front_mut() {
            let before = first.at - self.taken;
            if written < before {
                self.taken += written;
                return;
            }
            self.taken = first.at;
            written -= before;
            if written < first.bytes.len() {
                let _ = first.bytes.split_to(written);
                self.shared_bytes -= written;
                self.compact();
                return;
            }
            written -= first.bytes.len();
            self.shared_bytes -= first.bytes.len();
            self.shared.pop_front();
        }
        self.taken += written;
        self.compact();
    }

    fn compact(&mut self) {
        if self.taken == self.buffer.len() && self.shared.is_empty() {
            self.buffer.clear();
            self.taken = 0;
        } else if self.taken >= COMPACT_BYTES {
            self.buffer.drain(..self.taken);
            for shared in &mut self.shared {
                shared.at -= self.taken;
            }
            self.taken = 0;
        }
    }

    /// Gives the empty buffer's memory away; must be empty.
    pub(crate) fn take_memory(&mut self) -> Vec<u8> {
        debug_assert!(self.is_empty());
        self.taken = 0;
        self.open = None;
        std::mem::take(&mut self.buffer)
    }

    /// Uses `memory` as the buffer if there is none.
    pub(crate) fn give_memory(&mut self, memory: Vec<u8>) {
        if self.buffer.capacity() == 0 {
            self.buffer = memory;
        }
    }

    pub(crate) fn has_memory(&self) -> bool {
        self.buffer.capacity() != 0
    }

    pub(crate) fn clear(&mut self) {
        *self = OutBuffer::default();
    }
}
