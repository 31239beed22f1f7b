//! Broken and hostile bytes on the peer port, and from a member that is none.
//!
//! Go's etcd passes `peer-requests` and `peer-floods`. It panics on entries that are announced and
//! do not come, and takes any bytes for a database.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use storage::wire::{put_bytes, put_uint};

use super::wire::{alive, resident};
use super::{no_panic, start};
use crate::random::Random;
use crate::{Error, Member, Options};

/// How long a member may take to answer.
const LIMIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);
/// Connections that say nothing: more than a member keeps, and below a limit of 1024 files.
const SILENT: usize = 700;
/// Bodies that stop, and how much of each is sent, in bytes.
const HALF_SENT: usize = 24;
const HALF_BYTES: usize = 8 << 20;
/// Memory that all of it may cost, in KiB.
const GROWTH: u64 = 320 * 1024;

/// A member with what others have to know of it.
struct Target {
    member: Member,
    cluster: String,
    id: u64,
}

/// What a request got; nothing when the connection was closed instead.
#[derive(Debug, Default)]
struct Answered {
    status: u16,
    head: String,
    body: String,
}

/// Sends a request and reads one answer.
fn ask(address: SocketAddr, request: &[u8]) -> Result<Answered, Error> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.set_write_timeout(Some(LIMIT))?;
    // A member that closes while we still write has refused; its answer may be there.
    let _ = socket.write_all(request);
    read_answer(&socket)
}

fn read_answer(socket: &TcpStream) -> Result<Answered, Error> {
    let mut reader = BufReader::new(socket);
    let mut answered = Answered::default();
    let mut length = None;
    loop {
        let mut line = String::new();
        match reader.read_line(&mut line) {
            Ok(0) => return Ok(answered),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(answered),
            read => read?,
        };
        if answered.head.is_empty() {
            let status = line
                .split(' ')
                .nth(1)
                .and_then(|status| status.parse().ok());
            answered.status = status.unwrap_or(0);
        }
        answered.head.push_str(&line);
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse::<usize>().ok();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length.unwrap_or(0).min(1 << 20)];
    reader.read_exact(&mut body)?;
    answered.body = String::from_utf8_lossy(&body).trim_end().to_owned();
    Ok(answered)
}

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    [head.as_bytes(), body].concat()
}

impl Target {
    fn start(binary: &Path) -> Result<Target, Error> {
        let mut member = start(binary)?;
        alive(&mut member, "before")?;
        let answered = ask(member.peer(), &request("GET", "/members", &[], b""))?;
        let header = answered.head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            let is_id = name.eq_ignore_ascii_case("x-etcd-cluster-id");
            is_id.then(|| value.trim().to_owned())
        });
        let members: serde_json::Value = serde_json::from_str(&answered.body)
            .map_err(|error| Error(format!("/members: {error}")))?;
        let id = members.get(0).and_then(|member| member.get("id")?.as_u64());
        match (header, id) {
            (Some(cluster), Some(id)) => Ok(Target {
                member,
                cluster,
                id,
            }),
            _ => Err(Error(format!("/members says {answered:?}"))),
        }
    }

    /// A request as a member of the cluster would sign it.
    fn signed(&self, method: &str, path: &str, body: &[u8]) -> Vec<u8> {
        let headers = [
            ("X-Server-From", "7"),
            ("X-Server-Version", "3.7.1"),
            ("X-Min-Cluster-Version", "3.0.0"),
            ("X-Etcd-Cluster-ID", self.cluster.as_str()),
        ];
        request(method, path, &headers, body)
    }

    fn expect(&mut self, what: &str, request: &[u8], want: (u16, &str)) -> Result<(), Error> {
        let got = ask(self.member.peer(), request)?;
        if (got.status, got.body.as_str()) != want {
            return Err(Error(format!("{what}: {got:?} instead of {want:?}")));
        }
        alive(&mut self.member, what)
    }
}

