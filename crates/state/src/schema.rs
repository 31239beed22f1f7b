//! Names and layouts in the database that belong to the state machine.

/// Bucket `meta`: 17-byte revision of the last accepted compaction.
pub const SCHEDULED_COMPACT: &[u8] = b"scheduledCompactRev";
/// Bucket `cluster`: ASCII cluster version.
pub(crate) const CLUSTER_VERSION: &[u8] = b"clusterVersion";
/// Bucket `cluster`: JSON of the downgrade in progress.
pub(crate) const DOWNGRADE: &[u8] = b"downgrade";
/// Bucket `auth`: one byte, 1 when authentication is on.
pub(crate) const AUTH_ENABLED: &[u8] = b"authEnabled";
/// Bucket `auth`: u64 big-endian.
pub(crate) const AUTH_REVISION: &[u8] = b"authRevision";
/// Bucket `members_removed`: the value of every record.
pub(crate) const REMOVED: &[u8] = b"removed";

/// The key of a lease in bucket `lease`.
pub(crate) fn lease_key(id: i64) -> [u8; 8] {
    id.to_be_bytes()
}

/// The key of a member in buckets `members` and `members_removed`.
pub(crate) fn member_key(id: u64) -> String {
    format!("{id:x}")
}
