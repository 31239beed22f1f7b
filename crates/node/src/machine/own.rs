//! Requests that a member makes for itself: its attributes and the cluster version.

use api::ids::{MemberId, RequestId};
use api::pb::etcdserverpb::{InternalRaftRequest, RequestHeader};
use api::pb::membershippb::{Attributes, ClusterMemberAttrSetRequest, ClusterVersionSetRequest};
use bytes::Bytes;
use prost::Message;

/// A request that is repeated until it was applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Own {
    #[default]
    Due,
    Sent {
        id: RequestId,
        tick: u64,
    },
    Done,
}

impl Own {
    /// Whether it should be sent now, for the first time or again.
    pub(super) fn is_due(self, tick: u64, timeout_ticks: u64) -> bool {
        match self {
            Own::Due => true,
            Own::Sent { tick: sent, .. } => tick >= sent + timeout_ticks,
            Own::Done => false,
        }
    }

    /// Marks it done when `id` is what was sent, and says whether it was.
    pub(super) fn on_applied(&mut self, id: RequestId) -> bool {
        let mine = matches!(self, Own::Sent { id: sent, .. } if *sent == id);
        if mine {
            *self = Own::Done;
        }
        mine
    }
}

/// The version that all members agree to understand, and who is asked about it.
pub(super) struct Versions {
    /// As applied.
    pub(super) current: Option<String>,
    /// What the cluster version should be raised to.
    pub(super) wanted: Option<String>,
    pub(super) setting: Own,
    /// When the others were asked last, in this term.
    asked_tick: Option<u64>,
    /// Whether they answered, in this term.
    heard: bool,
}

impl Versions {
    /// `own` is the cluster version that this build stands for.
    pub(super) fn new(current: Option<String>, own: &str) -> Versions {
        let is_set = current.as_deref().and_then(minor_of) >= minor_of(own);
        Versions {
            current,
            wanted: (!is_set).then(|| own.to_owned()),
            setting: Own::Due,
            asked_tick: None,
            heard: false,
        }
    }

    /// The cluster version is now this.
    pub(super) fn on_set(&mut self, version: String) {
        let reached = minor_of(&version) >= self.wanted.as_deref().and_then(minor_of);
        if reached {
            self.wanted = None;
        }
        self.current = Some(version);
    }

    pub(super) fn on_leader(&mut self) {
        self.asked_tick = None;
        self.heard = false;
        self.setting = Own::Due;
    }

    /// Whether it is time to ask the others.
    pub(super) fn ask(&mut self, tick: u64, every_ticks: u64) -> bool {
        let due = self
            .asked_tick
            .is_none_or(|asked| tick >= asked + every_ticks);
        if due {
            self.asked_tick = Some(tick);
        }
        due
    }

    /// What to propose now: a lone member decides by itself, others when they have heard of all.
    pub(super) fn wanted(&self, alone: bool, own: &str) -> Option<String> {
        let wanted = self.wanted.as_ref()?;
        if alone {
            return Some(own.to_owned());
        }
        self.heard.then(|| wanted.clone())
    }

    /// The others said what they run; none that was not heard of.
    pub(super) fn on_answers(&mut self, others: &[Option<&str>], own: &str) {
        let least = others
            .iter()
            .map(|version| version.and_then(minor_of))
            .chain([minor_of(own)])
            .min()
            .flatten();
        let current = self.current.as_deref().and_then(minor_of);
        let to = match (current, least) {
            (None, None) => Some(LEAST_VERSION),
            (None, least) => least,
            (Some(current), Some(least)) if current.0 == least.0 && current < least => Some(least),
            (Some(_), _) => None,
        };
        self.wanted = to.map(|(major, minor)| format!("{major}.{minor}.0"));
        self.setting = Own::Due;
        self.heard = true;
    }
}

/// The cluster version while somebody was never heard of, as in etcd.
const LEAST_VERSION: (u32, u32) = (3, 0);

/// Tells the cluster this member's name and client URLs.
pub(super) fn attributes(
    id: RequestId,
    member: MemberId,
    name: &str,
    client_urls: &[String],
) -> Bytes {
    let attributes = Attributes {
        name: name.to_owned(),
        client_urls: client_urls.to_vec(),
    };
    encode(InternalRaftRequest {
        header: Some(header(id)),
        cluster_member_attr_set: Some(ClusterMemberAttrSetRequest {
            member_id: member.0,
            member_attributes: Some(attributes),
        }),
        ..Default::default()
    })
}

/// Raises what all members agree to understand, `major.minor.0`.
pub(super) fn cluster_version(id: RequestId, version: &str) -> Bytes {
    encode(InternalRaftRequest {
        header: Some(header(id)),
        cluster_version_set: Some(ClusterVersionSetRequest {
            ver: version.to_owned(),
        }),
        ..Default::default()
    })
}

fn header(id: RequestId) -> RequestHeader {
    RequestHeader {
        id: id.0,
        ..Default::default()
    }
}

fn encode(request: InternalRaftRequest) -> Bytes {
    request.encode_to_vec().into()
}

/// Major and minor of `major.minor[.patch]`.
pub(crate) fn minor_of(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.');
    let major = parts.next()?.parse().ok()?;
    let minor = parts.next()?.parse().ok()?;
    Some((major, minor))
}
