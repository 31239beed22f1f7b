//! The messages of one call, from the JSON of its request.

use std::future::poll_fn;
use std::time::Duration;

use api::{Code, Status};
use bytes::{BufMut, Bytes};
use h2::SendStream;

use super::encode::encode;
use super::schema::Message;
use super::split::{Fault, Splitter};
use crate::http::RequestBody;

/// How long the body of a request with one message may stay silent.
const SILENCE_MAX: Duration = Duration::from_secs(90);
/// What is read behind the message and dropped, to keep the connection usable.
const SURPLUS_BYTES_MAX: usize = 1 << 20;

impl From<Fault> for Status {
    fn from(fault: Fault) -> Status {
        match fault {
            Fault::Syntax(text) => invalid(text),
            Fault::TooLong(bytes_max) => {
                let text = format!("JSON of a request longer than {bytes_max} bytes");
                Status::new(Code::ResourceExhausted, text)
            }
            Fault::Crowded => {
                let text = "too many bytes of incomplete requests";
                Status::new(Code::ResourceExhausted, text)
            }
        }
    }
}

fn invalid(text: impl Into<std::borrow::Cow<'static, str>>) -> Status {
    Status::new(Code::InvalidArgument, text)
}

/// The one message of a request, with its gRPC prefix. A body without any is an empty message;
/// what follows the message does not count.
///
/// # Errors
/// For the client.
pub(super) async fn single(
    body: &mut RequestBody,
    mut splitter: Splitter,
    message: &Message,
) -> Result<Bytes, Status> {
    loop {
        let value = match next(body).await? {
            Some(bytes) => splitter.feed(&mut &bytes[..])?,
            None => match splitter.finish()? {
                Some(value) => Some(value),
                None => return frame(b"{}", message).map_err(invalid),
            },
        };
        if let Some(value) = value {
            drop(splitter);
            if !body.is_messages() {
                drain(body).await?;
            }
            return frame(&value, message).map_err(invalid);
        }
    }
}

async fn next(body: &mut RequestBody) -> Result<Option<Bytes>, Status> {
    match tokio::time::timeout(SILENCE_MAX, body.bytes()).await {
        Ok(next) => next.transpose().map_err(|error| invalid(error.to_string())),
        Err(_) => {
            let text = "the rest of the request did not come";
            Err(Status::new(Code::DeadlineExceeded, text))
        }
    }
}

async fn drain(body: &mut RequestBody) -> Result<(), Status> {
    let mut surplus_bytes = 0;
    while surplus_bytes <= SURPLUS_BYTES_MAX
        && let Some(bytes) = next(body).await?
    {
        surplus_bytes += bytes.len();
    }
    Ok(())
}

/// A message behind its gRPC prefix.
fn frame(json: &[u8], message: &Message) -> Result<Bytes, String> {
    let mut framed = vec![0; 5];
    encode(json, message, &mut framed)?;
    let length = u32::try_from(framed.len() - 5).map_err(|_| "a message of 4 GiB")?;
    (&mut framed[1..5]).put_u32(length);
    Ok(framed.into())
}

/// Sends messages as they come until the body ends; then, or at a value that is no message, the
/// call is told that no more will come, as Go's gateway does.
///
/// Gives back why the call must end.
pub(super) async fn stream(
    mut body: RequestBody,
    mut splitter: Splitter,
    message: &'static Message,
    mut send: SendStream<Bytes>,
) -> Option<Status> {
    let fault = loop {
        let value = match body.bytes().await {
            Some(Ok(bytes)) => match pieces(&bytes, &mut splitter, message, &mut send).await {
                Ok(()) => continue,
                Err(fault) => break fault,
            },
            // The client is gone, and its connection will say so.
            Some(Err(_)) => break None,
            None => splitter.finish(),
        };
        if let Ok(Some(value)) = value
            && let Ok(framed) = frame(&value, message)
        {
            transmit(framed, &mut send).await;
        }
        break None;
    };
    // A call that is over needs no end from us.
    let _ = send.send_data(Bytes::new(), true);
    fault
}

/// Sends the messages of the next bytes; an error ends the upload, and the call if it says why.
async fn pieces(
    mut bytes: &[u8],
    splitter: &mut Splitter,
    message: &'static Message,
    send: &mut SendStream<Bytes>,
) -> Result<(), Option<Status>> {
    while !bytes.is_empty() {
        match splitter.feed(&mut bytes) {
            Ok(None) => {}
            Ok(Some(value)) => {
                let framed = frame(&value, message).map_err(|_| None)?;
                if !transmit(framed, send).await {
                    return Err(None);
                }
            }
            Err(Fault::Syntax(_)) => return Err(None),
            Err(fault) => return Err(Some(fault.into())),
        }
    }
    Ok(())
}

/// Sends as the service takes it; false when the call is over.
async fn transmit(mut framed: Bytes, send: &mut SendStream<Bytes>) -> bool {
    while !framed.is_empty() {
        send.reserve_capacity(framed.len());
        let capacity = match poll_fn(|cx| send.poll_capacity(cx)).await {
            Some(Ok(capacity)) => capacity.min(framed.len()),
            _ => return false,
        };
        if send.send_data(framed.split_to(capacity), false).is_err() {
            return false;
        }
    }
    true
}
