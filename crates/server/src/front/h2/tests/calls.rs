use std::io::Write;

use api::{Code, Status};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::super::frame::{END_HEADERS, END_STREAM, HEADERS, Reason, SETTING_HEADER_TABLE_SIZE};
use super::super::{Conn, Event, Shared};
use super::peer::{
    METHODS, Peer, basic, block, data, data_end, frame, headers, message, reset, settings, unary,
    with,
};
use crate::front::bridge::BridgePart;
use crate::front::{Limits, Payload};

const HEAD: &str = ":status: 200, content-type: application/grpc";

fn open() -> Peer {
    Peer::open(Limits::default())
}

#[test]
fn a_unary_call() {
    let mut peer = open();
    for stream in [1, 3, 5] {
        peer.send(&unary(stream, b"hello"));
        let [Event::Unary(at, head, text)] = &peer.events[..] else {
            panic!("{:?}", peer.events)
        };
        assert_eq!(
            (at.id, head.method().0, &text[..]),
            (stream, 0, &b"hello"[..])
        );
        let at = peer.dispatch()[0];
        assert!(
            peer.conn
                .send_encoded(at, 2, true, |out| out.extend_from_slice(b"hi"))
        );
        let expected = [
            format!("{stream} HEADERS {HEAD}"),
            format!("{stream} DATA 7"),
            format!("{stream} HEADERS end grpc-status: 0"),
        ];
        assert_eq!(peer.story(), expected);
        assert!(!peer.conn.is_live(at));
        assert!(
            !peer
                .conn
                .send_encoded(at, 2, true, |out| out.extend_from_slice(b"hi"))
        );
        assert!(!peer.conn.finish(at, Status::new(Code::Ok, "")));
    }
    let counts = peer.conn.take_counts();
    assert_eq!(
        (counts.calls, counts.received_bytes, counts.sent_bytes),
        (3, 15, 6)
    );
    // The second answer's headers are two bytes and one byte.
    peer.send(&unary(7, b""));
    let at = peer.dispatch()[0];
    peer.conn.send_encoded(at, 0, true, |_| {});
    assert_eq!(peer.take_bytes().len(), 9 + 2 + 9 + 5 + 9 + 1);
}

#[test]
fn an_answer_before_the_end_of_the_request_resets_the_rest() {
    let mut peer = open();
    peer.send(&[headers(1, &basic()), data(1, &message(b"x"))].concat());
    let at = peer.dispatch()[0];
    peer.conn.finish(at, Status::new(Code::Aborted, "a b\n"));
    let expected = [
        format!("1 HEADERS end {HEAD}, grpc-status: 10, grpc-message: a b%0A"),
        "1 RST 0".to_owned(),
    ];
    assert_eq!(peer.story(), expected);
    peer.send(&[data(1, b"late"), data_end(1, b"")].concat());
    assert!(peer.take().is_empty(), "what was on its way is let pass");
}

#[test]
fn a_stream_of_messages_in_odd_pieces() {
    let mut peer = open();
    peer.send(&headers(1, &with(&[(":path", "/t.T/Stream")])));
    let bytes = [message(b"one"), message(b""), message(b"three")].concat();
    for piece in bytes.chunks(4) {
        peer.send(&data(1, piece));
    }
    peer.send(&data_end(1, b""));
    let texts = peer.events.iter().filter_map(|event| match event {
        Event::Message(_, text) => Some(&text[..]),
        _ => None,
    });
    assert_eq!(texts.collect::<Vec<_>>(), [&b"one"[..], b"", b"three"]);
    assert!(matches!(peer.events.first(), Some(Event::Open(_, head)) if head.method().0 == 1));
    assert!(matches!(peer.events.last(), Some(Event::HalfClose(_))));
    let at = peer.dispatch()[0];
    peer.conn.send_payload(
        at,
        Payload::Parts(vec![b"ab"[..].into(), b"c"[..].into()]),
        false,
    );
    peer.conn.finish(at, Status::new(Code::Ok, ""));
    let expected = [
        format!("1 HEADERS {HEAD}"),
        "1 DATA 8".into(),
        "1 HEADERS end grpc-status: 0".into(),
    ];
    assert_eq!(peer.story(), expected);
}

/// A request of one stream and how it is refused, in words.
fn refused(bytes: &[u8], story: &str) {
    let mut peer = open();
    peer.send(bytes);
    assert_eq!(peer.story().join("; "), story);
    peer.send(&unary(9, b"x"));
    let calls = peer.dispatch();
    assert_eq!(
        calls.iter().map(|at| at.id).collect::<Vec<_>>(),
        [9],
        "{story}"
    );
}

