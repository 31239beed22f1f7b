//! A state of the database as the bytes of a bolt file, as bbolt's `Tx.WriteTo` writes it.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::meta::Meta;
use super::read::Pin;
use super::{PageId, Result, TxId};

/// Bytes that one chunk holds at most.
const CHUNK_BYTES: u64 = 256 << 10;

/// Chunks of an image of the database. Both meta pages are made anew, the second one with the
/// transaction before; the pages up to the high-water mark follow as they are. It pins its state
/// until dropped.
pub struct Image {
    pin: Arc<Pin>,
    /// Bytes handed out so far.
    at: u64,
}

impl Image {
    pub(super) fn new(pin: Arc<Pin>) -> Image {
        Image { pin, at: 0 }
    }

    /// Bytes of the whole image.
    pub fn size(&self) -> u64 {
        self.pin.meta.size_bytes()
    }

    /// Bytes that are still to come.
    pub fn remaining(&self) -> u64 {
        self.size() - self.at
    }

    fn metas(&self) -> Bytes {
        let meta = &self.pin.meta;
        let before = Meta {
            tx: TxId(meta.tx.0.saturating_sub(1)),
            ..*meta
        };
        let mut pages = meta.encode(0);
        pages.extend_from_slice(&before.encode(1));
        pages.into()
    }

    fn chunk(&mut self) -> Result<Bytes> {
        if self.at == 0 {
            return Ok(self.metas());
        }
        let mut bytes = BytesMut::zeroed(self.remaining().min(CHUNK_BYTES) as usize);
        self.pin.shared.store.read(PageId(0), self.at, &mut bytes)?;
        Ok(bytes.freeze())
    }
}

impl Iterator for Image {
    type Item = Result<Bytes>;

    fn next(&mut self) -> Option<Result<Bytes>> {
        if self.remaining() == 0 {
            return None;
        }
        let chunk = self.chunk();
        match &chunk {
            Ok(bytes) => self.at += bytes.len() as u64,
            // Nothing can follow a hole.
            Err(_) => self.at = self.size(),
        }
        Some(chunk)
    }
}
