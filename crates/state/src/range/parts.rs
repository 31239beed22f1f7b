//! A Range answered in parts, each of them an answer of its own: what RangeStream sends.
//!
//! Nothing is pinned between two parts, so that a client that stops reading keeps no history
//! alive; a compaction in between ends the answer, as it does in etcd.

use std::sync::Arc;

use api::pb::etcdserverpb::RangeRequest;

use super::{
    Body, CHUNK_STEPS, Plan, RangeAnswer, Walk, after, measure, pick, read_revision, strip,
};
use crate::auth::Authorised;
use crate::fatal::ReadError;
use crate::index::{End, Span};
use crate::shared::{Pin, Shared, State};
use crate::wire;

/// Bytes that a record without its value has beyond its key, about.
const STRIPPED_BYTES: u64 = 32;

/// A Range in parts, in key order; see [`crate::View::range_parts`].
pub struct RangeParts {
    shared: Arc<Shared>,
    /// The rest of the request: its key is where the next part begins.
    request: RangeRequest,
    /// Of the proof that the caller may have it.
    stamp: u64,
    /// The store's revision when the first part was made: the header's.
    current: i64,
    /// Keys that were given out.
    sent: u64,
    /// Keys that the request's limit leaves.
    left: u64,
    done: bool,
}

/// One part.
pub struct RangePart {
    /// The keys. Count and `more` are zero except in the last part.
    pub answer: RangeAnswer,
    /// The last part carries the header.
    pub is_last: bool,
}

/// What a part will hold.
struct Extent {
    keys: u64,
    bytes: u64,
    /// Where the part after it begins; `None` at the range's end.
    next: Option<Box<[u8]>>,
}

impl RangeParts {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        request: &Authorised<RangeRequest>,
    ) -> Result<RangeParts, ReadError> {
        let left = Plan::new(request)?.limit();
        let stamp = request.stamp();
        let state = shared.state.read();
        state.auth.confirm(stamp)?;
        let current = state.revision;
        let revision = read_revision(&state, request.revision, current)?;
        let mut request = RangeRequest::clone(request);
        request.revision = revision;
        Ok(RangeParts {
            shared: Arc::clone(shared),
            request,
            stamp,
            current,
            sent: 0,
            left,
            done: false,
        })
    }

    /// The store's revision when the first part was made.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.current
    }

    /// The next part, of up to `keys_max` keys and about `bytes_max` bytes but at least one key;
    /// `None` after the last one. An empty range has one part.
    ///
    /// # Errors
    /// The revision was compacted, or authentication changed since; or the database failed.
    pub fn next_part(
        &mut self,
        keys_max: u64,
        bytes_max: u64,
    ) -> Result<Option<RangePart>, ReadError> {
        if std::mem::replace(&mut self.done, true) {
            return Ok(None);
        }
        let pin = {
            let state = self.shared.state.read();
            state.auth.confirm(self.stamp)?;
            let revision = read_revision(&state, self.request.revision, self.current)?;
            Pin::new(&self.shared, revision)
        };
        let rev = pin.revision();
        let plan = Plan::new(&self.request)?;
        if self.request.count_only {
            let count = measure(&self.shared, &plan, rev).count;
            pin.check()?;
            return Ok(Some(self.part(
                Body::Whole(Vec::new()),
                0,
                Some((false, count)),
            )));
        }
        let extent = extent(
            &self.shared,
            &plan,
            rev,
            (keys_max.min(self.left), bytes_max),
        );
        let (body, bytes) = self.body(&plan, pin, &extent)?;
        self.sent += extent.keys;
        self.left -= extent.keys;
        let Some(next) = extent.next else {
            return Ok(Some(self.part(body, bytes, Some((false, self.sent)))));
        };
        self.request.key = next.to_vec().into();
        if self.left == 0 {
            let rest = measure(&self.shared, &Plan::new(&self.request)?, rev).count;
            let count = self.sent + rest;
            return Ok(Some(self.part(body, bytes, Some((rest > 0, count)))));
        }
        self.done = false;
        Ok(Some(self.part(body, bytes, None)))
    }

    fn part(&self, body: Body, kvs_bytes: u64, last: Option<(bool, u64)>) -> RangePart {
        let (more, count) = last.unwrap_or_default();
        RangePart {
            answer: RangeAnswer {
                revision: self.current,
                count: count as i64,
                more,
                kvs_bytes,
                body,
            },
            is_last: last.is_some(),
        }
    }

    fn body(&self, plan: &Plan<'_>, pin: Pin, extent: &Extent) -> Result<(Body, u64), ReadError> {
        if !self.request.keys_only {
            let end = match plan.span.end {
                End::Single => Some(after(plan.span.begin)),
                End::Before(end) => Some(end.into()),
                End::Open => None,
            };
            let walk = Walk {
                pin,
                next: plan.span.begin.into(),
                end,
                left: extent.keys,
            };
            return Ok((Body::Walk(walk), extent.bytes));
        }
        let limited = RangeRequest {
            limit: i64::try_from(extent.keys).unwrap_or(i64::MAX),
            ..self.request.clone()
        };
        // One key more than the limit is fetched.
        let mut picks = pick(&pin, &Plan::new(&limited)?)?;
        picks.truncate(usize::try_from(extent.keys).unwrap_or(usize::MAX));
        strip(&mut picks, false)?;
        let fields = picks.iter().map(|pick| wire::field_len(pick.len) as u64);
        let bytes = fields.sum();
        Ok((Body::Picked(pin, picks.into_iter()), bytes))
    }
}

/// Looks how far a part reaches.
fn extent(shared: &Shared, plan: &Plan<'_>, rev: i64, (keys_max, bytes_max): (u64, u64)) -> Extent {
    let mut extent = Extent {
        keys: 0,
        bytes: 0,
        next: Some(plan.span.begin.into()),
    };
    while let Some(from) = extent.next.take() {
        let full = {
            let state = shared.state.read();
            extend(&state, plan, &from, rev, (keys_max, bytes_max), &mut extent)
        };
        if full {
            break;
        }
    }
    extent
}

/// Adds up to [`CHUNK_STEPS`] slots to a part. True when it is full.
fn extend(
    state: &State,
    plan: &Plan<'_>,
    from: &[u8],
    rev: i64,
    (keys_max, bytes_max): (u64, u64),
    extent: &mut Extent,
) -> bool {
    let span = Span {
        begin: from,
        end: plan.span.end,
    };
    for (step, slot) in state.index.span(span).enumerate() {
        if step == CHUNK_STEPS {
            extent.next = Some(slot.key.clone());
            return false;
        }
        let Some(seen) = slot.at(rev) else { continue };
        let bytes = if plan.request.keys_only {
            slot.key.len() as u64 + STRIPPED_BYTES
        } else {
            wire::field_len(seen.len()) as u64
        };
        let is_full = extent.keys >= keys_max || extent.bytes + bytes > bytes_max;
        if is_full && (extent.keys > 0 || keys_max == 0) {
            extent.next = Some(slot.key.clone());
            return true;
        }
        extent.keys += 1;
        extent.bytes += bytes;
    }
    extent.next = None;
    false
}
