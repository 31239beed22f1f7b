//! Answers to Range: measured first, written in chunks from the records as they are stored.
//!
//! A small answer is written at once under the state lock. A large one pins its revision and
//! takes the lock again for each chunk; records that are not in memory leave a gap in the chunk
//! that is filled from the backend after the lock is released.

mod parts;

use std::sync::Arc;

use api::Error;
use api::pb::etcdserverpb::RangeRequest;
use api::pb::etcdserverpb::range_request::{SortOrder, SortTarget};
use smallvec::SmallVec;
use storage::backend::{Reader, Value};

use crate::auth::Authorised;
use crate::fatal::{Fatal, ReadError};
use crate::index::{End, Seen, Span, Tally};
use crate::kv::{load, parse};
use crate::record::{KeyValue, Revision};
use crate::shared::{Pin, Shared, State};
use crate::wire;

pub use parts::{RangePart, RangeParts};

/// An answer up to this many bytes is written at once.
const WHOLE_MAX: u64 = 64 << 10;
/// Steps that one chunk may take under the lock.
const CHUNK_STEPS: usize = 1024;
/// A record above this is copied after the lock is released.
const COPY_MAX: usize = 16 << 10;
/// A record up to this many bytes is looked at before it is copied.
const TOUCH_MAX: usize = 1024;
const CACHE_LINE: usize = 64;
/// Fetched records that are put back into memory after a chunk.
const REFILL_MAX: usize = 16;

/// The answer to a Range: everything of a `RangeResponse` but its header.
pub struct RangeAnswer {
    revision: i64,
    count: i64,
    more: bool,
    kvs_bytes: u64,
    body: Body,
}

enum Body {
    /// The fields as they are sent.
    Whole(Vec<u8>),
    /// Walks the index, a chunk at a time.
    Walk(Walk),
    /// Chosen and sorted.
    Picked(Pin, std::vec::IntoIter<Pick>),
    Done,
}

struct Walk {
    pin: Pin,
    next: Box<[u8]>,
    /// `None` when there is no last key.
    end: Option<Box<[u8]>>,
    left: u64,
}

/// A key of an answer that has to be filtered or sorted.
struct Pick {
    key: Box<[u8]>,
    revision: Revision,
    len: usize,
    create: i64,
    version: i64,
    /// The record, or the part of it that is sent.
    record: Option<Value>,
    /// False until `create` and `version` are known.
    described: bool,
}

/// A part of a chunk that is filled after the lock is released.
struct Gap {
    at: usize,
    len: usize,
    from: Source,
}

enum Source {
    Memory(Value),
    Backend(Revision),
}

impl RangeAnswer {
    /// The store's revision when the answer was made: the header's.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Keys in the range, whatever the limit and the filters.
    #[must_use]
    pub fn count(&self) -> i64 {
        self.count
    }

    /// Whether the limit left keys out.
    #[must_use]
    pub fn more(&self) -> bool {
        self.more
    }

    /// Exact length in bytes of what [`RangeAnswer::write_chunk`] will write in all; call it
    /// before the first chunk.
    #[must_use]
    pub fn encoded_len(&self) -> u64 {
        self.kvs_bytes + self.tail_len()
    }

    fn tail_len(&self) -> u64 {
        (wire::int_len(u64::from(self.more)) + wire::int_len(self.count as u64)) as u64
    }

    fn write_tail(&self, out: &mut Vec<u8>) {
        wire::put_int(out, 3, u64::from(self.more));
        wire::put_int(out, 4, self.count as u64);
    }

    /// Appends about `max` bytes to `out`, or nothing where many deleted keys lie in a row; true
    /// while more follow.
    ///
    /// # Errors
    /// The backend failed or lacks a record, or nothing was taken for so long that a compaction
    /// went on: the answer cannot be completed.
    pub fn write_chunk(&mut self, out: &mut Vec<u8>, max: usize) -> Result<bool, ReadError> {
        let more = match &mut self.body {
            Body::Whole(bytes) => {
                out.extend_from_slice(bytes);
                false
            }
            Body::Walk(walk) => walk.write_chunk(out, max)?,
            Body::Picked(pin, picks) => write_picks(pin, picks, out, max)?,
            Body::Done => return Ok(false),
        };
        if !more {
            self.body = Body::Done;
            self.write_tail(out);
        }
        Ok(more)
    }
}

