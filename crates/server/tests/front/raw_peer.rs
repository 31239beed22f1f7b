//! Plain sockets: what happens before HTTP/2, to clients that are slow, and to too many of them.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use server::front::{Limits, Listener, Socket};

use super::demo::{Seen, Server};

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// An empty SETTINGS frame.
pub(crate) const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = (payload.len() as u32).to_be_bytes();
    let mut bytes = vec![a, b, c, kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0, name.len() as u8];
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(value.len() as u8);
    bytes.extend_from_slice(value.as_bytes());
    bytes
}

pub(crate) fn request(stream: u32, path: &str, content_type: &str, text: &[u8]) -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        ("content-type", content_type),
        ("te", "trailers"),
    ];
    let block = fields.map(|(name, value)| literal(name, value)).concat();
    let mut message = vec![0];
    message.extend_from_slice(&(text.len() as u32).to_be_bytes());
    message.extend_from_slice(text);
    [frame(1, 4, stream, &block), frame(0, 1, stream, &message)].concat()
}

/// Reads frames until one is what `wanted` accepts.
pub(crate) fn read_until(
    stream: &mut impl Read,
    mut wanted: impl FnMut(u8, u8, u32, &[u8]) -> bool,
) {
    loop {
        let mut header = [0; 9];
        stream.read_exact(&mut header).unwrap();
        let [a, b, c, kind, flags, s0, s1, s2, s3] = header;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        stream.read_exact(&mut payload).unwrap();
        if wanted(kind, flags, u32::from_be_bytes([s0, s1, s2, s3]), &payload) {
            return;
        }
    }
}

/// Whether the server closes the connection, whatever it still sends.
fn is_closed_by_server(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return true,
            Err(_) => return false,
        }
    }
}

#[test]
fn other_protocols_are_handed_over_with_what_was_read() {
    let (sender, receiver) = mpsc::channel();
    let sender = Mutex::new(sender);
    let server = Server::start_with(Limits::default(), |config| {
        config.foreign = Some(Arc::new(move |socket: Socket, bytes: Vec<u8>, _| {
            sender.lock().unwrap().send((socket, bytes)).unwrap();
        }));
    });
    let mut client = connect(&server);
    // The first byte alone could still begin the preface.
    client.write_all(b"P").unwrap();
    client.write_all(b"OST /v3/kv/put HTTP/1.1\r\n").unwrap();
    let (socket, mut bytes) = receiver.recv_timeout(Duration::from_secs(10)).unwrap();
    let Socket::Tcp(mut stream) = socket else {
        panic!("not TCP")
    };
    stream.set_nonblocking(false).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    stream.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, b"POST /v3/kv/put HTTP/1.1\r\n");
    stream.write_all(b"HTTP/1.1 200 OK\r\n").unwrap();
    drop(stream);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"HTTP/1.1 200 OK\r\n");
    server.stop();
}

#[test]
fn a_handshake_that_takes_too_long_is_closed() {
    let limits = Limits {
        handshake_timeout: Duration::from_millis(300),
        ..Limits::default()
    };
    let server = Server::start(limits);
    for start in [
        &b""[..],
        &PREFACE[..10],
        PREFACE,
        &[PREFACE, &SETTINGS[..5]].concat(),
    ] {
        let mut client = connect(&server);
        client.write_all(start).unwrap();
        assert!(is_closed_by_server(&mut client), "{} bytes", start.len());
    }
    let mut client = connect(&server);
    client.write_all(&[PREFACE, SETTINGS].concat()).unwrap();
    read_until(&mut client, |kind, flags, _, _| (kind, flags) == (4, 1));
    client
        .set_read_timeout(Some(Duration::from_millis(800)))
        .unwrap();
    assert!(
        !is_closed_by_server(&mut client),
        "a complete handshake may stay idle"
    );
    server.stop();
}

#[test]
fn connections_beyond_the_limit_are_closed_and_others_may_follow() {
    let server = Server::start(Limits {
        connections_max: 4,
        ..Limits::default()
    });
    let handshake = [PREFACE, SETTINGS].concat();
    let open = || {
        let mut client = connect(&server);
        client.write_all(&handshake).ok()?;
        let mut header = [0; 9];
        client.read_exact(&mut header).ok().map(|()| client)
    };
    let mut clients: Vec<_> = (0..4).map(|_| open().expect("within the limit")).collect();
    assert!(open().is_none());
    clients.pop();
    let deadline = Instant::now() + Duration::from_secs(10);
    while open().is_none() {
        assert!(
            Instant::now() < deadline,
            "the place of a closed connection stays taken"
        );
    }
    drop(clients);
    server.stop();
}

#[test]
fn a_violation_is_told_before_the_connection_closes() {
    let server = Server::start(Limits::default());
    let mut client = connect(&server);
    client
        .write_all(&[PREFACE, SETTINGS, &frame(0, 0, 0, b"x")].concat())
        .unwrap();
    // More is on its way: it must not turn the farewell into a reset.
    client.write_all(&[7; 100_000]).unwrap();
    read_until(&mut client, |kind, _, _, payload| {
        kind == 7 && payload[4..8] == [0, 0, 0, 1]
    });
    assert!(is_closed_by_server(&mut client));
    let violations = || {
        server
            .front
            .stats()
            .iter()
            .map(|stats| stats.snapshot().violations)
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    while violations().sum::<u64>() == 0 {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    server.stop();
}

#[test]
fn a_client_that_does_not_read_is_held_back_and_closed() {
    let limits = Limits {
        write_stall_timeout: Duration::from_millis(700),
        ..Limits::default()
    };
    let server = Server::start(limits);
    let mut client = connect(&server);
    client
        .set_write_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    client.write_all(&[PREFACE, SETTINGS].concat()).unwrap();
    // The client's window allows all of it, its socket does not.
    client
        .write_all(&frame(8, 0, 0, &0x7000_0000u32.to_be_bytes()))
        .unwrap();
    client
        .write_all(&frame(4, 0, 0, &[0, 4, 0x70, 0, 0, 0]))
        .unwrap();
    for stream in (1..200).step_by(2) {
        let big = request(stream, "/demo.Demo/Big", "application/grpc", b"10000000");
        client.write_all(&big).unwrap();
    }
    server.wait_for(|seen| *seen == Seen::Cancelled);
    assert!(is_closed_by_server(&mut client));
    server.stop();
}

#[test]
fn a_lost_connection_cancels_its_calls() {
    let server = Server::start(Limits::default());
    let mut client = connect(&server);
    client.write_all(&[PREFACE, SETTINGS].concat()).unwrap();
    client
        .write_all(&request(1, "/demo.Demo/Hang", "application/grpc", b""))
        .unwrap();
    read_until(&mut client, |kind, flags, _, _| (kind, flags) == (4, 1));
    drop(client);
    server.wait_for(|seen| *seen == Seen::Cancelled);
    server.stop();
}

#[test]
fn unix_sockets_work_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let server = Server::listen(vec![Listener::Unix(listener)], Limits::default(), |_| {});
    let mut client = UnixStream::connect(&path).unwrap();
    client.write_all(&[PREFACE, SETTINGS].concat()).unwrap();
    client
        .write_all(&request(1, "/demo.Demo/Echo", "application/grpc", b"hello"))
        .unwrap();
    read_until(&mut client, |kind, _, _, payload| {
        kind == 0 && payload[5..] == *b"hello"
    });
    server.stop();
}
