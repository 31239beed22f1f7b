//! The level of compatibility that this build claims.

/// The etcd release whose behaviour is emulated.
pub const SERVER: &str = "3.7.1";

/// The oldest cluster version that a member of this build can join.
pub const MIN_CLUSTER: &str = "3.0.0";

/// Major and minor number of a version in one of the forms that etcd takes for the target of a
/// downgrade: `3.6`, or three numbers, with a pre-release and metadata behind them if need be.
#[must_use]
pub fn minor(text: &str) -> Option<(u64, u64)> {
    let (rest, metadata) = split(text, '+');
    let (numbers, pre_release) = split(rest, '-');
    let is_word = |word: &str| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !word.is_empty() && word.bytes().all(fits)
    };
    let suffixes = [metadata, pre_release];
    let mut words = suffixes
        .iter()
        .flatten()
        .flat_map(|suffix| suffix.split('.'));
    if !words.all(is_word) {
        return None;
    }
    let number = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u64>().ok().filter(|_| digits)
    };
    let numbers: Option<Vec<u64>> = numbers.split('.').map(number).collect();
    match (numbers?.as_slice(), suffixes) {
        ([major, minor, _], _) | ([major, minor], [None, None]) => Some((*major, *minor)),
        _ => None,
    }
}

/// Major and minor number of `major.minor` with anything behind them, as in a cluster version or a
/// storage version.
#[must_use]
pub fn major_minor(text: &str) -> Option<(u64, u64)> {
    let mut parts = text.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn split(text: &str, at: char) -> (&str, Option<&str>) {
    match text.split_once(at) {
        Some((before, behind)) => (before, Some(behind)),
        None => (text, None),
    }
}

/// The version of Quorate itself.
pub const QUORATE: &str = env!("CARGO_PKG_VERSION");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_of_downgrades() {
        let versions = [
            "3.6",
            "3.6.5",
            "3.6.0-rc.1+build-7",
            "3.6.0-x",
            "3.6.0+meta",
        ];
        for version in versions {
            assert_eq!(minor(version), Some((3, 6)), "{version}");
        }
        let others = [
            "",
            "x",
            "3",
            "3.",
            "v3.6",
            "3.6-x",
            "3.6.1.2",
            "3.6.0-",
            "3.-1",
            "3.+6",
            "3.6.0+",
            "3.6.0-a..b",
        ];
        for version in others {
            assert_eq!(minor(version), None, "{version}");
        }
    }
}
