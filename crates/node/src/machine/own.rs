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
