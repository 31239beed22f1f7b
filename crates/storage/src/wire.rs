//! The protobuf wire format, as far as the log and the peers need it.
//!
//! Reading is bounds-checked and never allocates; writing appends to a buffer.

/// Why bytes are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("message ends inside a field")]
    Truncated,
    #[error("varint is longer than ten bytes or overflows 64 bits")]
    Varint,
    #[error("field number {0} is not allowed")]
    FieldNumber(u64),
    #[error("wire type {wire} is not allowed for field {field}")]
    WireType { field: u32, wire: u8 },
    #[error("field {field} has the unknown value {value}")]
    Value { field: u32, value: u64 },
    #[error("field {0} is missing")]
    Missing(u32),
}

/// The value of one field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

/// One field as it stands in the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    pub number: u32,
    pub value: Value<'a>,
}

impl<'a> Field<'a> {
    /// The value of an integer or boolean field.
    ///
    /// # Errors
    /// Fails when the field is not a varint.
    pub fn uint(&self) -> Result<u64, WireError> {
        match self.value {
            Value::Varint(n) => Ok(n),
            _ => Err(self.wrong_type()),
        }
    }

    /// The value of a string, byte string or message field.
    ///
    /// # Errors
    /// Fails when the field is not length-delimited.
    pub fn bytes(&self) -> Result<&'a [u8], WireError> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(self.wrong_type()),
        }
    }

    /// Adds the values of a repeated integer field, packed or not, to `list`.
    ///
    /// # Errors
    /// Fails when the field is neither a varint nor a packed run of varints.
    pub fn uints(&self, list: &mut Vec<u64>) -> Result<(), WireError> {
        match self.value {
            Value::Varint(n) => list.push(n),
            Value::Bytes(mut packed) => {
                while !packed.is_empty() {
                    list.push(take_varint(&mut packed)?);
                }
            }
            _ => return Err(self.wrong_type()),
        }
        Ok(())
    }

    fn wrong_type(&self) -> WireError {
        let wire = match self.value {
            Value::Varint(_) => 0,
            Value::Fixed64(_) => 1,
            Value::Bytes(_) => 2,
            Value::Fixed32(_) => 5,
        };
        WireError::WireType {
            field: self.number,
            wire,
        }
    }
}

/// The fields of a message in their order; ends after the first error.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Starts at the first byte of a message.
    #[must_use]
    pub fn new(message: &'a [u8]) -> Fields<'a> {
        Fields { rest: message }
    }

    /// What has not been read yet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn take(&mut self) -> Result<Field<'a>, WireError> {
        let tag = take_varint(&mut self.rest)?;
        let number = tag >> 3;
        if number == 0 || number > 0x1fff_ffff {
            return Err(WireError::FieldNumber(number));
        }
        let number = number as u32;
        let value = match (tag & 7) as u8 {
            0 => Value::Varint(take_varint(&mut self.rest)?),
            1 => Value::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => Value::Bytes(take_bytes(&mut self.rest)?),
            5 => Value::Fixed32(u32::from_le_bytes(self.array()?)),
            wire => {
                return Err(WireError::WireType {
                    field: number,
                    wire,
                });
            }
        };
        Ok(Field { number, value })
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.take();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

/// Takes one varint off the front of `src`.
///
/// # Errors
/// Fails when `src` ends inside it or when it does not fit 64 bits.
pub fn take_varint(src: &mut &[u8]) -> Result<u64, WireError> {
    let mut value = 0u64;
    for (i, &byte) in src.iter().enumerate().take(10) {
        let bits = u64::from(byte & 0x7f);
        if i == 9 && bits > 1 {
            return Err(WireError::Varint);
        }
        value |= bits << (7 * i);
        if byte < 0x80 {
            *src = &src[i + 1..];
            return Ok(value);
        }
    }
    Err(if src.len() < 10 {
        WireError::Truncated
    } else {
        WireError::Varint
    })
}

/// Takes a length and that many bytes off the front of `src`.
///
/// # Errors
/// Fails when `src` is shorter than the length says.
pub fn take_bytes<'a>(src: &mut &'a [u8]) -> Result<&'a [u8], WireError> {
    let len = usize::try_from(take_varint(src)?).map_err(|_| WireError::Truncated)?;
    let (bytes, rest) = src.split_at_checked(len).ok_or(WireError::Truncated)?;
    *src = rest;
    Ok(bytes)
}

/// How many bytes `value` takes as a varint: 1 to 10.
#[must_use]
pub fn varint_len(value: u64) -> usize {
    (70 - (value | 1).leading_zeros() as usize) / 7
}

/// Appends a varint.
pub fn put_varint(dst: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        dst.push(value as u8 | 0x80);
        value >>= 7;
    }
    dst.push(value as u8);
}

/// Appends an integer field, also when it is zero.
pub fn put_uint(dst: &mut Vec<u8>, field: u32, value: u64) {
    put_varint(dst, u64::from(field) << 3);
    put_varint(dst, value);
}

/// Appends a byte string or message field.
pub fn put_bytes(dst: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_varint(dst, u64::from(field) << 3 | 2);
    put_varint(dst, bytes.len() as u64);
    dst.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_take_as_many_bytes_as_said_and_read_back() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1u64 << shift) - 1, u64::MAX >> shift] {
                let mut bytes = Vec::new();
                put_varint(&mut bytes, value);
                assert_eq!(bytes.len(), varint_len(value), "{value}");
                let mut src = &bytes[..];
                assert_eq!(take_varint(&mut src), Ok(value));
                assert!(src.is_empty());
                assert_eq!(
                    take_varint(&mut &bytes[..bytes.len() - 1]),
                    Err(WireError::Truncated)
                );
            }
        }
    }

    #[test]
    fn overlong_input_is_an_error() {
        assert_eq!(take_varint(&mut &[0xff; 10][..]), Err(WireError::Varint));
        assert_eq!(take_varint(&mut &[0x80; 11][..]), Err(WireError::Varint));
        assert_eq!(take_bytes(&mut &[5, 1, 2][..]), Err(WireError::Truncated));
        let huge = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0,
        ];
        assert_eq!(take_bytes(&mut &huge[..]), Err(WireError::Truncated));
        assert_eq!(
            Fields::new(&[0, 0]).next(),
            Some(Err(WireError::FieldNumber(0)))
        );
        let group = Fields::new(&[0x0b]).next();
        assert_eq!(group, Some(Err(WireError::WireType { field: 1, wire: 3 })));
    }
}