/// A raft message by its numbers.
fn raft(kind: u64, to: u64, from: u64, term: u64) -> Vec<u8> {
    let mut out = Vec::new();
    for (field, value) in [(1, kind), (2, to), (3, from), (4, term)] {
        put_uint(&mut out, field, value);
    }
    out
}

/// Requests of strangers, and of members that got something wrong.
pub(super) fn requests(binary: &Path) -> Result<String, Error> {
    let mut target = Target::start(binary)?;
    let versions = [
        ("X-Server-Version", "3.7.1"),
        ("X-Min-Cluster-Version", "3.0.0"),
    ];
    let cluster = target.cluster.clone();
    let of_us = ("X-Etcd-Cluster-ID", cluster.as_str());
    let with = |path: &str, headers: &[(&str, &str)]| request("POST", path, headers, b"x");
    let get = |path: &str, headers: &[(&str, &str)]| request("GET", path, headers, b"");
    let incompatible = (412, "incompatible version");
    let elsewhere = (412, "cluster ID mismatch");
    let older = [("X-Server-Version", "2.3.0"), versions[1], of_us];
    let newer = [versions[0], ("X-Min-Cluster-Version", "9.0.0"), of_us];
    let wrong = [versions[0], versions[1], ("X-Etcd-Cluster-ID", "1234")];
    let us = [versions[0], versions[1], of_us];
    let message = "/raft/stream/message/7";
    let not_allowed = (405, "Method Not Allowed");
    let mut count = 0;
    for (what, request, want) in [
        ("no version", with("/raft", &[of_us]), incompatible),
        ("an older version", with("/raft", &older), incompatible),
        ("a newer cluster", with("/raft", &newer), incompatible),
        ("another cluster", with("/raft", &wrong), elsewhere),
        ("its database", with("/raft/snapshot", &wrong), elsewhere),
        ("its stream", get(message, &wrong), elsewhere),
        (
            "a stranger",
            get(message, &us),
            (404, "error sender not found"),
        ),
        (
            "no id",
            get("/raft/stream/msgapp/xyz", &us),
            (404, "invalid from"),
        ),
        (
            "no stream",
            get("/raft/stream/words/7", &us),
            (404, "invalid path"),
        ),
        ("no message", get("/raft", &us), not_allowed),
        ("no database", get("/raft/snapshot", &us), not_allowed),
        ("nothing", get("/nothing", &us), (404, "404 page not found")),
        (
            "a renewal of nothing",
            with("/leases", &[]),
            (400, "error unmarshalling request"),
        ),
    ] {
        target.expect(what, &request, want)?;
        count += 1;
    }
    messages(&mut target)?;
    Ok(format!("{} requests", count + 53))
}

/// Messages that are none, or not for this member.
fn messages(target: &mut Target) -> Result<(), Error> {
    let bytes = target.signed("POST", "/raft", &[0xff; 1000]);
    target.expect(
        "no protobuf",
        &bytes,
        (400, "error unmarshalling raft message"),
    )?;
    // Whatever its status is; Go's members have two of them.
    let bytes = target.signed("POST", "/raft", &raft(8, target.id + 1, 7, 1));
    let answered = ask(target.member.peer(), &bytes)?;
    if !matches!(answered.status, 403 | 500) {
        return Err(Error(format!("somebody else's: {answered:?}")));
    }
    // Old news of nobody is taken and does nothing.
    let bytes = target.signed("POST", "/raft", &raft(8, target.id, 7, 1));
    target.expect("old news", &bytes, (204, ""))?;
    let mut random = Random::new(5);
    for _ in 0..50 {
        let body: Vec<u8> = (0..random.below(200))
            .map(|_| random.below(256) as u8)
            .collect();
        let answered = ask(target.member.peer(), &target.signed("POST", "/raft", &body))?;
        if !matches!(answered.status, 204 | 400 | 403 | 500) {
            return Err(Error(format!("{body:?}: {answered:?}")));
        }
    }
    alive(&mut target.member, "noise")
}

