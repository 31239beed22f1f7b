//! Bodies of requests, read whole, within what all of them may hold together.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::Net;

/// What all bodies may hold together beyond [`FREE_BYTES`] each, in pieces of [`PIECE_BYTES`].
pub(super) const PIECES_MAX: usize = 512;
/// The unit of the bound.
const PIECE_BYTES: usize = 1 << 20;
/// What a body may hold in any case; votes and acknowledgements have less.
const FREE_BYTES: usize = 64 << 10;

/// Why a body was not read.
#[derive(Debug)]
pub(super) enum ReadError {
    /// Too many large bodies at a time.
    NoRoom,
    Broken,
}

/// Reads a body to its end.
///
/// # Errors
/// The connection broke, or all bodies together are too large.
pub(super) async fn read(net: &Net, mut body: Incoming) -> Result<Bytes, ReadError> {
    let mut read = BytesMut::new();
    let mut room = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| ReadError::Broken)?.into_data() else {
            continue;
        };
        let wanted = (read.len() + data.len()).saturating_sub(FREE_BYTES);
        while room.len() * PIECE_BYTES < wanted {
            let piece = net.uploads.try_acquire().map_err(|_| ReadError::NoRoom)?;
            room.push(piece);
        }
        read.extend_from_slice(&data);
    }
    Ok(read.freeze())
}