#[test]
fn refusals() {
    let status = |code: u32, text: &str| {
        format!("1 HEADERS end {HEAD}, grpc-status: {code}, grpc-message: {text}")
    };
    let http = |http: u32, code: u32, text: &str| {
        format!(
            "1 HEADERS end :status: {http}, content-type: application/grpc, grpc-status: {code}, \
             grpc-message: {text}; 1 RST 0"
        )
    };
    let ask = |changes: &[(&str, &str)]| headers(1, &with(changes));
    let cut = |bytes: &[u8]| [headers(1, &basic()), data_end(1, bytes)].concat();
    refused(
        &ask(&[("content-type", "text/x")]),
        &http(415, 3, "invalid gRPC request content-type \"text/x\""),
    );
    refused(
        &ask(&[(":method", "GET")]),
        &http(
            405,
            13,
            "Received a HEADERS frame with :method \"GET\" which should be POST",
        ),
    );
    refused(
        &ask(&[("grpc-timeout", "x")]),
        &http(
            400,
            13,
            "malformed grpc-timeout: transport: timeout string is too short: \"x\"",
        ),
    );
    refused(
        &ask(&[("grpc-encoding", "deflate")]),
        &http(
            200,
            12,
            "grpc: Decompressor is not installed for grpc-encoding \"deflate\"",
        ),
    );
    refused(
        &ask(&[(":path", "/t.T/X")]),
        &http(200, 12, "unknown method X for service t.T"),
    );
    refused(
        &ask(&[(":path", "/x.T/X")]),
        &http(200, 12, "unknown service x.T"),
    );
    refused(
        &ask(&[(":path", "none")]),
        &http(200, 12, "malformed method name: \"none\""),
    );
    refused(
        &cut(&[1, 0, 0, 0, 0]),
        &status(
            13,
            "grpc: compressed flag set with identity or empty encoding",
        ),
    );
    refused(
        &cut(&[7, 0, 0, 0, 0]),
        &status(13, "grpc: received unexpected payload format 7"),
    );
    refused(&cut(&[0, 0, 0]), &status(13, "unexpected EOF"));
    refused(&cut(&[0, 0, 0, 0, 2, 1]), &status(13, "unexpected EOF"));
    refused(
        &cut(b""),
        &status(13, "cardinality violation: received no request message"),
    );
    refused(
        &cut(&[0, 0, 0x20, 0, 1]),
        &status(
            8,
            "grpc: received message larger than max (2097153 vs. 2097152)",
        ),
    );
    refused(
        &frame(
            HEADERS,
            END_STREAM | END_HEADERS,
            1,
            &with(&[("grpc-timeout", "0n")]),
        ),
        &status(4, "context deadline exceeded"),
    );
}

#[test]
fn gzip_messages() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&[b'a'; 3_000_000][..2_000_000]).unwrap();
    let packed = encoder.finish().unwrap();
    let mut framed = message(&packed);
    framed[0] = 1;
    let request = |block: &[u8], framed: &[u8]| [headers(1, block), data_end(1, framed)].concat();
    let gzip = with(&[("grpc-encoding", "gzip")]);

    let mut peer = open();
    peer.send(&request(&gzip, &framed));
    assert!(matches!(&peer.events[..], [Event::Unary(_, _, text)] if text.len() == 2_000_000));
    let mut peer = Peer::open(Limits {
        message_bytes_max: 1_999_999,
        ..Limits::default()
    });
    peer.send(&request(&gzip, &framed));
    assert!(peer.story()[0].contains(
        "grpc-status: 8, grpc-message: grpc: received message after decompression larger than max 1999999"
    ));
    let mut peer = open();
    peer.send(&request(&gzip, &message(b"plain is allowed too")));
    assert_eq!(peer.events.len(), 1);
    framed.truncate(framed.len() - 4);
    framed[4] -= 4;
    let mut peer = open();
    peer.send(&request(&gzip, &framed));
    assert!(peer.story()[0].contains("grpc-status: 13"));
}

#[test]
fn what_the_head_keeps() {
    let mut peer = open();
    let fields = [
        ("token", "Bearer abc"),
        ("authorization", "other"),
        ("hasleader", "true"),
        ("client-api-version", "3.7"),
        ("grpcgateway-accept", "*/*"),
        ("grpc-timeout", "5S"),
    ];
    peer.send(&[headers(1, &with(&fields)), data_end(1, &message(b""))].concat());
    let [Event::Unary(_, head, _)] = &peer.events[..] else {
        panic!("{:?}", peer.events)
    };
    assert_eq!(head.auth_token(), Some(Bytes::from_static(b"abc")));
    assert_eq!(head.timeout, Some(std::time::Duration::from_secs(5)));
    assert_eq!(head.client_api_version.as_deref(), Some(&b"3.7"[..]));
    assert!(head.needs_leader && head.from_gateway);
}

#[test]
fn a_deadline_ends_the_call() {
    let mut peer = open();
    let timed = with(&[("grpc-timeout", "500m")]);
    peer.send(&[headers(1, &timed), data_end(1, &message(b""))].concat());
    peer.dispatch();
    assert!(peer.conn.tick(1_499, &mut peer.events));
    assert!(peer.events.is_empty());
    assert!(peer.conn.tick(1_500, &mut peer.events));
    assert!(matches!(&peer.events[..], [Event::Cancel(at)] if at.id == 1));
    assert!(peer.story()[0].ends_with("grpc-status: 4, grpc-message: context deadline exceeded"));
}

