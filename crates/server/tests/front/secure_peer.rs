//! Behind TLS: who is let in, what is bounded, and what a port for both does.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use server::front::{Bridge, BridgeReply, BridgeRequest, Limits, Socket};

use super::demo::Server;
use super::raw_peer::{PREFACE, SETTINGS, read_until, request};
use super::secured::Secured;

struct Mirror;

impl Bridge for Mirror {
    fn on_request(&self, request: BridgeRequest, mut reply: BridgeReply) {
        // From another thread, as the HTTP side does.
        std::thread::spawn(move || {
            let path = request.field(":path").cloned().unwrap_or_default();
            reply.head(200, vec![("x-path".into(), path)]);
            reply.chunk(request.body);
            assert!(reply.queued_bytes() <= 10);
            reply.finish();
        });
    }
}

/// Sends a request that is not gRPC; the header block and body of the answer.
fn ask(client: &mut (impl Read + Write)) -> (Vec<u8>, Vec<u8>) {
    let hello = request(1, "/v3/x", "application/json", b"hello");
    client
        .write_all(&[PREFACE, SETTINGS, &hello].concat())
        .unwrap();
    let mut head = Vec::new();
    let mut body = Vec::new();
    read_until(client, |kind, flags, stream, payload| {
        match kind {
            1 => head.extend_from_slice(payload),
            0 => body.extend_from_slice(payload),
            _ => {}
        }
        stream == 1 && flags & 1 == 1
    });
    (head, body)
}

#[test]
fn requests_that_are_not_grpc_cross_the_bridge_behind_tls() {
    let secured = Secured::new();
    let (listener, address) = secured.listener(true);
    let server = Server::listen(vec![listener], Limits::default(), |config| {
        config.bridge = Some(Arc::new(Mirror));
    });
    let (head, body) = ask(&mut Secured::connect(address, &secured.client));
    assert!(head.windows(5).any(|window| window == b"/v3/x"));
    assert!(body.ends_with(b"hello"));
    // The same port without TLS is for gRPC alone.
    let (head, body) = ask(&mut TcpStream::connect(address).unwrap());
    assert!(!head.windows(5).any(|window| window == b"/v3/x"));
    assert!(body.is_empty());
    server.stop();
}

#[test]
fn other_protocols_are_handed_over_with_their_session() {
    let (sender, receiver) = mpsc::channel();
    let sender = Mutex::new(sender);
    let secured = Secured::new();
    let (listener, address) = secured.listener(false);
    let server = Server::listen(vec![listener], Limits::default(), |config| {
        config.foreign = Some(Arc::new(move |socket: Socket, bytes: Vec<u8>, _| {
            sender.lock().unwrap().send((socket, bytes)).unwrap();
        }));
    });
    let mut client = Secured::connect(address, &secured.client);
    client.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    let (socket, bytes) = receiver.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!(bytes, b"GET / HTTP/1.1\r\n");
    let Socket::Secure(secure) = socket else {
        panic!("not behind TLS")
    };
    let (mut plain, mut session) = secure.into_parts();
    session.writer().write_all(b"HTTP/1.1 200 OK\r\n").unwrap();
    session.send_close_notify();
    while session.wants_write() {
        session.write_tls(&mut plain).unwrap();
    }
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"HTTP/1.1 200 OK\r\n");
    server.stop();
}

#[test]
fn who_shows_no_certificate_hears_why() {
    let secured = Secured::new();
    let (listener, address) = secured.listener(false);
    let server = Server::listen(vec![listener], Limits::default(), |_| {});
    // Several, since a reset instead of the alert would be a matter of chance.
    for _ in 0..8 {
        let mut client = Secured::connect(address, &secured.stranger);
        // In TLS 1.3 the client believes to be in before it hears that it is not.
        client.write_all(&[PREFACE, SETTINGS].concat()).unwrap();
        let error = client.read(&mut [0; 16]).unwrap_err();
        assert!(error.to_string().contains("CertificateRequired"), "{error}");
    }
    server.stop();
}

#[test]
fn a_handshake_has_its_time() {
    let secured = Secured::new();
    let (listener, address) = secured.listener(true);
    let limits = Limits {
        tls_handshake_timeout: Duration::from_millis(300),
        ..Limits::default()
    };
    let server = Server::listen(vec![listener], limits, |_| {});
    // Nothing, the beginning of a record, and one byte that tells the protocol.
    for start in [&b""[..], &[22, 3, 1, 0, 200, 1], &[22]] {
        let mut client = TcpStream::connect(address).unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        client.write_all(start).unwrap();
        let began = Instant::now();
        assert!(is_closed(&mut client), "{start:?}");
        assert!(began.elapsed() < Duration::from_secs(10));
    }
    server.stop();
}

fn is_closed(client: &mut TcpStream) -> bool {
    match client.read(&mut [0; 16]) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

#[test]
fn open_handshakes_are_bounded_and_do_not_lock_clients_out() {
    let secured = Secured::new();
    let (listener, address) = secured.listener(false);
    let limits = Limits {
        tls_handshakes_max: 4,
        ..Limits::default()
    };
    let server = Server::listen(vec![listener], limits, |config| {
        config.bridge = Some(Arc::new(Mirror));
    });
    let mut idle: Vec<TcpStream> = Vec::new();
    for _ in 0..64 {
        let client = TcpStream::connect(address).unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        idle.push(client);
    }
    // The oldest ones had to go, and the next client is served all the same.
    for client in idle.iter_mut().take(32) {
        assert!(is_closed(client));
    }
    let (_, body) = ask(&mut Secured::connect(address, &secured.client));
    assert!(body.ends_with(b"hello"));
    server.stop();
}

/// Writes without end, and says how much of it was ever queued when its client is gone.
struct Endless(Mutex<mpsc::Sender<usize>>);

impl Bridge for Endless {
    fn on_request(&self, _: BridgeRequest, mut reply: BridgeReply) {
        let ended = self.0.lock().unwrap().clone();
        std::thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            runtime.build().unwrap().block_on(async {
                reply.head(200, Vec::new());
                let mut most = 0;
                while reply.room(1 << 16).await {
                    reply.chunk(vec![b'x'; 1 << 14].into());
                    most = most.max(reply.queued_bytes());
                }
                reply.gone().await;
                ended.send(most).unwrap();
            });
        });
    }
}

#[test]
fn a_bridged_answer_waits_for_its_client_and_ends_with_it() {
    let secured = Secured::new();
    let (listener, address) = secured.listener(true);
    let (sender, ended) = mpsc::channel();
    let _server = Server::listen(vec![listener], Limits::default(), |config| {
        config.bridge = Some(Arc::new(Endless(Mutex::new(sender))));
    });
    let mut client = Secured::connect(address, &secured.client);
    let hello = request(1, "/v3/x", "application/json", b"hello");
    client
        .write_all(&[PREFACE, SETTINGS, &hello].concat())
        .unwrap();
    // All that the client's window allows: nothing more may come or be kept.
    let mut body = 0;
    read_until(&mut client, |kind, _, _, payload| {
        body += if kind == 0 { payload.len() } else { 0 };
        body == 65_535
    });
    assert!(ended.try_recv().is_err(), "the answer ended");
    drop(client);
    let most = ended.recv_timeout(Duration::from_secs(10)).unwrap();
    assert!((1 << 14..=(1 << 16) + (1 << 14)).contains(&most), "{most}");
}
