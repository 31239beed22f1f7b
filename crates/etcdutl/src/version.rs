//! Versions as the database names its schema.

use std::fmt;

/// `major.minor.patch`; a pre-release is not a schema's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    pub(crate) major: u64,
    pub(crate) minor: u64,
    pub(crate) patch: u64,
}

/// The first release whose schema can be told.
pub(crate) const V3_5: Version = Version::of(3, 5);
/// The first release that keeps its version in the database.
pub(crate) const V3_6: Version = Version::of(3, 6);

impl Version {
    /// The first patch of a minor release.
    pub(crate) const fn of(major: u64, minor: u64) -> Version {
        Version {
            major,
            minor,
            patch: 0,
        }
    }

    /// Reads `3.6.0`.
    pub(crate) fn parse(text: &str) -> Option<Version> {
        let mut parts = text.split('.').map(|part| {
            let digits = part.bytes().all(|byte| byte.is_ascii_digit());
            part.parse().ok().filter(|_| digits)
        });
        let version = Version {
            major: parts.next()??,
            minor: parts.next()??,
            patch: parts.next()??,
        };
        parts.next().is_none().then_some(version)
    }

    /// `3.6`.
    pub(crate) fn minor_text(self) -> String {
        format!("{}.{}", self.major, self.minor)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(Version::parse("3.6.0"), Some(V3_6));
        assert!(V3_5 < V3_6 && Version::of(3, 10) > V3_6);
        for text in [
            "",
            "3",
            "3.6",
            "3.6.0.1",
            "3.x.0",
            "3.+6.0",
            "v3.6.0",
            "3.6.0-rc.0",
        ] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
    }
}
