//! What is true whoever says it: the log as the first member applied it, and its replay.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use api::pb::etcdserverpb as pb;
use prost::Message;
use storage::log::{Entry, EntryKind};
use storage::simfs::Rng;

use crate::ledger::{check_hash, check_range};
use crate::model::Model;
use crate::{Broken, broken};

/// The replay after one entry.
#[derive(Clone)]
struct Mark {
    revision: i64,
    compacted: i64,
    leases: Rc<BTreeMap<i64, i64>>,
    accepted: bool,
}

/// Grows only; no entry is ever another one.
#[derive(Default)]
pub struct Truth {
    log: Vec<Entry>,
    /// After entry `i + 1` of the log.
    marks: Vec<Mark>,
    model: Model,
    /// Where each request was applied.
    places: HashMap<u64, u64>,
    /// What the first member showed at an index beside the keys: members, alarms.
    shown: BTreeMap<u64, String>,
    /// A state that includes this entry was shown to a client.
    floor: u64,
}

impl Truth {
    pub fn model(&self) -> &Model {
        &self.model
    }

    pub fn last(&self) -> u64 {
        self.log.len() as u64
    }

    /// Last entry whose effect a client has seen.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// A client saw a state that includes this entry.
    pub fn on_shown(&mut self, index: u64) {
        self.floor = self.floor.max(index);
    }

    /// Where a request took its place in the log.
    pub fn place(&self, id: u64) -> Option<u64> {
        self.places.get(&id).copied()
    }

    pub fn revision_at(&self, index: u64) -> i64 {
        self.mark(index).map_or(1, |mark| mark.revision)
    }

    fn mark(&self, index: u64) -> Option<&Mark> {
        self.marks.get(usize::try_from(index.checked_sub(1)?).ok()?)
    }

    /// A member applies an entry; returns whether its request must be accepted.
    pub fn on_applied(&mut self, entry: &Entry) -> Result<bool, Broken> {
        let index = entry.index.0;
        if let Some(known) = self.log.get(index as usize - 1) {
            if known != entry {
                return Err(broken!(
                    "entry {index} of term {} was applied, now one of term {}",
                    known.term,
                    entry.term
                ));
            }
            return Ok(self.mark(index).is_some_and(|mark| mark.accepted));
        }
        if index != self.last() + 1 {
            return Err(broken!("entry {index} is applied after {}", self.last()));
        }
        if let Some(id) = request_id(entry)
            && let Some(before) = self.places.insert(id, index)
        {
            return Err(broken!("request {id:x} is entry {before} and {index}"));
        }
        let accepted = match entry.kind {
            EntryKind::Normal => self.model.apply(&entry.data).is_ok(),
            EntryKind::ConfChange => true,
        };
        self.log.push(entry.clone());
        let leases = match self.marks.last() {
            Some(mark) if *mark.leases == *self.model.leases() => mark.leases.clone(),
            _ => Rc::new(self.model.leases().clone()),
        };
        self.marks.push(Mark {
            revision: self.model.revision(),
            compacted: self.model.compacted(),
            leases,
            accepted,
        });
        Ok(accepted)
    }

    /// Whether a state is the replay of the log up to its applied index, and equal to every other
    /// one at that index.
    pub fn check_state(&mut self, view: &state::View, rng: &mut Rng) -> Result<(), Broken> {
        let index = view.applied().index.0;
        if index > self.last() {
            return Err(broken!("a state is at {index}, nobody applied that"));
        }
        let (revision, compacted, leases) = match self.mark(index) {
            Some(mark) => (mark.revision, mark.compacted, mark.leases.clone()),
            None => (1, -1, Rc::default()),
        };
        let found = (view.revision(), view.compact_revision());
        if found != (revision, compacted) {
            return Err(broken!(
                "at {index} the state has revision and compaction {found:?}, the replay \
                 {revision} and {compacted}"
            ));
        }
        let model = self.model.prefix(revision);
        check_range(view, &model, 0)?;
        let oldest = compacted.max(1);
        let past = oldest + rng.below((revision - oldest + 1) as u64) as i64;
        check_range(view, &model, past)?;
        check_hash(view, &model, past)?;
        let held: BTreeMap<i64, i64> = view
            .leases()
            .into_iter()
            .map(|lease| (lease.id, lease.ttl))
            .collect();
        if held != *leases {
            return Err(broken!(
                "at {index} leases are {held:?}, replayed {leases:?}"
            ));
        }
        let beside = format!("{:?} {:?}", view.members(), view.alarms(0));
        let known = self.shown.entry(index).or_insert_with(|| beside.clone());
        if *known != beside {
            return Err(broken!(
                "at {index} one member has {known}, another {beside}"
            ));
        }
        Ok(())
    }
}

/// The id of the request that an entry carries.
fn request_id(entry: &Entry) -> Option<u64> {
    let id = match entry.kind {
        EntryKind::Normal => {
            let request = pb::InternalRaftRequest::decode(&entry.data[..]).ok()?;
            request.header?.id
        }
        EntryKind::ConfChange => state::ConfChange::decode(&entry.data[..]).ok()?.id,
    };
    (id != 0).then_some(id)
}
