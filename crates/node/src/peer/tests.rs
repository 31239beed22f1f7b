//! Bytes that members of etcd 3.5 to 3.7 sent, and bytes that nobody should.

use bytes::BytesMut;
use storage::log::{ConfState, Entry, EntryKind, SnapshotMeta};

use super::stream::{AppendReader, AppendWriter, put_message, put_message_heartbeat, take_message};
use super::*;

fn bytes(hex: &str) -> Bytes {
    let digits: Vec<u8> = hex.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect::<Vec<_>>().into()
}

fn message(hex: &str) -> Message {
    match decode(&bytes(hex)).unwrap() {
        Received::Message(message) => *message,
        Received::LinkHeartbeat => panic!("a link heartbeat"),
    }
}

fn encoded(message: &Message) -> Bytes {
    let mut out = Vec::new();
    encode(message, &mut out);
    out.into()
}

const ENDS: &str = "1094d0d7a78dca8ea0bb0118908c85c491aabebb3b";
const TO: MemberId = MemberId(0xbb40_3a50_d4f5_e814);
const FROM: MemberId = MemberId(0x3b76_f951_1881_4610);

fn entry(term: u64, index: u64, data: &'static str) -> Entry {
    Entry {
        kind: EntryKind::Normal,
        term: Term(term),
        index: LogIndex(index),
        data: data.into(),
    }
}

fn append(term: u64, log_term: u64, index: u64, entries: Vec<Entry>, commit: u64) -> Message {
    Message {
        term: Term(term),
        log_term: Term(log_term),
        index: LogIndex(index),
        entries,
        commit: LogIndex(commit),
        ..Message::new(MessageKind::Append, FROM, TO)
    }
}

#[test]
fn messages_of_three_releases_are_read_and_written_as_the_newest_writes_them() {
    let pre_vote = Message {
        term: Term(2),
        log_term: Term(1),
        index: LogIndex(2),
        ..Message::new(MessageKind::PreVote, FROM, TO)
    };
    let newest = format!("0811{ENDS}200228013002");
    assert_eq!(encoded(&pre_vote), bytes(&newest));
    let older = "40004a0a12080a0228001000180050005800";
    for tail in ["", "4000500058006800", older] {
        assert_eq!(message(&format!("{newest}{tail}")), pre_vote);
    }
    let first = append(2, 1, 2, vec![entry(2, 3, "")], 2);
    let newest = format!("0803{ENDS}2002280130023a04100218034002");
    assert_eq!(encoded(&first), bytes(&newest));
    let others = [
        "3a060800100218034002500058006800",
        "3a0608001002180340024a0a12080a0228001000180050005800",
    ];
    for tail in others {
        assert_eq!(message(&format!("0803{ENDS}200228013002{tail}")), first);
    }
    let heartbeat = Message {
        term: Term(2),
        commit: LogIndex(6),
        context: bytes("0100000000000000"),
        ..Message::new(MessageKind::Heartbeat, FROM, TO)
    };
    let newest = format!("0808{ENDS}2002400662080100000000000000");
    assert_eq!(encoded(&heartbeat), bytes(&newest));
    assert_eq!(message(&newest), heartbeat);
}

#[test]
fn read_index_votes_and_answers_read_back() {
    let question = "080f10cebea983e987e5e4d70118d4a3f5918beb98b7113a0a2208000660e8bcca0f95";
    let vote = "0805108da7ebe0d993e3bfc70118d4a3f5918beb98b711200328023026621043616d706169676e5472616e73666572";
    let refusal = format!("0804{ENDS}2002280130095001580762023132");
    for hex in [question, vote, &refusal] {
        assert_eq!(encoded(&message(hex)), bytes(hex));
    }
    assert_eq!(message(question).entries[0].data, bytes("000660e8bcca0f95"));
    assert_eq!(message(vote).context, "CampaignTransfer");
    let refusal = message(&refusal);
    assert!(refusal.reject);
    assert_eq!(
        (refusal.reject_hint, refusal.log_term),
        (LogIndex(7), Term(1))
    );
}

