//! What is known about the member from outside: its log, what it acknowledged, what it showed.

use std::collections::BTreeMap;

use api::pb::etcdserverpb::{RangeRequest, RangeResponse};
use prost::Message;
use storage::log::{Entry, EntryKind, LogIndex};
use storage::simfs::Rng;

use crate::model::{Item, Model};
use crate::{Broken, broken};

/// Survives crashes.
#[derive(Clone, Default)]
pub struct Ledger {
    /// Every entry that the log was given and that may still be in it.
    log: BTreeMap<u64, Entry>,
    /// Last entry whose request was acknowledged.
    acknowledged: u64,
    /// Highest revision that a client was shown.
    shown_revision: i64,
    /// The replay of the log up to `applied`.
    model: Model,
    applied: u64,
    pub acknowledgements: u64,
}

impl Ledger {
    pub fn model(&self) -> &Model {
        &self.model
    }

    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    pub fn shown_revision(&self) -> i64 {
        self.shown_revision
    }

    pub fn log_len(&self) -> usize {
        self.log.len()
    }

    /// The log is given entries, which replace what it had from the first of them on.
    pub fn on_append(&mut self, entries: &[Entry]) {
        if let Some(first) = entries.first() {
            self.log.split_off(&first.index.0);
        }
        self.log
            .extend(entries.iter().map(|entry| (entry.index.0, entry.clone())));
    }

    /// The state machine applied an entry; what it answered must be what the replay says.
    pub fn on_applied(&mut self, entry: &Entry) -> Result<Result<(), &'static str>, Broken> {
        let index = entry.index.0;
        if index <= self.applied {
            return Ok(Ok(()));
        }
        if index != self.applied + 1 {
            return Err(broken!("entry {index} is applied after {}", self.applied));
        }
        if self.log.get(&index) != Some(entry) {
            return Err(broken!("entry {index} is not what the log was given"));
        }
        self.applied = index;
        Ok(replay(&mut self.model, entry))
    }

    /// A client is told that its request took effect.
    pub fn on_acknowledged(&mut self, index: u64) {
        self.acknowledged = self.acknowledged.max(index);
        self.acknowledgements += 1;
        self.on_shown(self.model.revision());
    }

    /// A client sees a revision.
    pub fn on_shown(&mut self, revision: i64) {
        self.shown_revision = self.shown_revision.max(revision);
    }

    /// A member booted: its log holds `entries` after `before`, its database is at `database`.
    pub fn on_boot(&mut self, before: u64, entries: &[Entry], database: u64) -> Result<(), Broken> {
        let last = entries.last().map_or(before, |entry| entry.index.0);
        let acknowledged = self.acknowledged;
        if last < acknowledged {
            return Err(broken!(
                "entry {acknowledged} was acknowledged, the log ends at {last}"
            ));
        }
        if database > last {
            return Err(broken!(
                "the database is at {database}, the log ends at {last}"
            ));
        }
        for entry in entries {
            let index = entry.index.0;
            match self.log.get(&index) {
                Some(known) if known == entry => {}
                Some(_) if index <= acknowledged => {
                    return Err(broken!("acknowledged entry {index} is another one now"));
                }
                Some(_) => return Err(broken!("entry {index} is not what the log was given last")),
                None if acknowledged == 0 && entry.kind == EntryKind::ConfChange => {
                    // Boot wrote the initial members itself, in this life or one that died.
                    self.log.insert(index, entry.clone());
                }
                None => return Err(broken!("entry {index} was never given to the log")),
            }
        }
        self.log.split_off(&(last + 1));
        self.model = Model::default();
        self.applied = database;
        for (_, entry) in self.log.range(..=database) {
            let _ = replay(&mut self.model, entry);
        }
        Ok(())
    }

    /// The state must be the replay of the log up to its applied index.
    pub fn check_state(&self, view: &state::View, rng: &mut Rng) -> Result<(), Broken> {
        let (applied, model) = (view.applied().index, &self.model);
        if applied != LogIndex(self.applied) {
            return Err(broken!(
                "the state is at {applied}, the replay at {}",
                self.applied
            ));
        }
        let found = (view.revision(), view.compact_revision());
        let wanted = (model.revision(), model.compacted());
        if found != wanted {
            return Err(broken!(
                "at {applied} the state has revision and compaction {found:?}, the replay {wanted:?}"
            ));
        }
        check_range(view, model, 0)?;
        let oldest = model.compacted().max(1);
        let past = oldest + rng.below((model.revision() - oldest + 1) as u64) as i64;
        check_range(view, model, past)?;
        let leases: BTreeMap<i64, i64> = view
            .leases()
            .into_iter()
            .map(|lease| (lease.id, lease.ttl))
            .collect();
        if leases != *model.leases() {
            return Err(broken!(
                "leases are {leases:?}, in the replay {:?}",
                model.leases()
            ));
        }
        check_hash(view, model, past)
    }
}

