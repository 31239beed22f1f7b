//! Ports that are for gRPC alone, or for everything else.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use server::front::{Limits, Listener, Socket, Traffic};

use super::demo::Server;
use super::raw_peer::{PREFACE, SETTINGS};

const HELLO: &[u8] = b"GET / HTTP/1.1\r\n\r\n";

/// What a port says to these bytes until it is silent or closes.
fn ask(address: SocketAddr, bytes: &[u8]) -> (Vec<u8>, bool) {
    let mut socket = TcpStream::connect(address).unwrap();
    let timeout = Some(Duration::from_millis(300));
    socket.set_read_timeout(timeout).unwrap();
    socket.write_all(bytes).unwrap();
    let mut heard = Vec::new();
    let closed = socket.read_to_end(&mut heard).is_ok();
    (heard, closed)
}

#[test]
fn each_port_speaks_what_it_is_for() {
    let traffic = [Traffic::All, Traffic::Grpc, Traffic::Http];
    let bound = traffic.map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let addresses = bound.each_ref().map(|one| one.local_addr().unwrap());
    let listeners = bound.into_iter().map(Listener::Tcp).collect();
    let _server = Server::listen(listeners, Limits::default(), |config| {
        config.traffic = traffic.to_vec();
        config.foreign = Some(Arc::new(|socket, read, _| {
            assert_eq!(read, HELLO);
            if let Socket::Tcp(mut stream) = socket {
                stream.write_all(b"hello").unwrap();
            }
        }));
    });
    let http2 = [PREFACE, SETTINGS].concat();
    for (traffic, address) in traffic.into_iter().zip(addresses) {
        let (heard, closed) = ask(address, HELLO);
        match traffic {
            Traffic::Grpc => assert!(closed && heard.is_empty()),
            _ => assert_eq!(heard, b"hello"),
        }
        let (heard, closed) = ask(address, &http2);
        match traffic {
            Traffic::Http => assert!(closed && heard.is_empty()),
            _ => assert!(!closed && !heard.is_empty()),
        }
    }
}