#[test]
fn what_must_not_cross_the_wire_is_refused() {
    for kind in [0, 1, 10, 11, 12, 19, 20, 23, 77] {
        let hex = format!("08{kind:02x}{ENDS}2002");
        assert_eq!(decode(&bytes(&hex)), Err(PeerError::Kind(kind)));
    }
    for hex in ["", "0803ff", "08033a05100218", "0803220100", "0b"] {
        assert!(decode(&bytes(hex)).is_err(), "{hex}");
    }
    // An entry of a joint configuration change.
    assert!(decode(&bytes(&format!("0803{ENDS}20023a06080210021803"))).is_err());
}

#[test]
fn link_heartbeats_are_not_messages() {
    let mut out = Vec::new();
    put_message_heartbeat(&mut out);
    assert_eq!(Bytes::from(out.clone()), bytes("00000000000000020808"));
    let mut buf = BytesMut::from(&out[..]);
    assert_eq!(take_message(&mut buf), Ok(Some(Received::LinkHeartbeat)));
    let older = bytes("0808100018002000280030004000500058006800");
    assert_eq!(decode(&older), Ok(Received::LinkHeartbeat));
}

/// Feeds a stream a byte at a time, so that every frame is met incomplete first.
fn trickle(
    stream: &[u8],
    mut take: impl FnMut(&mut BytesMut) -> Result<Option<Received>, PeerError>,
) -> Vec<Received> {
    let mut buf = BytesMut::new();
    let mut all = Vec::new();
    for byte in stream {
        buf.extend_from_slice(&[*byte]);
        while let Some(received) = take(&mut buf).unwrap() {
            all.push(received);
        }
    }
    assert!(buf.is_empty());
    all
}

#[test]
fn both_streams_arrive_as_they_were_sent() {
    let messages = [
        append(3, 2, 7, vec![entry(3, 8, "a"), entry(3, 9, "bb")], 7),
        append(3, 3, 9, vec![entry(3, 10, "")], 9),
        append(3, 3, 10, vec![], 10),
        append(4, 3, 10, vec![entry(4, 11, "c")], 10),
        append(4, 4, 11, vec![entry(4, 12, "d")], 11),
    ];
    let mut out = Vec::new();
    let mut writer = AppendWriter::default();
    for message in &messages {
        writer.put(message, &mut out);
        AppendWriter::put_heartbeat(&mut out);
    }
    let mut reader = AppendReader::new(FROM, TO);
    let wanted: Vec<Received> = messages
        .iter()
        .flat_map(|m| {
            [
                Received::Message(Box::new(m.clone())),
                Received::LinkHeartbeat,
            ]
        })
        .collect();
    assert_eq!(trickle(&out, |buf| reader.take(buf)), wanted);

    let mut out = Vec::new();
    messages.iter().for_each(|m| put_message(m, &mut out));
    let wanted: Vec<Received> = wanted.into_iter().step_by(2).collect();
    assert_eq!(trickle(&out, take_message), wanted);
}

#[test]
fn an_append_that_goes_on_is_a_short_frame() {
    let mut writer = AppendWriter::default();
    let mut out = Vec::new();
    writer.put(&append(2, 2, 3, vec![entry(2, 4, "")], 3), &mut out);
    assert_eq!(out[0], 2);
    out.clear();
    writer.put(&append(2, 2, 4, vec![], 4), &mut out);
    assert_eq!(
        Bytes::from(out),
        bytes("0100000000000000000000000000000004")
    );
}

#[test]
fn lengths_that_lie_close_the_stream_and_take_no_memory() {
    let huge = bytes("01ffffffffffffffff");
    let mut reader = AppendReader::new(FROM, TO);
    let error = reader.take(&mut BytesMut::from(&huge[..]));
    assert_eq!(error, Err(PeerError::TooLong(u64::MAX)));
    let error = take_message(&mut BytesMut::from(&huge[1..]));
    assert_eq!(error, Err(PeerError::TooLong(u64::MAX)));
    let mut reader = AppendReader::new(FROM, TO);
    let error = reader.take(&mut BytesMut::from(&[9u8][..]));
    assert_eq!(error, Err(PeerError::Frame(9)));
    // Many entries are announced and none is there: the reader waits.
    let many = bytes("010000000000100000");
    let mut reader = AppendReader::new(FROM, TO);
    assert_eq!(reader.take(&mut BytesMut::from(&many[..])), Ok(None));
}

