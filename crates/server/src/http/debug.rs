//! `/debug/vars`.

use http::StatusCode;
use serde_json::{Value, json};

use super::{Answer, RaftState, Request, Routes, only_get, respond};
use crate::metrics;

impl Routes {
    pub(super) fn variables(&self, request: &Request) -> Answer {
        if let Some(refusal) = only_get(request) {
            return refusal;
        }
        let limit = metrics::fd_limit().map_or(Value::from(u64::MAX), Value::from);
        // One variable a line, by name; Go's memstats have no counterpart.
        let body = format!(
            "{{\n\"cmdline\": {},\n\"file_descriptor_limit\": {limit},\n\"raft.status\": {}\n}}\n",
            Value::from(self.command_line.clone()),
            self.raft_variables(),
        );
        respond(
            StatusCode::OK,
            Some("application/json; charset=utf-8"),
            body,
        )
    }

    /// raft's status in the order in which etcd prints it, which JSON values would not keep.
    fn raft_variables(&self) -> String {
        let status = self.view.raft_status();
        let state = match status.state {
            RaftState::Follower => "StateFollower",
            RaftState::PreCandidate => "StatePreCandidate",
            RaftState::Candidate => "StateCandidate",
            RaftState::Leader => "StateLeader",
        };
        let progress: Vec<String> = status
            .progress
            .iter()
            .map(|one| {
                let (matched, next) = (one.matched, one.next);
                let state = json!(one.state);
                format!(
                    "\"{}\":{{\"match\":{matched},\"next\":{next},\"state\":{state}}}",
                    one.member
                )
            })
            .collect();
        format!(
            "{{\"id\":\"{}\",\"term\":{},\"vote\":\"{}\",\"commit\":{},\"lead\":\"{}\",\
             \"raftState\":\"{state}\",\"applied\":{},\"progress\":{{{}}},\
             \"leadtransferee\":\"{}\"}}",
            status.member,
            status.term,
            status.vote,
            status.commit,
            status.leader,
            status.applied,
            progress.join(","),
            status.transferee,
        )
    }
}
