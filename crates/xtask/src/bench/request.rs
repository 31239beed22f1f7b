//! Requests as ready-made HTTP/2 frames in which only a stream id and key digits change.

/// Every key is `bench/` and this many decimal digits.
const KEY_DIGITS: usize = 8;
const KEY_PREFIX: &[u8] = b"bench/";

/// Bytes of each value.
pub(crate) const VALUE_BYTES: usize = 256;

/// Puts in one transaction while the key space is loaded; etcd's default limit is 128.
pub(crate) const LOAD_BATCH: u64 = 100;

/// Keys that a range row asks for.
pub(crate) const RANGE_KEYS: u64 = 1000;

/// Length of an HTTP/2 frame header, and of the gRPC prefix of a message.
const FRAME_HEADER: usize = 9;
const MESSAGE_PREFIX: usize = 5;

const FRAME_DATA: u8 = 0;
const FRAME_HEADERS: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// How the number of the key is chosen.
enum Pick {
    /// Uniform below the limit.
    Random { limit: u64, state: u64 },
    /// Every `step`-th, in order.
    Sequential { next: u64, step: u64 },
}

/// Generator of one kind of request on any number of connections.
pub(crate) struct Requests {
    method: &'static str,
    /// gRPC prefix and message, with zeros where keys go.
    body: Vec<u8>,
    /// Where a key's digits stand in `body`, and what is added to the chosen number there.
    keys: Vec<(usize, u64)>,
    pick: Pick,
    /// A message that is shorter than this is no full answer.
    pub(crate) shortest_answer: usize,
}

impl Requests {
    pub(crate) fn put(key_space: u64) -> Self {
        Self::new("Put", Message::put(0), random(key_space), 0)
    }

    pub(crate) fn get(key_space: u64, serializable: bool) -> Self {
        let message = Message::range(None, serializable);
        Self::new("Range", message, random(key_space), VALUE_BYTES)
    }

    pub(crate) fn range(key_space: u64) -> Self {
        let message = Message::range(Some(RANGE_KEYS), false);
        let pick = random(key_space - RANGE_KEYS + 1);
        Self::new("Range", message, pick, RANGE_KEYS as usize * VALUE_BYTES)
    }

    /// A put on the condition that the key exists.
    pub(crate) fn txn(key_space: u64) -> Self {
        let mut compare = Message::default();
        compare.number(1, 1); // GREATER
        compare.number(2, 1); // CREATE
        compare.key(3, 0);
        compare.number(5, 0); // create_revision
        let mut operation = Message::default();
        operation.nested(2, &Message::put(0));
        let mut txn = Message::default();
        txn.nested(1, &compare);
        txn.nested(2, &operation);
        Self::new("Txn", txn, random(key_space), 0)
    }

    /// One transaction of `LOAD_BATCH` puts of consecutive keys.
    pub(crate) fn load() -> Self {
        let mut txn = Message::default();
        for plus in 0..LOAD_BATCH {
            let mut operation = Message::default();
            operation.nested(2, &Message::put(plus));
            txn.nested(2, &operation);
        }
        Self::new(
            "Txn",
            txn,
            Pick::Sequential {
                next: 0,
                step: LOAD_BATCH,
            },
            0,
        )
    }

    fn new(method: &'static str, message: Message, pick: Pick, shortest_answer: usize) -> Self {
        let mut body = vec![0];
        body.extend((message.bytes.len() as u32).to_be_bytes());
        body.extend(&message.bytes);
        let keys = message
            .keys
            .iter()
            .map(|(at, plus)| (at + MESSAGE_PREFIX, *plus))
            .collect();
        Self {
            method,
            body,
            keys,
            pick,
            shortest_answer,
        }
    }

    /// What flow control counts for one request.
    pub(crate) fn body_len(&self) -> usize {
        self.body.len()
    }

