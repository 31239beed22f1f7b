//! Requests as ready-made HTTP/2 frames in which only a stream id and key digits change.

/// Every key is `bench/` and this many decimal digits.
const KEY_DIGITS: usize = 8;
const KEY_PREFIX: &[u8] = b"bench/";

/// Leases have ids from this one on, whose varints all have the same length.
const LEASE_FROM: u64 = 1 << 28;
const LEASE_BYTES: usize = 5;
const LEASE_SECONDS: u64 = 3600;
/// The same as a varint, with which an answer that grants or renews ends.
const LEASE_SECONDS_TAIL: [u8; 2] = [0x80 | (3600 & 0x7f) as u8, (3600 >> 7) as u8];
/// Keys under leases are none of those that other rows use.
const LEASED_FROM: u64 = 90_000_000;
/// Numbers of the leases that stay; those that are revoked at once have lower ones.
const KEPT_ALIVE_FROM: u64 = 1 << 30;

const PUT: &str = "/etcdserverpb.KV/Put";
const RANGE: &str = "/etcdserverpb.KV/Range";
const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";

/// Relations of a comparison.
const EQUAL: u64 = 0;
const GREATER: u64 = 1;

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

/// Generator of one kind of operation on any number of connections.
pub(crate) struct Requests {
    steps: Vec<Step>,
    pick: Pick,
    /// Operations are messages on streams that stay open.
    pub(crate) streams: bool,
}

/// One call of an operation.
struct Step {
    path: &'static str,
    /// gRPC prefix and message, with zeros where the operation's number goes.
    body: Vec<u8>,
    /// Where that is in `body`.
    places: Vec<(usize, Place)>,
    /// A message that is shorter than this is no full answer.
    shortest_answer: usize,
    /// How its last field must end.
    answer_tail: Option<[u8; 2]>,
}

/// How an operation's number stands in a request.
#[derive(Clone, Copy)]
enum Place {
    /// As the digits of a key, with so much added.
    Digits(u64),
    /// As a lease's id, with so much added.
    Lease(u64),
}

impl Requests {
    pub(crate) fn put(key_space: u64) -> Self {
        Self::new(Step::new(PUT, Message::put(0)), random(key_space))
    }

    /// Puts of the keys one after the other.
    pub(crate) fn puts_in_order(first: u64) -> Self {
        Self::new(Step::new(PUT, Message::put(0)), in_order(first))
    }

    pub(crate) fn get(key_space: u64, serializable: bool) -> Self {
        let mut step = Step::new(RANGE, Message::range(None, serializable));
        step.shortest_answer = VALUE_BYTES;
        Self::new(step, random(key_space))
    }

    pub(crate) fn range(key_space: u64) -> Self {
        let mut step = Step::new(RANGE, Message::range(Some(RANGE_KEYS), false));
        step.shortest_answer = RANGE_KEYS as usize * VALUE_BYTES;
        Self::new(step, random(key_space - RANGE_KEYS + 1))
    }

    /// A put on the condition that the key exists.
    pub(crate) fn txn(key_space: u64) -> Self {
        Self::new(Self::conditional(GREATER), random(key_space))
    }

    /// A put on the condition that the key does not exist, which it does not.
    pub(crate) fn create(first: u64) -> Self {
        Self::new(Self::conditional(EQUAL), in_order(first))
    }

    /// The answer ends with that of the put, so the condition held.
    fn conditional(relation: u64) -> Step {
        let mut compare = Message::default();
        compare.number(1, relation);
        compare.number(2, 1); // CREATE
        compare.key(3, 0);
        compare.number(5, 0); // create_revision
        let mut operation = Message::default();
        operation.nested(2, &Message::put(0));
        let mut txn = Message::default();
        txn.nested(1, &compare);
        txn.nested(2, &operation);
        let mut step = Step::new("/etcdserverpb.KV/Txn", txn);
        // The prefix, a header, `succeeded`, and a put's answer with its header.
        step.shortest_answer = MESSAGE_PREFIX + 12;
        step
    }

