use super::*;
use api::pb::mvccpb::KeyValue;

fn request(key: &'static str, end: &'static str, revision: i64) -> RangeRequest {
    RangeRequest {
        key: Bytes::from_static(key.as_bytes()),
        range_end: Bytes::from_static(end.as_bytes()),
        revision,
        ..RangeRequest::default()
    }
}

fn answer(value: impl Into<Bytes>) -> RangeResponse {
    RangeResponse {
        kvs: vec![KeyValue {
            value: value.into(),
            ..KeyValue::default()
        }],
        count: 1,
        ..RangeResponse::default()
    }
}

fn keep(cache: &Cache, request: &RangeRequest) {
    cache.add(cache.begin(), request, &answer("v"));
}

fn has(cache: &Cache, request: &RangeRequest) -> bool {
    matches!(cache.get(request), Found::Answer(_))
}

fn end(cache: &Cache, key: &'static str, range_end: &'static str) {
    let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
    cache.end(&bytes(key), &bytes(range_end));
}

#[test]
fn a_linearizable_answer_serves_serializable_reads() {
    let cache = Cache::new();
    let asked = request("a", "", 0);
    keep(&cache, &asked);
    let serializable = RangeRequest {
        serializable: true,
        ..asked.clone()
    };
    assert_eq!(cache.get(&serializable), Found::Answer(answer("v")));
    let other = RangeRequest {
        keys_only: true,
        ..serializable
    };
    assert_eq!(cache.get(&other), Found::Nothing);
}

#[test]
fn a_write_ends_what_it_concerns() {
    let cases: &[(&str, &str, &str, &str, bool)] = &[
        ("b", "", "b", "", true),
        ("b", "", "a", "", false),
        ("b", "", "b", "c", true),
        ("b", "", "a", "b", false),
        ("b", "", "a", "\0", true),
        ("b", "", "c", "\0", false),
        ("b", "d", "c", "", true),
        ("b", "d", "d", "", false),
        ("b", "d", "a", "c", true),
        ("b", "d", "d", "e", false),
        ("b", "\0", "x", "", true),
        ("b", "\0", "a", "", false),
        ("b", "", "c", "a", false),
    ];
    for (key, range_end, written, written_end, ends) in cases {
        let cache = Cache::new();
        let asked = request(key, range_end, 0);
        let past = request(key, range_end, 7);
        keep(&cache, &asked);
        keep(&cache, &past);
        end(&cache, written, written_end);
        let what = format!("{key}-{range_end} by {written}-{written_end}");
        assert_eq!(has(&cache, &asked), !ends, "{what}");
        assert!(has(&cache, &past), "{what}");
        assert_eq!(cache.len(), if *ends { 1 } else { 2 }, "{what}");
    }
}

#[test]
fn an_answer_whose_end_came_first_is_not_kept() {
    let cache = Cache::new();
    let asked = request("a", "c", 0);
    let begun = cache.begin();
    end(&cache, "b", "");
    cache.add(begun, &asked, &answer("old"));
    assert!(!has(&cache, &asked));
    let begun = cache.begin();
    end(&cache, "c", "");
    cache.add(begun, &asked, &answer("v"));
    assert!(has(&cache, &asked), "a write beside it does no harm");
    let begun = cache.begin();
    for _ in 0..=ENDINGS_MAX {
        end(&cache, "x", "");
    }
    cache.add(begun, &request("a", "", 0), &answer("old"));
    let asked = request("a", "", 0);
    assert!(
        !has(&cache, &asked),
        "nobody remembers what ended meanwhile"
    );
}

#[test]
fn compaction_refuses_the_past_and_leaves_the_present() {
    let cache = Cache::new();
    let (past, kept, now) = (
        request("a", "", 4),
        request("a", "", 5),
        request("a", "", 0),
    );
    for asked in [&past, &kept, &now] {
        keep(&cache, asked);
    }
    cache.compact(5);
    cache.compact(3);
    assert_eq!(cache.get(&past), Found::Compacted);
    assert!(has(&cache, &kept) && has(&cache, &now));
    assert_eq!(cache.len(), 2);
    keep(&cache, &past);
    assert_eq!(cache.len(), 2);
    keep(&cache, &request("b", "", 0));
    assert_eq!(cache.len(), 3);
}

#[test]
fn the_least_used_goes_first_and_bytes_are_bounded() {
    let cache = Cache::new();
    let of = |number: i64| request("k", "", number + 1);
    let count = ENTRIES_MAX as i64;
    (0..count).for_each(|number| keep(&cache, &of(number)));
    assert!(has(&cache, &of(0)));
    keep(&cache, &of(count));
    assert_eq!(cache.len(), ENTRIES_MAX);
    assert!(has(&cache, &of(0)) && !has(&cache, &of(1)) && has(&cache, &of(2)));
    cache.clear();
    assert_eq!(cache.len(), 0);
    let large = answer(vec![7; ENTRY_BYTES_MAX - 64]);
    for number in 0..20 {
        cache.add(cache.begin(), &of(number), &large);
    }
    assert_eq!(cache.len(), BYTES_MAX / large.encoded_len());
    let too_large = answer(vec![7; ENTRY_BYTES_MAX]);
    cache.add(cache.begin(), &of(100), &too_large);
    assert!(!has(&cache, &of(100)));
    let state = cache.state();
    let sum: usize = state.entries.values().map(|entry| entry.bytes).sum();
    assert_eq!(
        (state.bytes, state.by_use.len()),
        (sum, state.entries.len())
    );
}

#[test]
fn a_member_that_is_behind_is_not_kept() {
    let cache = Cache::new();
    let header = |revision| ResponseHeader {
        revision,
        ..ResponseHeader::default()
    };
    let answered = |revision| RangeResponse {
        header: Some(header(revision)),
        ..answer("v")
    };
    let (now, past) = (request("a", "", 0), request("a", "", 3));
    cache.wrote(Some(&header(7)));
    cache.wrote(Some(&header(5)));
    cache.add(cache.begin(), &now, &answered(6));
    cache.add(cache.begin(), &past, &answered(6));
    assert!(!has(&cache, &now) && has(&cache, &past));
    cache.add(cache.begin(), &now, &answered(7));
    assert!(has(&cache, &now));
}
