use proptest::prelude::*;

use super::*;

fn keys() -> impl Strategy<Value = Keys> {
    let key = || (0u8..12).prop_map(|n| Bytes::copy_from_slice(&[b'a' + n / 3, b'0' + n % 3]));
    prop_oneof![
        key().prop_map(Keys::One),
        (key(), key()).prop_map(|(a, b)| Keys::Range(a.clone().min(b.clone()), Some(a.max(b)))),
        key().prop_map(|key| Keys::Range(key, None)),
    ]
}

fn is_in(keys: &Keys, key: &[u8]) -> bool {
    match keys {
        Keys::One(one) => **one == *key,
        Keys::Range(begin, end) => **begin <= *key && end.as_ref().is_none_or(|end| *key < **end),
    }
}

proptest! {
    #[test]
    fn finds_exactly_the_watchers_of_a_key(
        steps in prop::collection::vec((keys(), any::<bool>()), 1..80)
    ) {
        let mut matcher = Matcher::default();
        let mut live: Vec<(Keys, WatcherId)> = Vec::new();
        for (id, (keys, remove)) in steps.into_iter().enumerate() {
            if remove && !live.is_empty() {
                let (keys, id) = live.swap_remove(id % live.len());
                matcher.remove(&keys, id);
            } else {
                matcher.insert(&keys, id as WatcherId);
                live.push((keys, id as WatcherId));
            }
            for key in [&b"a0"[..], b"a1", b"b", b"b2", b"c1", b"d2", b"e", b""] {
                let mut found = Vec::new();
                matcher.for_each(key, |id| found.push(id));
                found.sort_unstable();
                let mut expected: Vec<WatcherId> = live
                    .iter()
                    .filter(|(keys, _)| is_in(keys, key))
                    .map(|(_, id)| *id)
                    .collect();
                expected.sort_unstable();
                prop_assert_eq!(found, expected);
            }
        }
        live.drain(..).for_each(|(keys, id)| matcher.remove(&keys, id));
        prop_assert!(matcher.exact.is_empty() && matcher.ranges.nodes.is_empty());
    }
}
