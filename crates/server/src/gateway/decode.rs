//! The protobuf encoding of a message as JSON, by the rules of Go's `protojson` with declared
//! names and without defaults.
//!
//! Fields come out in the order in which they lie in the message, which is that of their numbers
//! for everything that our services say. So a long answer can be converted while it arrives, and
//! takes no more memory than its longest field.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::schema::{Field, Kind, Message};

/// Messages in one another, as deep as requests may go.
const DEPTH_MAX: usize = 100;

/// What arrived is no encoding of the message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// How texts are escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// As little as JSON allows.
    Plain,
    /// As Go's `encoding/json`: safe inside HTML. Streams are written so.
    Html,
}

/// Converts one message whose encoding comes in pieces.
#[derive(Debug)]
pub(super) struct Converter {
    object: Object,
    /// The beginning of a field whose end has not come.
    pending: Vec<u8>,
}

impl Converter {
    pub(super) fn new(message: &'static Message, style: Style, out: &mut Vec<u8>) -> Converter {
        Converter {
            object: Object::begin(message, style, 0, out),
            pending: Vec::new(),
        }
    }

    /// Appends what the next bytes of the message say.
    pub(super) fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        if self.pending.is_empty() {
            let rest = self.object.fields(bytes, out)?;
            self.pending.extend_from_slice(rest);
            return Ok(());
        }
        let mut joined = std::mem::take(&mut self.pending);
        joined.extend_from_slice(bytes);
        let left = self.object.fields(&joined, out)?.len();
        joined.drain(..joined.len() - left);
        // What a long field took is not kept for the short ones behind it.
        self.pending = match joined.is_empty() {
            true => Vec::new(),
            false => joined,
        };
        Ok(())
    }

    /// The message is complete.
    pub(super) fn end(self, out: &mut Vec<u8>) -> Result<(), Malformed> {
        match self.pending.is_empty() {
            true => {
                self.object.end(out);
                Ok(())
            }
            false => Err(Malformed),
        }
    }
}

/// A JSON object that is being written.
#[derive(Debug)]
struct Object {
    message: &'static Message,
    style: Style,
    depth: usize,
    /// Fields that were written, as bits by index.
    written: u64,
    /// Index of the field whose array is open.
    array: Option<usize>,
}

/// The value of a field on the wire.
enum Wire<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// Of a width that no field of ours has.
    Foreign,
}

impl Object {
    fn begin(message: &'static Message, style: Style, depth: usize, out: &mut Vec<u8>) -> Object {
        out.push(b'{');
        Object {
            message,
            style,
            depth,
            written: 0,
            array: None,
        }
    }

    fn end(self, out: &mut Vec<u8>) {
        if self.array.is_some() {
            out.push(b']');
        }
        out.push(b'}');
    }

    /// Writes all fields that are complete; gives back the rest.
    fn fields<'a>(
        &mut self,
        mut input: &'a [u8],
        out: &mut Vec<u8>,
    ) -> Result<&'a [u8], Malformed> {
        while let Some((number, wire, rest)) = next_field(input)? {
            self.field(number, &wire, out)?;
            input = rest;
        }
        Ok(input)
    }

    fn field(&mut self, number: u32, wire: &Wire<'_>, out: &mut Vec<u8>) -> Result<(), Malformed> {
        let Some((index, field)) = self.message.by_number(number) else {
            return Ok(());
        };
        match wire {
            // Repeated numbers may come as one run.
            Wire::Bytes(packed) if field.repeated && !field.kind.is_delimited() => {
                let mut packed = *packed;
                while !packed.is_empty() {
                    let (value, rest) = varint(packed)?.ok_or(Malformed)?;
                    self.value(index, field, &Wire::Varint(value), out)?;
                    packed = rest;
                }
                Ok(())
            }
            Wire::Bytes(_) if field.kind.is_delimited() => self.value(index, field, wire, out),
            Wire::Varint(_) if !field.kind.is_delimited() => self.value(index, field, wire, out),
            _ => Ok(()),
        }
    }

    fn value(
        &mut self,
        index: usize,
        field: &'static Field,
        wire: &Wire<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Malformed> {
        if !field.repeated && field.oneof.is_none() && is_default(field.kind, wire) {
            return Ok(());
        }
        self.name(index, field, out)?;
        match wire {
            Wire::Varint(value) => number(field.kind, *value, out),
            Wire::Bytes(bytes) => match field.kind {
                Kind::Message(inner) => {
                    if self.depth >= DEPTH_MAX {
                        return Err(Malformed);
                    }
                    let mut object = Object::begin(inner, self.style, self.depth + 1, out);
                    if !object.fields(bytes, out)?.is_empty() {
                        return Err(Malformed);
                    }
                    object.end(out);
                }
                Kind::Bytes => base64(bytes, out),
                _ => text(&String::from_utf8_lossy(bytes), self.style, out),
            },
            Wire::Foreign => {}
        }
        Ok(())
    }

    /// What stands before a value: the name, unless the value goes on with an array.
    fn name(&mut self, index: usize, field: &Field, out: &mut Vec<u8>) -> Result<(), Malformed> {
        if self.array == Some(index) {
            out.push(b',');
            return Ok(());
        }
        if self.array.take().is_some() {
            out.push(b']');
        }
        // An object with the same name twice says nothing sure.
        if self.written & (1 << index) != 0 {
            return Err(Malformed);
        }
        if self.written != 0 {
            out.push(b',');
        }
        self.written |= 1 << index;
        out.push(b'"');
        out.extend_from_slice(field.name.as_bytes());
        out.extend_from_slice(b"\":");
        if field.repeated {
            self.array = Some(index);
            out.push(b'[');
        }
        Ok(())
    }
}

