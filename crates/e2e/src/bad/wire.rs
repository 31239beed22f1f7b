//! Broken and hostile bytes on the client port.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use super::{block, no_panic, start};
use crate::kv::Kv;
use crate::random::Random;
use crate::{Error, Member};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long a member may take to refuse a connection.
const LIMIT: Duration = Duration::from_secs(5);
/// Memory that a flood may cost, in KiB.
const GROWTH: u64 = 128 * 1024;
/// Connections of the half-open check; well below a limit of 1024 files.
const HALF_OPEN: usize = 600;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Preface and empty settings, then `frames`.
fn session(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = PREFACE.to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    frames.iter().for_each(|one| bytes.extend(one));
    bytes
}

/// HPACK without any table entry: method by static index, the rest as literals.
fn block_of(method: u8, path: &str, content_type: &str) -> Vec<u8> {
    let mut block = vec![0x80 | method, 0x86];
    let mut literal = |head: &[u8], texts: &[&str]| {
        block.extend(head);
        for text in texts {
            block.push(text.len() as u8);
            block.extend(text.as_bytes());
        }
    };
    literal(&[0x04], &[path]);
    literal(&[0x01], &["e2e"]);
    literal(&[0x0f, 0x10], &[content_type]);
    literal(&[0x00], &["te", "trailers"]);
    block
}

fn put_headers(stream: u32) -> Vec<u8> {
    let block = block_of(3, "/etcdserverpb.KV/Put", "application/grpc");
    frame(HEADERS, END_HEADERS, stream, &block)
}

/// A gRPC message with its prefix.
fn message(flag: u8, length: u32, body: &[u8]) -> Vec<u8> {
    [&[flag][..], &length.to_be_bytes(), body].concat()
}

/// What the member did with a connection.
struct Heard {
    bytes: Vec<u8>,
    closed: bool,
}

impl Heard {
    /// Types and first stream-bearing ids of the frames that came.
    fn frames(&self) -> Vec<(u8, u8, u32)> {
        let mut frames = Vec::new();
        let mut left = self.bytes.as_slice();
        while let Some((head, rest)) = left.split_first_chunk::<9>() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            frames.push((head[3], head[4], stream));
            left = rest.get(length..).unwrap_or_default();
        }
        frames
    }

    /// Closed, or told to go away.
    fn refused(&self) -> bool {
        self.closed || self.frames().iter().any(|(kind, ..)| *kind == GOAWAY)
    }

    /// The stream came to an end, one way or another.
    fn ended(&self, stream: u32) -> bool {
        self.refused()
            || self.frames().iter().any(|(kind, flags, id)| {
                *id == stream && (*kind == RST_STREAM || flags & END_STREAM != 0)
            })
    }
}

/// Sends everything and listens until `enough`, the end of the connection, or the limit.
fn talk(
    address: SocketAddr,
    bytes: &[u8],
    enough: impl Fn(&Heard) -> bool,
) -> Result<Heard, Error> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    socket.set_write_timeout(Some(LIMIT))?;
    let mut heard = Heard {
        bytes: Vec::new(),
        closed: false,
    };
    // A member that closes while we still write has refused.
    heard.closed = socket.write_all(bytes).is_err();
    let deadline = Instant::now() + LIMIT;
    let mut buffer = [0; 65_536];
    while !heard.closed && !enough(&heard) && Instant::now() < deadline {
        match socket.read(&mut buffer) {
            Ok(0) => heard.closed = true,
            Ok(count) => heard.bytes.extend(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => heard.closed = true,
        }
    }
    Ok(heard)
}

/// Others are still served, by the same process.
pub(super) fn alive(member: &mut Member, what: &str) -> Result<(), Error> {
    no_panic(member).map_err(|error| Error(format!("{what}: {error}")))?;
    if let Some(status) = member.poll_exit()? {
        return Err(Error(format!(
            "{what}: the member ended with {status}:\n{}",
            member.log()
        )));
    }
    let put = block(Kv::to(member.address()).put("alive".into(), "yes".into()));
    put.map(|_| ())
        .map_err(|status| Error(format!("{what}: {status}")))
}

/// Bytes that are no protocol at all.
pub(super) fn garbage(binary: &Path) -> Result<String, Error> {
    let mut member = start(binary)?;
    let mut random = Random::new(1);
    let mut noise =
        |length: usize| -> Vec<u8> { (0..length).map(|_| random.below(256) as u8).collect() };
    let cases: Vec<Vec<u8>> = vec![
        vec![0; 1000],
        vec![0xff; 100_000],
        noise(100),
        noise(100_000),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        [b"GET /".as_slice(), &[b'a'; 200_000], b" HTTP/1.1\r\n\r\n"].concat(),
        b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03".to_vec(),
        [PREFACE, &noise(5000)].concat(),
        [PREFACE, &frame(SETTINGS, 0, 0, &[]), &noise(5000)].concat(),
    ];
    for case in &cases {
        talk(member.address(), case, Heard::refused)?;
        alive(&mut member, "garbage")?;
    }
    Ok(format!("{} kinds", cases.len()))
}

