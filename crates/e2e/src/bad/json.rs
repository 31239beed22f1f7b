//! Broken and hostile requests of the JSON API.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use super::start;
use super::wire::{alive, resident};
use crate::http::{self, Stream};
use crate::random::Random;
use crate::{Error, Member};

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(10);
/// Memory in KiB that requests which do not come to their end may cost all together: what a
/// member may keep of them, and as much again for buffers.
const INCOMPLETE_GROWTH: u64 = 512 * 1024;
/// Memory in KiB that readers who stopped may cost beside what was written.
const READERS_GROWTH: u64 = 320 * 1024;
/// Connections of the half-sent check.
const HALF_SENT: usize = 300;
/// Watchers that stop reading, and what each is due: MiB.
const READERS: usize = 20;
const EVENTS: usize = 64;
/// Watches on one stream.
const WATCHES: usize = 100_000;

/// What is sent in a request's head besides the first line, and its body.
struct Case {
    name: &'static str,
    path: &'static str,
    head: String,
    body: Vec<u8>,
    /// Statuses that are an answer; none where the connection may also just end.
    wanted: &'static [u16],
}

fn case(name: &'static str, path: &'static str, body: &[u8], wanted: &'static [u16]) -> Case {
    Case {
        name,
        path,
        head: format!("Content-Length: {}\r\n", body.len()),
        body: body.to_vec(),
        wanted,
    }
}

/// A body whose chunks are as the case has them.
fn chunked(name: &'static str, body: &[u8]) -> Case {
    Case {
        name,
        path: "kv/put",
        head: "Transfer-Encoding: chunked\r\n".into(),
        body: body.to_vec(),
        wanted: &[],
    }
}

fn nested_txn(levels: usize) -> Vec<u8> {
    let open = "{\"success\":[{\"request_txn\":".repeat(levels);
    format!("{open}{{}}{}", "}]}".repeat(levels)).into_bytes()
}

fn nested_list(levels: usize) -> Vec<u8> {
    format!("{{\"x\":{}{}}}", "[".repeat(levels), "]".repeat(levels)).into_bytes()
}

const BAD: &[u16] = &[400];
const ANY: &[u16] = &[200, 400, 429, 500];

fn cases() -> Vec<Case> {
    let mut cases = not_texts();
    cases.extend(not_numbers());
    cases.extend(deep());
    cases.extend(long());
    cases.extend(not_http());
    cases
}