fn write_picks(
    pin: &Pin,
    picks: &mut std::vec::IntoIter<Pick>,
    out: &mut Vec<u8>,
    max: usize,
) -> Result<bool, ReadError> {
    pin.check()?;
    let begin = out.len();
    while out.len() - begin < max {
        let Some(pick) = picks.next() else {
            return Ok(false);
        };
        let record = match pick.record {
            Some(record) => record,
            None => {
                load(&pin.shared().reader, pick.revision).map_err(|error| pin.explain(error))?
            }
        };
        wire::put_bytes(out, 2, &record);
    }
    Ok(picks.len() > 0)
}

impl Walk {
    fn write_chunk(&mut self, out: &mut Vec<u8>, max: usize) -> Result<bool, ReadError> {
        let shared = self.pin.shared();
        let end = self.end.as_deref().map_or(End::Open, End::Before);
        let span = Span {
            begin: &self.next,
            end,
        };
        let mut gaps = Vec::new();
        let next = {
            let state = shared.state.read();
            self.pin.check()?;
            emit(
                &state,
                span,
                self.pin.revision(),
                &mut self.left,
                (out, max),
                &mut gaps,
            )
        };
        fill(shared, out, &gaps).map_err(|error| self.pin.explain(error))?;
        match next {
            Some(next) if self.left > 0 => {
                self.next = next;
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}

/// Writes the keys of a span that a reader at `rev` sees, as fields `kvs`, until about `max`
/// bytes are written or `left` keys; returns where to go on. The span is more than a single key.
fn emit(
    state: &State,
    span: Span<'_>,
    rev: i64,
    left: &mut u64,
    (out, max): (&mut Vec<u8>, usize),
    gaps: &mut Vec<Gap>,
) -> Option<Box<[u8]>> {
    let end = out.len().saturating_add(max);
    let mut steps = 0;
    for run in state.index.runs(span) {
        // First only look at the slots and at each cache line of their records: the processor
        // fetches these side by side, but copies one record after the other.
        let mut touched = 0;
        let mut seen: SmallVec<[Seen<'_>; 64]> = SmallVec::new();
        for &id in run {
            if let Some(one) = state.index.run_slot(id).at(rev) {
                if let Some(record) = one.cached().filter(|record| record.len() <= TOUCH_MAX) {
                    touched ^= record.iter().step_by(CACHE_LINE).fold(0, |a, b| a ^ b);
                }
                seen.push(one);
            }
        }
        std::hint::black_box(touched);
        for one in &seen {
            if *left == 0 {
                return None;
            }
            if steps >= CHUNK_STEPS || out.len() >= end {
                return Some(one.slot.key.clone());
            }
            emit_one(one, out, gaps);
            *left -= 1;
        }
        steps += run.len();
    }
    None
}

fn emit_one(seen: &Seen<'_>, out: &mut Vec<u8>, gaps: &mut Vec<Gap>) {
    match seen.cached() {
        Some(record) if record.len() <= COPY_MAX => wire::put_bytes(out, 2, record),
        cached => {
            let len = seen.len();
            wire::put_head(out, 2, len);
            let from = match cached {
                Some(record) => Source::Memory(record.clone()),
                None => Source::Backend(seen.revision()),
            };
            gaps.push(Gap {
                at: out.len(),
                len,
                from,
            });
            out.resize(out.len() + len, 0);
        }
    }
}

/// Fills the gaps of a chunk; the state lock is not held.
fn fill(shared: &Shared, out: &mut [u8], gaps: &[Gap]) -> Result<(), Fatal> {
    let mut fetched: Vec<(Revision, Value)> = Vec::new();
    for gap in gaps {
        match &gap.from {
            Source::Memory(record) => out[gap.at..gap.at + gap.len].copy_from_slice(record),
            Source::Backend(revision) => {
                let record = load(&shared.reader, *revision)?;
                fill_one(out, gap, &record)?;
                if fetched.len() < REFILL_MAX {
                    fetched.push((*revision, record));
                }
            }
        }
    }
    refill(shared, &fetched)
}

fn fill_one(out: &mut [u8], gap: &Gap, record: &[u8]) -> Result<(), Fatal> {
    if record.len() != gap.len {
        let what = format!(
            "a record has {} bytes, its index entry {}",
            record.len(),
            gap.len
        );
        return Err(Fatal::Damaged {
            bucket: "key",
            what,
        });
    }
    out[gap.at..gap.at + gap.len].copy_from_slice(record);
    Ok(())
}

/// Puts fetched records back into memory when nobody is in the way.
fn refill(shared: &Shared, fetched: &[(Revision, Value)]) -> Result<(), Fatal> {
    if fetched.is_empty() {
        return Ok(());
    }
    let Some(mut state) = shared.state.try_write() else {
        return Ok(());
    };
    for (revision, record) in fetched {
        let key = parse(record)?.key;
        state.index.refill(key, *revision, record);
    }
    let budget = state.value_budget;
    state.index.evict(budget, 4 * REFILL_MAX);
    Ok(())
}

/// The revision that a request reads at, for a reader at `current`.
///
/// # Errors
/// Compacted or future.
pub(crate) fn read_revision(state: &State, asked: i64, current: i64) -> Result<i64, Error> {
    if asked > current {
        return Err(Error::FutureRev);
    }
    let revision = if asked <= 0 { current } else { asked };
    if revision < state.compacted {
        Err(Error::Compacted)
    } else {
        Ok(revision)
    }
}

/// A request taken apart.
struct Plan<'a> {
    span: Span<'a>,
    request: &'a RangeRequest,
    order: SortOrder,
    target: SortTarget,
}

impl<'a> Plan<'a> {
    fn new(request: &'a RangeRequest) -> Result<Plan<'a>, Error> {
        let order =
            SortOrder::try_from(request.sort_order).map_err(|_| Error::InvalidSortOption)?;
        let target =
            SortTarget::try_from(request.sort_target).map_err(|_| Error::InvalidSortOption)?;
        Ok(Plan {
            span: Span::new(&request.key, &request.range_end),
            request,
            order,
            target,
        })
    }

    fn is_filtered(&self) -> bool {
        let r = self.request;
        r.min_mod_revision != 0
            || r.max_mod_revision != 0
            || r.min_create_revision != 0
            || r.max_create_revision != 0
    }

    /// True when keys in key order are what is asked for.
    fn is_in_key_order(&self) -> bool {
        self.target == SortTarget::Key && self.order != SortOrder::Descend
    }

    /// True when the stored records are the answer, in their order.
    fn is_plain(&self) -> bool {
        !self.is_filtered() && self.is_in_key_order() && !self.request.keys_only
    }

    fn limit(&self) -> u64 {
        u64::try_from(self.request.limit)
            .ok()
            .filter(|&limit| limit > 0)
            .unwrap_or(u64::MAX)
    }

    /// Keys to take from the index: the limit reaches that far down only without filters and
    /// without an order of its own.
    fn fetch_limit(&self) -> u64 {
        let pushed = self.order == SortOrder::None
            || (self.order == SortOrder::Ascend && self.target == SortTarget::Key);
        if pushed && !self.is_filtered() {
            self.limit().saturating_add(1)
        } else {
            u64::MAX
        }
    }

    fn keeps(&self, pick: &Pick) -> bool {
        let r = self.request;
        let modified = pick.revision.main;
        (r.max_mod_revision == 0 || modified <= r.max_mod_revision)
            && (r.min_mod_revision == 0 || modified >= r.min_mod_revision)
            && (r.max_create_revision == 0 || pick.create <= r.max_create_revision)
            && (r.min_create_revision == 0 || pick.create >= r.min_create_revision)
    }

    /// Sorts keys that are in key order; equal ones stay so, whatever the direction.
    fn sort(&self, picks: &mut [Pick]) {
        if self.is_in_key_order() {
            return;
        }
        picks.sort_by(|a, b| {
            let ascending = match self.target {
                SortTarget::Key => a.key.cmp(&b.key),
                SortTarget::Version => a.version.cmp(&b.version),
                SortTarget::Create => a.create.cmp(&b.create),
                SortTarget::Mod => a.revision.main.cmp(&b.revision.main),
                SortTarget::Value => a.value().cmp(b.value()),
            };
            if self.order == SortOrder::Descend {
                ascending.reverse()
            } else {
                ascending
            }
        });
    }
}

impl Pick {
    fn value(&self) -> &[u8] {
        let kv = self
            .record
            .as_ref()
            .and_then(|record| KeyValue::parse(record));
        kv.map_or(&[], |kv| kv.value)
    }
}

/// Answers a Range at the state's revision; see [`RangeAnswer`].
pub(crate) fn answer(
    shared: &Arc<Shared>,
    request: &Authorised<RangeRequest>,
) -> Result<RangeAnswer, ReadError> {
    answer_at(shared, request, request.stamp(), None)
}

/// The same for a part of something that was authorised at a stamp, maybe of a reader that is
/// pinned to an older state.
pub(crate) fn answer_at(
    shared: &Arc<Shared>,
    request: &RangeRequest,
    stamp: u64,
    pinned: Option<i64>,
) -> Result<RangeAnswer, ReadError> {
    let plan = Plan::new(request)?;
    let (current, rev, pin) = {
        let state = shared.state.read();
        state.auth.confirm(stamp)?;
        let current = pinned.unwrap_or(state.revision);
        let rev = read_revision(&state, request.revision, current)?;
        if plan.is_plain()
            && let Some(answer) = small(&state, &plan, current, rev)
        {
            return Ok(answer);
        }
        (current, rev, Pin::new(shared, rev))
    };
    let tally = measure(shared, &plan, rev);
    pin.check()?;
    let mut answer = RangeAnswer {
        revision: current,
        count: tally.count as i64,
        more: false,
        kvs_bytes: 0,
        body: Body::Done,
    };
    if request.count_only {
        answer.body = Body::Whole(Vec::new());
    } else if plan.is_plain() {
        answer.more = tally.count > plan.limit();
        answer.kvs_bytes = tally.bytes;
        let end = match plan.span.end {
            End::Single => Some(after(plan.span.begin)),
            End::Before(end) => Some(end.into()),
            End::Open => None,
        };
        let next = plan.span.begin.into();
        answer.body = Body::Walk(Walk {
            pin,
            next,
            end,
            left: tally.taken,
        });
    } else {
        let mut picks = pick(&pin, &plan)?;
        picks.retain(|pick| plan.keeps(pick));
        plan.sort(&mut picks);
        answer.more = picks.len() as u64 > plan.limit();
        picks.truncate(usize::try_from(plan.limit()).unwrap_or(usize::MAX));
        if request.keys_only {
            strip(&mut picks, plan.target == SortTarget::Value)?;
        }
        answer.kvs_bytes = picks
            .iter()
            .map(|pick| wire::field_len(pick.len) as u64)
            .sum();
        answer.body = Body::Picked(pin, picks.into_iter());
    }
    Ok(answer)
}

fn after(key: &[u8]) -> Box<[u8]> {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next.into()
}

/// The whole answer under one lock, when it is small and in memory.
fn small(state: &State, plan: &Plan<'_>, current: i64, rev: i64) -> Option<RangeAnswer> {
    let limit = if plan.request.count_only {
        0
    } else {
        plan.limit()
    };
    let mut tally = Tally::default();
    let mut out = Vec::new();
    if plan.span.end == End::Single {
        let seen = state
            .index
            .get(plan.span.begin)
            .and_then(|slot| slot.at(rev));
        if let Some(seen) = seen {
            tally.count = 1;
            if limit > 0 {
                let record = seen.cached()?;
                out.reserve_exact(wire::field_len(record.len()) + 8);
                wire::put_bytes(&mut out, 2, record);
            }
        }
    } else {
        let at = (rev, limit);
        let rest = state
            .index
            .tally(plan.span, plan.span.begin, at, CHUNK_STEPS, &mut tally);
        if rest.is_some() || tally.bytes > WHOLE_MAX {
            return None;
        }
        out.reserve_exact(tally.bytes as usize + 16);
        let mut gaps = Vec::new();
        let mut left = tally.taken;
        if left > 0 {
            emit(
                state,
                plan.span,
                rev,
                &mut left,
                (&mut out, usize::MAX),
                &mut gaps,
            );
        }
        if !gaps.is_empty() || left > 0 {
            return None;
        }
    }
    Some(RangeAnswer {
        revision: current,
        count: tally.count as i64,
        more: limit > 0 && tally.count > limit,
        kvs_bytes: out.len() as u64,
        body: Body::Whole(out),
    })
}

fn measure(shared: &Shared, plan: &Plan<'_>, rev: i64) -> Tally {
    let limit = if plan.request.count_only {
        0
    } else {
        plan.limit()
    };
    let mut tally = Tally::default();
    let mut from: Box<[u8]> = plan.span.begin.into();
    loop {
        let state = shared.state.read();
        let at = (rev, limit);
        match state
            .index
            .tally(plan.span, &from, at, CHUNK_STEPS, &mut tally)
        {
            Some(next) => from = next,
            None => return tally,
        }
    }
}

/// Collects the keys that a pinned reader sees, in key order.
fn pick(pin: &Pin, plan: &Plan<'_>) -> Result<Vec<Pick>, ReadError> {
    let (shared, rev) = (pin.shared(), pin.revision());
    let mut picks: Vec<Pick> = Vec::new();
    let mut span = plan.span;
    let mut from: Box<[u8]>;
    let mut left = plan.fetch_limit();
    loop {
        let described = picks.len();
        let next = {
            let state = shared.state.read();
            pin.check()?;
            pick_chunk(&state, span, rev, &mut left, &mut picks)
        };
        let with_value = plan.target == SortTarget::Value;
        for pick in &mut picks[described..] {
            describe(&shared.reader, pick, with_value).map_err(|error| pin.explain(error))?;
        }
        match next {
            Some(next) => from = next,
            None => return Ok(picks),
        }
        span = Span {
            begin: &from,
            end: plan.span.end,
        };
    }
}

fn pick_chunk(
    state: &State,
    span: Span<'_>,
    rev: i64,
    left: &mut u64,
    picks: &mut Vec<Pick>,
) -> Option<Box<[u8]>> {
    for (step, slot) in state.index.span(span).enumerate() {
        if *left == 0 {
            return None;
        }
        if step == CHUNK_STEPS {
            return Some(slot.key.clone());
        }
        if let Some(seen) = slot.at(rev) {
            picks.push(Pick {
                key: slot.key.clone(),
                revision: seen.revision(),
                len: seen.len(),
                create: slot.create,
                version: slot.version,
                record: seen.cached().cloned(),
                described: seen.is_newest(),
            });
            *left -= 1;
        }
    }
    None
}

/// Learns what the index does not have of an older change, and the value when it is needed.
fn describe(reader: &Reader, pick: &mut Pick, with_value: bool) -> Result<(), Fatal> {
    if pick.described && (pick.record.is_some() || !with_value) {
        return Ok(());
    }
    let record = load(reader, pick.revision)?;
    let kv = parse(&record)?;
    (pick.create, pick.version) = (kv.create, kv.version);
    pick.described = true;
    pick.record = Some(record);
    Ok(())
}

/// Leaves the values out. The lease goes too, unless the records had to be read anyway.
fn strip(picks: &mut [Pick], with_lease: bool) -> Result<(), Fatal> {
    let mut scratch = Vec::new();
    for pick in picks {
        let lease = match &pick.record {
            Some(record) if with_lease => parse(record)?.lease,
            _ => 0,
        };
        let kv = KeyValue {
            key: &pick.key,
            create: pick.create,
            modified: pick.revision.main,
            version: pick.version,
            value: &[],
            lease,
        };
        let stripped = kv.encode(&mut scratch);
        pick.len = stripped.len();
        pick.record = Some(stripped);
    }
    Ok(())
}

/// The whole answer for a reader inside apply, which holds the state and reads the backend as it
/// goes.
pub(crate) fn inside(
    state: &State,
    reader: &Reader,
    request: &RangeRequest,
    current: i64,
) -> Result<Vec<u8>, ReadError> {
    let plan = Plan::new(request)?;
    let rev = read_revision(state, request.revision, current)?;
    let mut tally = Tally::default();
    let limit = if request.count_only { 0 } else { plan.limit() };
    state.index.tally(
        plan.span,
        plan.span.begin,
        (rev, limit),
        usize::MAX,
        &mut tally,
    );
    let mut out = Vec::new();
    let mut more = false;
    if request.count_only {
        // Only the count.
    } else if plan.is_plain() {
        more = tally.count > limit;
        out.reserve(tally.bytes as usize + 16);
        let seen = state.index.span(plan.span).filter_map(|slot| slot.at(rev));
        for seen in seen.take(usize::try_from(limit).unwrap_or(usize::MAX)) {
            wire::put_bytes(&mut out, 2, &crate::kv::record_of(reader, &seen)?);
        }
    } else {
        let mut picks = Vec::new();
        let mut from: Box<[u8]> = plan.span.begin.into();
        let mut left = plan.fetch_limit();
        loop {
            let span = Span {
                begin: &from,
                end: plan.span.end,
            };
            match pick_chunk(state, span, rev, &mut left, &mut picks) {
                Some(next) => from = next,
                None => break,
            }
        }
        for pick in &mut picks {
            describe(reader, pick, plan.target == SortTarget::Value)?;
        }
        picks.retain(|pick| plan.keeps(pick));
        plan.sort(&mut picks);
        more = picks.len() as u64 > plan.limit();
        picks.truncate(usize::try_from(plan.limit()).unwrap_or(usize::MAX));
        if request.keys_only {
            strip(&mut picks, plan.target == SortTarget::Value)?;
        }
        for pick in picks {
            let record = match pick.record {
                Some(record) => record,
                None => load(reader, pick.revision)?,
            };
            wire::put_bytes(&mut out, 2, &record);
        }
    }
    wire::put_int(&mut out, 3, u64::from(more));
    wire::put_int(&mut out, 4, tally.count);
    Ok(out)
}
