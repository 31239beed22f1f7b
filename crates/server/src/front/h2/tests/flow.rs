use api::{Code, Status};
use bytes::Bytes;

use super::super::frame::{DATA, SETTING_INITIAL_WINDOW_SIZE};
use super::super::{Event, StreamRef};
use super::peer::{Peer, data, headers, settings, unary, window_update, with};
use crate::front::{BodySource, Drawn, Limits, MessageSource, Payload};

fn open() -> Peer {
    Peer::open(Limits::default())
}

fn call(peer: &mut Peer, stream: u32) -> StreamRef {
    peer.send(&unary(stream, b""));
    peer.dispatch()[0]
}

/// DATA bytes per stream that were put out, and whether each ended.
fn sent(peer: &mut Peer) -> Vec<(u32, usize)> {
    let mut sums: Vec<(u32, usize)> = Vec::new();
    for out in peer.take().iter().filter(|out| out.kind == DATA) {
        match sums.iter_mut().find(|sum| sum.0 == out.stream) {
            Some(sum) => sum.1 += out.payload.len(),
            None => sums.push((out.stream, out.payload.len())),
        }
    }
    sums
}

fn bytes(length: usize) -> Payload {
    vec![b'x'; length].into()
}

#[test]
fn a_stream_waits_for_its_window() {
    let mut peer = open();
    peer.send(&window_update(0, 1 << 20));
    let at = call(&mut peer, 1);
    peer.conn.send_payload(at, bytes(100_000), true);
    assert_eq!(sent(&mut peer), [(1, 65_535)]);
    assert_eq!(peer.conn.queued_bytes(at), Some(100_005 - 65_535));
    peer.send(&window_update(1, 10));
    assert_eq!(sent(&mut peer), [(1, 10)]);
    // A smaller initial window makes the stream's negative.
    peer.send(&settings(&[(SETTING_INITIAL_WINDOW_SIZE, 0)]));
    peer.send(&window_update(1, 65_535));
    assert_eq!(sent(&mut peer), []);
    peer.send(&settings(&[(SETTING_INITIAL_WINDOW_SIZE, 100)]));
    assert_eq!(sent(&mut peer), [(1, 100)]);
    peer.send(&window_update(1, 1 << 20));
    assert_eq!(sent(&mut peer), [(1, 100_005 - 65_535 - 110)]);
    assert!(!peer.conn.is_live(at));
}

#[test]
fn streams_share_the_connection_window_in_turn() {
    let mut peer = open();
    let first = call(&mut peer, 1);
    let second = call(&mut peer, 3);
    peer.conn.send_payload(first, bytes(60_000), true);
    peer.conn.send_payload(second, bytes(60_000), true);
    assert_eq!(sent(&mut peer), [(1, 2 * 16_384), (3, 65_535 - 2 * 16_384)]);
    assert!(!peer.conn.has_ready());
    peer.send(&window_update(0, 100_000));
    assert!(peer.conn.has_ready());
    let sums = sent(&mut peer);
    assert_eq!(
        sums.iter().map(|sum| sum.1).sum::<usize>(),
        120_010 - 65_535
    );
    assert!(!peer.conn.is_live(first) && !peer.conn.is_live(second));
    assert_eq!(
        peer.conn
            .shared
            .queued_bytes
            .load(std::sync::atomic::Ordering::Relaxed),
        0
    );
}

#[test]
fn small_answers_pass_a_blocked_stream() {
    let mut peer = open();
    peer.send(&window_update(0, 1 << 20));
    let slow = call(&mut peer, 1);
    peer.conn.send_payload(slow, bytes(100_000), true);
    sent(&mut peer);
    let quick = call(&mut peer, 3);
    peer.conn.send_payload(quick, bytes(10), true);
    assert_eq!(sent(&mut peer), [(3, 15)]);
}

