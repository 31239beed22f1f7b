//! Membership: one record, changed in the same apply as the raft configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::Error;
use api::ids::MemberId;
use prost::Message;
use serde::{Deserialize, Deserializer, Serialize};
use storage::backend::{ApplyTxn, Bucket, Pinned, Value};
use storage::log::{ConfState, LogIndex};

use crate::fatal::Fatal;
use crate::schema;

#[cfg(test)]
mod tests;
mod v2;

pub use v2::v2_store_json;

/// A member as it is stored and sent to peers. The order of the fields is that of the JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    #[serde(default)]
    pub id: u64,
    #[serde(rename = "peerURLs", default, deserialize_with = "null_as_empty")]
    pub peer_urls: Vec<String>,
    #[serde(rename = "isLearner", default, skip_serializing_if = "is_false")]
    pub is_learner: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(
        rename = "clientURLs",
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_as_empty"
    )]
    pub client_urls: Vec<String>,
}

/// The context of a change that adds or promotes a member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeContext {
    #[serde(flatten)]
    pub member: Member,
    #[serde(rename = "isPromote", default)]
    pub is_promote: bool,
}

fn is_false(b: &bool) -> bool {
    !b
}

fn null_as_empty<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::<Vec<String>>::deserialize(from)?.unwrap_or_default())
}

impl Member {
    /// The JSON of the database and of the peers.
    #[must_use]
    pub fn to_json(&self) -> String {
        json(self)
    }
}

impl ChangeContext {
    /// The JSON of a change's entry.
    #[must_use]
    pub fn to_json(&self) -> String {
        json(self)
    }
}

/// JSON as Go writes it: some characters of HTML are escaped.
pub(crate) fn json<T: Serialize>(value: &T) -> String {
    let plain = serde_json::to_string(value).expect("strings and numbers always have a JSON form");
    let mut escaped = String::with_capacity(plain.len());
    for c in plain.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                escaped.push_str(&format!("\\u{:04x}", c as u32));
            }
            c => escaped.push(c),
        }
    }
    escaped
}

/// raftpb `ConfChange`: what a conf-change entry holds.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ConfChange {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(int32, tag = "2")]
    pub kind: i32,
    #[prost(uint64, tag = "3")]
    pub node_id: u64,
    #[prost(bytes = "bytes", tag = "4")]
    pub context: bytes::Bytes,
}

/// The kinds of a [`ConfChange`], with raftpb's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    AddNode = 0,
    RemoveNode = 1,
    UpdateNode = 2,
    AddLearnerNode = 3,
}

impl ChangeKind {
    /// The kind with a number; others do not exist.
    #[must_use]
    pub fn from_number(number: i32) -> Option<ChangeKind> {
        Some(match number {
            0 => ChangeKind::AddNode,
            1 => ChangeKind::RemoveNode,
            2 => ChangeKind::UpdateNode,
            3 => ChangeKind::AddLearnerNode,
            _ => return None,
        })
    }
}

/// What an accepted change means for the raft configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RaftChange {
    pub kind: ChangeKind,
    pub node: MemberId,
}

/// A downgrade of the cluster, in progress while `enabled`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DowngradeInfo {
    #[serde(rename = "target-version", default)]
    pub target_version: String,
    #[serde(default)]
    pub enabled: bool,
}

/// All members, those that were removed, and what the cluster agreed on.
#[derive(Clone, Debug, Default)]
pub struct Members {
    pub(crate) by_id: BTreeMap<u64, Member>,
    pub(crate) removed: BTreeSet<u64>,
    pub(crate) cluster_version: Option<String>,
    pub(crate) downgrade: DowngradeInfo,
}

/// The members of a cluster that has agreed on nothing else.
impl FromIterator<Member> for Members {
    fn from_iter<I: IntoIterator<Item = Member>>(members: I) -> Members {
        Members {
            by_id: members
                .into_iter()
                .map(|member| (member.id, member))
                .collect(),
            ..Members::default()
        }
    }
}

