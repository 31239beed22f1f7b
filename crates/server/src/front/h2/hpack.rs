//! Header decompression (RFC 7541) for requests: static and dynamic table, Huffman strings.
//!
//! Names are sorted into [`Name`] once, when an entry enters the dynamic table, and a `:path` is
//! resolved to its method then; a client that repeats its headers costs one table look-up a field.

use std::collections::VecDeque;

use bytes::Bytes;

use super::huffman;

#[cfg(test)]
mod tests;

/// The dynamic table size that we announce (the protocol's default, so no setting is sent).
pub(crate) const TABLE_BYTES_MAX: usize = 4096;
/// What an entry counts beyond its name and value (RFC 7541 §4.1).
const ENTRY_OVERHEAD: usize = 32;
/// A string buffer larger than this is given back after its block.
const SCRATCH_KEPT: usize = 1024;

/// The block is no valid HPACK: a connection error of type COMPRESSION_ERROR.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// The header names that a request's handling knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Method,
    Path,
    Scheme,
    Authority,
    /// A pseudo-header that no request may carry.
    UnknownPseudo,
    ContentType,
    ContentLength,
    Te,
    GrpcTimeout,
    GrpcEncoding,
    Token,
    Authorization,
    HasLeader,
    ClientApiVersion,
    Traceparent,
    GatewayAccept,
    /// Belongs to HTTP/1.1 connections and makes a request malformed (RFC 9113 §8.2.2).
    ConnectionSpecific,
    /// Upper case or octets that no name may have.
    Invalid,
    Other,
}

impl Name {
    pub(crate) fn of(name: &[u8]) -> Name {
        match name {
            b":method" => Name::Method,
            b":path" => Name::Path,
            b":scheme" => Name::Scheme,
            b":authority" => Name::Authority,
            b"content-type" => Name::ContentType,
            b"content-length" => Name::ContentLength,
            b"te" => Name::Te,
            b"grpc-timeout" => Name::GrpcTimeout,
            b"grpc-encoding" => Name::GrpcEncoding,
            b"token" => Name::Token,
            b"authorization" => Name::Authorization,
            b"hasleader" => Name::HasLeader,
            b"client-api-version" => Name::ClientApiVersion,
            b"traceparent" => Name::Traceparent,
            b"grpcgateway-accept" => Name::GatewayAccept,
            b"connection" | b"proxy-connection" | b"keep-alive" | b"transfer-encoding"
            | b"upgrade" => Name::ConnectionSpecific,
            [b':', ..] => Name::UnknownPseudo,
            [] => Name::Invalid,
            _ if name.iter().all(|&octet| is_name_octet(octet)) => Name::Other,
            _ => Name::Invalid,
        }
    }
}

/// RFC 9113 §8.2.1: no controls, space, upper case, colon, DEL or beyond.
fn is_name_octet(octet: u8) -> bool {
    octet > 0x20 && octet < 0x7f && !octet.is_ascii_uppercase() && octet != b':'
}

/// A value, borrowed from the block or shared with the dynamic table.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    Raw(&'a [u8]),
    Shared(&'a Bytes),
}

impl Value<'_> {
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Value::Raw(raw) => raw,
            Value::Shared(shared) => shared,
        }
    }

    pub(crate) fn to_bytes(self) -> Bytes {
        match self {
            Value::Raw(raw) => Bytes::copy_from_slice(raw),
            Value::Shared(shared) => shared.clone(),
        }
    }
}

/// One decoded header field.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field<'a> {
    pub(crate) kind: Name,
    pub(crate) name: Value<'a>,
    pub(crate) value: Value<'a>,
    /// For a `:path`: what [`Fields::resolve`] said about it.
    pub(crate) route: u16,
    /// The value has no octet that no value may have (RFC 9113 §8.2.1).
    pub(crate) clean: bool,
}

/// Who takes the fields of a block.
pub(crate) trait Fields {
    fn field(&mut self, field: Field<'_>);
    /// The method that a `:path` names, or a number of the implementer's choice for none.
    fn resolve(&self, path: &[u8]) -> u16;
}

struct Entry {
    kind: Name,
    route: u16,
    clean: bool,
    name: Bytes,
    value: Bytes,
}

impl Entry {
    fn size(&self) -> usize {
        self.name.len() + self.value.len() + ENTRY_OVERHEAD
    }
}

/// Where a string of the block was put.
#[derive(Clone, Copy)]
enum Text<'a> {
    Block(&'a [u8]),
    Scratch,
}

/// The state of one connection's decompression.
pub(crate) struct Decoder {
    /// Newest first.
    table: VecDeque<Entry>,
    table_bytes: usize,
    /// Set by the peer's size updates, at most [`TABLE_BYTES_MAX`].
    table_bytes_max: usize,
    name_scratch: Vec<u8>,
    value_scratch: Vec<u8>,
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Decoder {
            table: VecDeque::new(),
            table_bytes: 0,
            table_bytes_max: TABLE_BYTES_MAX,
            name_scratch: Vec::new(),
            value_scratch: Vec::new(),
        }
    }