fn replay(model: &mut Model, entry: &Entry) -> Result<(), &'static str> {
    match entry.kind {
        EntryKind::Normal => model.apply(&entry.data),
        EntryKind::ConfChange => Ok(()),
    }
}

/// A Range of anybody: the simulation has no users.
pub(crate) fn range(
    view: &state::View,
    request: RangeRequest,
) -> Result<state::RangeAnswer, state::ReadError> {
    view.range(&view.authorise(state::Caller::NOBODY, request)?)
}

/// All keys at a revision, 0 for now.
pub(crate) fn check_range(view: &state::View, model: &Model, revision: i64) -> Result<(), Broken> {
    let request = RangeRequest {
        key: vec![0].into(),
        range_end: vec![0].into(),
        revision,
        ..Default::default()
    };
    let answer = range(view, request)
        .map_err(|error| broken!("range at revision {revision} fails: {error:?}"))?;
    let found = items(answer)?;
    let at = if revision == 0 {
        model.revision()
    } else {
        revision
    };
    let wanted = model.at(at);
    if found != wanted {
        let wrong = wanted
            .iter()
            .find(|(key, item)| found.get(*key) != Some(item))
            .or_else(|| found.iter().find(|(key, _)| !wanted.contains_key(*key)))
            .map(|(key, _)| String::from_utf8_lossy(key).into_owned())
            .unwrap_or_default();
        return Err(broken!(
            "at revision {at} key {wrong:?} is {} in the state and {} in the replay",
            brief(found.get(wrong.as_bytes())),
            brief(wanted.get(wrong.as_bytes())),
        ));
    }
    Ok(())
}

/// The hash over all records up to a revision, as members compare it.
pub(crate) fn check_hash(view: &state::View, model: &Model, revision: i64) -> Result<(), Broken> {
    let (found, _) = view
        .hash_kv(revision)
        .map_err(|error| broken!("hash at revision {revision} fails: {error:?}"))?;
    match model.hash_kv(found.revision, found.compact_revision) {
        Some(wanted) if wanted != found.hash => Err(broken!("hash {found:?} should be {wanted}")),
        _ => Ok(()),
    }
}

fn brief(item: Option<&Item>) -> String {
    item.map_or("absent".into(), |item| {
        let Item {
            create,
            modified,
            version,
            lease,
            value,
        } = item;
        let len = value.len();
        format!(
            "{{create {create}, mod {modified}, version {version}, lease {lease}, {len} bytes}}"
        )
    })
}

pub(crate) fn items(mut answer: state::RangeAnswer) -> Result<BTreeMap<Vec<u8>, Item>, Broken> {
    let mut bytes = Vec::new();
    loop {
        let more = answer
            .write_chunk(&mut bytes, 4096)
            .map_err(|error| broken!("a range cannot be read: {error}"))?;
        if !more {
            break;
        }
    }
    let response = RangeResponse::decode(&bytes[..])
        .map_err(|error| broken!("a range is no message: {error}"))?;
    let item = |kv: api::pb::mvccpb::KeyValue| {
        let item = Item {
            create: kv.create_revision,
            modified: kv.mod_revision,
            version: kv.version,
            lease: kv.lease,
            value: kv.value.to_vec(),
        };
        (kv.key.to_vec(), item)
    };
    Ok(response.kvs.into_iter().map(item).collect())
}
