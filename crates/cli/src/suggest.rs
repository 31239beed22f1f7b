//! Commands that somebody may have meant.

/// How many letters may differ.
const DISTANCE_MAX: usize = 2;

/// The names that are close to `word` or begin with it.
pub(super) fn near<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let lower = word.to_lowercase();
    names
        .filter(|name| distance(&lower, name) <= DISTANCE_MAX || name.starts_with(&lower))
        .collect()
}

/// How many insertions, deletions and replacements lead from one word to the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    // row[i] is the distance from the letters so far to the first i letters of `to`.
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, letter) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, other) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(near("gte", ["get", "put"].into_iter()), ["get"]);
        assert_eq!(near("snap", ["snapshot", "put"].into_iter()), ["snapshot"]);
        assert!(near("nosuch", ["get", "put"].into_iter()).is_empty());
    }
}