#[test]
fn writable_comes_when_the_queue_is_low_again() {
    let mut peer = open();
    peer.send(&window_update(0, 1 << 30));
    peer.send(&headers(1, &with(&[(":path", "/t.T/Stream")])));
    let at = peer.dispatch()[0];
    for _ in 0..4 {
        peer.conn.send_payload(at, bytes(50_000), false);
    }
    sent(&mut peer);
    assert!(peer.events.is_empty());
    peer.send(&window_update(1, 50_000));
    sent(&mut peer);
    assert!(peer.events.is_empty());
    peer.send(&window_update(1, 30_000));
    sent(&mut peer);
    assert!(matches!(&peer.events[..], [Event::Writable(ready)] if *ready == at));
    peer.events.clear();
    peer.send(&window_update(1, 1 << 20));
    sent(&mut peer);
    assert!(peer.events.is_empty());
}

struct Body {
    chunks: Vec<Result<usize, Status>>,
}

impl BodySource for Body {
    fn next_chunk(&mut self, _: usize) -> Result<Option<Bytes>, Status> {
        match self.chunks.pop() {
            None => Ok(None),
            Some(Ok(length)) => Ok(Some(vec![b'b'; length].into())),
            Some(Err(status)) => Err(status),
        }
    }
}

fn body(chunks: &[Result<usize, Status>]) -> Box<dyn BodySource> {
    Box::new(Body {
        chunks: chunks.iter().rev().cloned().collect(),
    })
}

#[test]
fn a_body_is_drawn_as_it_is_taken() {
    let mut peer = open();
    let at = call(&mut peer, 1);
    let chunks = [Ok(10), Ok(100_000), Ok(1)];
    peer.conn.send_body(at, 100_011, body(&chunks), true);
    assert_eq!(peer.conn.queued_bytes(at), Some(5));
    assert_eq!(sent(&mut peer), [(1, 65_535)]);
    peer.send(&[window_update(0, 1 << 20), window_update(1, 1 << 20)].concat());
    assert_eq!(sent(&mut peer), [(1, 100_016 - 65_535)]);
    assert!(!peer.conn.is_live(at));
}

