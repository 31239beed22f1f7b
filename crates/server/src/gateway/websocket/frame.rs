//! Frames of RFC 6455 as a server reads and writes them.
//!
//! ```text
//!  0                   1                   2                   3
//! +-+-+-+-+-------+-+-------------+-------------------------------+
//! |F|R|R|R| opcode|M| length (7)  | length (16 or 64 bits), when  |
//! |I|S|S|S|  (4)  |A|             | the seven are 126 or 127      |
//! |N|V|V|V|       |S|             |                               |
//! | |1|2|3|       |K|             |                               |
//! +-+-+-+-+-------+-+-------------+-------------------------------+
//! | masking key (32), always from clients, never from servers     |
//! +---------------------------------------------------------------+
//! ```

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;
/// Payload of a control frame.
const CONTROL_BYTES_MAX: u64 = 125;

/// How a conversation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Close {
    /// RFC 6455 §7.4; none where the client gave none.
    pub(super) code: Option<u16>,
}

impl Close {
    pub(super) const NORMAL: Close = Close { code: Some(1000) };
    const BROKEN: Close = Close { code: Some(1002) };
}

/// What a client's bytes say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event<'a> {
    /// The next part of a message.
    Data(&'a [u8]),
    MessageEnd,
    Ping(Vec<u8>),
    /// The client is done, or broke a rule.
    Close(Close),
}

#[derive(Clone, Copy, Debug)]
struct Head {
    last: bool,
    opcode: u8,
    mask: [u8; 4],
    length: u64,
    /// Bytes of the payload that were read.
    at: u64,
}

/// Reads frames from pieces of any size.
#[derive(Debug, Default)]
pub(super) struct Parser {
    /// The beginning of a frame's head.
    partial: Vec<u8>,
    head: Option<Head>,
    /// Between the first and the last frame of a message.
    in_message: bool,
    /// The payload of a control frame.
    control: Vec<u8>,
}

impl Parser {
    /// The next event of `input`, which loses what was read. Nothing may be asked for behind a
    /// close.
    pub(super) fn next<'a>(&mut self, input: &mut &'a mut [u8]) -> Option<Event<'a>> {
        loop {
            let Some(mut head) = self.head else {
                match self.begin(input)? {
                    Ok(head) => self.head = Some(head),
                    Err(close) => return Some(Event::Close(close)),
                }
                continue;
            };
            let left = usize::try_from(head.length - head.at).unwrap_or(usize::MAX);
            let taken = std::mem::take(input);
            let (now, rest) = taken.split_at_mut(left.min(taken.len()));
            *input = rest;
            unmask(now, &head);
            head.at += now.len() as u64;
            self.head = (head.at < head.length).then_some(head);
            let ended = self.head.is_none();
            if head.opcode < CLOSE {
                if !now.is_empty() {
                    if ended {
                        // The end is told with the next call.
                        self.head = Some(head);
                    }
                    return Some(Event::Data(now));
                }
                if !ended {
                    return None;
                }
                if head.last {
                    self.in_message = false;
                    return Some(Event::MessageEnd);
                }
                continue;
            }
            self.control.extend_from_slice(now);
            if !ended {
                return None;
            }
            let payload = std::mem::take(&mut self.control);
            match head.opcode {
                PING => return Some(Event::Ping(payload)),
                PONG => {}
                _ => {
                    let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                    return Some(Event::Close(Close { code }));
                }
            }
        }
    }

    /// Reads a head; none while it is incomplete.
    fn begin(&mut self, input: &mut &mut [u8]) -> Option<Result<Head, Close>> {
        loop {
            if let Some(outcome) = self.parse_head() {
                self.partial.clear();
                return Some(outcome);
            }
            let taken = std::mem::take(input);
            let (first, rest) = taken.split_first_mut()?;
            self.partial.push(*first);
            *input = rest;
        }
    }

    fn parse_head(&mut self) -> Option<Result<Head, Close>> {
        let (&[first, second], rest) = self.partial.split_first_chunk()?;
        let opcode = first & 0x0f;
        let last = first & FINAL != 0;
        let short = u64::from(second & 0x7f);
        let sound = match opcode {
            CONTINUATION => self.in_message,
            TEXT | BINARY => !self.in_message,
            CLOSE | PING | PONG => last && short <= CONTROL_BYTES_MAX,
            _ => false,
        };
        // Reserved bits mean extensions, and none was agreed on.
        if !sound || first & 0x70 != 0 || second & MASKED == 0 {
            return Some(Err(Close::BROKEN));
        }
        let (length, rest) = match short {
            126 => {
                let (length, rest) = rest.split_first_chunk()?;
                (u64::from(u16::from_be_bytes(*length)), rest)
            }
            127 => {
                let (length, rest) = rest.split_first_chunk()?;
                (u64::from_be_bytes(*length), rest)
            }
            _ => (short, rest),
        };
        if length >> 63 != 0 {
            return Some(Err(Close::BROKEN));
        }
        let mask = *rest.first_chunk()?;
        if opcode < CLOSE {
            self.in_message = true;
        }
        Some(Ok(Head {
            last,
            opcode,
            mask,
            length,
            at: 0,
        }))
    }
}

fn unmask(payload: &mut [u8], head: &Head) {
    let turn = (head.at % 4) as usize;
    let keys = head.mask.iter().cycle().skip(turn);
    for (byte, key) in payload.iter_mut().zip(keys) {
        *byte ^= key;
    }
}

/// Appends a frame of a text message.
pub(super) fn text(payload: &[u8], first: bool, last: bool, out: &mut Vec<u8>) {
    let opcode = if first { TEXT } else { CONTINUATION };
    put(opcode, last, payload, out);
}

pub(super) fn pong(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put(PONG, true, payload, &mut out);
    out
}

pub(super) fn close(code: Option<u16>) -> Vec<u8> {
    let mut out = Vec::new();
    let payload = code.map(u16::to_be_bytes);
    put(
        CLOSE,
        true,
        payload.as_ref().map_or(&[], |code| &code[..]),
        &mut out,
    );
    out
}

fn put(opcode: u8, last: bool, payload: &[u8], out: &mut Vec<u8>) {
    out.push(opcode | if last { FINAL } else { 0 });
    match payload.len() {
        length @ 0..126 => out.push(length as u8),
        length @ 126..0x1_0000 => {
            out.push(126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests;
