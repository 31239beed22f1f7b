use super::*;

fn frames(requests: &mut Requests, first: bool) -> Vec<(u8, u8, Vec<u8>)> {
    let mut bytes = Vec::new();
    requests.append(&mut bytes, 7, first);
    let mut frames = Vec::new();
    let mut left = bytes.as_slice();
    while !left.is_empty() {
        let length = u32::from_be_bytes([0, left[0], left[1], left[2]]) as usize;
        assert_eq!(left[5..9], 7_u32.to_be_bytes());
        frames.push((left[3], left[4], left[9..9 + length].to_vec()));
        left = &left[9 + length..];
    }
    frames
}

#[test]
fn a_put_is_headers_and_one_message() {
    let frames = frames(&mut Requests::put(1), false);
    assert_eq!(frames.len(), 2);
    assert_eq!(frames[0], (FRAME_HEADERS, END_HEADERS, later_headers()));
    let (kind, flags, body) = &frames[1];
    assert_eq!((*kind, *flags), (FRAME_DATA, END_STREAM));
    assert_eq!(
        body[..5],
        [&[0][..], &(body.len() as u32 - 5).to_be_bytes()].concat()
    );
    assert_eq!(&body[5..21], b"\x0a\x0ebench/00000000");
}

#[test]
fn a_range_ends_a_thousand_keys_later() {
    let body = &frames(&mut Requests::range(RANGE_KEYS), true)[1].2;
    assert_eq!(
        &body[5..37],
        b"\x0a\x0ebench/00000000\x12\x0ebench/00001000"
    );
}

#[test]
fn keys_of_a_load_transaction_follow_each_other_over_frame_borders() {
    let mut requests = Requests::load();
    for round in 0..2 {
        let frames = frames(&mut requests, false);
        assert!(frames.len() > 2);
        let body: Vec<u8> = frames[1..].iter().flat_map(|one| one.2.clone()).collect();
        assert_eq!(body.len(), requests.body_len());
        for plus in 0..LOAD_BATCH {
            let key = format!("bench/{:08}", round * LOAD_BATCH + plus);
            let found = body
                .windows(key.len())
                .filter(|part| *part == key.as_bytes())
                .count();
            assert_eq!(found, 1, "{key}");
        }
    }
}

#[test]
fn a_transaction_names_one_key_twice() {
    let mut requests = Requests::txn(100_000);
    let body = frames(&mut requests, false).remove(1).2;
    let at: Vec<usize> = requests.keys.iter().map(|(at, _)| *at).collect();
    assert_eq!(at.len(), 2);
    assert_eq!(
        body[at[0]..at[0] + KEY_DIGITS],
        body[at[1]..at[1] + KEY_DIGITS]
    );
}
