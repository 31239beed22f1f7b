//! A client that writes frames and reads what the connection put out.

use std::io::IoSlice;

use super::super::frame::{self, HEADER_BYTES, Header, PREFACE, Reason};
use super::super::hpack::{Decoder, Field, Fields, Malformed};
use super::super::{Conn, Event, SLICES_MAX, Shared, StreamRef, encode};
use crate::front::{Limits, Method, MethodKind};

pub(super) const METHODS: &[Method] = &[
    Method {
        path: "/t.T/Unary",
        kind: MethodKind::Unary,
    },
    Method {
        path: "/t.T/Stream",
        kind: MethodKind::Streaming,
    },
];

/// A frame's bytes.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = frame::header(payload.len(), kind, flags, stream).to_vec();
    bytes.extend_from_slice(payload);
    bytes
}

/// A header block of literals.
pub(super) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        encode::literal(name.as_bytes(), value.as_bytes(), &mut out);
    }
    out
}

pub(super) const BASIC: [(&str, &str); 6] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/t.T/Unary"),
    (":authority", "x"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
];

/// The header block of a plain unary request.
pub(super) fn basic() -> Vec<u8> {
    block(&BASIC)
}

/// [`BASIC`] with some values replaced or fields added.
pub(super) fn with(changes: &[(&str, &str)]) -> Vec<u8> {
    let mut fields: Vec<_> = BASIC.to_vec();
    for change in changes {
        match fields.iter_mut().find(|field| field.0 == change.0) {
            Some(field) => *field = *change,
            None => fields.push(*change),
        }
    }
    block(&fields)
}

pub(super) fn headers(stream: u32, block: &[u8]) -> Vec<u8> {
    frame(frame::HEADERS, frame::END_HEADERS, stream, block)
}

pub(super) fn data(stream: u32, payload: &[u8]) -> Vec<u8> {
    frame(frame::DATA, 0, stream, payload)
}

pub(super) fn data_end(stream: u32, payload: &[u8]) -> Vec<u8> {
    frame(frame::DATA, frame::END_STREAM, stream, payload)
}

/// A message with its prefix.
pub(super) fn message(text: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend_from_slice(&(text.len() as u32).to_be_bytes());
    bytes.extend_from_slice(text);
    bytes
}

pub(super) fn unary(stream: u32, text: &[u8]) -> Vec<u8> {
    [headers(stream, &basic()), data_end(stream, &message(text))].concat()
}

pub(super) fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (name, value) in values {
        payload.extend_from_slice(&name.to_be_bytes());
        payload.extend_from_slice(&value.to_be_bytes());
    }
    frame(frame::SETTINGS, 0, 0, &payload)
}

pub(super) fn window_update(stream: u32, more: u32) -> Vec<u8> {
    frame(frame::WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
}

pub(super) fn reset(stream: u32) -> Vec<u8> {
    frame(
        frame::RST_STREAM,
        0,
        stream,
        &(Reason::Cancel as u32).to_be_bytes(),
    )
}

/// A frame that the connection sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Out {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

#[derive(Default)]
struct Collected(Vec<(String, String)>);

impl Fields for Collected {
    fn field(&mut self, field: Field<'_>) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        self.0
            .push((text(field.name.as_slice()), text(field.value.as_slice())));
    }
    fn resolve(&self, _: &[u8]) -> u16 {
        0
    }
}

pub(super) struct Peer {
    pub(super) conn: Conn,
    pub(super) events: Vec<Event>,
    pub(super) now_ms: u64,
    decoder: Decoder,
    /// Received and not used by the connection.
    rest: Vec<u8>,
}

impl Peer {
    /// A client that has sent nothing.
    pub(super) fn fresh(limits: Limits) -> Peer {
        Peer::of(Conn::new(Shared::new(limits, METHODS, false), 1_000))
    }

    pub(super) fn of(conn: Conn) -> Peer {
        Peer {
            conn,
            events: Vec::new(),
            now_ms: 1_000,
            decoder: Decoder::new(),
            rest: Vec::new(),
        }
    }

    /// A client whose handshake is done and read.
    pub(super) fn open(limits: Limits) -> Peer {
        let mut peer = Peer::fresh(limits);
        peer.send(PREFACE);
        peer.send(&settings(&[]));
        assert!(peer.conn.is_open());
        peer.take();
        peer
    }

    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        let used = self.conn.receive(&self.rest, self.now_ms, &mut self.events);
        self.rest.drain(..used);
    }

    /// What the connection has put out, pumped as far as it goes.
    pub(super) fn take_bytes(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            self.conn.pump(&mut self.events);
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = self.conn.out.slices(&mut slices);
            let before = bytes.len();
            slices[..count]
                .iter()
                .for_each(|slice| bytes.extend_from_slice(slice));
            self.conn.out.consume(bytes.len() - before);
            if bytes.len() == before {
                return bytes;
            }
        }
    }

    /// What the connection has put out, as frames.
    pub(super) fn take(&mut self) -> Vec<Out> {
        let bytes = self.take_bytes();
        let mut rest = &bytes[..];
        let mut frames = Vec::new();
        while let Some((header, tail)) = rest.split_first_chunk::<HEADER_BYTES>() {
            let header = Header::parse(header);
            let (payload, tail) = tail.split_at(header.length);
            rest = tail;
            frames.push(Out {
                kind: header.kind,
                flags: header.flags,
                stream: header.stream,
                payload: payload.to_vec(),
            });
        }
        assert!(rest.is_empty(), "half a frame was put out");
        frames
    }

    /// The fields of a HEADERS frame as `name: value` lines.
    pub(super) fn fields(&mut self, out: &Out) -> Result<Vec<String>, Malformed> {
        assert_eq!(out.kind, frame::HEADERS);
        let mut fields = Collected::default();
        self.decoder.decode(&out.payload, &mut fields)?;
        Ok(fields
            .0
            .iter()
            .map(|(name, value)| format!("{name}: {value}"))
            .collect())
    }

    /// Takes the output; every HEADERS as its fields, other frames as kind and length.
    pub(super) fn story(&mut self) -> Vec<String> {
        let frames = self.take();
        frames.iter().map(|out| self.describe(out)).collect()
    }

    fn describe(&mut self, out: &Out) -> String {
        let end = if out.flags & frame::END_STREAM != 0 {
            " end"
        } else {
            ""
        };
        match out.kind {
            frame::HEADERS => {
                let fields = self.fields(out).unwrap().join(", ");
                format!("{} HEADERS{end} {fields}", out.stream)
            }
            frame::DATA => format!("{} DATA{end} {}", out.stream, out.payload.len()),
            frame::RST_STREAM => format!("{} RST {}", out.stream, code(&out.payload)),
            frame::GOAWAY => format!("GOAWAY {}", code(&out.payload[4..])),
            frame::WINDOW_UPDATE => format!("{} WINDOW {}", out.stream, code(&out.payload)),
            frame::SETTINGS => format!("SETTINGS {}", out.flags),
            frame::PING => format!("PING {}", out.flags),
            kind => format!("{} kind {kind}", out.stream),
        }
    }

    /// Tells the connection that its handler knows all streams of the events so far.
    pub(super) fn dispatch(&mut self) -> Vec<StreamRef> {
        let mut at = Vec::new();
        for event in self.events.drain(..) {
            if let Event::Unary(stream, ..) | Event::Open(stream, ..) = event {
                self.conn.dispatch(stream);
                at.push(stream);
            }
        }
        at
    }
}

fn code(payload: &[u8]) -> u32 {
    u32::from_be_bytes(*payload.first_chunk::<4>().unwrap())
}