/// Frames that RFC 9113 forbids: the connection ends.
pub(super) fn frames(binary: &Path) -> Result<String, Error> {
    let mut member = start(binary)?;
    let window = |stream, increment: u32| frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes());
    let mut long = frame(DATA, 0, 1, &[]);
    long[..3].fill(0xff);
    let cases: [(&str, Vec<u8>); 17] = [
        (
            "settings of 5 bytes",
            session(&[frame(SETTINGS, 0, 0, &[0; 5])]),
        ),
        (
            "settings on a stream",
            session(&[frame(SETTINGS, 0, 1, &[])]),
        ),
        (
            "settings ack with payload",
            session(&[frame(SETTINGS, 1, 0, &[0; 6])]),
        ),
        ("ping of 7 bytes", session(&[frame(PING, 0, 0, &[0; 7])])),
        ("ping on a stream", session(&[frame(PING, 0, 1, &[0; 8])])),
        (
            "window update of 3 bytes",
            session(&[frame(WINDOW_UPDATE, 0, 0, &[0; 3])]),
        ),
        ("window update by 0", session(&[window(0, 0)])),
        (
            "window overflow",
            session(&[window(0, 0x7fff_ffff), window(0, 0x7fff_ffff)]),
        ),
        ("data on stream 0", session(&[frame(DATA, 0, 0, b"x")])),
        (
            "headers on stream 0",
            session(&[frame(HEADERS, END_HEADERS, 0, &[0x83])]),
        ),
        ("headers on an even stream", session(&[put_headers(2)])),
        ("a frame of 16 MiB", session(&[long])),
        (
            "continuation alone",
            session(&[frame(CONTINUATION, END_HEADERS, 1, &[0x83])]),
        ),
        (
            "push promise",
            session(&[frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2, 0x83])]),
        ),
        (
            "index outside the table",
            session(&[frame(HEADERS, END_HEADERS, 1, &[0xff; 40])]),
        ),
        (
            "padding beyond the frame",
            session(&[frame(HEADERS, END_HEADERS | PADDED, 1, &[200, 0x83])]),
        ),
        (
            "reset of an idle stream",
            session(&[frame(RST_STREAM, 0, 9, &[0; 4])]),
        ),
    ];
    for (name, bytes) in &cases {
        let heard = talk(member.address(), bytes, Heard::refused)?;
        if !heard.refused() {
            return Err(Error(format!(
                "{name}: the connection goes on: {:?}",
                heard.frames()
            )));
        }
        alive(&mut member, name)?;
    }
    Ok(format!("{} forbidden frames", cases.len()))
}

/// Requests that are none: the stream ends with a status, others go on.
pub(super) fn requests(binary: &Path) -> Result<String, Error> {
    let mut member = start(binary)?;
    let grpc = "application/grpc";
    let put = "/etcdserverpb.KV/Put";
    let whole = message(0, 3, b"\x0a\x01a");
    let cases: [(&str, Vec<u8>, Vec<u8>); 13] = [
        (
            "no protobuf",
            block_of(3, put, grpc),
            message(0, 4, &[0xff; 4]),
        ),
        (
            "field longer than the message",
            block_of(3, put, grpc),
            message(0, 3, b"\x0a\x7fa"),
        ),
        (
            "varint without end",
            block_of(3, put, grpc),
            message(0, 12, &[0x80; 12]),
        ),
        (
            "deep nesting",
            block_of(3, "/etcdserverpb.KV/Txn", grpc),
            nested(2000),
        ),
        (
            "compressed without encoding",
            block_of(3, put, grpc),
            message(1, 3, b"\x0a\x01a"),
        ),
        ("prefix cut off", block_of(3, put, grpc), vec![0, 0, 0]),
        (
            "body shorter than its prefix says",
            block_of(3, put, grpc),
            message(0, 100, b"x"),
        ),
        (
            "a length of 4 GiB",
            block_of(3, put, grpc),
            message(0, u32::MAX, b"x"),
        ),
        (
            "two messages",
            block_of(3, put, grpc),
            [whole.clone(), whole.clone()].concat(),
        ),
        ("no body", block_of(3, put, grpc), Vec::new()),
        ("no slash", block_of(3, "Put", grpc), whole.clone()),
        (
            "another content type",
            block_of(3, put, "text/html"),
            whole.clone(),
        ),
        ("GET", block_of(2, put, grpc), whole),
    ];
    for (name, block, body) in &cases {
        let frames = [
            frame(HEADERS, END_HEADERS, 1, block),
            frame(DATA, END_STREAM, 1, body),
        ];
        let heard = talk(member.address(), &session(&frames), |heard| heard.ended(1))?;
        if !heard.ended(1) {
            return Err(Error(format!("{name}: no answer: {:?}", heard.frames())));
        }
        alive(&mut member, name)?;
    }
    Ok(format!("{} bad requests", cases.len()))
}

