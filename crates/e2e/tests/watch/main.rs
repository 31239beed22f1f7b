//! Watches over gRPC against a member: the rules of a conversation, random histories, load, and
//! crashes. Each passes on a Go etcd too (`ETCD_BIN`).

mod histories;
mod load;
mod restart;
mod rules;
mod stream;