    /// Appends the frames of one request. The first on a connection carries its headers in
    /// full and enters them into the peer's table; later ones refer to it.
    pub(crate) fn append(&mut self, out: &mut Vec<u8>, stream: u32, first: bool) {
        let headers = if first {
            first_headers(self.method)
        } else {
            later_headers()
        };
        frame_header(out, headers.len(), FRAME_HEADERS, END_HEADERS, stream);
        out.extend(headers);
        let mut left = self.body.as_slice();
        let start = out.len();
        // 16,384 is the largest frame that a peer must take.
        while left.len() > 16_384 {
            let (chunk, rest) = left.split_at(16_384);
            frame_header(out, chunk.len(), FRAME_DATA, 0, stream);
            out.extend(chunk);
            left = rest;
        }
        frame_header(out, left.len(), FRAME_DATA, END_STREAM, stream);
        out.extend(left);
        let number = self.pick.next();
        for (at, plus) in &self.keys {
            write_digits(&mut out[start..], *at, number + plus);
        }
    }
}

/// Writes a key's digits at `at` of a body that is split into frames of 16,384 bytes.
fn write_digits(frames: &mut [u8], at: usize, mut number: u64) {
    for place in (at..at + KEY_DIGITS).rev() {
        let headers = (place / 16_384 + 1) * FRAME_HEADER;
        frames[place + headers] = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

fn random(limit: u64) -> Pick {
    Pick::Random {
        limit,
        state: 0x9e37_79b9_7f4a_7c15,
    }
}

impl Pick {
    fn next(&mut self) -> u64 {
        match self {
            Self::Random { limit, state } => {
                *state ^= *state << 13;
                *state ^= *state >> 7;
                *state ^= *state << 17;
                *state % *limit
            }
            Self::Sequential { next, step } => {
                let number = *next;
                *next += *step;
                number
            }
        }
    }
}

/// A protobuf message under construction, with the places of key digits.
#[derive(Default)]
struct Message {
    bytes: Vec<u8>,
    keys: Vec<(usize, u64)>,
}

impl Message {
    fn put(plus: u64) -> Self {
        let mut put = Self::default();
        put.key(1, plus);
        let value: Vec<u8> = (0..VALUE_BYTES).map(|at| (at * 131 % 251) as u8).collect();
        put.field(2, &value);
        put
    }

    fn range(keys: Option<u64>, serializable: bool) -> Self {
        let mut range = Self::default();
        range.key(1, 0);
        if let Some(keys) = keys {
            range.key(2, keys);
        }
        if serializable {
            range.number(7, 1);
        }
        range
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    fn number(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }

    fn field(&mut self, field: u64, value: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.bytes.extend(value);
    }

    fn key(&mut self, field: u64, plus: u64) {
        self.field(field, &[KEY_PREFIX, &[b'0'; KEY_DIGITS]].concat());
        self.keys.push((self.bytes.len() - KEY_DIGITS, plus));
    }

    fn nested(&mut self, field: u64, inner: &Self) {
        self.field(field, &inner.bytes);
        let start = self.bytes.len() - inner.bytes.len();
        self.keys
            .extend(inner.keys.iter().map(|(at, plus)| (start + at, *plus)));
    }
}

/// Appends a frame header of RFC 9113 §4.1.
pub(crate) fn frame_header(out: &mut Vec<u8>, length: usize, kind: u8, flags: u8, stream: u32) {
    out.extend(&(length as u32).to_be_bytes()[1..]);
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
}

/// HPACK (RFC 7541) block that adds five entries to the peer's table.
fn first_headers(method: &str) -> Vec<u8> {
    let mut block = vec![0x83, 0x86]; // :method POST, :scheme http
    add_entry(
        &mut block,
        4,
        None,
        format!("/etcdserverpb.KV/{method}").as_bytes(),
    );
    add_entry(&mut block, 1, None, b"127.0.0.1");
    add_entry(&mut block, 31, None, b"application/grpc");
    add_entry(&mut block, 0, Some(b"te"), b"trailers");
    add_entry(&mut block, 58, None, b"bench/1");
    block
}

/// The same headers when the entries are there: the newest has index 62.
fn later_headers() -> Vec<u8> {
    vec![
        0x83,
        0x86,
        0x80 | 66,
        0x80 | 65,
        0x80 | 64,
        0x80 | 63,
        0x80 | 62,
    ]
}

/// A literal with incremental indexing, its name from the static table or given.
fn add_entry(block: &mut Vec<u8>, index: u8, name: Option<&[u8]>, value: &[u8]) {
    block.push(0x40 | index);
    for text in name.into_iter().chain([value]) {
        block.push(text.len() as u8);
        block.extend(text);
    }
}

#[cfg(test)]
mod tests;