fn is_default(kind: Kind, wire: &Wire<'_>) -> bool {
    match wire {
        Wire::Varint(value) => *value == 0,
        Wire::Bytes(bytes) => bytes.is_empty() && !matches!(kind, Kind::Message(_)),
        Wire::Foreign => true,
    }
}

/// Field number, value and what follows; none while the field is incomplete.
type NextField<'a> = Option<(u32, Wire<'a>, &'a [u8])>;

fn next_field(input: &[u8]) -> Result<NextField<'_>, Malformed> {
    let Some((key, rest)) = varint(input)? else {
        return Ok(None);
    };
    let number = u32::try_from(key >> 3).map_err(|_| Malformed)?;
    let fixed = |width: usize| Ok(rest.get(width..).map(|rest| (number, Wire::Foreign, rest)));
    match key & 7 {
        0 => Ok(varint(rest)?.map(|(value, rest)| (number, Wire::Varint(value), rest))),
        1 => fixed(8),
        2 => {
            let Some((length, rest)) = varint(rest)? else {
                return Ok(None);
            };
            let length = usize::try_from(length).map_err(|_| Malformed)?;
            let split = rest.split_at_checked(length);
            Ok(split.map(|(bytes, rest)| (number, Wire::Bytes(bytes), rest)))
        }
        5 => fixed(4),
        _ => Err(Malformed),
    }
}

/// A varint and what follows; none while it is incomplete.
fn varint(input: &[u8]) -> Result<Option<(u64, &[u8])>, Malformed> {
    let mut value = 0_u64;
    for (index, byte) in input.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((value, &input[index + 1..])));
        }
    }
    match input.len() {
        0..10 => Ok(None),
        _ => Err(Malformed),
    }
}

fn number(kind: Kind, value: u64, out: &mut Vec<u8>) {
    let signed = value as i64;
    // Numbers of 64 bits stand in quotes: JavaScript has no such numbers.
    let shown = match kind {
        Kind::Bool => (value != 0).to_string(),
        Kind::Int64 => format!("\"{signed}\""),
        Kind::Uint64 => format!("\"{value}\""),
        Kind::Enum(one) => match one.name(signed as i32) {
            Some(name) => format!("\"{name}\""),
            None => (signed as i32).to_string(),
        },
        _ => (value as u32).to_string(),
    };
    out.extend_from_slice(shown.as_bytes());
}

fn base64(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let begin = out.len();
    out.resize(begin + bytes.len().div_ceil(3) * 4, 0);
    let length = STANDARD
        .encode_slice(bytes, &mut out[begin..])
        .expect("four characters hold three bytes");
    out.truncate(begin + length);
    out.push(b'"');
}

/// Appends a JSON string.
pub(super) fn text(text: &str, style: Style, out: &mut Vec<u8>) {
    out.push(b'"');
    for character in text.chars() {
        let html =
            style == Style::Html && matches!(character, '<' | '>' | '&' | '\u{2028}' | '\u{2029}');
        match character {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\u{8}' => out.extend_from_slice(b"\\b"),
            '\u{c}' => out.extend_from_slice(b"\\f"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            _ if html || character < ' ' => {
                out.extend_from_slice(format!("\\u{:04x}", u32::from(character)).as_bytes());
            }
            _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests;