    /// Decodes a whole header block.
    pub(crate) fn decode(
        &mut self,
        block: &[u8],
        fields: &mut impl Fields,
    ) -> Result<(), Malformed> {
        let mut input = block;
        let mut fields_seen = false;
        while let Some(&first) = input.first() {
            if first & 0x80 != 0 {
                let index = integer(&mut input, 7)?;
                self.indexed(index, fields)?;
            } else if first & 0x40 != 0 {
                let index = integer(&mut input, 6)?;
                self.literal(&mut input, index, true, fields)?;
            } else if first & 0x20 != 0 {
                if fields_seen {
                    return Err(Malformed);
                }
                let bytes = integer(&mut input, 5)?;
                self.resize(bytes)?;
                continue;
            } else {
                let index = integer(&mut input, 4)?;
                self.literal(&mut input, index, false, fields)?;
            }
            fields_seen = true;
        }
        if self.name_scratch.capacity() + self.value_scratch.capacity() > SCRATCH_KEPT {
            self.name_scratch = Vec::new();
            self.value_scratch = Vec::new();
        }
        Ok(())
    }

    fn indexed(&self, index: usize, fields: &mut impl Fields) -> Result<(), Malformed> {
        if let Some(entry) = static_entry(index) {
            let route = if entry.0 == Name::Path {
                fields.resolve(entry.2)
            } else {
                0
            };
            fields.field(Field {
                kind: entry.0,
                name: Value::Raw(entry.1),
                value: Value::Raw(entry.2),
                route,
                clean: true,
            });
            return Ok(());
        }
        let entry = self.dynamic_entry(index)?;
        fields.field(Field {
            kind: entry.kind,
            name: Value::Shared(&entry.name),
            value: Value::Shared(&entry.value),
            route: entry.route,
            clean: entry.clean,
        });
        Ok(())
    }

    fn dynamic_entry(&self, index: usize) -> Result<&Entry, Malformed> {
        index
            .checked_sub(STATIC_TABLE.len() + 1)
            .and_then(|position| self.table.get(position))
            .ok_or(Malformed)
    }

    fn literal(
        &mut self,
        input: &mut &[u8],
        index: usize,
        insert: bool,
        fields: &mut impl Fields,
    ) -> Result<(), Malformed> {
        if index != 0 {
            let value = string(input, &mut self.value_scratch)?;
            let value = self.value_bytes(value);
            let (kind, name) = match static_entry(index) {
                Some(entry) => (entry.0, Bytes::from_static(entry.1)),
                None => {
                    let entry = self.dynamic_entry(index)?;
                    (entry.kind, entry.name.clone())
                }
            };
            self.deliver(
                Entry {
                    kind,
                    route: 0,
                    clean: false,
                    name,
                    value,
                },
                insert,
                fields,
            );
            return Ok(());
        }
        let name = string(input, &mut self.name_scratch)?;
        let value = string(input, &mut self.value_scratch)?;
        let value = self.value_bytes(value);
        let name = match name {
            Text::Block(raw) => raw,
            Text::Scratch => &self.name_scratch,
        };
        let entry = Entry {
            kind: Name::of(name),
            route: 0,
            clean: false,
            name: Bytes::copy_from_slice(name),
            value,
        };
        self.deliver(entry, insert, fields);
        Ok(())
    }

    fn value_bytes(&self, value: Text<'_>) -> Bytes {
        match value {
            Text::Block(raw) => Bytes::copy_from_slice(raw),
            Text::Scratch => Bytes::copy_from_slice(&self.value_scratch),
        }
    }

    fn deliver(&mut self, mut entry: Entry, insert: bool, fields: &mut impl Fields) {
        if entry.kind == Name::Path {
            entry.route = fields.resolve(&entry.value);
        }
        entry.clean = !entry
            .value
            .iter()
            .any(|octet| matches!(octet, 0 | b'\r' | b'\n'));
        fields.field(Field {
            kind: entry.kind,
            name: Value::Shared(&entry.name),
            value: Value::Shared(&entry.value),
            route: entry.route,
            clean: entry.clean,
        });
        if insert {
            self.insert(entry);
        }
    }

    fn insert(&mut self, entry: Entry) {
        let size = entry.size();
        self.evict(self.table_bytes_max.saturating_sub(size));
        if size <= self.table_bytes_max {
            self.table_bytes += size;
            self.table.push_front(entry);
        }
    }

    fn evict(&mut self, bytes_max: usize) {
        while self.table_bytes > bytes_max {
            let Some(entry) = self.table.pop_back() else {
                break;
            };
            self.table_bytes -= entry.size();
        }
    }

    fn resize(&mut self, bytes: usize) -> Result<(), Malformed> {
        if bytes > TABLE_BYTES_MAX {
            return Err(Malformed);
        }
        self.table_bytes_max = bytes;
        self.evict(bytes);
        Ok(())
    }
}

