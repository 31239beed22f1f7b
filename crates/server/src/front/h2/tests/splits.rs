use proptest::prelude::*;

use super::super::Event;
use super::super::frame::{END_HEADERS, HEADERS, PREFACE};
use super::peer::{
    Peer, basic, data, data_end, frame, headers, message, reset, settings, unary, window_update,
    with,
};
use crate::front::Limits;

/// A conversation with a bit of everything.
fn conversation() -> Vec<u8> {
    let stream = with(&[(":path", "/t.T/Stream"), ("token", "abc")]);
    let block = basic();
    [
        PREFACE.to_vec(),
        settings(&[(4, 100_000)]),
        unary(1, b"one"),
        headers(3, &stream),
        data(3, &[message(b"a"), message(b"bc")].concat()),
        frame(6, 0, 0, b"pingping"),
        frame(HEADERS, 0, 5, &block[..7]),
        frame(9, 0, 5, &block[7..20]),
        frame(9, END_HEADERS, 5, &block[20..]),
        data(5, &message(b"five")[..3]),
        data_end(3, b""),
        data_end(5, &message(b"five")[3..]),
        window_update(0, 77),
        headers(7, &with(&[("content-type", "text/plain")])),
        headers(9, &block),
        reset(9),
        unary(11, &[9; 5_000]),
        frame(99, 0, 0, b"unknown"),
        data(11, b"after the end"),
    ]
    .concat()
}

/// Events as text, and the output.
fn outcome(pieces: &[&[u8]]) -> (Vec<String>, Vec<u8>) {
    let mut peer = Peer::fresh(Limits::default());
    for piece in pieces {
        peer.send(piece);
    }
    let bytes = peer.take_bytes();
    (
        peer.events
            .iter()
            .map(|event| format!("{event:?}"))
            .collect(),
        bytes,
    )
}

#[test]
fn every_cut_in_two_gives_the_same() {
    let bytes = conversation();
    let whole = outcome(&[&bytes]);
    assert_eq!(whole.0.len(), 7, "{:#?}", whole.0);
    for at in 0..bytes.len() {
        assert!(
            outcome(&[&bytes[..at], &bytes[at..]]) == whole,
            "cut at {at}"
        );
    }
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert!(outcome(&single) == whole);
}

/// A frame with any header and payload, often of a sensible kind and stream.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![4 => 0u8..10, 1 => any::<u8>()];
    let flags = prop_oneof![Just(0u8), Just(4), Just(5), Just(1), any::<u8>()];
    let stream = prop_oneof![8 => 0u32..20, 1 => any::<u32>()];
    let payload = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..40),
        Just(basic()),
        Just(with(&[(":path", "/t.T/Stream")])),
        Just(message(b"hello")),
        any::<[u8; 4]>().prop_map(|bytes| bytes.to_vec()),
        any::<[u8; 6]>().prop_map(|bytes| bytes.to_vec()),
        any::<[u8; 8]>().prop_map(|bytes| bytes.to_vec()),
    ];
    (kind, flags, stream, payload)
        .prop_map(|(kind, flags, stream, payload)| frame(kind, flags, stream, &payload))
}

/// Answers every call of the events, so that the sending half takes part.
fn answer(peer: &mut Peer) {
    for event in std::mem::take(&mut peer.events) {
        match event {
            Event::Unary(at, ..) => {
                let known = peer.conn.dispatch(at);
                if known && at.id % 4 == 1 {
                    peer.conn
                        .send_payload(at, vec![7; at.id as usize % 40_000].into(), true);
                }
            }
            Event::Open(at, _) => {
                peer.conn.dispatch(at);
            }
            Event::Message(at, text) => {
                peer.conn.send_payload(at, text.into(), false);
            }
            _ => {}
        }
    }
}

proptest! {
    #[test]
    fn random_cuts_give_the_same(mut cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..30)) {
        let bytes = conversation();
        let mut at: Vec<usize> = cuts.drain(..).map(|cut| cut.index(bytes.len())).collect();
        at.extend([0, bytes.len()]);
        at.sort_unstable();
        let pieces: Vec<&[u8]> = at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        prop_assert!(outcome(&pieces) == outcome(&[&bytes]));
    }

    #[test]
    fn any_frames_are_survived(frames in proptest::collection::vec(any_frame(), 0..60)) {
        let mut peer = Peer::open(Limits::default());
        let (mut received, mut put_out) = (0, 0);
        for bytes in frames {
            peer.send(&bytes);
            received += bytes.len();
            answer(&mut peer);
            put_out += peer.take_bytes().len();
            // An answer is at most a status with a quoted text, or what `answer` sends.
            prop_assert!(put_out <= 40_000 * (1 + received / 9) + 1_000);
        }
        let _ = peer.conn.tick(10_000, &mut peer.events);
        let mut events = Vec::new();
        peer.conn.close(&mut events);
        prop_assert_eq!(peer.conn.shared.partial_bytes.load(std::sync::atomic::Ordering::Relaxed), 0);
        prop_assert_eq!(peer.conn.shared.queued_bytes.load(std::sync::atomic::Ordering::Relaxed), 0);
    }

    #[test]
    fn any_bytes_are_survived(
        handshake in any::<bool>(),
        bytes in proptest::collection::vec(any::<u8>(), 0..2_000),
    ) {
        let mut peer = if handshake {
            Peer::open(Limits::default())
        } else {
            Peer::fresh(Limits::default())
        };
        for piece in bytes.chunks(97) {
            peer.send(piece);
            answer(&mut peer);
        }
        peer.take_bytes();
    }

    #[test]
    fn any_bytes_after_a_broken_conversation(
        change in any::<prop::sample::Index>(),
        value in any::<u8>(),
    ) {
        let mut bytes = conversation();
        let at = change.index(bytes.len());
        bytes[at] = value;
        let mut peer = Peer::fresh(Limits::default());
        for piece in bytes.chunks(1_000) {
            peer.send(piece);
            answer(&mut peer);
            peer.take_bytes();
        }
    }
}
