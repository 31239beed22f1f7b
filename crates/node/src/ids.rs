//! Ids by the rules that every member must share: those of requests here, those of members and
//! clusters in `api`, where offline tools find them too.

use std::sync::atomic::{AtomicU64, Ordering};

use api::ids::{MemberId, RequestId};
pub use api::ids::{cluster_id, member_id};

/// Source of request ids, unique in the cluster by etcd's rule: the member's low 16 bits, then
/// 40 bits of milliseconds at start, then a counter that starts at 1 and may overflow into them.
///
/// Network threads and the node share it; a relaxed addition suffices, since only uniqueness
/// matters.
#[derive(Debug)]
pub struct RequestIds {
    prefix: u64,
    suffix: AtomicU64,
}

impl RequestIds {
    /// `unix_ms` is the wall clock at start, in milliseconds.
    #[must_use]
    pub fn new(member: MemberId, unix_ms: u64) -> RequestIds {
        let suffix = AtomicU64::new((unix_ms & 0xff_ffff_ffff) << 8);
        RequestIds {
            prefix: (member.0 & 0xffff) << 48,
            suffix,
        }
    }

    /// The next id.
    pub fn next(&self) -> RequestId {
        let suffix = self.suffix.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        RequestId(self.prefix | (suffix & 0xffff_ffff_ffff))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_start_as_etcds_do() {
        let ids = RequestIds::new(MemberId(0x07e7_44ce_af96_c366), 0x0001_23a2_0647_5980);
        assert_eq!(ids.next().to_string(), "c366a20647598001");
        assert_eq!(ids.next().to_string(), "c366a20647598002");
    }

    #[test]
    fn the_counter_overflows_into_the_clock_but_not_into_the_member() {
        let ids = RequestIds::new(MemberId(0xffff), u64::MAX);
        let last = (0..256).map(|_| ids.next()).last();
        assert_eq!(last, Some(RequestId(0xffff_0000_0000_0000)));
    }
}
