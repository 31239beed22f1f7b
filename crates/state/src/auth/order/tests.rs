use api::pb::authpb::Permission;
use bytes::Bytes;

use super::insert;

/// What Go's `sort.Sort` (Go 1.26) makes of lists that are sorted but for their last element:
/// one letter for each key, and where the elements of the result stood.
const SORTED: &str = include_str!("sorted.txt");

fn check(line: &str) {
    let (letters, places) = line.split_once(' ').unwrap();
    let permission = |(at, letter): (usize, u8)| Permission {
        key: vec![letter].into(),
        range_end: at.to_string().into(),
        ..Permission::default()
    };
    let mut held: Vec<Permission> = letters.bytes().enumerate().map(permission).collect();
    let last = held.pop().unwrap();
    insert(&mut held, last);
    let found: Vec<&Bytes> = held.iter().map(|one| &one.range_end).collect();
    let wanted: Vec<&str> = places.split(' ').collect();
    assert_eq!(found, wanted, "{letters}");
}

#[test]
fn permissions_are_ordered_as_by_go() {
    assert!(SORTED.lines().count() > 50);
    SORTED.lines().for_each(check);
}
