//! The member as the HTTP endpoints see it.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use api::ids::MemberId;
use api::pb::etcdserverpb as pb;
use node::raft::Role;
use state::Operations;

use crate::drive::Shared;
use crate::front::{Stats, StatsSnapshot};
use crate::http::{Alarm, Check, MemberView, Progress, RaftState, RaftStatus, Read};
use crate::metrics::Metrics;

pub(super) struct Probe {
    shared: Arc<Shared>,
    /// The counters of the net threads, once they run.
    stats: OnceLock<Vec<Arc<Stats>>>,
    /// What of the state's operations is in the metrics already.
    counted: Mutex<Operations>,
}

impl Probe {
    pub(super) fn new(shared: Arc<Shared>) -> Probe {
        Probe {
            shared,
            stats: OnceLock::new(),
            counted: Mutex::default(),
        }
    }

    /// Adds what was done to the keys since the last time.
    fn count_operations(&self, metrics: &Metrics) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let done = self.shared.view.operations();
        metrics.puts.add(done.puts - counted.puts);
        metrics.deletes.add(done.deletes - counted.deletes);
        metrics.ranges.add(done.ranges - counted.ranges);
        metrics.txns.add(done.txns - counted.txns);
        metrics.put_bytes.set_u64(done.put_bytes);
        *counted = done;
    }

    pub(super) fn attach(&self, stats: Vec<Arc<Stats>>) {
        self.stats.get_or_init(|| stats);
    }
}

impl MemberView for Probe {
    fn cluster_version(&self) -> Option<String> {
        self.shared
            .view
            .members()
            .cluster_version()
            .map(str::to_owned)
    }

    fn storage_version(&self) -> Option<String> {
        Some(self.shared.storage_version()).filter(|version| !version.is_empty())
    }

    fn alarms(&self) -> Vec<Alarm> {
        let kind = |alarm: &pb::AlarmMember| match pb::AlarmType::try_from(alarm.alarm) {
            Ok(pb::AlarmType::Nospace) => Alarm::NoSpace,
            Ok(pb::AlarmType::Corrupt) => Alarm::Corrupt,
            _ => Alarm::Unknown(alarm.alarm),
        };
        self.shared.view.alarms(0).iter().map(kind).collect()
    }

    fn is_auth_on(&self) -> bool {
        self.shared.view.auth_stamp() != 0
    }

    fn leader(&self) -> Option<MemberId> {
        self.shared.status.leader()
    }

    fn is_learner(&self) -> bool {
        self.shared.is_learner()
    }

    fn read(&self, read: Read) -> Check<'_> {
        Box::pin(async move {
            if read == Read::Linearizable {
                let confirmed = self.shared.confirm().await;
                confirmed.map_err(|error| error.to_string())?;
            }
            let probed = self.shared.view.probe();
            probed.map_err(|error| error.to_string())
        })
    }

    fn raft_status(&self) -> RaftStatus {
        let status = &self.shared.status;
        let details = status.details();
        let progress = details
            .progress
            .into_iter()
            .map(|(member, known)| Progress {
                member,
                matched: known.matched.0,
                next: known.next.0,
                state: match known {
                    known if known.in_snapshot => "StateSnapshot",
                    known if known.is_probed => "StateProbe",
                    _ => "StateReplicate",
                },
            });
        RaftStatus {
            member: self.shared.member,
            term: status.term().0,
            commit: status.committed().0,
            applied: self.shared.view.applied().index.0,
            leader: status.leader().unwrap_or_default(),
            vote: details.vote.unwrap_or_default(),
            state: match details.role {
                Some(Role::Leader) => RaftState::Leader,
                Some(Role::Candidate) => RaftState::Candidate,
                Some(Role::PreCandidate) => RaftState::PreCandidate,
                Some(Role::Follower) | None => RaftState::Follower,
            },
            progress: progress.collect(),
            ..RaftStatus::default()
        }
    }

    fn refresh(&self, metrics: &Metrics) {
        let shared = &self.shared;
        let status = &shared.status;
        metrics.has_leader.set(i64::from(status.leader().is_some()));
        metrics
            .is_leader
            .set(i64::from(status.leader() == Some(shared.member)));
        metrics.is_learner.set(i64::from(self.is_learner()));
        metrics.proposals_committed.set_u64(status.committed().0);
        metrics
            .proposals_applied
            .set_u64(shared.view.applied().index.0);
        metrics.proposals_pending.set_u64(status.pending());
        let seen = status.leader_changes();
        metrics
            .leader_changes
            .add(seen.saturating_sub(metrics.leader_changes.value()));
        metrics.current_revision.set(shared.view.revision());
        metrics.compact_revision.set(shared.view.compact_revision());
        metrics.keys.set_u64(shared.view.keys());
        let (_, auth_revision) = shared.view.auth_status();
        metrics.auth_revision.set_u64(auth_revision);
        self.count_operations(metrics);
        metrics
            .open_reads
            .set_u64(shared.view.open_readers() as u64);
        let (db_size, db_size_in_use) = shared.view.db_sizes();
        metrics.db_bytes.set_u64(db_size);
        metrics.db_bytes_in_use.set_u64(db_size_in_use);
        metrics.server_id.with([&shared.member.to_string()]).set(1);
        let mut sum = StatsSnapshot::default();
        for stats in self.stats.get().into_iter().flatten() {
            sum.add(&stats.snapshot());
        }
        let (received, sent) = (&metrics.client_received_bytes, &metrics.client_sent_bytes);
        received.add(sum.received_bytes.saturating_sub(received.value()));
        sent.add(sum.sent_bytes.saturating_sub(sent.value()));
    }
}
