//! Requests that a member makes for itself: its attributes and the cluster version.

use api::ids::{MemberId, RequestId};
use api::pb::etcdserverpb::{InternalRaftRequest, RequestHeader};
use api::pb::membershippb::{Attributes, ClusterMemberAttrSetRequest, ClusterVersionSetRequest};
use api::version::major_minor;
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
    /// What the cluster version should become.
    pub(super) wanted: Option<String>,
    /// Target of the downgrade in progress.
    downgrade: Option<(u64, u64)>,
    pub(super) setting: Own,
    /// When the others were asked last, in this term.
    asked_tick: Option<u64>,
    /// Whether they answered, in this term.
    heard: bool,
}

impl Versions {
    /// `own` is the cluster version that this build stands for.
    pub(super) fn new(current: Option<String>, own: &str) -> Versions {
        let is_set = current.as_deref().and_then(major_minor) >= major_minor(own);
        Versions {
            current,
            wanted: (!is_set).then(|| own.to_owned()),
            downgrade: None,
            setting: Own::Due,
            asked_tick: None,
            heard: false,
        }
    }

    /// A downgrade began or ended: what was wanted before is to be decided anew.
    pub(super) fn on_downgrade(&mut self, target: Option<&str>, alone: bool, own: &str) {
        let target = target.and_then(major_minor);
        if std::mem::replace(&mut self.downgrade, target) == target {
            return;
        }
        self.wanted = alone.then(|| self.decide(&[], own)).flatten();
        self.setting = Own::Due;
        self.asked_tick = None;
        self.heard = false;
    }

    /// The cluster version is now this.
    pub(super) fn on_set(&mut self, version: String) {
        let (now, wanted) = (
            major_minor(&version),
            self.wanted.as_deref().and_then(major_minor),
        );
        if now == wanted || self.downgrade.is_none() && now > wanted {
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
            return self.decide(&[], own);
        }
        self.heard.then(|| wanted.clone())
    }

    /// The others said what they run; none that was not heard of.
    pub(super) fn on_answers(&mut self, others: &[Option<&str>], own: &str) {
        self.wanted = self.decide(others, own);
        self.setting = Own::Due;
        self.heard = true;
    }

    /// What the cluster version should become: the least that members run, never lower than it
    /// is, but for a downgrade, which goes down by one minor version at a time.
    fn decide(&self, others: &[Option<&str>], own: &str) -> Option<String> {
        let least = others
            .iter()
            .map(|version| version.and_then(major_minor))
            .chain([major_minor(own)])
            .min()
            .flatten();
        let current = self.current.as_deref().and_then(major_minor);
        let to = match (current, least) {
            (None, None) => Some(LEAST_VERSION),
            (None, least) => least,
            (Some(current), Some(least)) => match self.downgrade {
                Some(target) => [current, least]
                    .iter()
                    .all(|version| is_next_below(target, *version))
                    .then_some(target),
                None => (current.0 == least.0 && current < least).then_some(least),
            },
            (Some(_), None) => None,
        };
        to.map(|(major, minor)| format!("{major}.{minor}.0"))
    }
}

/// Whether `target` is the minor version before `version`.
fn is_next_below(target: (u64, u64), version: (u64, u64)) -> bool {
    target.0 == version.0 && target.1 + 1 == version.1
}

/// The cluster version while somebody was never heard of, as in etcd.
const LEAST_VERSION: (u64, u64) = (3, 0);

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

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "3.7.0";

    fn at(current: &str) -> Versions {
        Versions::new(Some(current.into()), OWN)
    }

    #[test]
    fn a_downgrade_lowers_the_version_by_one_and_keeps_it_there() {
        let mut versions = at(OWN);
        versions.on_answers(&[Some("3.7.1"), Some("3.7.3")], OWN);
        assert_eq!(versions.wanted(false, OWN), None);
        versions.on_downgrade(Some("3.6.0"), false, OWN);
        assert_eq!(versions.wanted(false, OWN), None, "others are asked first");
        versions.on_answers(&[Some("3.7.1"), None], OWN);
        assert_eq!(versions.wanted(false, OWN), None, "one was not heard of");
        versions.on_answers(&[Some("3.7.1"), Some("3.7.3")], OWN);
        assert_eq!(versions.wanted(false, OWN).as_deref(), Some("3.6.0"));
        versions.on_set("3.6.0".into());
        for answers in [
            [Some("3.7.1"), Some("3.7.3")],
            [Some("3.6.4"), Some("3.7.3")],
        ] {
            versions.on_answers(&answers, OWN);
            assert_eq!(versions.wanted(false, OWN), None);
        }
        versions.on_downgrade(None, false, OWN);
        versions.on_answers(&[Some("3.7.1"), Some("3.7.3")], OWN);
        assert_eq!(versions.wanted(false, OWN).as_deref(), Some(OWN));
    }

    #[test]
    fn nothing_goes_down_by_two() {
        let mut versions = at(OWN);
        versions.on_downgrade(Some("3.5.0"), false, OWN);
        versions.on_answers(&[Some("3.7.1")], OWN);
        assert_eq!(versions.wanted(false, OWN), None);
        let mut versions = at("3.6.0");
        versions.on_downgrade(Some("3.5.0"), false, OWN);
        versions.on_answers(&[Some("3.6.1")], OWN);
        assert_eq!(versions.wanted(false, OWN).as_deref(), Some("3.5.0"));
        versions.on_answers(&[Some("3.7.1")], OWN);
        assert_eq!(versions.wanted(false, OWN), None, "all run 3.7");
    }

    #[test]
    fn a_lone_member_decides_at_once() {
        let mut versions = at(OWN);
        versions.on_downgrade(Some("3.6.0"), true, OWN);
        assert_eq!(versions.wanted(true, OWN).as_deref(), Some("3.6.0"));
        versions.on_set("3.6.0".into());
        assert_eq!(versions.wanted(true, OWN), None);
        versions.on_downgrade(None, true, OWN);
        assert_eq!(versions.wanted(true, OWN).as_deref(), Some(OWN));
    }
}