fn not_texts() -> Vec<Case> {
    let bodies: [(&str, &[u8]); 8] = [
        ("invalid UTF-8 in a value", b"{\"key\":\"\xff\xfe\"}"),
        ("invalid UTF-8 in a name", b"{\"\xc3\":1}"),
        ("invalid UTF-8 outside", b"\xff{}"),
        ("a lone surrogate", b"{\"key\":\"\\ud800\"}"),
        ("a NUL", b"{\"key\":\"\0\"}"),
        ("no base64", b"{\"key\":\"a_+=\"}"),
        ("base64 cut off", b"{\"key\":\"A\"}"),
        ("two base64 alphabets", b"{\"key\":\"-_+/\"}"),
    ];
    let one = |(name, body): (&'static str, &[u8])| case(name, "kv/put", body, BAD);
    bodies.into_iter().map(one).collect()
}

fn not_numbers() -> Vec<Case> {
    let numbers = [
        ("a number of 400 digits", "9".repeat(400)),
        ("an exponent without end", "1e999999999999999999".into()),
        ("a fraction", "1.25".into()),
        ("a number of 1 MB", "1".repeat(1 << 20)),
    ];
    let one = |(name, number): (&'static str, String)| {
        let body = format!("{{\"key\":\"YQ==\",\"lease\":{number}}}");
        case(name, "kv/put", body.as_bytes(), BAD)
    };
    numbers.into_iter().map(one).collect()
}

fn deep() -> Vec<Case> {
    let list = |name, levels| case(name, "kv/range", &nested_list(levels), BAD);
    let txn = |name, levels, wanted| case(name, "kv/txn", &nested_txn(levels), wanted);
    vec![
        list("9,000 lists in one another", 9_000),
        list("a million lists in one another", 1_000_000),
        txn("txns in one another", 30, ANY),
        txn("a thousand txns in one another", 1_000, ANY),
        txn("100,000 txns in one another", 100_000, BAD),
    ]
}

fn long() -> Vec<Case> {
    let value = |name, size: usize, wanted| {
        let body = format!(
            "{{\"key\":\"YQ==\",\"value\":\"{}\"}}",
            "QUFB".repeat(size / 3)
        );
        case(name, "kv/put", body.as_bytes(), wanted)
    };
    let range = |name, body: &[u8], wanted| case(name, "kv/range", body, wanted);
    let unknown = b"{\"key\":\"YQ==\",\"a\":{\"b\":[{}]}}";
    vec![
        range("unknown fields", unknown, &[200]),
        range("a name of 1 MB", &long_name(1 << 20), BAD),
        range("a million fields", &many_fields(1_000_000), ANY),
        range("white space of 20 MB", &vec![b' '; 20 << 20], BAD),
        case(
            "100,000 operations",
            "kv/txn",
            &many_operations(100_000),
            ANY,
        ),
        value("a value too long for the log", 1_800_000, BAD),
        value("a value too long for a message", 2_500_000, &[429]),
        value("a value of 48 MB", 48_000_000, &[429]),
    ]
}

fn not_http() -> Vec<Case> {
    let extension = [b"2;".to_vec(), vec![b'x'; 1 << 20]].concat();
    vec![
        chunked("a chunk that is no number", b"zz\r\n{}\r\n0\r\n\r\n"),
        chunked("a chunk of 16 EiB", b"ffffffffffffffff\r\n{}"),
        chunked("a chunk longer than it says", b"2\r\n{}{}{}{}\r\n0\r\n\r\n"),
        chunked("a size of 100 KB", &vec![b'1'; 100_000]),
        chunked("an extension of 1 MB", &extension),
        Case {
            name: "two lengths",
            path: "kv/put",
            head: "Content-Length: 2\r\nContent-Length: 20\r\n".into(),
            body: b"{}".to_vec(),
            wanted: &[],
        },
    ]
}

fn many_operations(count: usize) -> Vec<u8> {
    let operations = vec!["{\"request_range\":{\"key\":\"YQ==\"}}"; count].join(",");
    format!("{{\"success\":[{operations}]}}").into_bytes()
}

fn many_fields(count: usize) -> Vec<u8> {
    let fields: String = (0..count)
        .map(|number| format!("\"{number}\":0,"))
        .collect();
    format!("{{{fields}\"key\":\"YQ==\"}}").into_bytes()
}

fn long_name(length: usize) -> Vec<u8> {
    format!("{{\"{}\":1}}", "a".repeat(length)).into_bytes()
}

/// Status of the answer; none when the connection ended or went silent without one.
fn ask(member: &Member, case: &Case) -> Result<Option<u16>, Error> {
    let mut socket = TcpStream::connect(member.address())?;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.set_write_timeout(Some(LIMIT))?;
    let Case { path, head, .. } = case;
    let head = format!("POST /v3/{path} HTTP/1.1\r\nHost: e2e\r\n{head}\r\n");
    // A member that has refused does not take the rest.
    let _ = socket.write_all(&[head.as_bytes(), &case.body].concat());
    let mut heard = Vec::new();
    let mut buffer = [0; 4096];
    let deadline = Instant::now() + LIMIT;
    while !heard.windows(4).any(|four| four == b"\r\n\r\n") && Instant::now() < deadline {
        match socket.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(count) => heard.extend_from_slice(&buffer[..count]),
        }
    }
    let text = String::from_utf8_lossy(&heard);
    let status = text
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3)?.parse().ok());
    Ok(status)
}

/// Requests that are none, or too much: an error that says so, and others go on.
pub(super) fn requests(binary: &Path) -> Result<String, Error> {
    let mut member = start(binary)?;
    alive(&mut member, "before")?;
    let before = resident(&member)?;
    let cases = cases();
    for case in &cases {
        let status = ask(&member, case)?;
        let fits = match (status, case.wanted) {
            (Some(status), wanted) => wanted.is_empty() || wanted.contains(&status),
            (None, wanted) => wanted.is_empty(),
        };
        if !fits {
            let name = case.name;
            return Err(Error(format!(
                "{name}: wanted {:?}, came {status:?}",
                case.wanted
            )));
        }
        alive(&mut member, case.name)?;
    }
    let growth = resident(&member)?.saturating_sub(before);
    if growth > INCOMPLETE_GROWTH {
        return Err(Error(format!("{growth} KiB more memory")));
    }
    Ok(format!(
        "{} bad requests, {growth} KiB more memory",
        cases.len()
    ))
}

