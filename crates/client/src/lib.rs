//! A small client of etcd's API.
//!
//! What it must not know: how a server stores or replicates anything. It knows the API's
//! messages, the table of errors, and what etcd's own clients promise each other: the names of
//! lock and election keys, and when a request may be sent twice.
//!
//! Reading order: [`Config`] says where and as whom; [`Endpoint`] is one address; `connection`
//! makes one HTTP/2 connection to it; [`Channel`] chooses a connection for each request and
//! fails over; [`Client`] adds the token, deadlines and retries and has one method for each
//! unary RPC; [`Watches`] and [`KeepAlive`] hold streams open across failures;
//! [`concurrency`] has sessions, locks and elections.
//!
//! Rules:
//! - A request is sent again only when it cannot have been processed: no connection took it, a
//!   learner refused it, or it is a read. A write whose connection broke is reported, never repeated.
//! - A watch delivers every event once and in order, across reconnections, or ends with the
//!   reason.
//! - No request waits longer than its deadline; without one it waits for a server to come back.

mod call;
mod channel;
mod client;
pub mod concurrency;
mod config;
mod connection;
mod endpoint;
mod error;
mod fetch;
mod keepalive;
pub mod srv;
pub mod stub;
mod tls;
mod watch;

pub use channel::Channel;
pub use client::{API_VERSION, Client, prefix_end};
pub use config::{Config, Credentials, TlsConfig};
pub use endpoint::Endpoint;
pub use error::{Error, code_of};
pub use fetch::{fetch, greet};
pub use keepalive::KeepAlive;
pub use tls::system_roots;
pub use watch::{Cancellation, WatchEvent, Watcher, Watches};
