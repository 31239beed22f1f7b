//! Protobuf's wire format, as far as hot paths write it by hand.

/// Bytes that `n` takes as a varint.
#[must_use]
pub(crate) fn varint_len(n: u64) -> usize {
    (70 - (n | 1).leading_zeros() as usize) / 7
}

/// Appends `n` as a varint.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Appends an integer field, or nothing when it is 0. `field` is below 16.
pub(crate) fn put_int(out: &mut Vec<u8>, field: u8, n: u64) {
    if n != 0 {
        out.push(field << 3);
        put_varint(out, n);
    }
}

/// Bytes that [`put_int`] appends.
pub(crate) fn int_len(n: u64) -> usize {
    if n == 0 { 0 } else { 1 + varint_len(n) }
}

/// Appends the head of a length-delimited field of `len` bytes. `field` is below 16.
pub(crate) fn put_head(out: &mut Vec<u8>, field: u8, len: usize) {
    out.push(field << 3 | 2);
    put_varint(out, len as u64);
}

/// Appends a length-delimited field, also when it is empty. `field` is below 16.
pub(crate) fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    put_head(out, field, bytes.len());
    out.extend_from_slice(bytes);
}

/// Bytes of a length-delimited field below 16 with `len` bytes of content.
pub(crate) fn field_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

/// The content of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content<'a> {
    Int(u64),
    Bytes(&'a [u8]),
    /// A fixed-width number, which none of our messages has.
    Fixed,
}

/// Iterates over the fields of a message; yields `Err(())` once when the bytes are malformed.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut n = 0u64;
        for (i, &byte) in self.0.iter().take(10).enumerate() {
            n |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                self.0 = &self.0[i + 1..];
                return Some(n);
            }
        }
        None
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn field(&mut self) -> Option<(u64, Content<'a>)> {
        let tag = self.varint()?;
        let content = match tag & 7 {
            0 => Content::Int(self.varint()?),
            1 => self.take(8).map(|_| Content::Fixed)?,
            2 => {
                let len = usize::try_from(self.varint()?).ok()?;
                Content::Bytes(self.take(len)?)
            }
            5 => self.take(4).map(|_| Content::Fixed)?,
            _ => return None,
        };
        Some((tag >> 3, content))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Content<'a>), ()>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        match self.field() {
            Some(field) => Some(Ok(field)),
            None => {
                self.0 = &[];
                Some(Err(()))
            }
        }
    }
}