#[test]
fn cancel_comes_only_for_calls_that_are_known() {
    let mut peer = open();
    peer.send(&unary(1, b""));
    peer.dispatch();
    peer.send(&[reset(1), unary(3, b""), reset(3)].concat());
    let ids = peer.events.iter().map(|event| match event {
        Event::Cancel(at) => ("cancel", at.id),
        Event::Unary(at, ..) => ("unary", at.id),
        other => panic!("{other:?}"),
    });
    assert_eq!(ids.collect::<Vec<_>>(), [("cancel", 1), ("unary", 3)]);
    peer.events.remove(0);
    let Event::Unary(at, ..) = peer.events[0] else {
        panic!()
    };
    assert!(
        !peer.conn.dispatch(at),
        "the stream is gone before it was handed over"
    );
}

#[test]
fn a_client_without_header_table_gets_literals() {
    let mut peer = open();
    let mut expected = Vec::new();
    for stream in [1, 3, 5, 7] {
        if stream == 3 {
            peer.send(&settings(&[(SETTING_HEADER_TABLE_SIZE, 0)]));
        }
        if stream == 7 {
            peer.send(&settings(&[(SETTING_HEADER_TABLE_SIZE, 65_536)]));
        }
        peer.take();
        peer.send(&unary(stream, b""));
        let at = peer.dispatch()[0];
        peer.conn.finish(at, Status::new(Code::Ok, ""));
        expected = peer.story();
        assert_eq!(
            expected,
            [format!("{stream} HEADERS end {HEAD}, grpc-status: 0")]
        );
    }
    assert!(!expected.is_empty());
}

#[test]
fn a_drain_names_the_last_stream() {
    let mut peer = open();
    peer.send(&unary(1, b""));
    let at = peer.dispatch()[0];
    peer.conn.drain();
    assert_eq!(peer.story(), ["GOAWAY 0", "PING 0"]);
    peer.send(&unary(3, b""));
    let late = peer.dispatch()[0];
    peer.send(&frame(6, 1, 0, b"drained?"));
    let goaway = peer.take();
    assert_eq!(goaway[0].payload[..8], [0, 0, 0, 3, 0, 0, 0, 0]);
    peer.send(&unary(5, b""));
    assert!(peer.events.is_empty(), "too late");
    assert!(!peer.conn.is_drained());
    peer.conn.finish(at, Status::new(Code::Ok, ""));
    peer.conn.finish(late, Status::new(Code::Ok, ""));
    assert!(peer.conn.is_drained());
}

#[test]
fn other_requests_go_to_the_bridge() {
    let mut peer = Peer::of(Conn::new(
        Shared::new(Limits::default(), METHODS, true),
        1_000,
    ));
    peer.send(super::super::frame::PREFACE);
    peer.send(&settings(&[]));
    peer.take();
    let ask = block(&[
        (":method", "POST"),
        (":scheme", "https"),
        (":path", "/v3/kv/put"),
        ("x-y", "z"),
        ("content-type", "application/json"),
    ]);
    peer.send(&[headers(1, &ask), data(1, b"{"), data_end(1, b"}")].concat());
    let Some(Event::Bridge(at, fields, body)) = peer.events.pop() else {
        panic!()
    };
    assert_eq!((fields.len(), &body[..]), (5, &b"{}"[..]));
    assert_eq!(
        fields[3],
        (Bytes::from_static(b"x-y"), Bytes::from_static(b"z"))
    );
    let answer = vec![(Bytes::from_static(b"a"), Bytes::from(vec![b'b'; 20_000]))];
    peer.conn
        .send_bridge_part(at, BridgePart::Head(404, answer));
    peer.conn
        .send_bridge_part(at, BridgePart::Chunk(Bytes::from_static(b"abc")));
    peer.conn.send_bridge_part(at, BridgePart::End);
    let frames = peer.take();
    let kinds: Vec<_> = frames
        .iter()
        .map(|out| (out.kind, out.flags, out.payload.len()))
        .collect();
    assert_eq!(kinds[0], (HEADERS, 0, 16_384));
    assert_eq!(kinds[1].1, END_HEADERS);
    assert_eq!(kinds[2..], [(0, 0, 3), (0, END_STREAM, 0)]);

    // gRPC goes its own way; an answer that is given up resets the stream.
    peer.send(&unary(3, b""));
    assert_eq!(peer.dispatch().len(), 1);
    peer.send(&frame(HEADERS, END_HEADERS | END_STREAM, 5, &ask));
    let Some(Event::Bridge(at, ..)) = peer.events.pop() else {
        panic!()
    };
    peer.conn.send_bridge_part(at, BridgePart::Abort);
    assert_eq!(
        peer.story(),
        [format!("5 RST {}", Reason::InternalError as u32)]
    );
}
