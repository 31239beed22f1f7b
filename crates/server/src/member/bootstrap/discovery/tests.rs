use super::*;

fn kv(key: &str, value: &str, created: i64) -> KeyValue {
    KeyValue {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        create_revision: created,
        ..KeyValue::default()
    }
}

#[test]
fn keys_are_cleaned_as_go_joins_paths() {
    let keys = Keys::new("t");
    assert_eq!(keys.size, "/_etcd/registry/t/_config/size");
    assert_eq!(keys.member(MemberId(0xab)), "/_etcd/registry/t/members/ab");
    assert_eq!(
        Keys::new("/a//b/./c/../").members,
        "/_etcd/registry/a/b/members"
    );
    assert_eq!(Keys::new("../../../x").members, "/x/members");
}

#[test]
fn sizes() {
    for (text, size) in [("3", 3), ("+1", 1), ("007", 7)] {
        assert_eq!(parse_size(text.as_bytes()).unwrap(), size, "{text}");
    }
    for text in ["", "0", "-1", "3 ", "three", "9223372036854775808", "\u{0}"] {
        assert!(
            matches!(parse_size(text.as_bytes()), Err(Error::BadSize)),
            "{text}"
        );
    }
    assert!(matches!(parse_size(b"\xff"), Err(Error::BadSize)));
}

#[test]
fn the_first_ones_are_the_cluster() {
    let keys = Keys::new("t");
    let mut founders = Founders::default();
    let member = |n: &str| format!("/_etcd/registry/t/members/{n}");
    for founder in [
        kv(&member("3"), "c=http://c:1", 9),
        kv(&member("1"), " a=http://a:1,a=http://a:2 ", 4),
        kv(&member("1"), "again=http://a:1", 4),
        kv(&member("4"), "", 5),
        kv("/elsewhere", "x=http://x:1", 1),
        kv(&member("2"), "b=http://b:1", 7),
    ] {
        founders.add(&keys, &founder);
    }
    let places = |key: &str| founders.has_place(&member(key), 2);
    assert_eq!(["1", "2", "3", "9"].map(places), [true, true, false, false]);
    assert!(founders.has_place(&member("9"), 4));
    let whole = "a=http://a:1,a=http://a:2,b=http://b:1";
    assert_eq!(founders.initial_cluster(2).unwrap(), whole);
    founders.add(&keys, &kv(&member("5"), "d=nowhere", 2));
    assert!(matches!(founders.initial_cluster(2), Err(Error::BadUrl)));
}
