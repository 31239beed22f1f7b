use super::*;

/// A client's frame.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let key = [0x11, 0x22, 0x33, 0x44];
    let mut plain = Vec::new();
    put(0, false, payload, &mut plain);
    let head = plain.len() - payload.len();
    let mut bytes = plain[..head].to_vec();
    bytes[0] = first;
    bytes[1] |= MASKED;
    bytes.extend(key);
    bytes.extend(
        payload
            .iter()
            .zip(key.iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
    bytes
}

/// What a parser says to bytes that come in pieces of `size`; data is joined.
fn heard(bytes: &[u8], size: usize) -> Vec<String> {
    let mut parser = Parser::default();
    let mut heard = Vec::new();
    let mut data = String::new();
    for piece in bytes.to_vec().chunks_mut(size) {
        let mut input = piece;
        while let Some(event) = parser.next(&mut input) {
            match event {
                Event::Data(bytes) => data.push_str(std::str::from_utf8(bytes).unwrap()),
                Event::MessageEnd => heard.push(format!("message {}", std::mem::take(&mut data))),
                Event::Ping(payload) => heard.push(format!("ping {}", payload.len())),
                Event::Close(close) => {
                    heard.push(format!("close {:?}", close.code));
                    return heard;
                }
            }
        }
    }
    heard
}

#[test]
fn pieces_of_any_size() {
    let long = "x".repeat(300);
    let huge = "y".repeat(70_000);
    let bytes = [
        frame(FINAL | TEXT, b"one"),
        frame(TEXT, b"tw"),
        frame(FINAL | PING, b"p"),
        frame(CONTINUATION, b""),
        frame(FINAL | CONTINUATION, b"o"),
        frame(FINAL | TEXT, b""),
        frame(FINAL | PONG, b"ignored"),
        frame(FINAL | BINARY, long.as_bytes()),
        frame(FINAL | TEXT, huge.as_bytes()),
        frame(FINAL | CLOSE, &[0x03, 0xe9, b'b', b'y', b'e']),
    ]
    .concat();
    let want = [
        "message one".to_owned(),
        "ping 1".into(),
        "message two".into(),
        "message ".into(),
        format!("message {long}"),
        format!("message {huge}"),
        "close Some(1001)".into(),
    ];
    for size in [1, 2, 3, 7, 100, 4096, bytes.len()] {
        assert_eq!(heard(&bytes, size), want, "{size}");
    }
}

#[test]
fn broken_rules() {
    let mut unmasked = frame(FINAL | TEXT, b"x");
    unmasked[1] &= !MASKED;
    let mut endless = frame(FINAL | TEXT, &[0; 70_000]);
    endless[2] = 0x80;
    let cases = [
        ("not masked", unmasked),
        ("a reserved bit", frame(FINAL | 0x40 | TEXT, b"x")),
        ("an unknown opcode", frame(FINAL | 3, b"x")),
        ("nothing to continue", frame(FINAL | CONTINUATION, b"x")),
        ("a ping in parts", frame(PING, b"x")),
        ("a long ping", frame(FINAL | PING, &[0; 126])),
        ("a negative length", endless),
        (
            "a message in a message",
            [frame(TEXT, b""), frame(TEXT, b"")].concat(),
        ),
    ];
    for (name, bytes) in cases {
        assert_eq!(heard(&bytes, 5), ["close Some(1002)"], "{name}");
    }
    assert_eq!(heard(&frame(FINAL | CLOSE, b""), 1), ["close None"]);
}

#[test]
fn written() {
    let mut out = Vec::new();
    text(b"ab", true, true, &mut out);
    assert_eq!(out, [0x81, 2, b'a', b'b']);
    out.clear();
    text(&[b'x'; 126], false, false, &mut out);
    assert_eq!(out[..4], [0, 126, 0, 126]);
    out.clear();
    text(&[b'x'; 0x1_0000], true, false, &mut out);
    assert_eq!(out[..10], [1, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    assert_eq!(close(Some(1000)), [0x88, 2, 0x03, 0xe8]);
    assert_eq!(close(None), [0x88, 0]);
    assert_eq!(pong(b"p"), [0x8a, 1, b'p']);
}

proptest::proptest! {
    #[test]
    fn any_bytes_end_well(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..80)) {
        let mut parser = Parser::default();
        for piece in bytes.clone().chunks_mut(7) {
            let mut input = piece;
            while let Some(event) = parser.next(&mut input) {
                if matches!(event, Event::Close(_)) {
                    return Ok(());
                }
            }
        }
    }
}
