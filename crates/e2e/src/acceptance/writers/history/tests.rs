use super::*;

fn event(revision: i64, key: &'static str) -> Event {
    Event {
        revision,
        deleted: false,
        key: key.into(),
        value: "x".into(),
        lease: 0,
    }
}

/// Pushes answers, each a list of revisions, and says whether all were taken.
fn accepts(answers: &[&[i64]]) -> bool {
    let mut log = Log::default();
    answers.iter().all(|revisions| {
        let events = revisions.iter().map(|&revision| event(revision, "a"));
        log.push(events.collect()).is_ok()
    })
}

#[test]
fn only_whole_revisions_in_order_are_taken() {
    assert!(accepts(&[&[5], &[6, 6, 7], &[8]]));
    assert!(!accepts(&[&[5], &[7]]), "one was lost");
    assert!(!accepts(&[&[5, 7]]), "one was lost within an answer");
    assert!(!accepts(&[&[5, 6], &[5]]), "one came back");
    assert!(!accepts(&[&[5], &[5]]), "one was repeated or split");
    assert!(!accepts(&[&[6, 5]]), "out of order");
}

#[test]
fn a_difference_is_found_wherever_it_is() {
    let log = |events: Vec<Event>| {
        let mut log = Log::default();
        log.push(events).unwrap();
        log
    };
    let one = log(vec![event(1, "a"), event(2, "b")]);
    assert_eq!(one.first_difference(&one.clone()), None);
    let other = log(vec![event(1, "a"), event(2, "c")]);
    let found = one.first_difference(&other);
    assert_eq!(found, Some((Some(event(2, "b")), Some(event(2, "c")))));
    let shorter = log(vec![event(1, "a")]);
    let found = one.first_difference(&shorter);
    assert_eq!(found, Some((Some(event(2, "b")), None)));
}

#[test]
fn both_forms_of_json_are_read() {
    let gateway = r#"[{"kv":{"key":"YQ==","mod_revision":"7","lease":"16","value":"eA=="}},
        {"type":"DELETE","kv":{"key":"YQ==","mod_revision":"8"}}]"#;
    let etcdctl = r#"[{"kv":{"key":"YQ==","mod_revision":7,"lease":16,"value":"eA=="}},
        {"type":1,"kv":{"key":"YQ==","mod_revision":8}}]"#;
    for text in [gateway, etcdctl] {
        let events = parse_events(&serde_json::from_str(text).unwrap()).unwrap();
        let put = Event {
            lease: 16,
            ..event(7, "a")
        };
        let deleted = Event {
            deleted: true,
            value: Bytes::new(),
            ..event(8, "a")
        };
        assert_eq!(events, [put, deleted]);
    }
    let wrong = serde_json::json!([{ "kv": { "key": "%" } }]);
    assert!(parse_events(&wrong).is_err());
}
