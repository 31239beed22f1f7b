use super::*;

/// Frames of the next operation's first step on a connection that knows its path.
fn frames(requests: &mut Requests) -> Vec<(u8, u8, Vec<u8>)> {
    let number = requests.next_number();
    step_frames(requests, 0, number)
}

fn step_frames(requests: &Requests, step: usize, number: u64) -> Vec<(u8, u8, Vec<u8>)> {
    let mut bytes = Vec::new();
    requests.append_headers(&mut bytes, 7, step, &mut vec![step]);
    requests.append_body(&mut bytes, 7, step, number);
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
    let frames = frames(&mut Requests::put(1));
    assert_eq!(frames.len(), 2);
    let known = vec![0x83, 0x86, 0xc2, 0xc1, 0xc0, 0xbf, 0xbe];
    assert_eq!(frames[0], (FRAME_HEADERS, END_HEADERS, known));
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
    let body = &frames(&mut Requests::range(RANGE_KEYS))[1].2;
    assert_eq!(
        &body[5..37],
        b"\x0a\x0ebench/00000000\x12\x0ebench/00001000"
    );
}

#[test]
fn keys_of_a_load_transaction_follow_each_other_over_frame_borders() {
    let mut requests = Requests::load();
    for round in 0..2 {
        let frames = frames(&mut requests);
        assert!(frames.len() > 2);
        let body: Vec<u8> = frames[1..].iter().flat_map(|one| one.2.clone()).collect();
        assert_eq!(body.len(), requests.body_len(0));
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
    let body = frames(&mut requests).remove(1).2;
    let at: Vec<usize> = requests.steps[0].places.iter().map(|(at, _)| *at).collect();
    assert_eq!(at.len(), 2);
    assert_eq!(
        body[at[0]..at[0] + KEY_DIGITS],
        body[at[1]..at[1] + KEY_DIGITS]
    );
}

/// Decodes indexed fields and literals that enter the table, as [`headers`] writes them.
fn decode(block: &[u8], table: &mut Vec<String>) -> Vec<String> {
    let mut fields = Vec::new();
    let mut left = block;
    while let [first, rest @ ..] = left {
        left = rest;
        let mut text = || {
            let (text, rest) = left[1..].split_at(usize::from(left[0]));
            left = rest;
            String::from_utf8(text.to_vec()).unwrap()
        };
        match first {
            0x83 | 0x86 => {}
            0x40 => {
                text();
                table.insert(0, text());
                fields.push(table[0].clone());
            }
            0x41..0x80 => {
                table.insert(0, text());
                fields.push(table[0].clone());
            }
            index => fields.push(table[usize::from(index & 0x7f) - 62].clone()),
        }
    }
    fields
}

#[test]
fn headers_refer_to_what_the_connection_has_told() {
    let (mut introduced, mut table) = (Vec::new(), Vec::new());
    for step in [0, 1, 0, 2, 1, 2, 0] {
        let path = format!("/path/{step}");
        let block = headers(&path, step, &mut introduced);
        let fields = decode(&block, &mut table);
        let rest = ["127.0.0.1", "application/grpc", "trailers", "bench/1"];
        assert_eq!(fields, [&[path.as_str()][..], &rest].concat());
    }
    assert_eq!(table.len(), 7);
}

#[test]
fn the_steps_of_a_lease_name_the_same_one() {
    let requests = Requests::lease();
    assert_eq!(requests.steps(), 3);
    let number = 5_000_000_000;
    let id = [0x80, 0xe4, 0x97, 0xd0, 0x13]; // 2^28 + the number
    for step in 0..3 {
        let body = step_frames(&requests, step, number).remove(1).2;
        assert!(body.ends_with(&id), "{step}");
    }
}

#[test]
fn a_renewal_must_say_how_long_the_lease_lives() {
    let requests = Requests::keep_alive(1);
    let answer = |tail| requests.is_answer(0, 40, tail);
    assert!(answer([0x90, 0x1c]));
    assert!(!answer([0x80, 0x05]));
}

#[test]
fn numbers_are_read_back_from_keys() {
    assert_eq!(number_in(b"bench/00012345"), Some(12_345));
    assert_eq!(number_in(b"bench/0001234x"), None);
    assert_eq!(number_in(b"other"), None);
}
