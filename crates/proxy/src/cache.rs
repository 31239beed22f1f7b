//! Answers to ranges, kept for serializable reads.
//!
//! What the proxy itself writes puts an end to the answers that it concerns; what others write
//! does not, which serializable reads allow. An answer that was on its way while such a write
//! happened is not kept, nor one of a member that has not seen it yet, so that what is kept is never
//! older than the last write through here.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use api::pb::etcdserverpb::{RangeRequest, RangeResponse, ResponseHeader};
use bytes::Bytes;
use prost::Message;

/// Answers that are kept at most; etcd's proxy keeps as many.
const ENTRIES_MAX: usize = 2048;

/// Bytes of all answers that are kept at most, and of one.
const BYTES_MAX: usize = 64 << 20;
const ENTRY_BYTES_MAX: usize = 4 << 20;

/// Ends of answers that are remembered for answers on their way.
const ENDINGS_MAX: usize = 256;

/// The keys of a request: from the first to before the second, which is empty for one key and
/// "\0" for all that follow.
type Span = (Bytes, Bytes);

/// Says when a read began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket(u64);

/// What the cache says to a request.
#[derive(Debug, PartialEq)]
pub(crate) enum Found {
    Answer(RangeResponse),
    /// The revision is gone.
    Compacted,
    Nothing,
}

/// The answers. Locked for a look or a change, never across a wait.
pub(crate) struct Cache(Mutex<State>);

struct Entry {
    span: Span,
    /// An answer about a past revision stays right.
    is_past: bool,
    answer: RangeResponse,
    bytes: usize,
    used: u64,
}

struct State {
    entries: HashMap<Bytes, Entry>,
    /// Least recently used first.
    by_use: BTreeMap<u64, Bytes>,
    /// Those about one key and the present.
    points: BTreeMap<Bytes, HashSet<Bytes>>,
    /// Those about several keys and the present.
    ranges: HashSet<Bytes>,
    bytes: usize,
    clock: u64,
    compacted: i64,
    /// The newest revision that is known of what was written through here.
    written: i64,
    /// The newest endings, each with its time.
    endings: VecDeque<(u64, Span)>,
    /// The time of the newest ending that was forgotten.
    forgotten: u64,
}

/// The request as the key of its answer: every read may be answered like a serializable one.
fn key_of(request: &RangeRequest) -> Bytes {
    let request = RangeRequest {
        serializable: true,
        ..request.clone()
    };
    request.encode_to_vec().into()
}

fn overlaps(a: &Span, b: &Span) -> bool {
    begins_before(a, b) && begins_before(b, a)
}

/// Whether the first key of `a` is before the end of `b`.
fn begins_before(a: &Span, b: &Span) -> bool {
    match &b.1[..] {
        [] => a.0 <= b.0,
        [0] => true,
        end => a.0 < *end,
    }
}