/// Connections that say nothing, and bodies that do not come to their end.
pub(super) fn floods(binary: &Path) -> Result<String, Error> {
    let mut target = Target::start(binary)?;
    let before = resident(&target.member)?;
    let mut open = Vec::new();
    for _ in 0..SILENT {
        open.push(TcpStream::connect(target.member.peer())?);
    }
    let version = request("GET", "/version", &[], b"");
    let answered = ask(target.member.peer(), &version)?;
    if answered.status != 200 {
        return Err(Error(format!("behind silent ones: {answered:?}")));
    }
    alive(&mut target.member, "silent connections")?;
    drop(open);
    let mut halves = Vec::new();
    let whole = target.signed("POST", "/raft", &vec![0x3a; 2 * HALF_BYTES]);
    for _ in 0..HALF_SENT {
        let mut socket = TcpStream::connect(target.member.peer())?;
        socket.set_write_timeout(Some(LIMIT))?;
        // One for which there is no room is closed while it writes.
        let _ = socket.write_all(&whole[..HALF_BYTES]);
        halves.push(socket);
    }
    let bytes = target.signed("POST", "/raft", &raft(8, target.id, 7, 1));
    target.expect("beside half-sent ones", &bytes, (204, ""))?;
    let growth = resident(&target.member)?.saturating_sub(before);
    drop(halves);
    alive(&mut target.member, "after them")?;
    if growth > GROWTH {
        return Err(Error(format!("{growth} KiB more memory")));
    }
    Ok(format!(
        "{SILENT} connections, {HALF_SENT} bodies, {growth} KiB more memory"
    ))
}

/// A post of a database: its envelope, and what follows.
fn envelope(message: &[u8], database: &[u8]) -> Vec<u8> {
    [&(message.len() as u64).to_be_bytes()[..], message, database].concat()
}

/// The message before a database at an index and a term, for a cluster of one.
fn snapshot(to: u64, term: u64, index: u64) -> Vec<u8> {
    let mut conf = Vec::new();
    put_uint(&mut conf, 1, to);
    let mut meta = Vec::new();
    put_bytes(&mut meta, 1, &conf);
    put_uint(&mut meta, 2, index);
    put_uint(&mut meta, 3, term);
    let mut inner = Vec::new();
    put_bytes(&mut inner, 2, &meta);
    let mut out = raft(7, to, 7, term);
    put_bytes(&mut out, 9, &inner);
    out
}

/// Databases that are none, and some that break off.
pub(super) fn snapshots(binary: &Path) -> Result<String, Error> {
    let mut target = Target::start(binary)?;
    let head = snapshot(target.id, 9, 1 << 40);
    let mut random = Random::new(6);
    let noise: Vec<u8> = (0..1 << 20).map(|_| random.below(256) as u8).collect();
    let mut bolt = std::fs::read(target.member.data_dir().join("member/snap/db"))?;
    for (what, body, want) in [
        ("nothing", Vec::new(), 500),
        ("a long head", u64::MAX.to_be_bytes().to_vec(), 400),
        (
            "another message",
            envelope(&raft(8, target.id, 7, 9), b""),
            400,
        ),
        ("no message", envelope(&[0xff; 50], b""), 400),
        ("somebody else's", envelope(&snapshot(1, 9, 5), b""), 403),
        ("no database", envelope(&head, b""), 500),
        ("noise", envelope(&head, &noise), 500),
        ("another index", envelope(&head, &bolt), 500),
        ("half of one", envelope(&head, &bolt[..bolt.len() / 2]), 500),
    ] {
        let answered = ask(
            target.member.peer(),
            &target.signed("POST", "/raft/snapshot", &body),
        )?;
        if answered.status != want {
            return Err(Error(format!("{what}: {answered:?} instead of {want}")));
        }
        alive(&mut target.member, what)?;
    }
    bolt.resize(4 << 20, 0);
    let whole = target.signed("POST", "/raft/snapshot", &envelope(&head, &bolt));
    for part in 1..20 {
        let mut socket = TcpStream::connect(target.member.peer())?;
        // Two may arrive at a time; the others are closed.
        let _ = socket.write_all(&whole[..whole.len() * part / 20]);
    }
    alive(&mut target.member, "broken off")?;
    let dir = target.member.data_dir().join("member/snap");
    let deadline = Instant::now() + LIMIT;
    loop {
        let mut left = Vec::new();
        for entry in std::fs::read_dir(&dir)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.starts_with("tmp") || name.ends_with(".snap.db") {
                left.push(name);
            }
        }
        if left.is_empty() {
            break;
        }
        if Instant::now() > deadline {
            return Err(Error(format!("files are left: {left:?}")));
        }
        std::thread::sleep(PAUSE);
    }
    Ok("9 databases, 19 parts of one".into())
}

