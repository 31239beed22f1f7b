//! Changes of the membership before they are proposed: etcd's strict checks, and their entries.
//!
//! What applying a change may still refuse (`state::Members`) is not looked at here, but for what
//! only the leader knows: how far a learner is.

use std::collections::BTreeMap;

use api::Error;
use api::ids::{MemberId, RequestId};
use bytes::Bytes;
use state::{ChangeContext, ChangeKind, Member, Members};
use storage::log::LogIndex;
use storage::wire::{put_bytes, put_uint};

use super::Token;
use crate::raft::{Raft, Role};

/// A member counts as healthy when it has been connected for so long, in milliseconds; etcd's
/// `HealthInterval`.
pub const HEALTH_MS: u64 = 5000;
/// A learner is ready when it has so many hundredths of the leader's log; etcd's threshold.
const LEARNER_READY_PERCENT: u128 = 90;

/// A change that a client wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// Add a member, voting or learning; its id follows from its URLs and the time, by
    /// [`crate::ids::member_id`] with an empty token.
    Add(Member),
    /// Let a learner vote. Only the leader can decide; others answer `NotLeader`.
    Promote(MemberId),
    /// Set the peer URLs of a member.
    Update {
        id: MemberId,
        peer_urls: Vec<String>,
    },
    Remove(MemberId),
}

/// A change with what it is decided on.
#[derive(Clone, Debug)]
pub struct Reconfigure {
    /// From [`crate::ids::RequestIds`]; names the change in the log.
    pub id: RequestId,
    pub token: Token,
    pub change: MemberChange,
    /// The members as they are applied now.
    pub members: Members,
    /// Members that this one is connected to, with for how many milliseconds.
    pub connected_ms: BTreeMap<MemberId, u64>,
    /// `--strict-reconfig-check`
    pub strict: bool,
}

impl Reconfigure {
    /// The data of the change's entry.
    ///
    /// # Errors
    /// etcd's, when the change would endanger the cluster or cannot be decided here.
    pub(super) fn check(&self, own: MemberId, raft: &Raft) -> Result<Bytes, Error> {
        let known = |id: MemberId| self.members.member(id).ok_or(Error::MemberNotFound);
        match &self.change {
            MemberChange::Add(member) => {
                self.check_add(own, member)?;
                let kind = match member.is_learner {
                    true => ChangeKind::AddLearnerNode,
                    false => ChangeKind::AddNode,
                };
                let context = context(member.clone(), false);
                Ok(self.encode(kind, MemberId(member.id), &context))
            }
            MemberChange::Promote(id) => {
                self.check_promote(*id, own, raft)?;
                let member = Member {
                    id: id.0,
                    ..Member::default()
                };
                Ok(self.encode(ChangeKind::AddNode, *id, &context(member, true)))
            }
            MemberChange::Update { id, peer_urls } => {
                let member = Member {
                    id: id.0,
                    peer_urls: peer_urls.clone(),
                    ..Member::default()
                };
                Ok(self.encode(ChangeKind::UpdateNode, *id, &member.to_json()))
            }
            MemberChange::Remove(id) => {
                if self.strict {
                    self.check_remove(own, known(*id).ok())?;
                }
                Ok(self.encode(ChangeKind::RemoveNode, *id, ""))
            }
        }
    }

    fn encode(&self, kind: ChangeKind, node: MemberId, context: &str) -> Bytes {
        let mut data = Vec::with_capacity(64 + context.len());
        put_uint(&mut data, 1, self.id.0);
        put_uint(&mut data, 2, kind as u64);
        put_uint(&mut data, 3, node.0);
        if !context.is_empty() {
            put_bytes(&mut data, 4, context.as_bytes());
        }
        data.into()
    }

    fn voters(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| !member.is_learner)
    }

    /// Whether so many of `voters` members, of which `started` run, are a quorum.
    fn check_quorum(started: usize, voters: usize) -> Result<(), Error> {
        if started < voters / 2 + 1 {
            return Err(Error::MemberNotEnoughStarted);
        }
        Ok(())
    }

    fn is_healthy(&self, own: MemberId, id: MemberId) -> bool {
        let long = |ms: &u64| *ms >= HEALTH_MS;
        id == own || self.connected_ms.get(&id).is_some_and(long)
    }

    fn check_add(&self, own: MemberId, member: &Member) -> Result<(), Error> {
        if !self.strict {
            return Ok(());
        }
        if !member.is_learner {
            let started = self.voters().filter(|member| is_started(member)).count();
            let voters = self.voters().count() + 1;
            // A lone member may get a second one, which a restored cluster grows by.
            if !(started == 1 && voters == 2) {
                Self::check_quorum(started, voters)?;
            }
        }
        if !self
            .voters()
            .all(|member| self.is_healthy(own, MemberId(member.id)))
        {
            return Err(Error::Unhealthy);
        }
        Ok(())
    }

    fn check_remove(&self, own: MemberId, target: Option<&Member>) -> Result<(), Error> {
        let Some(target) = target.filter(|member| !member.is_learner) else {
            return Ok(());
        };
        let others = || self.voters().filter(|member| member.id != target.id);
        let started = others().filter(|member| is_started(member)).count();
        Self::check_quorum(started, others().count())?;
        let id = MemberId(target.id);
        if id != own && !self.connected_ms.contains_key(&id) {
            // One that is down is no part of the quorum that works.
            return Ok(());
        }
        let healthy = self
            .voters()
            .filter(|member| self.is_healthy(own, MemberId(member.id)))
            .count();
        if healthy.saturating_sub(1) < 1 + (self.voters().count() - 1) / 2 {
            return Err(Error::Unhealthy);
        }
        Ok(())
    }

    fn check_promote(&self, id: MemberId, own: MemberId, raft: &Raft) -> Result<(), Error> {
        if raft.role() != Role::Leader {
            return Err(Error::NotLeader);
        }
        let member = self.members.member(id).ok_or(Error::MemberNotFound)?;
        if !member.is_learner {
            return Err(Error::MemberNotLearner);
        }
        let matched = |id| raft.progress(id).map(|progress| progress.matched);
        let learner = matched(id).ok_or(Error::MemberNotFound)?;
        let leader = matched(own).unwrap_or(LogIndex(0));
        // Zero of zero is not ready either: such a learner was never heard of.
        let enough = u128::from(leader.0) * LEARNER_READY_PERCENT;
        if learner == LogIndex(0) || u128::from(learner.0) * 100 < enough {
            return Err(Error::LearnerNotReady);
        }
        if !self.strict {
            return Ok(());
        }
        let started = self.voters().filter(|member| is_started(member)).count() + 1;
        Self::check_quorum(started, self.voters().count() + 1)
    }
}

fn context(member: Member, is_promote: bool) -> String {
    ChangeContext { member, is_promote }.to_json()
}

/// Whether a member has ever run: it has published its name.
fn is_started(member: &Member) -> bool {
    !member.name.is_empty()
}
