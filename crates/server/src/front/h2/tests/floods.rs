use std::time::Duration;

use super::super::frame::{
    ACK, CONTINUATION, END_STREAM, HEADERS, PING, PRIORITY, Reason, SETTINGS,
};
use super::peer::{Peer, basic, data, frame, headers, message, reset, settings, unary, with};
use crate::front::{KeepAlive, Limits};

/// How many repetitions of what `bytes` gives it takes until the connection ends.
fn endurance(limit: u32, mut bytes: impl FnMut(u32) -> Vec<u8>) -> Option<u32> {
    let mut peer = Peer::open(Limits::default());
    for number in 0..limit {
        peer.send(&bytes(number));
        peer.events.clear();
        if peer.conn.is_closed() {
            let story = peer.story();
            let expected = format!("GOAWAY {}", Reason::EnhanceYourCalm as u32);
            assert_eq!(*story.last().unwrap(), expected, "{story:?}");
            return Some(number);
        }
        peer.take_bytes();
    }
    None
}

#[test]
fn useless_frames_end_the_connection() {
    let mut opened = false;
    let empty = endurance(20_000, |_| {
        let open = if opened {
            Vec::new()
        } else {
            headers(1, &basic())
        };
        opened = true;
        [open, data(1, b"")].concat()
    });
    assert!(empty.is_some(), "empty DATA");
    assert!(
        endurance(20_000, |_| settings(&[])).is_some_and(|count| count < 1_000),
        "SETTINGS"
    );
    assert!(
        endurance(20_000, |_| frame(SETTINGS, ACK, 0, &[])).is_some(),
        "SETTINGS ACK"
    );
    assert!(
        endurance(20_000, |_| frame(PRIORITY, 0, 9, &[0; 5])).is_some(),
        "PRIORITY"
    );
    assert!(
        endurance(20_000, |_| frame(99, 0, 9, &[0; 5])).is_some(),
        "unknown"
    );
    let rapid = endurance(50_000, |number| {
        let stream = 2 * number + 1;
        [headers(stream, &basic()), reset(stream)].concat()
    });
    assert!(rapid.is_some(), "rapid reset");
    let malformed = endurance(50_000, |number| {
        headers(2 * number + 1, &with(&[("connection", "x")]))
    });
    assert!(malformed.is_some(), "malformed requests");
}

#[test]
fn honest_traffic_has_no_end() {
    let mut peer = Peer::open(Limits::default());
    for number in 0..100_000u32 {
        peer.send(&unary(2 * number + 1, b"x"));
        for at in peer.dispatch() {
            peer.conn.send_encoded(at, 1, true, |out| out.push(b'y'));
        }
        if number % 64 == 0 {
            peer.send(&frame(PING, 0, 0, &[0; 8]));
            peer.send(&super::peer::window_update(0, 10_000));
        }
        peer.take_bytes();
    }
    assert!(!peer.conn.is_closed());
}

#[test]
fn continuations_are_bounded() {
    let mut peer = Peer::open(Limits::default());
    peer.send(&frame(HEADERS, END_STREAM, 1, &[]));
    let mut count = 0;
    while !peer.conn.is_closed() {
        peer.send(&frame(CONTINUATION, 0, 1, &[]));
        count += 1;
        assert!(count < 100, "empty CONTINUATION frames");
    }

    let mut peer = Peer::open(Limits::default());
    peer.send(&frame(HEADERS, END_STREAM, 1, &[]));
    let mut bytes = 0;
    while !peer.conn.is_closed() {
        peer.send(&frame(CONTINUATION, 0, 1, &[0x82; 16_000]));
        bytes += 16_000;
        assert!(bytes < 200_000, "full CONTINUATION frames");
    }
}

#[test]
fn a_header_bomb_is_not_unpacked() {
    // One long value in the table, then thousands of one-byte references to it.
    let mut peer = Peer::open(Limits::default());
    let long = "z".repeat(3_900);
    let mut block = basic();
    block.push(0x40);
    block.extend_from_slice(b"\x01x\x7f\xbd\x1d");
    block.extend_from_slice(long.as_bytes());
    block.extend_from_slice(&[0xbe; 8_000]);
    peer.send(&headers(1, &block));
    assert_eq!(
        peer.story(),
        [format!("1 RST {}", Reason::FrameSizeError as u32)]
    );
    peer.send(&unary(3, b"x"));
    assert_eq!(peer.dispatch().len(), 1, "the connection goes on");
}