/// What a stream may begin with that no member writes.
fn streams_of_nonsense() -> Vec<Vec<u8>> {
    let mut random = Random::new(7);
    let noise: Vec<u8> = (0..5000).map(|_| random.below(256) as u8).collect();
    let count = |kind: u8, count: u64| [&[kind][..], &count.to_be_bytes()].concat();
    vec![
        noise,
        vec![0xff; 100],
        count(9, 1),
        count(1, 1 << 40),
        count(1, u64::MAX),
        [count(1, 1 << 20), vec![0; 8 << 20], vec![0; 8]].concat(),
        [count(2, 512 << 20), vec![0; 8 << 20]].concat(),
        count(2, (512 << 20) + 1),
        [count(2, 12), raft(3, 1, 1, 1)].concat(),
        count(1, 3)[..5].to_vec(),
        Vec::new(),
    ]
}

/// A member that others dial, and that writes nonsense; it counts how often.
fn nonsense(listener: TcpListener, served: &Arc<AtomicUsize>) {
    let kinds = streams_of_nonsense();
    for socket in listener.incoming().flatten() {
        let mut lines = BufReader::new(&socket).lines().map_while(Result::ok);
        let first = lines.next().unwrap_or_default();
        let rest = lines.take_while(|line| !line.is_empty()).count();
        if rest == 0 {
            continue;
        }
        if !first.contains("/raft/stream/") {
            continue;
        }
        let kind = &kinds[served.fetch_add(1, Ordering::Relaxed) % kinds.len()];
        let head = "HTTP/1.1 200 OK\r\nX-Server-Version: 3.7.1\r\nX-Etcd-Cluster-Id: 1\r\n\r\n";
        // The member closes as soon as it sees what it is.
        let _ = (&socket).write_all(&[head.as_bytes(), kind].concat());
    }
}

/// A member whose only peer writes nonsense on every stream goes on.
pub(super) fn streams(binary: &Path) -> Result<String, Error> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let other = listener.local_addr()?;
    let served = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&served);
    // It ends with the process.
    std::thread::spawn(move || nonsense(listener, &counter));
    let mut member = Member::prepare(Options {
        binary: Some(binary.into()),
        ..Options::default()
    })?;
    let own = member.peer();
    member.spawn_with(&[&format!(
        "--initial-cluster=e2e=http://{own},z=http://{other}"
    )])?;
    let wanted = 3 * streams_of_nonsense().len();
    let deadline = Instant::now() + 3 * LIMIT;
    while served.load(Ordering::Relaxed) < wanted {
        if let Some(status) = member.poll_exit()? {
            return Err(Error(format!("it ended with {status}:\n{}", member.log())));
        }
        if Instant::now() > deadline {
            let count = served.load(Ordering::Relaxed);
            return Err(Error(format!("it dialed {count} times:\n{}", member.log())));
        }
        std::thread::sleep(PAUSE);
    }
    no_panic(&member)?;
    let answered = ask(own, &request("GET", "/version", &[], b""))?;
    if answered.status != 200 {
        return Err(Error(format!("after all: {answered:?}")));
    }
    let memory = resident(&member)?;
    if memory > GROWTH {
        return Err(Error(format!("{memory} KiB of memory")));
    }
    Ok(format!("{wanted} streams, {memory} KiB of memory"))
}
