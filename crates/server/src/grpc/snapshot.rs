//! `etcdserverpb.Maintenance/Snapshot`: the database as the bytes of a file, and their digest.
//!
//! An image keeps every page of its state from being reused, so there are few at a time, and one
//! whose client stops reading, or reads for too long, is given up.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use api::pb::etcdserverpb as pb;
use api::{Error, Status};
use bytes::{Buf, Bytes, BytesMut};
use node::machine::Token;
use prost::Message;
use sha2::{Digest, Sha256};
use state::{Authorised, Root};
use storage::bolt::{Image, ReadTx};

use super::pending::{Pending, Waiting};
use super::{Services, decode};
use crate::drive::Shared;
use crate::drive::commit::ToCommit;
use crate::drive::post::{slot_of, token};
use crate::drive::stop::fatal;
use crate::front::{BodySource, Drawn, MessageSource, Net};

/// Bytes of the file in one message.
const BLOB_BYTES: usize = 32 << 10;
/// Images that are sent at a time.
const IMAGES_MAX: usize = 8;
/// An image of which nothing was taken for so long is given up.
const STALL_MAX: Duration = Duration::from_secs(60);
/// The longest time that one may take altogether.
const TIME_MAX: Duration = Duration::from_secs(3600);

/// The images that this net thread sends.
#[derive(Default)]
pub(super) struct Snapshots(Vec<Weak<Mutex<Lent>>>);

impl Snapshots {
    /// Takes their image from those who keep it for too long.
    pub(super) fn drop_stalled(&mut self, now: Instant) {
        self.0.retain(|lent| {
            let Some(lent) = lent.upgrade() else {
                return false;
            };
            let mut lent = lent.lock().unwrap_or_else(PoisonError::into_inner);
            let is_late = now > lent.taken + STALL_MAX || now > lent.begun + TIME_MAX;
            if is_late {
                tracing::warn!("gave up a database snapshot that is not being read");
                lent.image = None;
            }
            !is_late
        });
    }
}

/// An image while it is sent.
struct Lent {
    /// `None` when it was given up.
    image: Option<Image>,
    begun: Instant,
    /// When a piece was last taken.
    taken: Instant,
}

impl Services {
    pub(super) fn snapshot(
        &mut self,
        _: &Authorised<Root>,
        waiting: Waiting,
        message: &Bytes,
    ) -> Result<(), Status> {
        let _: pb::SnapshotRequest = decode(message.clone())?;
        let Some(place) = Place::take(&self.shared) else {
            return Err(Error::TooManyRequests.into());
        };
        let slot = self.slots.insert(Pending::Snapshot(waiting, place));
        let token = token(self.thread, slot);
        self.shared.commits.push(ToCommit::Pin(token));
        Ok(())
    }

    pub(super) fn send_snapshot(&mut self, net: &mut Net, token: Token, tx: &ReadTx) {
        let Some(Pending::Snapshot(waiting, place)) = self.slots.remove(slot_of(token)) else {
            return;
        };
        let image = tx.image();
        let version = self.shared.storage_version();
        tracing::info!(
            "total-bytes" = image.size(),
            "storage-version" = version,
            "sending database snapshot to client"
        );
        let now = net.now();
        let lent = Arc::new(Mutex::new(Lent {
            image: Some(image),
            begun: now,
            taken: now,
        }));
        self.snapshots.0.push(Arc::downgrade(&lent));
        let blobs = Blobs {
            lent,
            place,
            version,
            read: VecDeque::new(),
            digest: Some(Sha256::new()),
        };
        self.send_stream(net, &waiting, blobs);
    }
}

/// One of the few places for images; free again when dropped.
pub(super) struct Place(Arc<Shared>);

impl Place {
    fn take(shared: &Arc<Shared>) -> Option<Place> {
        let count = |taken: usize| (taken < IMAGES_MAX).then_some(taken + 1);
        let taken = shared
            .snapshots
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, count);
        taken.ok().map(|_| Place(Arc::clone(shared)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.snapshots.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The messages of one call.
struct Blobs {
    lent: Arc<Mutex<Lent>>,
    place: Place,
    version: String,
    /// Pieces of the image that were read and not sent.
    read: VecDeque<Bytes>,
    /// Of everything that was sent; `None` when it was sent itself.
    digest: Option<Sha256>,
}

impl Blobs {
    /// The next part of the file, and how much follows it.
    fn blob(&mut self) -> Result<(Bytes, u64), Status> {
        let mut lent = self.lent.lock().unwrap_or_else(PoisonError::into_inner);
        let lent = &mut *lent;
        let image = lent.image.as_mut().ok_or(Error::Timeout)?;
        lent.taken = Instant::now();
        let mut ready: usize = self.read.iter().map(Bytes::len).sum();
        while ready < BLOB_BYTES {
            match image.next() {
                Some(Ok(piece)) => {
                    ready += piece.len();
                    self.read.push_back(piece);
                }
                Some(Err(error)) => fatal("read the database", &error),
                None => break,
            }
        }
        let length = ready.min(BLOB_BYTES);
        let left = image.remaining() + (ready - length) as u64;
        Ok((take(&mut self.read, length), left))
    }

    fn next(&mut self) -> Result<Option<Bytes>, Status> {
        let (blob, remaining_bytes) = self.blob()?;
        let blob = match &mut self.digest {
            Some(digest) if !blob.is_empty() => {
                digest.update(&blob);
                blob
            }
            digest => match digest.take() {
                Some(digest) => Bytes::copy_from_slice(&digest.finalize()),
                None => return Ok(None),
            },
        };
        let response = pb::SnapshotResponse {
            header: None,
            remaining_bytes,
            blob,
            version: self.version.clone(),
        };
        Ok(Some(response.encode_to_vec().into()))
    }

    fn finished(&self) {
        let lent = self.lent.lock().unwrap_or_else(PoisonError::into_inner);
        let took = lent.begun.elapsed();
        self.place.0.metrics.backend_snapshot.observe_seconds(took);
        tracing::info!(?took, "sent database snapshot to client");
    }
}

/// The first bytes of pieces; copied only where they lie in several.
fn take(pieces: &mut VecDeque<Bytes>, length: usize) -> Bytes {
    match pieces.front_mut() {
        Some(first) if first.len() > length => first.split_to(length),
        Some(first) if first.len() == length => pieces.pop_front().unwrap_or_default(),
        _ => {
            let mut whole = BytesMut::with_capacity(length);
            while let Some(first) = pieces.front_mut()
                && whole.len() < length
            {
                let part = first.split_to(first.len().min(length - whole.len()));
                whole.extend_from_slice(&part);
                if !first.has_remaining() {
                    pieces.pop_front();
                }
            }
            whole.freeze()
        }
    }
}

impl MessageSource for Blobs {
    fn next_message(&mut self) -> Result<Option<Drawn>, Status> {
        let Some(message) = self.next()? else {
            self.finished();
            return Ok(None);
        };
        Ok(Some(Drawn {
            length: message.len() as u64,
            content: Box::new(Whole(Some(message))),
        }))
    }
}

/// A message that exists already.
struct Whole(Option<Bytes>);

impl BodySource for Whole {
    fn next_chunk(&mut self, _bytes_max: usize) -> Result<Option<Bytes>, Status> {
        Ok(self.0.take())
    }
}