/// Bodies that stop in the middle, and such that come drop by drop.
pub(super) fn half_sent(binary: &Path) -> Result<String, Error> {
    let mut member = start(binary)?;
    alive(&mut member, "before")?;
    let before = resident(&member)?;
    let mut open = Vec::new();
    let half = [
        b"{\"key\":\"YQ==\",\"value\":\"".as_slice(),
        &vec![b'Q'; 4 << 20],
    ]
    .concat();
    for index in 0..HALF_SENT {
        let mut socket = TcpStream::connect(member.address())?;
        socket.set_write_timeout(Some(LIMIT))?;
        let head = "POST /v3/kv/put HTTP/1.1\r\nHost: e2e\r\nContent-Length: 6000000\r\n\r\n";
        let body = match index % 3 {
            0 => &half[..],
            1 => &half[..10],
            _ => &[],
        };
        // What is too much may be refused before it was sent.
        let _ = socket.write_all(&[head.as_bytes(), body].concat());
        open.push(socket);
        if index % 50 == 0 {
            alive(&mut member, "while they open")?;
        }
    }
    for drop in half[10..40].chunks(1) {
        for socket in &mut open {
            // As above.
            let _ = socket.write_all(drop);
        }
        alive(&mut member, "drop by drop")?;
    }
    let growth = resident(&member)?.saturating_sub(before);
    // Half of them say that they are done, the others just go.
    for socket in open.iter().step_by(2) {
        let _ = socket.shutdown(Shutdown::Write);
    }
    drop(open);
    alive(&mut member, "after they closed")?;
    if growth > INCOMPLETE_GROWTH {
        return Err(Error(format!("{growth} KiB more memory")));
    }
    Ok(format!(
        "{HALF_SENT} half requests, {growth} KiB more memory"
    ))
}

/// The value of a metric without labels.
fn metric(member: &Member, name: &str) -> Result<f64, Error> {
    let page = http::get(member.address(), "/metrics")?.body;
    let mut lines = page.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.ok_or_else(|| Error(format!("no metric {name}")))
}

