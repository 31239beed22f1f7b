//! Watchers of the whole key space, which check that every event arrives once and in order.

use std::net::SocketAddr;

use super::connection::PREFIX;
use super::request::{self, frame_header};
use super::transport::{Arrived, CREDIT_STEP, DATA, HEADERS, LARGEST_WINDOW, Transport};

const END_HEADERS: u8 = 4;

/// Who hears of an event: the place of its watcher among those of the connection, the number in
/// its key, and its revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) watcher: usize,
    pub(super) number: u64,
    pub(super) revision: u64,
}

/// How many streams and watchers a connection has, and how they read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub(super) streams: usize,
    /// On each stream.
    pub(super) watchers: usize,
    /// Revision from which they watch; 0 for now.
    pub(super) start: u64,
    /// Each stream gets so many bytes unasked; the rest is up to [`Watchers::allow`].
    pub(super) window: u32,
}

/// A connection with watch streams.
pub(super) struct Watchers {
    pub(super) transport: Transport,
    streams: Vec<Stream>,
    /// Watchers that the server has created.
    pub(super) created: usize,
}

struct Stream {
    /// The begin of a message whose end has not arrived.
    partial: Vec<u8>,
    /// Revision of the last event of each watcher.
    newest: Vec<u64>,
    /// Bytes that arrived since credit was given.
    consumed: u32,
}

impl Watchers {
    /// Connects and asks for all watchers.
    pub(super) fn open(address: SocketAddr, layout: Layout) -> std::io::Result<Self> {
        let mut transport = Transport::open(address, layout.window)?;
        let mut introduced = Vec::new();
        let request = request::watch(layout.start);
        for index in 0..layout.streams {
            let stream = 2 * index as u32 + 1;
            let headers = request::headers("/etcdserverpb.Watch/Watch", 0, &mut introduced);
            let out = &mut transport.out;
            frame_header(out, headers.len(), HEADERS, END_HEADERS, stream);
            out.extend(headers);
            for _ in 0..layout.watchers {
                frame_header(out, request.len(), DATA, 0, stream);
                out.extend(&request);
            }
        }
        let stream = || Stream {
            partial: Vec::new(),
            newest: vec![layout.start.saturating_sub(1); layout.watchers],
            consumed: 0,
        };
        Ok(Self {
            transport,
            streams: (0..layout.streams).map(|_| stream()).collect(),
            created: 0,
        })
    }

    /// Reads once, and tells of every event.
    ///
    /// # Errors
    /// The connection breaks, a stream ends, or an event is missing, repeated or out of order.
    pub(super) fn read(
        &mut self,
        buffer: &mut [u8],
        mut hear: impl FnMut(Heard),
    ) -> std::io::Result<usize> {
        let (streams, created) = (&mut self.streams, &mut self.created);
        let mut outcome = Ok(());
        let count = self.transport.read(buffer, |stream, arrived| {
            let place = stream as usize / 2;
            let result = match arrived {
                Arrived::Data(bytes) => {
                    let base = place * streams[place].newest.len();
                    streams[place].on_data(bytes, created, |heard| {
                        hear(Heard {
                            watcher: base + heard.watcher,
                            ..heard
                        });
                    })
                }
                Arrived::End | Arrived::Reset => Err("a watch stream ended".to_owned()),
                Arrived::Credit(_) => Ok(()),
            };
            if outcome.is_ok() {
                outcome = result;
            }
        })?;
        outcome.map_err(std::io::Error::other)?;
        Ok(count)
    }

    /// Revision of the first watcher's last event, or when it was created.
    pub(super) fn newest(&self) -> u64 {
        self.streams[0].newest[0]
    }

    /// Gives credit back to streams that have used much of theirs.
    pub(super) fn read_on(&mut self) {
        for (place, stream) in self.streams.iter_mut().enumerate() {
            if stream.consumed >= CREDIT_STEP {
                let consumed = std::mem::take(&mut stream.consumed);
                self.transport.give_credit(2 * place as u32 + 1, consumed);
            }
        }
    }

