//! Where messages go, what is lost, and what a stream's bytes are.

use std::task::Waker;

use bytes::BytesMut;
use node::peer::Received;
use node::peer::stream::{AppendReader, take_message};
use storage::log::{Entry, EntryKind, LogIndex, Term};

use super::*;

fn link() -> Link {
    let urls = ["http://a:1", "http://b:2"];
    let urls = urls.iter().map(|url| Url::parse(url).unwrap()).collect();
    let meters = Meters {
        sent_bytes: Arc::default(),
        sent_failures: Arc::default(),
        received_bytes: Arc::default(),
        is_active: Arc::default(),
        disconnected: Arc::default(),
    };
    Link::new(MemberId(2), urls, Arc::default(), meters)
}

fn message(kind: MessageKind) -> Message {
    Message {
        term: Term(3),
        ..Message::new(kind, MemberId(1), MemberId(2))
    }
}

fn append(index: u64) -> Message {
    let entry = Entry {
        kind: EntryKind::Normal,
        term: Term(3),
        index: LogIndex(index + 1),
        data: "x".into(),
    };
    Message {
        log_term: Term(3),
        index: LogIndex(index),
        entries: vec![entry],
        ..message(MessageKind::Append)
    }
}

fn fill(link: &Link, lane: Lane, number: u64, writer: &mut AppendWriter) -> Option<BytesMut> {
    let mut out = Vec::new();
    link.fill(lane, number, Waker::noop(), writer, &mut out)
        .then(|| BytesMut::from(&out[..]))
}

#[test]
fn appends_have_a_stream_of_their_own() {
    let link = link();
    let (appends, others) = (link.attach(Lane::Append), link.attach(Lane::Other));
    let mut writer = AppendWriter::default();
    let sent = [append(5), message(MessageKind::Heartbeat), append(6)];
    sent.iter().for_each(|one| assert!(link.send(one.clone())));
    let mut bytes = fill(&link, Lane::Append, appends, &mut writer).unwrap();
    let mut reader = AppendReader::new(MemberId(1), MemberId(2));
    for want in [&sent[0], &sent[2]] {
        let got = reader.take(&mut bytes).unwrap();
        assert_eq!(got, Some(Received::Message(Box::new(want.clone()))));
    }
    let mut bytes = fill(&link, Lane::Other, others, &mut writer).unwrap();
    let got = take_message(&mut bytes).unwrap();
    assert_eq!(got, Some(Received::Message(Box::new(sent[1].clone()))));
    assert!(bytes.is_empty());
}

#[test]
fn an_append_takes_the_other_stream_when_it_has_none() {
    let link = link();
    let others = link.attach(Lane::Other);
    assert!(link.send(append(5)));
    let mut bytes = fill(&link, Lane::Other, others, &mut AppendWriter::default()).unwrap();
    assert!(matches!(
        take_message(&mut bytes),
        Ok(Some(Received::Message(_)))
    ));
    assert!(!link.has_piped());
}

#[test]
fn queues_are_bounded() {
    let link = link();
    for _ in 0..PIPELINE_QUEUE_MAX {
        assert!(link.send(message(MessageKind::Heartbeat)));
    }
    assert!(!link.send(message(MessageKind::Heartbeat)));
    let number = link.attach(Lane::Other);
    for _ in 0..STREAM_QUEUE_MAX {
        assert!(link.send(message(MessageKind::Heartbeat)));
    }
    assert!(!link.send(message(MessageKind::Heartbeat)));
    // What was for a connection that is gone is lost, and whoever asks is told so.
    assert!(link.detach(Lane::Other, number));
    assert!(!link.detach(Lane::Other, number));
}

#[test]
fn a_new_connection_replaces_the_old_one() {
    let link = link();
    let old = link.attach(Lane::Append);
    let new = link.attach(Lane::Append);
    assert!(link.send(append(5)));
    let mut writer = AppendWriter::default();
    assert!(fill(&link, Lane::Append, old, &mut writer).is_none());
    assert!(!link.detach(Lane::Append, old));
    let bytes = fill(&link, Lane::Append, new, &mut writer).unwrap();
    assert!(!bytes.is_empty());
}

#[test]
fn a_piece_of_a_stream_is_not_long() {
    let link = link();
    let number = link.attach(Lane::Append);
    let mut large = append(5);
    large.entries[0].data = vec![0; PIECE_BYTES].into();
    (0..3).for_each(|_| assert!(link.send(large.clone())));
    let mut writer = AppendWriter::default();
    for _ in 0..3 {
        let piece = fill(&link, Lane::Append, number, &mut writer).unwrap();
        assert!(piece.len() > PIECE_BYTES && piece.len() < 2 * PIECE_BYTES);
    }
}

#[test]
fn urls_take_turns() {
    let link = link();
    let (a, b) = (link.urls()[0].clone(), link.urls()[1].clone());
    assert_eq!(link.url(), Some(a.clone()));
    link.unreachable(&a);
    assert_eq!(link.url(), Some(b.clone()));
    // A second attempt that began before does not skip one.
    link.unreachable(&a);
    assert_eq!(link.url(), Some(b.clone()));
    link.set_urls(vec![a.clone(), b]);
    link.set_urls(vec![a.clone()]);
    assert_eq!(link.url(), Some(a));
}

#[test]
fn a_removed_member_gets_what_waits_and_then_its_end() {
    let link = link();
    let appends = link.attach(Lane::Append);
    let mut writer = AppendWriter::default();
    assert!(link.send(append(5)));
    link.on_removed();
    let bytes = fill(&link, Lane::Append, appends, &mut writer).unwrap();
    assert!(!bytes.is_empty());
    assert_eq!(fill(&link, Lane::Append, appends, &mut writer), None);
}
