use super::super::request::frame_header;
use super::super::transport::{DATA, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE};
use super::*;
use std::io::Write;
use std::net::{TcpListener, TcpStream};

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame_header(&mut bytes, payload.len(), kind, flags, stream);
    bytes.extend(payload);
    bytes
}

struct Pair {
    connection: Connection,
    peer: TcpStream,
    requests: Requests,
    outcomes: Outcomes,
}

impl Pair {
    fn new(calls: usize) -> Self {
        Self::of(Requests::put(10), calls)
    }

    fn of(mut requests: Requests, calls: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut connection = Connection::open(listener.local_addr().unwrap()).unwrap();
        let (peer, _) = listener.accept().unwrap();
        connection.start(calls, &mut requests, 1);
        let outcomes = Outcomes::new();
        Self {
            connection,
            peer,
            requests,
            outcomes,
        }
    }

    /// Sends in two pieces, so that a frame is cut at every place over the test.
    fn answer(&mut self, bytes: &[u8], cut: usize) -> usize {
        let mut ended = 0;
        for piece in [&bytes[..cut], &bytes[cut..]] {
            self.peer.write_all(piece).unwrap();
            let mut left = piece.len();
            while left > 0 {
                let before = self
                    .connection
                    .transport
                    .socket()
                    .peek(&mut [0; 4096])
                    .unwrap_or(0);
                let mut buffer = vec![0; before];
                if before > 0 {
                    let outcomes = &mut self.outcomes;
                    let requests = &self.requests;
                    ended += self
                        .connection
                        .read(&mut buffer, requests, 11, outcomes)
                        .unwrap();
                }
                left -= before;
            }
        }
        ended
    }
}

#[test]
fn an_answer_is_read_wherever_it_is_cut() {
    let bytes = [
        frame(HEADERS, 4, 1, b"\x88"),
        frame(DATA, 0, 1, b"\0\0\0\0\x01x"),
        frame(HEADERS, 5, 1, b"\xbf"),
    ]
    .concat();
    for cut in 0..=bytes.len() {
        let mut pair = Pair::new(1);
        assert_eq!(pair.answer(&bytes, cut), 1);
        assert_eq!((pair.outcomes.completed, pair.outcomes.failed), (1, 0));
    }
}

#[test]
fn an_end_without_a_message_is_a_failure() {
    let mut pair = Pair::new(2);
    pair.answer(&frame(HEADERS, 5, 3, b"\x88"), 0);
    pair.answer(&frame(RST_STREAM, 0, 1, &[0, 0, 0, 2]), 0);
    assert_eq!((pair.outcomes.completed, pair.outcomes.failed), (0, 2));
    assert_eq!(pair.connection.outstanding(), 0);
}

#[test]
fn calls_wait_for_the_window() {
    let mut pair = Pair::new(1000);
    assert!(!pair.connection.streams.waiting.is_empty());
    pair.answer(&frame(WINDOW_UPDATE, 0, 0, &1_000_000_u32.to_be_bytes()), 0);
    pair.connection.start(0, &mut pair.requests, 2);
    assert!(pair.connection.streams.waiting.is_empty());
    assert_eq!(pair.connection.outstanding(), 1000);
}

#[test]
fn the_next_step_follows_the_answer_of_the_one_before() {
    let mut pair = Pair::of(Requests::lease(), 1);
    for (stream, message) in [(1, &b"\x18\x90\x1c"[..]), (3, b""), (5, b"")] {
        assert_eq!(pair.connection.outstanding(), 1);
        let prefix = [0, 0, 0, 0, message.len() as u8];
        let bytes = [
            frame(DATA, 0, stream, &[&prefix[..], message].concat()),
            frame(HEADERS, 5, stream, b"\xbf"),
        ]
        .concat();
        pair.answer(&bytes, 3);
        pair.connection.start(0, &mut pair.requests, 2);
    }
    assert_eq!((pair.outcomes.completed, pair.outcomes.failed), (1, 0));
    assert_eq!(pair.connection.outstanding(), 0);
    // The steps after one that fails are left out.
    pair.connection.start(1, &mut pair.requests, 3);
    pair.answer(&frame(HEADERS, 5, 7, b"\x88"), 0);
    assert_eq!((pair.outcomes.completed, pair.outcomes.failed), (1, 1));
    assert!(pair.connection.streams.waiting.is_empty());
}

#[test]
fn a_stream_takes_one_message_after_the_other() {
    let good = b"\0\0\0\0\x03\x18\x90\x1c";
    let gone = b"\0\0\0\0\x02\x10\x01";
    for cut in 0..=good.len() + 9 {
        let mut pair = Pair::of(Requests::keep_alive(1), 1);
        let answer = frame(DATA, 0, 1, good);
        assert_eq!(pair.answer(&answer, cut), 1);
        pair.connection.start(1, &mut pair.requests, 2);
        assert_eq!(pair.connection.streams.next, 3);
        assert_eq!(pair.answer(&frame(DATA, 0, 1, gone), 0), 1);
        assert_eq!((pair.outcomes.completed, pair.outcomes.failed), (1, 1));
    }
}

#[test]
fn settings_and_pings_are_acknowledged() {
    let mut pair = Pair::new(0);
    let bytes = [frame(SETTINGS, 0, 0, &[]), frame(PING, 0, 0, b"12345678")].concat();
    pair.answer(&bytes, 4);
    assert!(pair.connection.transport.ready);
    let expected = [frame(SETTINGS, 1, 0, &[]), frame(PING, 1, 0, b"12345678")].concat();
    assert_eq!(pair.connection.transport.out, expected);
}

#[test]
fn a_goaway_is_an_error() {
    let mut pair = Pair::new(1);
    pair.peer
        .write_all(&frame(GOAWAY, 0, 0, b"\0\0\0\0\0\0\0\x0btoo_many_pings"))
        .unwrap();
    let mut buffer = vec![0; 100];
    let error = loop {
        let requests = &pair.requests;
        let outcomes = &mut pair.outcomes;
        match pair.connection.read(&mut buffer, requests, 1, outcomes) {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("too_many_pings"));
}