    /// Lets each stream have up to so many bytes, of those that it used.
    pub(super) fn allow(&mut self, bytes: u32) {
        for (place, stream) in self.streams.iter_mut().enumerate() {
            let given = stream.consumed.min(bytes);
            if given > 0 {
                stream.consumed -= given;
                self.transport.give_credit(2 * place as u32 + 1, given);
            }
        }
    }
}

impl Stream {
    fn on_data(
        &mut self,
        bytes: &[u8],
        created: &mut usize,
        mut hear: impl FnMut(Heard),
    ) -> Result<(), String> {
        self.consumed += bytes.len() as u32;
        let mut partial = std::mem::take(&mut self.partial);
        let mut left = if partial.is_empty() {
            bytes
        } else {
            partial.extend(bytes);
            &partial
        };
        while let Some(message) = whole_message(left) {
            self.on_message(&message[PREFIX..], created, &mut hear)?;
            left = &left[message.len()..];
        }
        self.partial = left.to_vec();
        Ok(())
    }

    fn on_message(
        &mut self,
        message: &[u8],
        created: &mut usize,
        hear: &mut impl FnMut(Heard),
    ) -> Result<(), String> {
        let mut watcher = 0;
        let mut revision = 0;
        for field in Fields(message) {
            match field? {
                (1, Field::Bytes(header)) => revision = number_of(header, 3)?,
                (2, Field::Number(id)) => watcher = id as usize,
                (3, Field::Number(1)) => {
                    *created += 1;
                    let newest = self.newest.get_mut(watcher).ok_or("an unknown watch id")?;
                    if *newest == 0 {
                        *newest = revision;
                    }
                }
                (4, Field::Number(_)) => return Err("a watch was cancelled".into()),
                (11, Field::Bytes(event)) => {
                    let newest = self.newest.get_mut(watcher).ok_or("an unknown watch id")?;
                    let (number, revision) = read_event(event)?;
                    if revision != *newest + 1 {
                        return Err(format!("revision {revision} came after {newest}"));
                    }
                    *newest = revision;
                    hear(Heard {
                        watcher,
                        number,
                        revision,
                    });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn whole_message(bytes: &[u8]) -> Option<&[u8]> {
    let [_, length @ ..] = *bytes.first_chunk::<PREFIX>()?;
    bytes.get(..PREFIX + u32::from_be_bytes(length) as usize)
}

/// The number in the key of an event, and its revision.
fn read_event(event: &[u8]) -> Result<(u64, u64), String> {
    let mut found = (0, 0);
    for field in Fields(event) {
        let (2, Field::Bytes(kv)) = field? else {
            continue;
        };
        for field in Fields(kv) {
            match field? {
                (1, Field::Bytes(key)) => {
                    found.0 = request::number_in(key).ok_or("an unknown key")?;
                }
                (3, Field::Number(revision)) => found.1 = revision,
                // The value behind it is as long as everything else together.
                (4, _) => break,
                _ => {}
            }
        }
    }
    Ok(found)
}

fn number_of(message: &[u8], wanted: u64) -> Result<u64, String> {
    let mut found = 0;
    for field in Fields(message) {
        if let (field, Field::Number(number)) = field?
            && field == wanted
        {
            found = number;
        }
    }
    Ok(found)
}

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a protobuf message that has only varints and what has a length.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for (at, &byte) in self.0.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                self.0 = &self.0[at + 1..];
                return Some(value);
            }
        }
        None
    }

    fn field(&mut self) -> Option<(u64, Field<'a>)> {
        let key = self.varint()?;
        let value = self.varint()?;
        match key & 7 {
            0 => Some((key >> 3, Field::Number(value))),
            2 => {
                let (bytes, rest) = self.0.split_at_checked(usize::try_from(value).ok()?)?;
                self.0 = rest;
                Some((key >> 3, Field::Bytes(bytes)))
            }
            _ => None,
        }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Field<'a>), &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field().ok_or("a malformed answer");
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// The window of a stream whose client reads whatever comes.
pub(super) const EAGER: u32 = LARGEST_WINDOW;

#[cfg(test)]
mod tests;
