//! The replicated state machine: keys and their history, leases, members, alarms, users.
//!
//! [`Machine`] applies log entries, one explicit sequence each, and is the only writer.
//! [`View`] answers readers on any thread; [`Sweep`] carries out compactions in the background.
//! All three share one locked state in memory over the backend's buckets:
//!
//! ```text
//!   Machine::apply ─ command ─ txn / kv / lease / members / alarm ─ ApplyTxn ─ backend
//!                                   │
//!                                 index        every key, newest record in memory
//!                                   │
//!   View::range ──── range ─────────┘  records that are not in memory: one backend read each
//! ```
//!
//! What is not here: no clock, socket, file, thread or random source; no gRPC; no raft.
//!
//! Invariants: equal applied index means equal state on all members; an answer at a pinned
//! revision is the same whatever is applied meanwhile; the revision never decreases; what an
//! entry changes becomes readable at once, with its index and its events.

mod alarm;
mod auth;
mod bootstrap;
mod command;
mod counts;
mod fatal;
mod hash;
mod index;
mod install;
mod kv;
mod lease;
mod machine;
mod members;
pub mod quota;
mod range;
pub mod record;
mod reply;
mod schema;
mod shared;
mod sweep;
mod txn;
mod view;
pub mod watch;
mod wire;

pub use auth::{
    Authorised, Caller, LeaseKeys, LeaseRenewal, LoggedIn, Operation, Root, TheseKeys, WatchKeys,
};
pub use bootstrap::{Bootstrap, BootstrapError, InitialMember};
pub use counts::Operations;
pub use fatal::{Fatal, ReadError};
pub use hash::KvHash;
pub use install::Replacement;
pub use lease::{ClockConfig, Due, LeaseClock, Renewal, TTL_MAX};
pub use machine::{Applied, Config, Effect, Machine, OpenError, Opened, hash_kv};
pub use members::{
    ChangeContext, ChangeKind, ConfChange, DowngradeInfo, Member, Members, RaftChange,
    v2_store_json,
};
pub use range::{RangeAnswer, RangePart, RangeParts};
pub use reply::{Header, Reply};
pub use schema::SCHEDULED_COMPACT;
pub use sweep::{Step, Sweep};
pub use txn::{is_read_only, is_serializable};
pub use view::{LeaseView, View};
