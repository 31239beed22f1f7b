//! Calls that wait for keys to change: contenders for their turn, observers for leaders.
//!
//! A call names the keys that concern it; the events of every turn are looked up among them.
//! Where events are missing from the log, every call looks at the state again.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use api::pb::etcdserverpb::RangeRequest;
use bytes::Bytes;
use slab::Slab;
use state::Authorised;
use state::watch::Event;

use super::Contender;
use crate::drive::Shared;
use crate::front::CallId;
use crate::grpc::pending::Waiting;

/// What the calls of one net thread may take; more are refused.
const BYTES_MAX: usize = 64 << 20;
/// What a call takes besides its keys.
const CALL_BYTES: usize = 512;

/// A call that waits.
pub(super) enum Wait {
    /// Until the contender before it is gone.
    Turn {
        contender: Contender,
        before: Bytes,
    },
    Observer(Observer),
}

/// A call of Observe.
pub(super) struct Observer {
    pub(super) waiting: Waiting,
    /// The keys of which the first created leads; its caller may read them.
    pub(super) leaders: Authorised<RangeRequest>,
    /// The leader's key, whose changes are told.
    pub(super) leader: Option<Bytes>,
    /// What was told is as of this revision.
    pub(super) through: i64,
    /// Its client does not read: it is told the newest state when it has read on.
    pub(super) is_choked: bool,
}

/// What a call learns from events.
pub(super) enum Wake {
    /// The contender's own key is gone.
    Lost(Contender),
    /// The one before it is gone, or may be.
    Turn(Contender),
    /// The observer has to look who leads now.
    Look(usize),
    /// The observed leader said something, at a store revision.
    Said {
        observer: usize,
        event: Event,
        revision: i64,
    },
}

impl Wait {
    fn call(&self) -> CallId {
        match self {
            Wait::Turn { contender, .. } => contender.waiting.call,
            Wait::Observer(observer) => observer.waiting.call,
        }
    }

    /// The keys whose events concern it.
    fn keys(&self) -> impl Iterator<Item = &Bytes> {
        let (one, other) = match self {
            Wait::Turn { contender, before } => (Some(&contender.key), Some(before)),
            Wait::Observer(observer) => (observer.leader.as_ref(), None),
        };
        one.into_iter().chain(other)
    }

    fn bytes(&self) -> usize {
        let name = match self {
            Wait::Turn { contender, .. } => contender.prefix.len(),
            Wait::Observer(observer) => observer.leaders.key.len(),
        };
        CALL_BYTES + name + self.keys().map(Bytes::len).sum::<usize>()
    }
}

/// The calls of one net thread that wait.
pub(in crate::grpc) struct Waits {
    shared: Arc<Shared>,
    thread: u8,
    waits: Slab<Wait>,
    by_call: HashMap<CallId, usize>,
    by_key: HashMap<Bytes, Vec<usize>>,
    /// Observers that know of no leader.
    leaderless: BTreeSet<usize>,
    /// Events up to this revision were looked at.
    routed: i64,
    bytes: usize,
    /// The mark of this thread was set for these calls.
    watches: bool,
}

impl Waits {
    pub(in crate::grpc) fn new(shared: Arc<Shared>, thread: u8) -> Waits {
        Waits {
            shared,
            thread,
            waits: Slab::new(),
            by_call: HashMap::new(),
            by_key: HashMap::new(),
            leaderless: BTreeSet::new(),
            routed: 0,
            bytes: 0,
            watches: false,
        }
    }

    pub(in crate::grpc) fn has(&self, call: CallId) -> bool {
        self.by_call.contains_key(&call)
    }

    /// Makes a call wait for changes after `revision`. Gives it back when there are too many.
    pub(super) fn add(&mut self, wait: Wait, revision: i64) -> Result<(), Box<Wait>> {
        let bytes = wait.bytes();
        if self.bytes + bytes > BYTES_MAX {
            return Err(Box::new(wait));
        }
        if self.waits.is_empty() {
            self.routed = revision;
        }
        self.bytes += bytes;
        let at = self.waits.vacant_key();
        self.by_call.insert(wait.call(), at);
        self.link(at, &wait);
        self.waits.insert(wait);
        Ok(())
    }

    fn link(&mut self, at: usize, wait: &Wait) {
        for key in wait.keys() {
            self.by_key.entry(key.clone()).or_default().push(at);
        }
        if matches!(wait, Wait::Observer(observer) if observer.leader.is_none()) {
            self.leaderless.insert(at);
        }
    }

    fn unlink(&mut self, at: usize) {
        for key in self.waits[at].keys() {
            if let Some(places) = self.by_key.get_mut(key) {
                places.retain(|&place| place != at);
                if places.is_empty() {
                    self.by_key.remove(key);
                }
            }
        }
        self.leaderless.remove(&at);
    }

    pub(super) fn remove(&mut self, call: CallId) -> Option<Wait> {
        let at = self.by_call.remove(&call)?;
        self.unlink(at);
        let wait = self.waits.remove(at);
        self.bytes -= wait.bytes();
        Some(wait)
    }

