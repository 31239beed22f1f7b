//! As much of RFC 6455 as a client needs that talks text.

/// The headers that ask for a web socket.
pub(super) const HANDSHAKE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

const MASK: [u8; 4] = [0x5a, 0x17, 0xc3, 0x88];

/// What a server sent.
pub(super) enum Frame<'a> {
    /// Part of a message, and whether it is the last one.
    Text(&'a [u8], bool),
    Close,
    Other,
}

/// A whole message.
pub(super) fn text(payload: &[u8]) -> Vec<u8> {
    masked(0x81, payload)
}

/// The end of the conversation, in good order.
pub(super) fn close() -> Vec<u8> {
    masked(0x88, &1000_u16.to_be_bytes())
}

fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..126 => bytes.push(0x80 | length as u8),
        length @ 126..0x1_0000 => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
    bytes
}

/// The first frame of the bytes and its length; none while it is incomplete.
pub(super) fn parse(bytes: &[u8]) -> Option<(Frame<'_>, usize)> {
    let (&[first, second], rest) = bytes.split_first_chunk()?;
    let (length, head) = match second & 0x7f {
        126 => (usize::from(u16::from_be_bytes(*rest.first_chunk()?)), 4),
        127 => (u64::from_be_bytes(*rest.first_chunk()?) as usize, 10),
        length => (usize::from(length), 2),
    };
    let payload = bytes.get(head..head + length)?;
    let frame = match first & 0x0f {
        0..3 => Frame::Text(payload, first & 0x80 != 0),
        8 => Frame::Close,
        _ => Frame::Other,
    };
    Some((frame, head + length))
}
