//! Newtypes for the numbers that must not be confused with each other, and the rule by which
//! members and clusters get theirs.

use std::fmt;

use sha1::{Digest, Sha1};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $format:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }
    };
}

id!(
    /// A member of the cluster; printed as lower-case hex without leading zeros.
    MemberId(u64), "{:x}"
);
id!(
    /// A cluster; printed as lower-case hex without leading zeros.
    ClusterId(u64), "{:x}"
);
id!(
    /// A request that waits for its log entry; unique in the cluster.
    RequestId(u64), "{:x}"
);
id!(
    /// A lease; negative values are legal when the client chose them.
    LeaseId(i64), "{:x}"
);

/// Id of a member of a new cluster; `added_unix_s` is set for members that join a running one.
#[must_use]
pub fn member_id(peer_urls: &[String], token: &str, added_unix_s: Option<u64>) -> MemberId {
    let mut urls: Vec<&str> = peer_urls.iter().map(String::as_str).collect();
    urls.sort_unstable();
    let mut hash = Sha1::new();
    for url in urls {
        hash.update(url);
    }
    hash.update(token);
    if let Some(seconds) = added_unix_s {
        hash.update(seconds.to_string());
    }
    MemberId(first_u64(hash))
}

/// Id of a cluster, from its initial members in any order.
#[must_use]
pub fn cluster_id(members: &[MemberId]) -> ClusterId {
    let mut members = members.to_vec();
    members.sort_unstable();
    let mut hash = Sha1::new();
    for member in members {
        hash.update(member.0.to_be_bytes());
    }
    ClusterId(first_u64(hash))
}

fn first_u64(hash: Sha1) -> u64 {
    let digest = hash.finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values that real etcd servers printed for these URLs and tokens.
    #[test]
    fn members_and_clusters_have_etcds_ids() {
        let id = |urls: &[&str], token| {
            member_id(
                &urls.iter().map(|url| (*url).to_owned()).collect::<Vec<_>>(),
                token,
                None,
            )
        };
        let one = id(&["http://127.0.0.1:41801"], "tok-1");
        assert_eq!(one.to_string(), "7e744ceaf96c366");
        assert_eq!(cluster_id(&[one]).to_string(), "40f05fa4c575c39d");
        let default = id(&["http://localhost:2380"], "etcd-cluster");
        assert_eq!(default.to_string(), "8e9e05c52164694d");
        assert_eq!(cluster_id(&[default]).to_string(), "cdf818194e3a8c32");
        let two = id(&["http://127.0.0.1:41832"], "tok-p");
        let three = id(&["http://127.0.0.1:41833"], "tok-p");
        assert_eq!(
            (two.0, three.0),
            (0x3b76_f951_1881_4610, 0xbb40_3a50_d4f5_e814)
        );
        assert_eq!(cluster_id(&[three, two]).to_string(), "e8db8d53c54d56e4");
        let both = id(
            &["http://10.0.0.1:2380", "http://10.0.0.1:2379"],
            "etcd-cluster",
        );
        assert_eq!(both.to_string(), "f4186d70b74d3c4e");
    }
}
