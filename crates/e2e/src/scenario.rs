//! Scenarios: text files of calls and the answers that they must get.
//!
//! ```text
//! # Prose, before or between steps.
//! server --max-txn-ops=4
//! call KV/Put
//!   key: "a" value: "1"
//! expect
//!   header { revision: 2 }
//! call KV/Put
//!   value: "1"
//! error INVALID_ARGUMENT etcdserver: key is not provided
//! get /livez
//! status 200
//!   ok
//! post /v3/kv/range
//!   {"key":"YQ=="}
//! status 200
//! header Content-Type: application/json
//!   {"header":{"revision":"2"},"count":"1"}
//! open one /v3/watch
//!   {"create_request":{"key":"YQ=="}}
//! read one 1
//!   {"result":{"header":{"revision":"2"},"created":true}}
//! ```
//!
//! Messages are protobuf text. `expect` compares the whole answer, apart from the header's
//! `cluster_id`, `member_id` and `raft_term`; `expect some` compares only the fields that are
//! written. `poll` before a step repeats it until its answer fits. `with NAME: VALUE` adds
//! metadata to the next call. `%{x*1000}` inside a text stands for a thousand x. In the body
//! below `status`, `*` stands for anything; of JSON white space does not count, nor do the
//! header's fields that are named above. `post TARGET` and `request METHOD TARGET` send HTTP
//! requests, whose headers are set by `with`; `header NAME: VALUE` checks one of the answer's, and
//! without a value that there is none. `open` begins a named conversation with
//! a request whose answer may have no end, `socket` one over a web socket, with its block as the
//! first message. `send NAME` sends one more there and `finish NAME` closes; `read NAME COUNT`
//! wants lines, `silent NAME` that none comes, `ended NAME` the end, and `leave NAME` goes. `server` starts a fresh member with these flags;
//! `stop`, `kill` and `start` are about its process.
//!
//! With `E2E_RECORD` set, the answers that come are written into the file instead: the way to
//! make a scenario on a member that is known to be right, and then to read the difference.

mod parse;
mod run;
pub(crate) mod schema;
mod web;

pub use parse::{Answer, Match, Scenario, Step};
pub(crate) use run::code_name;
pub use run::run;
pub use web::{Exchange, Talk};