/// A transaction in a transaction, and so on.
fn nested(depth: usize) -> Vec<u8> {
    let wrap = |tag: u8, inner: &[u8]| {
        let mut out = vec![tag];
        let mut length = inner.len();
        while length >= 0x80 {
            out.push(length as u8 | 0x80);
            length >>= 7;
        }
        out.push(length as u8);
        out.extend(inner);
        out
    };
    let mut body = Vec::new();
    for _ in 0..depth {
        // TxnRequest.success = 2, RequestOp.request_txn = 4
        body = wrap(0x12, &wrap(0x22, &body));
    }
    message(0, body.len() as u32, &body)
}

/// Many small things for which a member must not pay much.
pub(super) fn floods(binary: &Path) -> Result<String, Error> {
    let mut member = start(binary)?;
    alive(&mut member, "before")?;
    let before = resident(&member)?;
    let reset = |stream: u32| {
        [
            put_headers(stream),
            frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]),
        ]
    };
    let endless: Vec<Vec<u8>> = std::iter::once(frame(HEADERS, 0, 1, &[0x83]))
        .chain((0..2000).map(|_| frame(CONTINUATION, 0, 1, &[0x40; 8192])))
        .collect();
    let cases: [(&str, Vec<Vec<u8>>); 6] = [
        (
            "pings",
            (0..100_000).map(|_| frame(PING, 0, 0, &[0; 8])).collect(),
        ),
        (
            "settings",
            (0..50_000).map(|_| frame(SETTINGS, 0, 0, &[])).collect(),
        ),
        (
            "resets",
            (0..50_000).flat_map(|index| reset(index * 2 + 1)).collect(),
        ),
        ("continuations", endless),
        ("empty data", empty_data(200_000)),
        (
            "open streams",
            (0..20_000)
                .map(|index| put_headers(index * 2 + 1))
                .collect(),
        ),
    ];
    for (name, frames) in &cases {
        talk(member.address(), &session(frames), Heard::refused)?;
        alive(&mut member, name)?;
        let growth = resident(&member)?.saturating_sub(before);
        if growth > GROWTH {
            return Err(Error(format!("{name}: {growth} KiB more memory")));
        }
    }
    let growth = resident(&member)?.saturating_sub(before);
    Ok(format!("{} floods, {growth} KiB more memory", cases.len()))
}

fn empty_data(count: usize) -> Vec<Vec<u8>> {
    let data = (0..count).map(|_| frame(DATA, 0, 1, &[]));
    std::iter::once(put_headers(1)).chain(data).collect()
}

/// Connections that stop in the middle: others don't notice.
pub(super) fn half_open(binary: &Path) -> Result<String, Error> {
    let mut member = start(binary)?;
    alive(&mut member, "before")?;
    let before = resident(&member)?;
    let headers = put_headers(1);
    let starts = [
        Vec::new(),
        PREFACE[..10].to_vec(),
        session(&[]),
        session(&[headers[..20].to_vec()]),
        session(&[
            headers.clone(),
            frame(DATA, 0, 1, &message(0, 1000, b"half")),
        ]),
        b"GET /hea".to_vec(),
    ];
    let mut open = Vec::new();
    for index in 0..HALF_OPEN {
        let mut socket = TcpStream::connect(member.address())?;
        socket.write_all(&starts[index % starts.len()])?;
        open.push(socket);
        if index % 100 == 0 {
            alive(&mut member, "while they open")?;
        }
    }
    alive(&mut member, "with all open")?;
    let each = resident(&member)?.saturating_sub(before) / HALF_OPEN as u64;
    drop(open);
    alive(&mut member, "after they closed")?;
    if each > 256 {
        return Err(Error(format!("{each} KiB for each connection")));
    }
    Ok(format!("{HALF_OPEN} connections, {each} KiB each"))
}

/// A body that never ends: refused before it is kept.
pub(super) fn oversized(binary: &Path) -> Result<String, Error> {
    let mut member = start(binary)?;
    alive(&mut member, "before")?;
    let before = resident(&member)?;
    let mut frames = vec![put_headers(1), frame(DATA, 0, 1, &message(0, 1 << 30, &[]))];
    frames.extend((0..16_384).map(|_| frame(DATA, 0, 1, &[0; 16_384])));
    let heard = talk(member.address(), &session(&frames), |heard| heard.ended(1))?;
    if !heard.ended(1) {
        return Err(Error("256 MiB of a body are taken".into()));
    }
    alive(&mut member, "after")?;
    let growth = resident(&member)?.saturating_sub(before);
    if growth > GROWTH {
        return Err(Error(format!("{growth} KiB more memory")));
    }
    Ok(format!("a body of 256 MiB, {growth} KiB more memory"))
}

/// Resident memory in KiB.
pub(super) fn resident(member: &Member) -> Result<u64, Error> {
    let process = member
        .process()
        .ok_or_else(|| Error("it does not run".into()))?;
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| Error("no VmRSS".into()))
}
