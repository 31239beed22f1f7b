use super::*;
use std::net::TcpListener;

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
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut connection = Connection::open(listener.local_addr().unwrap()).unwrap();
        let (peer, _) = listener.accept().unwrap();
        let mut requests = Requests::put(10);
        connection.start(calls, &mut requests, 1);
        let outcomes = Outcomes {
            latencies: Histogram::new(),
            completed: 0,
            failed: 0,
        };
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
                let before = self.connection.socket.peek(&mut [0; 4096]).unwrap_or(0);
                let mut buffer = vec![0; before];
                if before > 0 {
                    let outcomes = &mut self.outcomes;
                    ended += self.connection.read(&mut buffer, 5, 11, outcomes).unwrap();
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
    let started = pair.connection.outstanding();
    assert!(started < 1000);
    pair.answer(&frame(WINDOW_UPDATE, 0, 0, &1_000_000_u32.to_be_bytes()), 0);
    pair.connection.start(0, &mut pair.requests, 2);
    assert_eq!(pair.connection.outstanding(), 1000);
}

#[test]
fn settings_and_pings_are_acknowledged() {
    let mut pair = Pair::new(0);
    let bytes = [frame(SETTINGS, 0, 0, &[]), frame(PING, 0, 0, b"12345678")].concat();
    pair.answer(&bytes, 4);
    assert!(pair.connection.ready);
    let expected = [frame(SETTINGS, 1, 0, &[]), frame(PING, 1, 0, b"12345678")].concat();
    assert_eq!(pair.connection.out, expected);
}

#[test]
fn a_goaway_is_an_error() {
    let mut pair = Pair::new(1);
    pair.peer
        .write_all(&frame(GOAWAY, 0, 0, b"\0\0\0\0\0\0\0\x0btoo_many_pings"))
        .unwrap();
    let mut buffer = vec![0; 100];
    let error = loop {
        match pair.connection.read(&mut buffer, 5, 1, &mut pair.outcomes) {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("too_many_pings"));
}
