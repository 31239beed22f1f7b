//! Newtypes for the numbers that must not be confused with each other.

use std::fmt;

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
