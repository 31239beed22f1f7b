//! A message of a JSON stream is one chunk of HTTP: clients exist that parse chunk by chunk.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::Bytes;
use e2e::kv::Kv;
use e2e::{Member, Options};

const LIMIT: Duration = Duration::from_secs(20);

/// The next chunk of a body.
fn chunk(input: &mut impl BufRead) -> String {
    let mut size = String::new();
    input.read_line(&mut size).expect("a size");
    let size = usize::from_str_radix(size.trim(), 16).expect("a size in base 16");
    let mut chunk = vec![0; size + 2];
    input.read_exact(&mut chunk).expect("a chunk");
    chunk.truncate(size);
    String::from_utf8(chunk).expect("text")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_message_is_one_chunk() {
    let member = Member::start(Options::default()).expect("a member");
    let kv = Kv::to(member.address());
    let value = Bytes::from(vec![b'v'; 50_000]);
    for _ in 0..2 {
        kv.put(Bytes::from_static(b"k"), value.clone())
            .await
            .expect("a put");
    }
    let mut socket = TcpStream::connect(member.address()).expect("a connection");
    socket.set_read_timeout(Some(LIMIT)).expect("a timeout");
    // Both answers, that the watch is made and the old events, are there at once.
    let body = r#"{"create_request":{"key":"aw==","start_revision":"2"}}"#;
    let request = format!(
        "POST /v3/watch HTTP/1.1\r\nHost: e2e\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(request.as_bytes()).expect("a request");
    let mut input = BufReader::new(socket);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        input.read_line(&mut line).expect("a header");
    }
    let mut messages = Vec::new();
    while messages.len() < 2 {
        let chunk = chunk(&mut input);
        // Go's server may send the end of a long line by itself.
        if chunk != "\n" {
            messages.push(chunk);
        }
    }
    for (message, content) in messages.iter().zip(["\"created\":true", "\"events\":["]) {
        let parsed = serde_json::from_str::<serde_json::Value>(message);
        parsed.expect("a whole message");
        assert!(message.contains(content), "{message}");
    }
}
