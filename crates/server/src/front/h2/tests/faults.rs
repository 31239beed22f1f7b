use super::super::frame::{
    ACK, CONTINUATION, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PADDED, PING, PREFACE,
    PRIORITIZED, PRIORITY, PUSH_PROMISE, RST_STREAM, Reason, SETTINGS, WINDOW_UPDATE,
};
use super::peer::{
    Peer, basic, block, data, data_end, frame, headers, message, reset, settings, unary,
    window_update, with,
};
use crate::front::Limits;

/// What a fault leads to.
#[derive(Debug)]
enum Fate {
    Goaway(Reason),
    Reset(u32, Reason),
    /// Nothing bad.
    Ignored,
}
use Fate::{Goaway, Ignored, Reset};

fn check(cases: Vec<(&str, Vec<u8>, Fate)>) {
    for (name, bytes, fate) in cases {
        let mut peer = Peer::open(Limits {
            concurrent_streams_max: 3,
            ..Limits::default()
        });
        peer.send(&bytes);
        let story = peer.story();
        let goaways: Vec<_> = story
            .iter()
            .filter(|line| line.starts_with("GOAWAY"))
            .collect();
        let resets: Vec<_> = story.iter().filter(|line| line.contains("RST")).collect();
        match fate {
            Goaway(reason) => {
                assert_eq!(
                    goaways,
                    [&format!("GOAWAY {}", reason as u32)],
                    "{name}: {story:?}"
                );
                assert!(peer.conn.is_closed() && peer.conn.is_violated(), "{name}");
                let later = peer.conn.receive(&unary(101, b""), 1_000, &mut peer.events);
                assert_eq!(
                    later,
                    unary(101, b"").len(),
                    "{name}: nothing is heard any more"
                );
                assert!(peer.take().is_empty(), "{name}");
            }
            Reset(stream, reason) => {
                let expected = format!("{stream} RST {}", reason as u32);
                assert_eq!((goaways.len(), resets.len()), (0, 1), "{name}: {story:?}");
                assert_eq!(*resets[0], expected, "{name}");
                assert!(!peer.conn.is_closed(), "{name}");
            }
            Ignored => {
                assert_eq!(goaways.len() + resets.len(), 0, "{name}: {story:?}");
            }
        }
    }
}

/// A header block in HEADERS and CONTINUATION frames of `size` bytes.
fn in_pieces(stream: u32, block: &[u8], size: usize) -> Vec<u8> {
    let count = block.len().div_ceil(size);
    let pieces = block.chunks(size).enumerate().map(|(number, piece)| {
        let end = if number + 1 == count { END_HEADERS } else { 0 };
        frame(
            if number == 0 { HEADERS } else { CONTINUATION },
            end,
            stream,
            piece,
        )
    });
    pieces.collect::<Vec<_>>().concat()
}

fn three_open() -> Vec<u8> {
    [1, 3, 5].map(|stream| headers(stream, &basic())).concat()
}

