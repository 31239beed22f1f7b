//! The client port against other implementations of HTTP/2 and gRPC, over loopback.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod front {
    pub(crate) mod demo;
    pub(crate) mod raw_peer;
    mod secure_peer;
    pub(crate) mod secured;
    mod tonic_peer;
    mod traffic;
}
