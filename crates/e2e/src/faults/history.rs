//! What clients asked and what they were told, with times on one clock.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Instant;

/// A key of the load, by its number.
pub type Key = u32;
/// A value of the load: no two writes have the same.
pub type Value = u64;

/// What a read finds under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    pub value: Value,
    pub mod_revision: i64,
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    Put {
        key: Key,
        value: Value,
    },
    /// Linearizable.
    Get {
        key: Key,
    },
    /// Serializable: what the member itself has.
    Local {
        key: Key,
    },
    /// Puts when the key still has that mod revision (0: when it is absent), reads otherwise.
    Swap {
        key: Key,
        expected: i64,
        value: Value,
    },
    /// The same value to two keys in one transaction.
    Both {
        keys: [Key; 2],
        value: Value,
    },
    Delete {
        key: Key,
    },
    /// All keys of the load, linearizable.
    All,
}

impl Ask {
    /// Whether it may change the store.
    #[must_use]
    pub fn writes(&self) -> bool {
        !matches!(self, Ask::Get { .. } | Ask::Local { .. } | Ask::All)
    }

    /// What it puts, if it does.
    #[must_use]
    pub fn puts(&self) -> Option<(Vec<Key>, Value)> {
        match self {
            Ask::Put { key, value } | Ask::Swap { key, value, .. } => Some((vec![*key], *value)),
            Ask::Both { keys, value } => Some((keys.to_vec(), *value)),
            Ask::Get { .. } | Ask::Local { .. } | Ask::Delete { .. } | Ask::All => None,
        }
    }
}

/// What an answer says beside its revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// The put was done.
    Written,
    /// A read, or a swap that was not done.
    Seen(Option<Version>),
    /// What was there before the deletion.
    Deleted(Option<Version>),
    All(Vec<(Key, Version)>),
}

/// An answer that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// When it arrived, in microseconds since the beginning.
    pub at: u64,
    /// The revision of its header.
    pub revision: i64,
    pub said: Said,
}

impl Answer {
    /// Whether a request of that kind with this answer made a revision of its own.
    #[must_use]
    pub fn wrote(&self) -> bool {
        matches!(self.said, Said::Written | Said::Deleted(Some(_)))
    }
}

/// One request from call to return.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Op {
    /// Who asked, one request after the other.
    pub session: usize,
    /// The member that was asked.
    pub endpoint: usize,
    /// When it was asked, in microseconds since the beginning.
    pub call: u64,
    pub ask: Ask,
    /// Nothing when no answer came, or an error: it may have happened, or may still happen.
    pub answer: Option<Answer>,
}

impl Op {
    /// Whether it is a write that was acknowledged.
    #[must_use]
    pub fn is_acknowledged_write(&self) -> bool {
        self.ask.writes() && self.answer.is_some()
    }
}

/// The requests of all sessions, in the order in which they ended.
pub struct History {
    begin: Instant,
    ops: Mutex<Vec<Op>>,
    /// How often there was no answer, by reason.
    failures: Mutex<BTreeMap<String, usize>>,
}

impl Default for History {
    fn default() -> Self {
        Self {
            begin: Instant::now(),
            ops: Mutex::default(),
            failures: Mutex::default(),
        }
    }
}

impl History {
    /// Microseconds since the beginning.
    #[must_use]
    pub fn now(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_micros()).expect("no run lasts for an age")
    }

    pub(super) fn push(&self, op: Op) {
        self.ops.lock().expect("no holder panics").push(op);
    }

    pub(super) fn count_failure(&self, reason: String) {
        let mut failures = self.failures.lock().expect("no holder panics");
        *failures.entry(reason).or_default() += 1;
    }

    /// Why there were no answers, in words.
    pub(super) fn failures(&self) -> String {
        let failures = self.failures.lock().expect("no holder panics");
        let texts = failures
            .iter()
            .map(|(reason, count)| format!("{count} {reason}"));
        texts.collect::<Vec<_>>().join(", ")
    }

    /// A copy of what was recorded so far.
    #[must_use]
    pub fn ops(&self) -> Vec<Op> {
        self.ops.lock().expect("no holder panics").clone()
    }

    /// How many acknowledged writes were asked of one of the endpoints at `from` or later.
    #[must_use]
    pub fn acknowledged_since(&self, from: u64, endpoints: &[usize]) -> usize {
        let ops = self.ops.lock().expect("no holder panics");
        let wanted = |op: &&Op| {
            op.call >= from && endpoints.contains(&op.endpoint) && op.is_acknowledged_write()
        };
        ops.iter().filter(wanted).count()
    }
}
