//! The client port against other implementations of HTTP/2 and gRPC, over loopback.

mod front {
    pub(crate) mod demo;
    mod tonic_peer;
}