/// Watchers that stop reading hold up nobody and cost little; what they missed still comes, and
/// when they go, nothing of them stays.
pub(super) fn stopped_readers(binary: &Path) -> Result<String, Error> {
    let mut member = start(binary)?;
    alive(&mut member, "before")?;
    let create = "{\"create_request\":{\"key\":\"YmlnZ2Vy\"}}";
    let mut readers = Vec::new();
    for index in 0..READERS {
        let mut stream = match index % 2 {
            0 => Stream::post(member.address(), "/v3/watch", &[])?,
            _ => Stream::socket(member.address(), "/v3/watch", &[])?.0,
        };
        stream.send(create)?;
        if index % 2 == 0 {
            stream.finish()?;
        }
        let created = stream.line()?.unwrap_or_default();
        if !created.contains("\"created\"") {
            return Err(Error(format!("no watch: {created}")));
        }
        readers.push(stream);
    }
    let before = resident(&member)?;
    let body = format!(
        "{{\"key\":\"YmlnZ2Vy\",\"value\":\"{}\"}}",
        "QUFB".repeat(349_525)
    );
    let begin = Instant::now();
    for _ in 0..EVENTS {
        let answer = http::send(member.address(), "POST", "/v3/kv/put", &[], body.as_bytes())?;
        if answer.status != 200 {
            return Err(Error(format!(
                "a put beside stopped readers: {}",
                answer.body
            )));
        }
    }
    let took = begin.elapsed();
    alive(&mut member, "beside stopped readers")?;
    let growth = resident(&member)?.saturating_sub(before);
    if growth > READERS_GROWTH {
        return Err(Error(format!("{growth} KiB more memory")));
    }
    for (index, reader) in readers.iter_mut().take(2).enumerate() {
        missed(reader).map_err(|error| Error(format!("reader {index}: {error}")))?;
    }
    drop(readers);
    let deadline = Instant::now() + LIMIT;
    while metric(&member, "etcd_debugging_mvcc_watcher_total")? > 0.0 {
        if Instant::now() > deadline {
            return Err(Error("watchers stay when their clients are gone".into()));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    alive(&mut member, "after they went")?;
    Ok(format!(
        "{READERS} readers of {EVENTS} MiB each, {growth} KiB more memory, puts took {} ms each",
        took.as_millis() / EVENTS as u128
    ))
}

/// All events come, in their order and once.
fn missed(reader: &mut Stream) -> Result<(), Error> {
    let mut last = 0_u64;
    let mut count = 0;
    while count < EVENTS {
        let line = reader
            .line()?
            .ok_or_else(|| Error("the stream ended".into()))?;
        for part in line.split("\"mod_revision\":\"").skip(1) {
            let revision = part.split('"').next().and_then(|text| text.parse().ok());
            let revision = revision.ok_or_else(|| Error("no revision".into()))?;
            if count > 0 && revision != last + 1 {
                return Err(Error(format!("revision {revision} after {last}")));
            }
            last = revision;
            count += 1;
        }
    }
    Ok(())
}

/// So many watches on one stream: each is answered, and none costs much.
pub(super) fn many_watches(binary: &Path) -> Result<String, Error> {
    let mut member = start(binary)?;
    alive(&mut member, "before")?;
    let before = resident(&member)?;
    let mut stream = Stream::post(member.address(), "/v3/watch", &[])?;
    let create = "{\"create_request\":{\"key\":\"YQ==\"}}\n".repeat(100);
    for _ in 0..WATCHES / 100 {
        stream.send(&create)?;
    }
    stream.finish()?;
    for number in 0..WATCHES {
        let line = stream.line()?.unwrap_or_default();
        let wanted = format!("\"watch_id\":\"{number}\"");
        if !line.contains("\"created\"") || number > 0 && !line.contains(&wanted) {
            return Err(Error(format!("watch {number}: {line}")));
        }
    }
    alive(&mut member, "with all watches")?;
    let growth = resident(&member)?.saturating_sub(before);
    if growth > READERS_GROWTH {
        return Err(Error(format!("{growth} KiB more memory")));
    }
    Ok(format!(
        "{WATCHES} watches on a stream, {growth} KiB more memory"
    ))
}

/// Web sockets that break rules are closed; those that only begin something keep nobody waiting.
pub(super) fn sockets(binary: &Path) -> Result<String, Error> {
    let mut member = start(binary)?;
    alive(&mut member, "before")?;
    let before = resident(&member)?;
    let mut random = Random::new(7);
    let noise: Vec<u8> = (0..100_000).map(|_| random.below(256) as u8).collect();
    let endless = [
        &[0x81, 0xff, 0x7f][..],
        &[0xff; 7],
        &[0; 4],
        &vec![b'['; 1 << 20],
    ]
    .concat();
    let pings = [0x89, 0x80, 1, 2, 3, 4].repeat(100_000);
    // Not every one need be closed, but all must be borne.
    let cases: [(&str, &[u8], bool); 8] = [
        ("noise", &noise, false),
        ("a frame without mask", b"\x81\x02{}", true),
        ("a reserved bit", b"\xc1\x82\0\0\0\0{}", true),
        ("an unknown kind", b"\x83\x82\0\0\0\0{}", true),
        ("nothing to go on with", b"\x80\x82\0\0\0\0{}", true),
        ("a ping in parts", b"\x09\x80\0\0\0\0", true),
        ("a frame of 2^63 bytes", &endless, false),
        ("100,000 pings", &pings, false),
    ];
    for (name, bytes, closed) in cases {
        let mut socket = Stream::socket(member.address(), "/v3/watch", &[])?.0;
        socket.raw(bytes)?;
        let ended = matches!(socket.line(), Ok(None));
        if closed && !ended {
            return Err(Error(format!("{name}: the connection goes on")));
        }
        alive(&mut member, name)?;
    }
    let growth = resident(&member)?.saturating_sub(before);
    if growth > INCOMPLETE_GROWTH {
        return Err(Error(format!("{growth} KiB more memory")));
    }
    Ok(format!(
        "{} bad conversations, {growth} KiB more memory",
        cases.len()
    ))
}
