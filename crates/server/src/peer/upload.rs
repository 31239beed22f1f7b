//! Bodies of requests, read whole, within what all of them may hold together.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::time::{Instant, timeout_at};

use super::Net;

/// What all bodies may hold together beyond [`FREE_BYTES`] each, in pieces of [`PIECE_BYTES`].
pub(super) const PIECES_MAX: usize = 128;
/// The unit of the bound.
const PIECE_BYTES: usize = 1 << 20;
/// What a body may hold in any case; votes and acknowledgements have less.
const FREE_BYTES: usize = 64 << 10;

/// Time without a byte after which a body is given up, and with it its room.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Time for a body, as in etcd: bytes that trickle hold room too.
const WHOLE_MAX: Duration = Duration::from_secs(300);

/// Why a body was not read.
#[derive(Debug)]
pub(super) enum ReadError {
    /// Too many large bodies at a time.
    NoRoom,
    /// Longer than what is asked for can be.
    TooLong,
    /// It did not come to its end, or not in time.
    Broken,
}

/// Reads a body of `bytes_max` at most to its end.
///
/// # Errors
/// The connection broke, or bodies are too large or too slow.
pub(super) async fn read(
    net: &Net,
    mut body: Incoming,
    bytes_max: usize,
) -> Result<Bytes, ReadError> {
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(ReadError::TooLong);
    }
    let until = Instant::now() + WHOLE_MAX;
    let mut read = BytesMut::new();
    let mut room = Vec::new();
    loop {
        let silent = until.min(Instant::now() + SILENCE_MAX);
        let frame = timeout_at(silent, body.frame()).await;
        let Some(frame) = frame.map_err(|_| ReadError::Broken)? else {
            return Ok(read.freeze());
        };
        let Ok(data) = frame.map_err(|_| ReadError::Broken)?.into_data() else {
            continue;
        };
        if read.len() + data.len() > bytes_max {
            return Err(ReadError::TooLong);
        }
        let wanted = (read.len() + data.len()).saturating_sub(FREE_BYTES);
        while room.len() * PIECE_BYTES < wanted {
            let piece = net.uploads.try_acquire().map_err(|_| ReadError::NoRoom)?;
            room.push(piece);
        }
        read.extend_from_slice(&data);
    }
}