/// An integer with an N-bit prefix (RFC 7541 §5.1), at most 2^28 here.
fn integer(input: &mut &[u8], prefix_bits: u32) -> Result<usize, Malformed> {
    let (&first, mut rest) = input.split_first().ok_or(Malformed)?;
    let mask = (1usize << prefix_bits) - 1;
    let mut value = first as usize & mask;
    if value == mask {
        let mut shift = 0;
        loop {
            let (&octet, tail) = rest.split_first().ok_or(Malformed)?;
            rest = tail;
            value += ((octet & 0x7f) as usize) << shift;
            if octet & 0x80 == 0 {
                break;
            }
            shift += 7;
            if shift > 21 {
                return Err(Malformed);
            }
        }
    }
    *input = rest;
    Ok(value)
}

/// A string literal (RFC 7541 §5.2), Huffman-coded ones decoded into `scratch`.
fn string<'a>(input: &mut &'a [u8], scratch: &mut Vec<u8>) -> Result<Text<'a>, Malformed> {
    let coded = input.first().ok_or(Malformed)? & 0x80 != 0;
    let length = integer(input, 7)?;
    let (raw, rest) = input.split_at_checked(length).ok_or(Malformed)?;
    *input = rest;
    if !coded {
        return Ok(Text::Block(raw));
    }
    scratch.clear();
    huffman::decode(raw, scratch).ok_or(Malformed)?;
    Ok(Text::Scratch)
}

type StaticEntry = (Name, &'static [u8], &'static [u8]);

fn static_entry(index: usize) -> Option<&'static StaticEntry> {
    STATIC_TABLE.get(index.wrapping_sub(1))
}

/// RFC 7541 appendix A.
#[rustfmt::skip]
static STATIC_TABLE: [StaticEntry; 61] = [
    (Name::Authority, b":authority", b""),
    (Name::Method, b":method", b"GET"),
    (Name::Method, b":method", b"POST"),
    (Name::Path, b":path", b"/"),
    (Name::Path, b":path", b"/index.html"),
    (Name::Scheme, b":scheme", b"http"),
    (Name::Scheme, b":scheme", b"https"),
    (Name::UnknownPseudo, b":status", b"200"),
    (Name::UnknownPseudo, b":status", b"204"),
    (Name::UnknownPseudo, b":status", b"206"),
    (Name::UnknownPseudo, b":status", b"304"),
    (Name::UnknownPseudo, b":status", b"400"),
    (Name::UnknownPseudo, b":status", b"404"),
    (Name::UnknownPseudo, b":status", b"500"),
    (Name::Other, b"accept-charset", b""),
    (Name::Other, b"accept-encoding", b"gzip, deflate"),
    (Name::Other, b"accept-language", b""),
    (Name::Other, b"accept-ranges", b""),
    (Name::Other, b"accept", b""),
    (Name::Other, b"access-control-allow-origin", b""),
    (Name::Other, b"age", b""),
    (Name::Other, b"allow", b""),
    (Name::Authorization, b"authorization", b""),
    (Name::Other, b"cache-control", b""),
    (Name::Other, b"content-disposition", b""),
    (Name::Other, b"content-encoding", b""),
    (Name::Other, b"content-language", b""),
    (Name::ContentLength, b"content-length", b""),
    (Name::Other, b"content-location", b""),
    (Name::Other, b"content-range", b""),
    (Name::ContentType, b"content-type", b""),
    (Name::Other, b"cookie", b""),
    (Name::Other, b"date", b""),
    (Name::Other, b"etag", b""),
    (Name::Other, b"expect", b""),
    (Name::Other, b"expires", b""),
    (Name::Other, b"from", b""),
    (Name::Other, b"host", b""),
    (Name::Other, b"if-match", b""),
    (Name::Other, b"if-modified-since", b""),
    (Name::Other, b"if-none-match", b""),
    (Name::Other, b"if-range", b""),
    (Name::Other, b"if-unmodified-since", b""),
    (Name::Other, b"last-modified", b""),
    (Name::Other, b"link", b""),
    (Name::Other, b"location", b""),
    (Name::Other, b"max-forwards", b""),
    (Name::Other, b"proxy-authenticate", b""),
    (Name::Other, b"proxy-authorization", b""),
    (Name::Other, b"range", b""),
    (Name::Other, b"referer", b""),
    (Name::Other, b"refresh", b""),
    (Name::Other, b"retry-after", b""),
    (Name::Other, b"server", b""),
    (Name::Other, b"set-cookie", b""),
    (Name::Other, b"strict-transport-security", b""),
    (Name::ConnectionSpecific, b"transfer-encoding", b""),
    (Name::Other, b"user-agent", b""),
    (Name::Other, b"vary", b""),
    (Name::Other, b"via", b""),
    (Name::Other, b"www-authenticate", b""),
];
