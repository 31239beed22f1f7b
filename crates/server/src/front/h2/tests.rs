//! The connection fed with frames by hand. `peer` holds the tools; `faults` one row per rule of
//! RFC 9113 that a client can break; `floods` the bounds on abuse; `calls` gRPC's side; `splits`
//! arbitrary bytes and arbitrary cuts.

mod calls;
mod faults;
mod floods;
mod flow;
mod peer;
mod splits;