    /// Every call, which waits no more.
    pub(super) fn drain(&mut self) -> Vec<Wait> {
        let calls: Vec<CallId> = self.by_call.keys().copied().collect();
        calls
            .into_iter()
            .filter_map(|call| self.remove(call))
            .collect()
    }

    pub(super) fn observer(&mut self, at: usize) -> Option<&mut Observer> {
        match self.waits.get_mut(at) {
            Some(Wait::Observer(observer)) => Some(observer),
            _ => None,
        }
    }

    pub(super) fn observer_of(&self, call: CallId) -> Option<usize> {
        let at = *self.by_call.get(&call)?;
        matches!(self.waits[at], Wait::Observer(_)).then_some(at)
    }

    /// Notes whom an observer takes for the leader.
    pub(super) fn set_leader(&mut self, at: usize, leader: Option<Bytes>, through: i64) {
        self.unlink(at);
        let Some(Wait::Observer(observer)) = self.waits.get_mut(at) else {
            return;
        };
        let before = observer.leader.as_ref().map_or(0, Bytes::len);
        self.bytes = self.bytes + leader.as_ref().map_or(0, Bytes::len) - before;
        observer.leader = leader.clone();
        observer.through = through;
        match leader {
            Some(key) => self.by_key.entry(key).or_default().push(at),
            None => {
                self.leaderless.insert(at);
            }
        }
    }

    /// Looks at the events since the last time. Calls that learn something are told so in order;
    /// contenders among them wait no more.
    pub(super) fn follow(&mut self) -> Vec<Wake> {
        if self.waits.is_empty() {
            return Vec::new();
        }
        // The watches of this thread may have ended and taken the mark away.
        self.shared.view.set_watching(self.thread, true);
        self.watches = true;
        if self.shared.view.revision() <= self.routed {
            return Vec::new();
        }
        let tail = self.shared.view.tail(self.routed + 1);
        let has_all = tail.first <= self.routed + 1;
        let since = std::mem::replace(&mut self.routed, tail.revision);
        if !has_all {
            return self.wake_all();
        }
        let mut wakes = Vec::new();
        let batches = tail.batches.iter();
        for event in batches.flat_map(|batch| batch.events()) {
            if event.revision() > since {
                self.look_up(event, tail.revision, &mut wakes);
            }
        }
        wakes
    }

    fn wake_all(&mut self) -> Vec<Wake> {
        let mut wakes = Vec::new();
        for (at, wait) in &self.waits {
            if let Wait::Observer(_) = wait {
                wakes.push(Wake::Look(at));
            }
        }
        let turns = self.waits.iter().filter_map(|(_, wait)| match wait {
            Wait::Turn { contender, .. } => Some(contender.waiting.call),
            Wait::Observer(_) => None,
        });
        let turns: Vec<CallId> = turns.collect();
        for call in turns {
            if let Some(Wait::Turn { contender, .. }) = self.remove(call) {
                wakes.push(Wake::Turn(contender));
            }
        }
        wakes
    }

    fn look_up(&mut self, event: &Event, revision: i64, wakes: &mut Vec<Wake>) {
        let concerned = self.by_key.get(event.key()).cloned().unwrap_or_default();
        for at in concerned {
            match &self.waits[at] {
                Wait::Observer(observer) if event.revision() <= observer.through => {}
                Wait::Observer(_) if event.is_delete() => {
                    // What follows in these events is in the state that it will look at.
                    self.set_leader(at, None, i64::MAX);
                    wakes.push(Wake::Look(at));
                }
                Wait::Observer(_) => wakes.push(Wake::Said {
                    observer: at,
                    event: event.clone(),
                    revision,
                }),
                Wait::Turn { .. } if !event.is_delete() => {}
                Wait::Turn { contender, .. } => {
                    let is_own = contender.key == event.key();
                    let call = contender.waiting.call;
                    if let Some(Wait::Turn { contender, .. }) = self.remove(call) {
                        wakes.push(if is_own {
                            Wake::Lost(contender)
                        } else {
                            Wake::Turn(contender)
                        });
                    }
                }
            }
        }
        if event.is_delete() || self.leaderless.is_empty() {
            return;
        }
        let places: Vec<usize> = self.leaderless.iter().copied().collect();
        for at in places {
            let Some(Wait::Observer(observer)) = self.waits.get(at) else {
                continue;
            };
            if event.revision() > observer.through && event.key().starts_with(&observer.leaders.key)
            {
                let key = Bytes::copy_from_slice(event.key());
                self.set_leader(at, Some(key), event.revision());
                wakes.push(Wake::Said {
                    observer: at,
                    event: event.clone(),
                    revision: event.revision(),
                });
            }
        }
    }

    /// True once after the last call has gone: this thread needs no events for them any more.
    pub(super) fn is_idle(&mut self) -> bool {
        self.waits.is_empty() && std::mem::take(&mut self.watches)
    }
}