#[test]
fn a_body_that_fails() {
    let broken = || Err(Status::new(Code::DataLoss, "broken"));
    type Chunks<'a> = &'a [Result<usize, Status>];
    let cases: [(Chunks<'_>, u64, &str); 6] = [
        (
            &[broken()],
            10,
            "1 HEADERS end :status: 200, content-type: application/grpc, \
            grpc-status: 15, grpc-message: broken",
        ),
        (&[Ok(5), broken()], 10, "1 RST 2"),
        (&[Ok(5)], 10, "1 RST 2"),
        (&[Ok(5), Ok(0), Ok(5)], 10, "1 RST 2"),
        (&[Ok(5), Ok(6)], 10, "1 RST 2"),
        (&[Ok(5), Ok(5)], 10, "1 HEADERS end grpc-status: 0"),
    ];
    for (chunks, length, last) in cases {
        let mut peer = open();
        let at = call(&mut peer, 1);
        peer.conn.send_body(at, length, body(chunks), true);
        assert_eq!(peer.story().last().unwrap(), last, "{chunks:?}");
        let cancelled = matches!(&peer.events[..], [Event::Cancel(_)]);
        assert_eq!(cancelled, !last.ends_with(": 0"), "{chunks:?}");
    }
}

#[test]
fn request_windows_are_given_back() {
    let limits = Limits {
        stream_window_bytes: 10_000,
        connection_window_bytes: 100_000,
        ..Limits::default()
    };
    let mut peer = Peer::open(limits);
    peer.send(&headers(1, &with(&[(":path", "/t.T/Stream")])));
    let at = peer.dispatch()[0];
    let piece = super::peer::message(&[0; 3_995]);
    peer.send(&data(1, &piece));
    assert_eq!(peer.story(), [""; 0]);
    peer.send(&data(1, &piece));
    assert_eq!(peer.story(), ["1 WINDOW 8000"]);
    peer.conn.hold(at, true);
    peer.send(&[data(1, &piece), data(1, &piece)].concat());
    assert_eq!(peer.story(), [""; 0]);
    peer.conn.hold(at, false);
    assert_eq!(peer.story(), ["1 WINDOW 8000"]);
    peer.conn.hold(at, true);
    // A client that ignores its window loses the stream, and the connection if it ignores that.
    peer.send(&[data(1, &piece), data(1, &piece), data(1, &piece)].concat());
    assert_eq!(peer.story(), ["1 RST 3"]);
    let mut lost = String::new();
    for _ in 0..30 {
        peer.send(&data(1, &piece));
        lost += &peer.story().join(";");
    }
    assert!(
        lost.contains("0 WINDOW"),
        "data of a lost stream counts for the connection: {lost}"
    );
    assert!(!peer.conn.is_closed());
}

struct Messages {
    lengths: Vec<Result<u64, Status>>,
}

impl MessageSource for Messages {
    fn next_message(&mut self) -> Result<Option<Drawn>, Status> {
        let Some(next) = self.lengths.pop() else {
            return Ok(None);
        };
        let length = next?;
        let content = body(&[Ok(length as usize)]);
        Ok(Some(Drawn { length, content }))
    }
}

fn messages(lengths: &[Result<u64, Status>]) -> Box<dyn MessageSource> {
    Box::new(Messages {
        lengths: lengths.iter().rev().cloned().collect(),
    })
}

#[test]
fn messages_are_drawn_as_they_are_taken() {
    let mut peer = open();
    let at = call(&mut peer, 1);
    peer.send(&window_update(0, 1 << 20));
    let lengths = [Ok(10), Ok(0), Ok(70_000), Ok(50_000)];
    peer.conn.send_messages(at, messages(&lengths));
    assert_eq!(peer.conn.queued_bytes(at), Some(0));
    assert_eq!(sent(&mut peer), [(1, 65_535)]);
    // The third message was drawn, the fourth was not asked for.
    let framed = |length: u64| length + 5;
    let drawn = framed(10) + framed(0) + framed(70_000);
    assert_eq!(peer.conn.queued_bytes(at), Some(drawn - 65_535));
    peer.send(&window_update(1, 1 << 20));
    let all = drawn + framed(50_000);
    assert_eq!(sent(&mut peer), [(1, (all - 65_535) as usize)]);
    assert!(!peer.conn.is_live(at));
    assert_eq!(
        peer.conn
            .shared
            .queued_bytes
            .load(std::sync::atomic::Ordering::Relaxed),
        0
    );
}

#[test]
fn a_source_of_messages_ends_its_call() {
    let broken = || Err(Status::new(Code::OutOfRange, "gone"));
    let head = "1 HEADERS :status: 200, content-type: application/grpc";
    type Lengths<'a> = &'a [Result<u64, Status>];
    let cases: [(Lengths<'_>, &[&str]); 4] = [
        (
            &[],
            &["1 HEADERS end :status: 200, content-type: application/grpc, grpc-status: 0"],
        ),
        (
            &[Ok(1)],
            &[head, "1 DATA 6", "1 HEADERS end grpc-status: 0"],
        ),
        (
            &[broken()],
            &[
                "1 HEADERS end :status: 200, content-type: application/grpc, \
                grpc-status: 11, grpc-message: gone",
            ],
        ),
        (
            &[Ok(1), Ok(2), broken()],
            &[
                head,
                "1 DATA 6",
                "1 DATA 7",
                "1 HEADERS end grpc-status: 11, grpc-message: gone",
            ],
        ),
    ];
    for (lengths, story) in cases {
        let mut peer = open();
        let at = call(&mut peer, 1);
        peer.conn.send_messages(at, messages(lengths));
        assert_eq!(peer.story(), story, "{lengths:?}");
        assert!(!peer.conn.is_live(at));
        assert!(peer.events.is_empty());
    }
}

#[test]
fn a_message_that_is_too_long_ends_its_call() {
    let mut peer = open();
    let at = call(&mut peer, 1);
    peer.conn.send_messages(at, messages(&[Ok(1), Ok(1 << 32)]));
    let last = "1 HEADERS end grpc-status: 8, grpc-message: \
        trying to send message larger than max (4294967296 vs. 4294967295)";
    assert_eq!(peer.story().last().unwrap(), last);
}