impl Cache {
    pub(crate) fn new() -> Self {
        Cache(Mutex::new(State {
            entries: HashMap::new(),
            by_use: BTreeMap::new(),
            points: BTreeMap::new(),
            ranges: HashSet::new(),
            bytes: 0,
            clock: 0,
            compacted: 0,
            written: 0,
            endings: VecDeque::new(),
            forgotten: 0,
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Must be taken before the cluster is asked.
    pub(crate) fn begin(&self) -> Ticket {
        Ticket(self.state().tick())
    }

    pub(crate) fn get(&self, request: &RangeRequest) -> Found {
        let key = key_of(request);
        let mut state = self.state();
        if request.revision > 0 && request.revision < state.compacted {
            state.remove(&key);
            return Found::Compacted;
        }
        let now = state.tick();
        let Some(entry) = state.entries.get_mut(&key) else {
            return Found::Nothing;
        };
        let answer = entry.answer.clone();
        let before = std::mem::replace(&mut entry.used, now);
        if let Some(key) = state.by_use.remove(&before) {
            state.by_use.insert(now, key);
        }
        Found::Answer(answer)
    }

    /// Keeps an answer, unless its end came before it.
    pub(crate) fn add(&self, begun: Ticket, request: &RangeRequest, answer: &RangeResponse) {
        let bytes = answer.encoded_len();
        if bytes > ENTRY_BYTES_MAX {
            return;
        }
        let span = (request.key.clone(), request.range_end.clone());
        let is_past = request.revision > 0;
        let mut state = self.state();
        let is_gone = match is_past {
            true => request.revision <= state.compacted,
            false => {
                // A member that is behind may not have what was written before the read began.
                let revision = answer.header.map_or(0, |header| header.revision);
                revision < state.written || state.ended_since(begun, &span)
            }
        };
        if is_gone {
            return;
        }
        let key = key_of(request);
        state.remove(&key);
        let entry = Entry {
            span,
            is_past,
            answer: answer.clone(),
            bytes,
            used: state.tick(),
        };
        state.insert(key, entry);
    }

    /// Something was written through here at this revision: what is older is not kept any more.
    pub(crate) fn wrote(&self, header: Option<&ResponseHeader>) {
        let mut state = self.state();
        let revision = header.map_or(0, |header| header.revision);
        state.written = state.written.max(revision);
    }

    /// Ends the answers about any of these keys.
    pub(crate) fn end(&self, key: &Bytes, range_end: &Bytes) {
        self.state().end((key.clone(), range_end.clone()));
    }

    /// Ends the answers about revisions before this one.
    pub(crate) fn compact(&self, revision: i64) {
        let mut state = self.state();
        state.compacted = state.compacted.max(revision);
    }

    /// Ends all answers.
    pub(crate) fn clear(&self) {
        let mut state = self.state();
        let all: Vec<Bytes> = state.entries.keys().cloned().collect();
        all.iter().for_each(|key| state.remove(key));
        state.forgotten = state.tick();
    }

    /// How many answers are kept.
    pub(crate) fn len(&self) -> usize {
        self.state().entries.len()
    }
}

impl State {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn ended_since(&self, begun: Ticket, span: &Span) -> bool {
        let mut newer = self.endings.iter().rev();
        self.forgotten > begun.0
            || newer
                .by_ref()
                .take_while(|(time, _)| *time > begun.0)
                .any(|(_, ended)| overlaps(ended, span))
    }

    fn insert(&mut self, key: Bytes, entry: Entry) {
        if !entry.is_past {
            match entry.span.1.is_empty() {
                true => {
                    let same = self.points.entry(entry.span.0.clone()).or_default();
                    same.insert(key.clone());
                }
                false => {
                    self.ranges.insert(key.clone());
                }
            }
        }
        self.bytes += entry.bytes;
        self.by_use.insert(entry.used, key.clone());
        self.entries.insert(key, entry);
        while self.entries.len() > ENTRIES_MAX || self.bytes > BYTES_MAX {
            let Some((_, oldest)) = self.by_use.pop_first() else {
                return;
            };
            self.remove(&oldest);
        }
    }

    fn remove(&mut self, key: &Bytes) {
        let Some(entry) = self.entries.remove(key) else {
            return;
        };
        self.bytes -= entry.bytes;
        self.by_use.remove(&entry.used);
        self.ranges.remove(key);
        if let Some(same) = self.points.get_mut(&entry.span.0) {
            same.remove(key);
            if same.is_empty() {
                self.points.remove(&entry.span.0);
            }
        }
    }

    fn end(&mut self, span: Span) {
        let upper = match &span.1[..] {
            [] => Bound::Included(span.0.clone()),
            [0] => Bound::Unbounded,
            // An empty range, which a map refuses; it concerns nothing.
            end if *end <= span.0 => return,
            _ => Bound::Excluded(span.1.clone()),
        };
        let points = self.points.range((Bound::Included(span.0.clone()), upper));
        let mut ended: Vec<Bytes> = points.flat_map(|(_, keys)| keys.iter().cloned()).collect();
        for key in &self.ranges {
            let entry = self.entries.get(key);
            if entry.is_some_and(|entry| overlaps(&entry.span, &span)) {
                ended.push(key.clone());
            }
        }
        ended.iter().for_each(|key| self.remove(key));
        if self.endings.len() == ENDINGS_MAX
            && let Some((time, _)) = self.endings.pop_front()
        {
            self.forgotten = time;
        }
        let now = self.tick();
        self.endings.push_back((now, span));
    }
}

#[cfg(test)]
mod tests;
