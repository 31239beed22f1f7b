//! `-w table`: boxes of `+`, `-` and `|` around columns, as etcd 3.4 to 3.6 draw them.

use cli::table::draw;

use super::{Answer, hash_rows, member_rows, status_rows};

const MEMBER_LIST: &[&str] = &[
    "ID",
    "STATUS",
    "NAME",
    "PEER ADDRS",
    "CLIENT ADDRS",
    "IS LEARNER",
];

const HEALTH: &[&str] = &["ENDPOINT", "HEALTH", "TOOK", "ERROR"];

const HASH_KV: &[&str] = &["ENDPOINT", "HASH", "HASH REVISION"];

const STATUS: &[&str] = &[
    "ENDPOINT",
    "ID",
    "VERSION",
    "STORAGE VERSION",
    "DB SIZE",
    "IN USE",
    "PERCENTAGE NOT IN USE",
    "QUOTA",
    "IS LEADER",
    "IS LEARNER",
    "RAFT TERM",
    "RAFT INDEX",
    "RAFT APPLIED INDEX",
    "ERRORS",
    "DOWNGRADE TARGET VERSION",
    "DOWNGRADE ENABLED",
];

/// The table of an answer, or `None` for answers that are no rows.
pub(super) fn print(answer: &Answer<'_>) -> Option<Vec<u8>> {
    let (head, rows) = match answer {
        Answer::MemberList(answer) => (MEMBER_LIST, member_rows(answer)),
        Answer::Status(answers) => (STATUS, status_rows(answers)),
        Answer::HashKv(answers) => (HASH_KV, hash_rows(answers)),
        Answer::Health(answers) => {
            let row = |health: &super::Health| {
                let healthy = health.is_healthy.to_string();
                vec![
                    health.endpoint.clone(),
                    healthy,
                    health.took.clone(),
                    health.error.clone(),
                ]
            };
            (HEALTH, answers.iter().map(row).collect())
        }
        _ => return None,
    };
    Some(draw(head, &rows).into_bytes())
}