#[test]
fn incomplete_messages_stay_within_their_budget() {
    let limits = Limits {
        partial_bytes_max: 1_000_000,
        ..Limits::default()
    };
    let mut peer = Peer::open(limits);
    let whole = message(&vec![7; 1_500_000]);
    let mut refused = 0;
    for stream in (1..2_000).step_by(2) {
        peer.send(&headers(stream, &basic()));
        peer.send(&data(stream, &whole[..10_000]));
        let story = peer.story();
        refused += story
            .iter()
            .filter(|line| line.contains("grpc-status: 8"))
            .count();
    }
    assert!((880..920).contains(&refused), "{refused} refused");
    let shared = std::sync::Arc::clone(&peer.conn.shared);
    let reserved = || {
        shared
            .partial_bytes
            .load(std::sync::atomic::Ordering::Relaxed)
    };
    assert!(reserved() <= 1_000_000);
    drop(peer);
    assert_eq!(reserved(), 0);
    assert_eq!(
        shared
            .stream_slots
            .load(std::sync::atomic::Ordering::Relaxed),
        0
    );
}

#[test]
fn streams_of_all_connections_are_bounded() {
    let mut peer = Peer::open(Limits {
        streams_max: 10,
        ..Limits::default()
    });
    for stream in (1..40).step_by(2) {
        peer.send(&headers(stream, &basic()));
    }
    let refused = format!("RST {}", Reason::RefusedStream as u32);
    assert_eq!(
        peer.story()
            .iter()
            .filter(|line| line.ends_with(&refused))
            .count(),
        10
    );
}

fn keep_alive(strict: bool) -> Limits {
    let keep_alive = KeepAlive {
        interval: Duration::from_secs(60),
        timeout: Duration::from_secs(20),
        min_time: Duration::from_secs(5),
        strict,
    };
    Limits {
        keep_alive,
        ..Limits::default()
    }
}

#[test]
fn pings_too_often_are_strikes_only_when_strict() {
    for strict in [true, false] {
        let mut peer = Peer::open(keep_alive(strict));
        peer.send(&headers(1, &with(&[(":path", "/t.T/Stream")])));
        for _ in 0..5 {
            peer.now_ms += 1_000;
            peer.send(&frame(PING, 0, 0, &[0; 8]));
        }
        assert_eq!(peer.conn.is_closed(), strict);
        let text = String::from_utf8_lossy(&peer.take_bytes()).into_owned();
        assert_eq!(text.contains("too_many_pings"), strict);

        let mut peer = Peer::open(keep_alive(strict));
        peer.send(&headers(1, &with(&[(":path", "/t.T/Stream")])));
        for _ in 0..5 {
            peer.now_ms += 5_000;
            peer.send(&frame(PING, 0, 0, &[0; 8]));
        }
        assert!(!peer.conn.is_closed(), "every five seconds is allowed");
    }
}

#[test]
fn pings_between_answers_are_no_strikes() {
    let mut peer = Peer::open(keep_alive(true));
    for number in 0..100u32 {
        peer.send(&unary(2 * number + 1, b""));
        for at in peer.dispatch() {
            peer.conn.send_encoded(at, 0, true, |_| {});
        }
        peer.send(&frame(PING, 0, 0, &[0; 8]));
    }
    assert!(!peer.conn.is_closed());
}

#[test]
fn a_ping_flood_is_answered_in_part() {
    let mut peer = Peer::open(Limits::default());
    for _ in 0..100_000 {
        peer.send(&frame(PING, 0, 0, &[0; 8]));
    }
    assert!(!peer.conn.is_closed());
    assert!(peer.take().len() < 2_000);
    peer.now_ms += 10_000;
    peer.send(&frame(PING, 0, 0, &[7; 8]));
    assert_eq!(peer.story(), ["PING 1"]);
}

#[test]
fn a_silent_peer_is_pinged_and_given_up() {
    let mut peer = Peer::open(keep_alive(false));
    assert!(peer.conn.tick(60_000, &mut peer.events));
    assert!(peer.take().is_empty());
    assert!(peer.conn.tick(61_000, &mut peer.events));
    assert_eq!(peer.story(), ["PING 0"]);
    assert!(peer.conn.tick(80_999, &mut peer.events));
    assert!(!peer.conn.tick(81_000, &mut peer.events));
    // An answer in time starts over.
    peer.now_ms = 80_000;
    peer.send(&frame(PING, ACK, 0, b"alive???"));
    assert!(peer.conn.tick(81_000, &mut peer.events));
    assert!(peer.take().is_empty());
}