impl Members {
    /// The members by id.
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.by_id.values()
    }

    /// The member with this id.
    #[must_use]
    pub fn member(&self, id: MemberId) -> Option<&Member> {
        self.by_id.get(&id.0)
    }

    /// True when the id was once a member's; it can never be one again.
    #[must_use]
    pub fn is_removed(&self, id: MemberId) -> bool {
        self.removed.contains(&id.0)
    }

    /// Ids that were removed, ascending.
    pub fn removed(&self) -> impl Iterator<Item = MemberId> {
        self.removed.iter().map(|&id| MemberId(id))
    }

    /// `major.minor.0`, once the cluster has decided.
    #[must_use]
    pub fn cluster_version(&self) -> Option<&str> {
        self.cluster_version.as_deref()
    }

    /// The downgrade in progress, or a disabled one.
    #[must_use]
    pub fn downgrade(&self) -> &DowngradeInfo {
        &self.downgrade
    }

    /// The raft configuration that the members make.
    #[must_use]
    pub fn conf_state(&self) -> ConfState {
        let of = |learner: bool| {
            let members = self
                .by_id
                .values()
                .filter(move |member| member.is_learner == learner);
            members.map(|member| member.id).collect()
        };
        ConfState {
            voters: of(false),
            learners: of(true),
            ..ConfState::default()
        }
    }

    /// The members in a pinned database, and the version that they agreed on.
    ///
    /// # Errors
    /// The database cannot be read or is damaged.
    pub fn pinned(pinned: &Pinned) -> Result<Members, Fatal> {
        let mut members = Members::default();
        pinned.scan(Bucket::Members, |key, value| members.restore(key, value))??;
        pinned.scan(Bucket::MembersRemoved, |key, _| {
            members.restore_removed(key)
        })??;
        let version = pinned.get(Bucket::Cluster, schema::CLUSTER_VERSION)?;
        members.cluster_version =
            version.map(|version| String::from_utf8_lossy(&version).into_owned());
        Ok(members)
    }

    pub(crate) fn restore(&mut self, key: &[u8], record: &[u8]) -> Result<(), Fatal> {
        let damaged = |what: String| Fatal::Damaged {
            bucket: "members",
            what,
        };
        let id = parse_id(key).ok_or_else(|| damaged(format!("key {key:?} is no id")))?;
        let mut member: Member =
            serde_json::from_slice(record).map_err(|e| damaged(e.to_string()))?;
        member.id = id;
        self.by_id.insert(id, member);
        Ok(())
    }

    pub(crate) fn restore_removed(&mut self, key: &[u8]) -> Result<(), Fatal> {
        let what = || format!("key {key:?} is no id");
        let id = parse_id(key).ok_or_else(|| Fatal::Damaged {
            bucket: "members_removed",
            what: what(),
        })?;
        self.removed.insert(id);
        Ok(())
    }

    /// Applies a conf-change entry. `Ok(Ok(None))` is a change without effect on raft, `Ok(Err)`
    /// one that is refused: raft then takes it as none.
    pub(crate) fn apply(
        &mut self,
        index: LogIndex,
        change: &ConfChange,
        learners_max: usize,
        txn: &mut ApplyTxn<'_>,
    ) -> Result<Result<Option<RaftChange>, Error>, Fatal> {
        let undecodable = |what| Fatal::Undecodable { index, what };
        let kind = ChangeKind::from_number(change.kind)
            .ok_or_else(|| undecodable("a conf change of unknown kind"))?;
        let id = change.node_id;
        if self.removed.contains(&id) {
            return Ok(Err(Error::MemberNotFound));
        }
        let context = || -> Result<ChangeContext, Fatal> {
            let context: ChangeContext = serde_json::from_slice(&change.context)
                .map_err(|_| undecodable("a conf change whose context is no member"))?;
            if context.member.id != id {
                return Err(undecodable("a conf change whose context has another id"));
            }
            Ok(context)
        };
        let refused = match kind {
            ChangeKind::RemoveNode => self.remove(id, txn),
            ChangeKind::UpdateNode => self.update_peers(&context()?.member, txn),
            ChangeKind::AddNode | ChangeKind::AddLearnerNode => {
                let context = context()?;
                if context.is_promote {
                    self.promote(id, txn)
                } else {
                    let learners_max = (kind == ChangeKind::AddLearnerNode
                        && context.member.is_learner)
                        .then_some(learners_max);
                    self.add(context.member, learners_max, txn)
                }
            }
        };
        if let Err(error) = refused {
            return Ok(Err(error));
        }
        txn.set_conf_state(&self.conf_state());
        let node = MemberId(id);
        Ok(Ok(
            (kind != ChangeKind::UpdateNode).then_some(RaftChange { kind, node })
        ))
    }

    fn save(&self, id: u64, txn: &mut ApplyTxn<'_>) {
        if let Some(member) = self.by_id.get(&id) {
            let key = schema::member_key(id);
            txn.put(Bucket::Members, key.as_bytes(), value(member.to_json()));
        }
    }

    fn is_url_used(&self, urls: &[String], except: u64) -> bool {
        let mut others = self.by_id.values().filter(|member| member.id != except);
        others.any(|member| member.peer_urls.iter().any(|url| urls.contains(url)))
    }

    fn add(
        &mut self,
        member: Member,
        learners_max: Option<usize>,
        txn: &mut ApplyTxn<'_>,
    ) -> Result<(), Error> {
        if self.by_id.contains_key(&member.id) {
            return Err(Error::MemberExist);
        }
        if self.is_url_used(&member.peer_urls, member.id) {
            return Err(Error::PeerURLExist);
        }
        let learners = self
            .by_id
            .values()
            .filter(|member| member.is_learner)
            .count();
        if learners_max.is_some_and(|max| learners + 1 > max) {
            return Err(Error::TooManyLearners);
        }
        let id = member.id;
        self.by_id.insert(id, member);
        self.save(id, txn);
        Ok(())
    }

    fn promote(&mut self, id: u64, txn: &mut ApplyTxn<'_>) -> Result<(), Error> {
        let member = self.by_id.get_mut(&id).ok_or(Error::MemberNotFound)?;
        if !member.is_learner {
            return Err(Error::MemberNotLearner);
        }
        member.is_learner = false;
        self.save(id, txn);
        Ok(())
    }

    fn remove(&mut self, id: u64, txn: &mut ApplyTxn<'_>) -> Result<(), Error> {
        self.by_id.remove(&id).ok_or(Error::MemberNotFound)?;
        self.removed.insert(id);
        let key = schema::member_key(id);
        txn.delete(Bucket::Members, key.as_bytes());
        txn.put(
            Bucket::MembersRemoved,
            key.as_bytes(),
            Arc::from(schema::REMOVED),
        );
        Ok(())
    }

    fn update_peers(&mut self, update: &Member, txn: &mut ApplyTxn<'_>) -> Result<(), Error> {
        if !self.by_id.contains_key(&update.id) {
            return Err(Error::MemberNotFound);
        }
        if self.is_url_used(&update.peer_urls, update.id) {
            return Err(Error::PeerURLExist);
        }
        if let Some(member) = self.by_id.get_mut(&update.id) {
            member.peer_urls.clone_from(&update.peer_urls);
        }
        self.save(update.id, txn);
        Ok(())
    }

    /// Sets what a member published about itself; false for an id that never was a member's.
    pub(crate) fn set_attributes(
        &mut self,
        id: u64,
        name: &str,
        client_urls: &[String],
        txn: &mut ApplyTxn<'_>,
    ) -> bool {
        match self.by_id.get_mut(&id) {
            Some(member) => {
                member.name = name.to_string();
                member.client_urls = client_urls.to_vec();
                self.save(id, txn);
                true
            }
            None => self.removed.contains(&id),
        }
    }

    pub(crate) fn set_cluster_version(&mut self, version: &str, txn: &mut ApplyTxn<'_>) {
        self.cluster_version = Some(version.to_string());
        txn.put(
            Bucket::Cluster,
            schema::CLUSTER_VERSION,
            value(version.to_string()),
        );
    }

    pub(crate) fn set_downgrade(&mut self, info: DowngradeInfo, txn: &mut ApplyTxn<'_>) {
        txn.put(Bucket::Cluster, schema::DOWNGRADE, value(json(&info)));
        self.downgrade = info;
    }
}

fn value(text: String) -> Value {
    Arc::from(text.into_bytes())
}

fn parse_id(key: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(key).ok()?, 16).ok()
}