#[test]
fn frames_that_break_the_connection() {
    let protocol = || Goaway(Reason::ProtocolError);
    let size = || Goaway(Reason::FrameSizeError);
    let window = || Goaway(Reason::FlowControlError);
    let closed = || Goaway(Reason::StreamClosed);
    let open = headers(1, &basic());
    check(vec![
        ("frame above the maximum", data(1, &[0; 16_385]), size()),
        ("DATA on stream 0", data(0, b""), protocol()),
        ("DATA on an idle stream", data(1, b"x"), protocol()),
        ("HEADERS on stream 0", headers(0, &basic()), protocol()),
        (
            "HEADERS on an even stream",
            headers(2, &basic()),
            protocol(),
        ),
        (
            "stream ids that fall",
            [headers(5, &basic()), headers(3, &basic())].concat(),
            protocol(),
        ),
        (
            "HEADERS after a reset",
            [open.clone(), reset(1), headers(1, &basic())].concat(),
            closed(),
        ),
        (
            "padding longer than DATA",
            [open.clone(), frame(0, PADDED, 1, &[9, 0])].concat(),
            protocol(),
        ),
        (
            "padded DATA without a length",
            [open.clone(), frame(0, PADDED, 1, &[])].concat(),
            size(),
        ),
        (
            "padding longer than HEADERS",
            frame(HEADERS, PADDED | END_HEADERS, 1, &[9]),
            protocol(),
        ),
        (
            "priority cut off",
            frame(HEADERS, PRIORITIZED | END_HEADERS, 1, &[0; 4]),
            size(),
        ),
        (
            "a block that is no HPACK",
            headers(1, &[0x80]),
            Goaway(Reason::CompressionError),
        ),
        (
            "CONTINUATION alone",
            frame(CONTINUATION, END_HEADERS, 1, &[]),
            protocol(),
        ),
        (
            "CONTINUATION of another stream",
            [frame(HEADERS, 0, 1, &[]), frame(CONTINUATION, 0, 3, &[])].concat(),
            protocol(),
        ),
        (
            "a frame within a header block",
            [frame(HEADERS, 0, 1, &[]), frame(PING, 0, 0, &[0; 8])].concat(),
            protocol(),
        ),
        (
            "an unknown frame within a header block",
            [frame(HEADERS, 0, 1, &[]), frame(99, 0, 0, &[])].concat(),
            protocol(),
        ),
        (
            "PRIORITY on stream 0",
            frame(PRIORITY, 0, 0, &[0; 5]),
            protocol(),
        ),
        (
            "RST_STREAM on stream 0",
            frame(RST_STREAM, 0, 0, &[0; 4]),
            protocol(),
        ),
        ("RST_STREAM on an idle stream", reset(7), protocol()),
        (
            "RST_STREAM of five bytes",
            [open.clone(), frame(RST_STREAM, 0, 1, &[0; 5])].concat(),
            size(),
        ),
        (
            "SETTINGS on a stream",
            frame(SETTINGS, 0, 1, &[]),
            protocol(),
        ),
        (
            "SETTINGS of five bytes",
            frame(SETTINGS, 0, 0, &[0; 5]),
            size(),
        ),
        (
            "SETTINGS acknowledged with content",
            frame(SETTINGS, ACK, 0, &[0; 6]),
            size(),
        ),
        ("ENABLE_PUSH 2", settings(&[(2, 2)]), protocol()),
        (
            "INITIAL_WINDOW_SIZE 2^31",
            settings(&[(4, 1 << 31)]),
            window(),
        ),
        ("MAX_FRAME_SIZE 16383", settings(&[(5, 16_383)]), protocol()),
        ("MAX_FRAME_SIZE 2^24", settings(&[(5, 1 << 24)]), protocol()),
        (
            "PUSH_PROMISE",
            frame(PUSH_PROMISE, END_HEADERS, 1, &[0; 4]),
            protocol(),
        ),
        ("PING on a stream", frame(PING, 0, 1, &[0; 8]), protocol()),
        ("PING of seven bytes", frame(PING, 0, 0, &[0; 7]), size()),
        (
            "GOAWAY on a stream",
            frame(GOAWAY, 0, 1, &[0; 8]),
            protocol(),
        ),
        (
            "WINDOW_UPDATE of three bytes",
            frame(WINDOW_UPDATE, 0, 0, &[0; 3]),
            size(),
        ),
        ("WINDOW_UPDATE of zero", window_update(0, 0), protocol()),
        (
            "WINDOW_UPDATE on an idle stream",
            window_update(3, 1),
            protocol(),
        ),
        (
            "a connection window above 2^31-1",
            window_update(0, i32::MAX as u32),
            window(),
        ),
        (
            "stream windows above 2^31-1 by SETTINGS",
            [
                open,
                window_update(1, i32::MAX as u32 - 65_535),
                settings(&[(4, 65_536)]),
            ]
            .concat(),
            window(),
        ),
    ]);
}

