//! Header compression for responses: two entries in the client's dynamic table, no more.
//!
//! `content-type: application/grpc` and `grpc-status: 0` are inserted on first use and are one
//! byte each from then on. Everything else is written literally and never indexed. A client that
//! lowers its table below the default size gets literals only.

use api::Status;

use super::super::grpc;

/// Both entries together count 105 bytes, so they stay for ever in a table of the default size.
const TABLE_BYTES_NEEDED: u32 = 4096;
const STATIC_ENTRIES: u8 = 61;
/// Longest `grpc-message`, bytes before encoding; texts may quote what the client sent.
const MESSAGE_BYTES_MAX: usize = 4096;

#[derive(Default)]
pub(super) struct Encoder {
    /// Position of the entry in order of insertion.
    content_type: Option<u8>,
    status_ok: Option<u8>,
    inserted: u8,
    plain: bool,
    /// A size update to zero must open the next block.
    resize_due: bool,
}

impl Encoder {
    /// The client announced its table's size.
    pub(super) fn on_table_size(&mut self, bytes: u32) {
        if bytes < TABLE_BYTES_NEEDED && !self.plain {
            self.plain = true;
            self.resize_due = true;
            self.content_type = None;
            self.status_ok = None;
        }
    }

    /// Must begin every block.
    pub(super) fn begin(&mut self, out: &mut Vec<u8>) {
        if self.resize_due {
            self.resize_due = false;
            out.push(0x20);
        }
    }

    fn index(&self, position: u8) -> u8 {
        0x80 | (STATIC_ENTRIES + self.inserted - position)
    }

    fn insert(&mut self) -> Option<u8> {
        let position = self.inserted;
        self.inserted += 1;
        Some(position)
    }

    /// `:status: 200`, `content-type: application/grpc`.
    pub(super) fn grpc_head(&mut self, out: &mut Vec<u8>) {
        self.begin(out);
        out.push(0x88);
        self.grpc_content_type(out);
    }

    pub(super) fn grpc_content_type(&mut self, out: &mut Vec<u8>) {
        const VALUE: &[u8] = b"\x10application/grpc";
        if let Some(position) = self.content_type {
            out.push(self.index(position));
        } else if self.plain {
            out.extend_from_slice(&[0x0f, 0x10]);
            out.extend_from_slice(VALUE);
        } else {
            out.push(0x5f);
            out.extend_from_slice(VALUE);
            self.content_type = self.insert();
        }
    }

    /// `grpc-status: 0`.
    pub(super) fn status_ok(&mut self, out: &mut Vec<u8>) {
        const FIELD: &[u8] = b"\x0bgrpc-status\x010";
        if let Some(position) = self.status_ok {
            out.push(self.index(position));
        } else if self.plain {
            out.push(0x00);
            out.extend_from_slice(FIELD);
        } else {
            out.push(0x40);
            out.extend_from_slice(FIELD);
            self.status_ok = self.insert();
        }
    }

    /// `grpc-status` and, unless empty, `grpc-message`.
    pub(super) fn status(&mut self, status: &Status, out: &mut Vec<u8>) {
        let code = status.code as u32;
        if code == 0 {
            self.status_ok(out);
            return;
        }
        literal(b"grpc-status", code.to_string().as_bytes(), out);
        if !status.message.is_empty() {
            let mut end = status.message.len().min(MESSAGE_BYTES_MAX);
            while !status.message.is_char_boundary(end) {
                end -= 1;
            }
            let mut encoded = Vec::new();
            grpc::percent_encode(&status.message[..end], &mut encoded);
            literal(b"grpc-message", &encoded, out);
        }
    }
}

/// `:status` with any value.
pub(super) fn http_status(code: u16, out: &mut Vec<u8>) {
    if code == 200 {
        out.push(0x88);
        return;
    }
    out.push(0x08);
    string(code.to_string().as_bytes(), out);
}

/// A field that is not to be indexed.
pub(super) fn literal(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.push(0x00);
    string(name, out);
    string(value, out);
}

fn string(text: &[u8], out: &mut Vec<u8>) {
    let mut length = text.len();
    if length < 127 {
        out.push(length as u8);
    } else {
        out.push(127);
        length -= 127;
        while length >= 128 {
            out.push(length as u8 & 0x7f | 0x80);
            length >>= 7;
        }
        out.push(length as u8);
    }
    out.extend_from_slice(text);
}