    /// A lease is granted, a key put under it, and both are gone again.
    pub(crate) fn lease() -> Self {
        let mut grant = Message::default();
        grant.number(1, LEASE_SECONDS);
        grant.lease(2, 0);
        let mut put = Message::put(LEASED_FROM);
        put.lease(3, 0);
        let mut revoke = Message::default();
        revoke.lease(1, 0);
        let mut step = Step::new(GRANT, grant);
        step.answer_tail = Some(LEASE_SECONDS_TAIL);
        let mut requests = Self::new(step, in_order(0));
        requests.steps.push(Step::new(PUT, put));
        requests
            .steps
            .push(Step::new("/etcdserverpb.Lease/LeaseRevoke", revoke));
        requests
    }

    /// Leases that stay.
    pub(crate) fn grant() -> Self {
        let mut grant = Message::default();
        grant.number(1, LEASE_SECONDS);
        grant.lease(2, KEPT_ALIVE_FROM);
        Self::new(Step::new(GRANT, grant), in_order(0))
    }

    /// Renewals of the first `count` leases that stay.
    pub(crate) fn keep_alive(count: u64) -> Self {
        let mut renewal = Message::default();
        renewal.lease(1, KEPT_ALIVE_FROM);
        let mut step = Step::new("/etcdserverpb.Lease/LeaseKeepAlive", renewal);
        // A lease that is gone has 0 seconds, a field that is left out.
        step.answer_tail = Some(LEASE_SECONDS_TAIL);
        let mut requests = Self::new(step, random(count));
        requests.streams = true;
        requests
    }

    /// One transaction of `LOAD_BATCH` puts of consecutive keys.
    pub(crate) fn load() -> Self {
        let mut txn = Message::default();
        for plus in 0..LOAD_BATCH {
            let mut operation = Message::default();
            operation.nested(2, &Message::put(plus));
            txn.nested(2, &operation);
        }
        let pick = Pick::Sequential {
            next: 0,
            step: LOAD_BATCH,
        };
        Self::new(Step::new("/etcdserverpb.KV/Txn", txn), pick)
    }

    fn new(step: Step, pick: Pick) -> Self {
        Self {
            steps: vec![step],
            pick,
            streams: false,
        }
    }

    /// Calls of one operation.
    pub(crate) fn steps(&self) -> usize {
        self.steps.len()
    }

    /// What flow control counts for one call.
    pub(crate) fn body_len(&self, step: usize) -> usize {
        self.steps[step].body.len()
    }

    /// Whether a message of so many bytes, with its prefix, that ends so is what a call is for.
    pub(crate) fn is_answer(&self, step: usize, bytes: usize, tail: [u8; 2]) -> bool {
        let step = &self.steps[step];
        bytes >= step.shortest_answer && step.answer_tail.is_none_or(|wanted| wanted == tail)
    }

    /// The number of the next operation.
    pub(crate) fn next_number(&mut self) -> u64 {
        self.pick.next()
    }

    /// Numbers from this one on were not used; 0 when they are random.
    pub(crate) fn reached(&self) -> u64 {
        match self.pick {
            Pick::Random { .. } => 0,
            Pick::Sequential { next, .. } => next,
        }
    }

    /// Appends the HEADERS frame of one call. The first on a connection carries its headers in
    /// full and enters them into the peer's table; later ones refer to it.
    pub(crate) fn append_headers(
        &self,
        out: &mut Vec<u8>,
        stream: u32,
        step: usize,
        introduced: &mut Vec<usize>,
    ) {
        let headers = headers(self.steps[step].path, step, introduced);
        frame_header(out, headers.len(), FRAME_HEADERS, END_HEADERS, stream);
        out.extend(headers);
    }

    /// Appends the DATA frames of one call.
    pub(crate) fn append_body(&self, out: &mut Vec<u8>, stream: u32, step: usize, number: u64) {
        let Step { body, places, .. } = &self.steps[step];
        let mut left = body.as_slice();
        let start = out.len();
        // 16,384 is the largest frame that a peer must take.
        while left.len() > 16_384 {
            let (chunk, rest) = left.split_at(16_384);
            frame_header(out, chunk.len(), FRAME_DATA, 0, stream);
            out.extend(chunk);
            left = rest;
        }
        let flags = if self.streams { 0 } else { END_STREAM };
        frame_header(out, left.len(), FRAME_DATA, flags, stream);
        out.extend(left);
        for &(at, place) in places {
            match place {
                Place::Digits(plus) => write_digits(&mut out[start..], at, number + plus),
                Place::Lease(plus) => {
                    write_lease(&mut out[start + FRAME_HEADER..], at, number + plus);
                }
            }
        }
    }
}

