use std::collections::BTreeMap;

use api::pb::authpb::permission::Type;
use api::pb::authpb::{Permission, Role, User};
use bytes::Bytes;

use super::{Granted, Kind, Permissions};

/// What etcd's tree (`adt` of etcd 3.7.1) says. Each line has permissions, a colon, and requests
/// with the answer: `61-62` is the range from `a` to `b`, `61-` the key `a`, `61-00` all from `a`
/// on, in hexadecimal digits; `y` stands for allowed, `n` for denied. A quarter of the lines has
/// permissions that no release since 3.5 would store.
const JUDGED: &str = include_str!("judged.txt");

fn bytes(hex: &str) -> Bytes {
    let digits = hex.as_bytes().chunks(2);
    digits
        .map(|two| u8::from_str_radix(str::from_utf8(two).unwrap(), 16).unwrap())
        .collect()
}

fn range(text: &str) -> (Bytes, Bytes) {
    let (begin, end) = text.split_once('-').unwrap();
    (bytes(begin), bytes(end))
}

fn check(line: &str) -> usize {
    let (granted, requests) = line.split_once(':').unwrap();
    let permission = |text| {
        let (key, range_end) = range(text);
        let perm_type = Type::Read as i32;
        Permission {
            perm_type,
            key,
            range_end,
        }
    };
    let role = Role {
        key_permission: granted.split_whitespace().map(permission).collect(),
        ..Role::default()
    };
    let roles = BTreeMap::from([("r".to_string(), role)]);
    let user = User {
        roles: vec!["r".into()],
        ..User::default()
    };
    let granted = Granted {
        user: &user,
        roles: &roles,
    };
    let permissions = Permissions::of(granted);
    let mut count = 0;
    for request in requests.split_whitespace() {
        let (text, answer) = request.split_at(request.len() - 1);
        let (key, range_end) = range(text);
        let allowed = permissions.allow(granted, Kind::Read, &key, &range_end);
        assert_eq!(allowed, answer == "y", "{text} of {line}");
        assert!(!permissions.allow(granted, Kind::Write, &key, &range_end));
        count += 1;
    }
    count
}

#[test]
fn ranges_are_judged_as_etcd_judges_them() {
    let judged: usize = JUDGED.lines().map(check).sum();
    assert!(judged > 1_000, "{judged}");
}
