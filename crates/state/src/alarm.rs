//! Alarms: which members reported what; kept in bucket `alarm`.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::pb::etcdserverpb::{AlarmMember, AlarmType};
use prost::Message;

use crate::fatal::Fatal;

/// The active alarms, by kind and member. Kinds are numbers, since unknown ones are kept.
#[derive(Clone, Debug, Default)]
pub(crate) struct Alarms {
    active: BTreeSet<(i32, u64)>,
}

impl Alarms {
    pub(crate) fn restore(&mut self, record: &[u8]) -> Result<(), Fatal> {
        let alarm = AlarmMember::decode(record).map_err(|e| Fatal::Damaged {
            bucket: "alarm",
            what: e.to_string(),
        })?;
        self.active.insert((alarm.alarm, alarm.member_id));
        Ok(())
    }

    /// True when any member reported it.
    pub(crate) fn is_active(&self, kind: AlarmType) -> bool {
        let kind = kind as i32;
        self.active
            .range((kind, 0)..=(kind, u64::MAX))
            .next()
            .is_some()
    }

    /// The alarms of one kind, or all for kind 0.
    pub(crate) fn list(&self, kind: i32) -> Vec<AlarmMember> {
        let all = self
            .active
            .iter()
            .filter(|alarm| kind == 0 || alarm.0 == kind);
        all.map(|&(alarm, member_id)| AlarmMember { member_id, alarm })
            .collect()
    }

    /// True when it was not active before.
    pub(crate) fn activate(&mut self, alarm: &AlarmMember) -> bool {
        self.active.insert((alarm.alarm, alarm.member_id))
    }

    /// True when it was active.
    pub(crate) fn deactivate(&mut self, alarm: &AlarmMember) -> bool {
        self.active.remove(&(alarm.alarm, alarm.member_id))
    }
}

/// The key of an alarm in its bucket; the value is empty.
pub(crate) fn key(alarm: &AlarmMember) -> Vec<u8> {
    alarm.encode_to_vec()
}

pub(crate) fn empty() -> storage::backend::Value {
    Arc::from([])
}