impl Step {
    fn new(path: &'static str, message: Message) -> Self {
        let mut body = vec![0];
        body.extend((message.bytes.len() as u32).to_be_bytes());
        body.extend(&message.bytes);
        let place = |(at, place): (usize, Place)| (at + MESSAGE_PREFIX, place);
        Self {
            path,
            body,
            places: message.places.into_iter().map(place).collect(),
            shortest_answer: MESSAGE_PREFIX,
            answer_tail: None,
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

/// Writes a lease's id as a varint of `LEASE_BYTES` at `at` of a body within one frame.
fn write_lease(body: &mut [u8], at: usize, number: u64) {
    let mut left = LEASE_FROM + number;
    for (place, byte) in body[at..at + LEASE_BYTES].iter_mut().enumerate() {
        let more = if place + 1 < LEASE_BYTES { 0x80 } else { 0 };
        *byte = (left & 0x7f) as u8 | more;
        left >>= 7;
    }
}

fn in_order(first: u64) -> Pick {
    Pick::Sequential {
        next: first,
        step: 1,
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

/// A protobuf message under construction, with the places of the operation's number.
#[derive(Default)]
struct Message {
    bytes: Vec<u8>,
    places: Vec<(usize, Place)>,
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
        let at = self.bytes.len() - KEY_DIGITS;
        self.places.push((at, Place::Digits(plus)));
    }

    fn lease(&mut self, field: u64, plus: u64) {
        self.varint(field << 3);
        self.places.push((self.bytes.len(), Place::Lease(plus)));
        self.bytes.extend([0; LEASE_BYTES]);
    }

    fn nested(&mut self, field: u64, inner: &Self) {
        self.field(field, &inner.bytes);
        let start = self.bytes.len() - inner.bytes.len();
        let places = inner.places.iter();
        self.places
            .extend(places.map(|&(at, place)| (start + at, place)));
    }
}

/// The message, with its prefix, that asks to watch the whole key space from a revision on.
pub(super) fn watch(start: u64) -> Vec<u8> {
    let mut create = Message::default();
    create.field(1, KEY_PREFIX);
    create.field(2, b"bench0");
    if start > 0 {
        create.number(3, start);
    }
    let mut request = Message::default();
    request.field(1, &create.bytes);
    Step::new("", request).body
}

/// The digits of a key.
pub(super) fn number_in(key: &[u8]) -> Option<u64> {
    let digits = key.strip_prefix(KEY_PREFIX)?;
    digits.iter().try_fold(0, |number: u64, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
        Some(number * 10 + u64::from(digit))
    })
}

/// Appends a frame header of RFC 9113 §4.1.
pub(crate) fn frame_header(out: &mut Vec<u8>, length: usize, kind: u8, flags: u8, stream: u32) {
    out.extend(&(length as u32).to_be_bytes()[1..]);
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
}

/// HPACK (RFC 7541) block of a call. The first on a connection adds its path and four more
/// entries to the peer's table, the first of another step its path.
pub(super) fn headers(path: &str, step: usize, introduced: &mut Vec<usize>) -> Vec<u8> {
    const FIRST_DYNAMIC: usize = 62;
    let mut block = vec![0x83, 0x86]; // :method POST, :scheme http
    let place = introduced.iter().position(|&known| known == step);
    if place.is_none() {
        introduced.push(step);
        add_entry(&mut block, 4, None, path.as_bytes());
    }
    if introduced.len() == 1 && place.is_none() {
        add_entry(&mut block, 1, None, b"127.0.0.1");
        add_entry(&mut block, 31, None, b"application/grpc");
        add_entry(&mut block, 0, Some(b"te"), b"trailers");
        add_entry(&mut block, 58, None, b"bench/1");
        return block;
    }
    // Entries are counted from the newest: a path each, four others behind the first of them.
    let entries = introduced.len() + 4;
    let index = |entry: usize| 0x80 | (FIRST_DYNAMIC + entries - 1 - entry) as u8;
    match place {
        Some(0) => block.push(index(0)),
        Some(place) => block.push(index(4 + place)),
        None => {}
    }
    block.extend((1..5).map(index));
    block
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
