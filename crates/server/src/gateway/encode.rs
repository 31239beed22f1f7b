//! A JSON value as the protobuf encoding of a message, by the rules and in the words of Go's
//! `protojson` with unknown fields ignored.

mod reader;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::schema::{Enum, Field, Kind, Message};
use reader::{Lexeme, Reader, Token};

/// Messages in one another. The services look no deeper either.
const DEPTH_MAX: usize = 100;

const DECODING: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_allow_trailing_bits(true)
    .with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, DECODING);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, DECODING);

/// Appends the encoding of the message that `json`, one complete value, describes.
///
/// # Errors
/// The text for the client.
pub(super) fn encode(json: &[u8], message: &Message, out: &mut Vec<u8>) -> Result<(), String> {
    let mut encoder = Encoder {
        reader: Reader::new(json),
        depth: 0,
    };
    encoder.message(message, out)
}

struct Encoder<'a> {
    reader: Reader<'a>,
    depth: usize,
}

impl Encoder<'_> {
    fn message(&mut self, message: &Message, out: &mut Vec<u8>) -> Result<(), String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err("proto: exceeded max recursion depth".into());
        }
        let open = self.reader.token()?;
        if open.kind != Token::Object {
            return Err(self.reader.unexpected(open));
        }
        // No message has as many fields as this has bits.
        let mut seen = 0_u64;
        let mut oneofs: Vec<&str> = Vec::new();
        while let Some((name, at)) = self.reader.key()? {
            let Some((index, field)) = message.by_name(&name) else {
                self.reader.skip()?;
                continue;
            };
            if seen & (1 << index) != 0 {
                return Err(self
                    .reader
                    .fault(at, &format!("duplicate field {}", at.raw)));
            }
            seen |= 1 << index;
            if self.reader.take_null()? {
                continue;
            }
            if let Some(oneof) = field.oneof {
                if oneofs.contains(&oneof) {
                    let why = format!("error parsing {}, oneof {oneof} is already set", at.raw);
                    return Err(self.reader.fault(at, &why));
                }
                oneofs.push(oneof);
            }
            match field.repeated {
                true => self.list(field, out)?,
                false => self.value(field, field.oneof.is_some(), out)?,
            }
        }
        self.depth -= 1;
        Ok(())
    }

    fn list(&mut self, field: &Field, out: &mut Vec<u8>) -> Result<(), String> {
        let open = self.reader.token()?;
        if open.kind != Token::Array {
            return Err(self.reader.unexpected(open));
        }
        while self.reader.item()? {
            self.value(field, true, out)?;
        }
        Ok(())
    }

    /// One value; a default is left out unless it is `explicit`.
    fn value(&mut self, field: &Field, explicit: bool, out: &mut Vec<u8>) -> Result<(), String> {
        if let Kind::Message(inner) = field.kind {
            put_key(out, field);
            return self.delimited(inner, out);
        }
        let token = self.reader.token()?;
        let invalid = |encoder: &Self| {
            let (kind, name) = (field.kind.name(), field.json);
            let why = format!("invalid value for {kind} field {name}: {}", token.raw);
            encoder.reader.fault(token, &why)
        };
        match field.kind {
            Kind::String | Kind::Bytes => {
                if token.kind != Token::Text {
                    return Err(invalid(self));
                }
                let text = self.reader.text(token)?;
                let bytes = match field.kind {
                    Kind::Bytes => base64(&text).ok_or_else(|| invalid(self))?,
                    _ => text.into_owned().into_bytes(),
                };
                if explicit || !bytes.is_empty() {
                    put_key(out, field);
                    put_varint(out, bytes.len() as u64);
                    out.extend_from_slice(&bytes);
                }
            }
            _ => match self.number(field.kind, token)? {
                Number::Invalid => return Err(invalid(self)),
                // An unknown name of an enum is as good as none.
                Number::Ignored => {}
                Number::Value(number) if explicit || number != 0 => {
                    put_key(out, field);
                    put_varint(out, number);
                }
                Number::Value(_) => {}
            },
        }
        Ok(())
    }

    fn delimited(&mut self, message: &Message, out: &mut Vec<u8>) -> Result<(), String> {
        let begin = out.len();
        self.message(message, out)?;
        let mut prefix = Vec::new();
        put_varint(&mut prefix, (out.len() - begin) as u64);
        out.splice(begin..begin, prefix);
        Ok(())
    }

    /// What a varint field gets of a token.
    fn number(&self, kind: Kind, token: Lexeme<'_>) -> Result<Number, String> {
        let text;
        let digits = match (kind, token.kind) {
            (Kind::Bool, Token::Word) if token.raw != "null" => {
                return Ok(Number::Value(u64::from(token.raw == "true")));
            }
            (Kind::Bool, _) => return Ok(Number::Invalid),
            (_, Token::Number) => token.raw,
            (Kind::Enum(one), Token::Text) => return Ok(named(one, &self.reader.text(token)?)),
            (_, Token::Text) => {
                text = self.reader.text(token)?;
                match reader::number_in(&text) {
                    Some(digits) => digits,
                    None => return Ok(Number::Invalid),
                }
            }
            _ => return Ok(Number::Invalid),
        };
        let Some(value) = reader::integer(digits) else {
            return Ok(Number::Invalid);
        };
        let (low, high) = match kind {
            Kind::Enum(_) => (i128::from(i32::MIN), i128::from(i32::MAX)),
            Kind::Uint32 => (0, i128::from(u32::MAX)),
            Kind::Uint64 => (0, i128::from(u64::MAX)),
            _ => (i128::from(i64::MIN), i128::from(i64::MAX)),
        };
        Ok(match (low..=high).contains(&value) {
            // Negative numbers are two's complement of 64 bits, whatever the kind.
            true => Number::Value(value as u64),
            false => Number::Invalid,
        })
    }
}

enum Number {
    Value(u64),
    Ignored,
    Invalid,
}

fn named(one: &Enum, name: &str) -> Number {
    match one.number(name) {
        Some(number) => Number::Value(i64::from(number) as u64),
        None => Number::Ignored,
    }
}

/// Go's reading: the alphabet by what occurs, padding as the length demands, line ends ignored.
fn base64(text: &str) -> Option<Vec<u8>> {
    let engine = match text.contains(['-', '_']) {
        true => &URL_SAFE,
        false => &STANDARD,
    };
    if !text.len().is_multiple_of(4) && text.contains('=') {
        return None;
    }
    match text.contains(['\r', '\n']) {
        true => engine.decode(text.replace(['\r', '\n'], "")).ok(),
        false => engine.decode(text).ok(),
    }
}

fn put_key(out: &mut Vec<u8>, field: &Field) {
    let wire = if field.kind.is_delimited() { 2 } else { 0 };
    put_varint(out, u64::from(field.number) << 3 | wire);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests;