#[test]
fn a_snapshot_post_opens_as_it_was_made() {
    let conf = ConfState {
        voters: vec![FROM.0, TO.0],
        ..ConfState::default()
    };
    let meta = SnapshotMeta {
        index: LogIndex(12),
        term: Term(2),
        conf,
    };
    let post = Message {
        term: Term(2),
        snapshot: Some(Snapshot {
            data: "{}".into(),
            meta,
        }),
        ..Message::new(MessageKind::Snapshot, FROM, TO)
    };
    let mut body = envelope(&post);
    body.extend_from_slice(b"the database");
    let mut begin = Bytes::copy_from_slice(&body[..20]);
    assert_eq!(open_envelope(&mut begin), Ok(None));
    let mut body = Bytes::from(body);
    assert_eq!(open_envelope(&mut body), Ok(Some(Box::new(post))));
    assert_eq!(body, "the database");
    let mut other = Bytes::from(envelope(&append(1, 1, 1, vec![], 1)));
    assert_eq!(open_envelope(&mut other), Err(PeerError::Kind(3)));
}

#[test]
fn a_message_has_no_more_entries_than_memory_is_meant_for() {
    let empty = [0x3a, 0];
    let most = empty.repeat(ENTRIES_MAX);
    let head = [0x08, 3];
    assert!(decode(&[&head[..], &most].concat().into()).is_ok());
    let more = [&head[..], &most, &empty].concat();
    let too_many = PeerError::TooMany(ENTRIES_MAX as u64 + 1);
    assert_eq!(decode(&more.into()), Err(too_many));
    let announced = |count: u64| {
        let mut reader = AppendReader::new(FROM, TO);
        let frame = [&[1][..], &count.to_be_bytes()].concat();
        reader.take(&mut BytesMut::from(&frame[..]))
    };
    assert_eq!(announced(ENTRIES_MAX as u64), Ok(None));
    assert_eq!(announced(ENTRIES_MAX as u64 + 1), Err(too_many));
}

/// Whatever comes, in whatever pieces: a message, an error, or a wish for more, and no memory for
/// bytes that were only announced.
#[test]
fn streams_of_anything_end_in_errors() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    let good = {
        let mut out = Vec::new();
        let mut writer = AppendWriter::default();
        writer.put(&append(2, 1, 3, vec![entry(2, 4, "a")], 3), &mut out);
        writer.put(&append(2, 2, 4, vec![entry(2, 5, "bc")], 4), &mut out);
        AppendWriter::put_heartbeat(&mut out);
        put_message(&append(2, 2, 5, Vec::new(), 5), &mut out);
        out
    };
    for round in 0..4000 {
        let mut bytes = match round % 2 {
            0 => good.clone(),
            _ => (0..random(60)).map(|_| random(256) as u8).collect(),
        };
        for _ in 0..random(4) {
            if !bytes.is_empty() {
                let at = random(bytes.len() as u64) as usize;
                bytes[at] = random(256) as u8;
            }
        }
        let mut reader = AppendReader::new(FROM, TO);
        let (mut appends, mut others) = (BytesMut::new(), BytesMut::new());
        let (mut appends_end, mut others_end) = (false, false);
        while !bytes.is_empty() {
            let rest = bytes.split_off(bytes.len().min(1 + random(9) as usize));
            let piece = std::mem::replace(&mut bytes, rest);
            appends.extend_from_slice(&piece);
            others.extend_from_slice(&piece);
            while !appends_end {
                match reader.take(&mut appends) {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => appends_end = true,
                }
            }
            while !others_end {
                match take_message(&mut others) {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => others_end = true,
                }
            }
            assert!(
                appends.capacity() < 4096 && others.capacity() < 4096,
                "{round}"
            );
        }
    }
}