#[test]
fn frames_that_break_a_stream() {
    let protocol = |stream| Reset(stream, Reason::ProtocolError);
    let open = headers(1, &basic());
    let malformed = |changes: &[(&str, &str)]| headers(1, &with(changes));
    let twice = |field| [basic(), block(&[field])].concat();
    check(vec![
        (
            "DATA after END_STREAM",
            [unary(1, b"x"), data(1, b"")].concat(),
            Reset(1, Reason::StreamClosed),
        ),
        (
            "HEADERS after END_STREAM",
            [unary(1, b"x"), headers(1, &basic())].concat(),
            Reset(1, Reason::StreamClosed),
        ),
        (
            "DATA after a reset",
            [open.clone(), reset(1), data(1, b"x")].concat(),
            Reset(1, Reason::StreamClosed),
        ),
        (
            "trailers without END_STREAM",
            [open.clone(), headers(1, &block(&[("x", "y")]))].concat(),
            protocol(1),
        ),
        (
            "one stream too many",
            [three_open(), headers(7, &basic())].concat(),
            Reset(7, Reason::RefusedStream),
        ),
        (
            "WINDOW_UPDATE of zero",
            [open.clone(), window_update(1, 0)].concat(),
            protocol(1),
        ),
        (
            "a stream window above 2^31-1",
            [open.clone(), window_update(1, i32::MAX as u32)].concat(),
            Reset(1, Reason::FlowControlError),
        ),
        (
            "PRIORITY of four bytes",
            frame(PRIORITY, 0, 1, &[0; 4]),
            Reset(1, Reason::FrameSizeError),
        ),
        (
            "PRIORITY on itself",
            frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 0]),
            protocol(1),
        ),
        (
            "HEADERS that depend on themselves",
            frame(
                HEADERS,
                PRIORITIZED | END_HEADERS,
                1,
                &[&[0, 0, 0, 1, 0], &basic()[..]].concat(),
            ),
            protocol(1),
        ),
        (
            "an upper-case name",
            malformed(&[("X-Upper", "y")]),
            protocol(1),
        ),
        ("an empty name", malformed(&[("", "y")]), protocol(1)),
        (
            "a line break in a value",
            malformed(&[("x", "a\nb")]),
            protocol(1),
        ),
        (
            "a connection header",
            malformed(&[("connection", "close")]),
            protocol(1),
        ),
        (
            "te other than trailers",
            malformed(&[("te", "gzip")]),
            protocol(1),
        ),
        (
            "an unknown pseudo-header",
            headers(1, &[block(&[(":x", "y")]), basic()].concat()),
            protocol(1),
        ),
        (
            "a response pseudo-header",
            headers(1, &[block(&[(":status", "200")]), basic()].concat()),
            protocol(1),
        ),
        (
            "a pseudo-header after others",
            headers(1, &twice((":authority", "z"))),
            protocol(1),
        ),
        (
            "two methods",
            headers(1, &[block(&[(":method", "GET")]), basic()].concat()),
            protocol(1),
        ),
        (
            "no method",
            headers(1, &block(&[(":scheme", "http"), (":path", "/t.T/Unary")])),
            protocol(1),
        ),
        (
            "no path",
            headers(1, &block(&[(":scheme", "http"), (":method", "POST")])),
            protocol(1),
        ),
        ("an empty path", malformed(&[(":path", "")]), protocol(1)),
        (
            "content-length that is no number",
            malformed(&[("content-length", "x")]),
            protocol(1),
        ),
        (
            "more than content-length",
            [malformed(&[("content-length", "2")]), data(1, b"123")].concat(),
            protocol(1),
        ),
        (
            "less than content-length",
            [
                malformed(&[("content-length", "9")]),
                data_end(1, &message(b"")),
            ]
            .concat(),
            protocol(1),
        ),
        (
            "a header list above the maximum",
            {
                let long = "y".repeat(15_000);
                let fields: Vec<_> = (0..5).map(|_| ("x", long.as_str())).collect();
                let block = [basic(), block(&fields)].concat();
                in_pieces(1, &block, 16_000)
            },
            Goaway(Reason::EnhanceYourCalm),
        ),
    ]);
}

#[test]
fn frames_that_are_taken_as_they_are() {
    let open = headers(1, &basic());
    check(vec![
        ("an unknown frame", frame(99, 0xff, 9, b"anything"), Ignored),
        ("an unknown setting", settings(&[(99, 7)]), Ignored),
        (
            "PRIORITY on an idle stream",
            frame(PRIORITY, 0, 9, &[0; 5]),
            Ignored,
        ),
        ("GOAWAY", frame(GOAWAY, 0, 0, &[0; 8]), Ignored),
        (
            "WINDOW_UPDATE after a reset",
            [open.clone(), reset(1), window_update(1, 1)].concat(),
            Ignored,
        ),
        (
            "RST_STREAM twice",
            [open.clone(), reset(1), reset(1)].concat(),
            Ignored,
        ),
        (
            "padding",
            [
                frame(
                    HEADERS,
                    PADDED | PRIORITIZED | END_HEADERS,
                    1,
                    &[&[3, 0, 0, 0, 0, 9], &basic()[..], &[0; 3]].concat(),
                ),
                frame(
                    0,
                    PADDED | END_STREAM,
                    1,
                    &[&[200], &message(b"x")[..], &[0; 200]].concat(),
                ),
            ]
            .concat(),
            Ignored,
        ),
        ("a block in pieces", { in_pieces(1, &basic(), 3) }, Ignored),
        (
            "trailers",
            [
                open,
                frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&[("x", "y")])),
            ]
            .concat(),
            Ignored,
        ),
    ]);
}

#[test]
fn the_handshake_is_checked() {
    let mut peer = Peer::fresh(Limits::default());
    peer.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\nX");
    assert!(peer.conn.is_closed());
    for first in [
        frame(PING, 0, 0, &[0; 8]),
        frame(SETTINGS, ACK, 0, &[]),
        headers(1, &basic()),
    ] {
        let mut peer = Peer::fresh(Limits::default());
        peer.send(PREFACE);
        assert!(!peer.conn.is_closed() && !peer.conn.is_open());
        peer.send(&first);
        assert!(peer.conn.is_closed());
    }
}
