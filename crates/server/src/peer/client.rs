//! Requests to other members: one HTTP/1.1 connection each, kept while it works.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::request::Builder;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::socket::Dialer;
use crate::config::Url;

/// A request's body.
pub(super) type Upload = UnsyncBoxBody<Bytes, io::Error>;

/// Longest answer that is read whole, in bytes.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// A body that is one piece.
pub(super) fn whole(bytes: impl Into<Bytes>) -> Upload {
    http_body_util::Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// Why a request found no answer.
#[derive(Debug)]
pub(super) enum Error {
    Dial(io::Error),
    Http(hyper::Error),
    /// The answer is longer than anything that is waited for.
    TooLong,
    TimedOut,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Dial(error) => error.fmt(f),
            Error::Http(error) => match error.source() {
                Some(source) => write!(f, "{error}: {source}"),
                None => error.fmt(f),
            },
            Error::TooLong => f.write_str("the answer is too long"),
            Error::TimedOut => f.write_str("no answer in time"),
        }
    }
}

impl StdError for Error {}

impl From<hyper::Error> for Error {
    fn from(error: hyper::Error) -> Error {
        Error::Http(error)
    }
}

/// An answer that was read whole.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: http::HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    /// The body as text, without the line end that Go appends to errors.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim_end().to_owned()
    }
}

/// The head of a request to `path` at `url`.
pub(super) fn head(method: Method, url: &Url, path: &str) -> Builder {
    let host = match url.scheme().is_unix() {
        true => "localhost",
        false => url.address(),
    };
    Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::HOST, host)
}

/// A connection to one URL.
pub(super) struct Client {
    dialer: Arc<Dialer>,
    open: Option<(Url, SendRequest<Upload>)>,
}

impl Client {
    pub(super) fn new(dialer: Arc<Dialer>) -> Client {
        Client { dialer, open: None }
    }

    /// Sends a request and gives the answer's head, with its body still to be read.
    ///
    /// # Errors
    /// The member cannot be reached or does not answer properly.
    pub(super) async fn send(
        &mut self,
        url: &Url,
        request: Request<Upload>,
    ) -> Result<http::Response<Incoming>, Error> {
        let mut sender = match self.open.take().filter(|(same, _)| same == url) {
            Some((_, mut sender)) => match sender.ready().await {
                Ok(()) => sender,
                Err(_) => connect(&self.dialer, url).await?,
            },
            None => connect(&self.dialer, url).await?,
        };
        let answer = sender.send_request(request).await?;
        self.open = Some((url.clone(), sender));
        Ok(answer)
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// As [`Client::send`], or the answer is too long or too late.
    pub(super) async fn ask(
        &mut self,
        url: &Url,
        request: Request<Upload>,
        limit: Duration,
    ) -> Result<Answer, Error> {
        let asked = timeout(limit, async {
            let (parts, body) = self.send(url, request).await?.into_parts();
            Ok(Answer {
                status: parts.status,
                headers: parts.headers,
                body: read_whole(body).await?,
            })
        });
        let answer = asked.await.unwrap_or(Err(Error::TimedOut));
        if answer.is_err() {
            self.open = None;
        }
        answer
    }
}

/// Reads an answer's body.
///
/// # Errors
/// The connection breaks, or the body is too long.
pub(super) async fn read_whole(mut body: Incoming) -> Result<Bytes, Error> {
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            if read.len() + data.len() > ANSWER_BYTES_MAX {
                return Err(Error::TooLong);
            }
            read.extend_from_slice(&data);
        }
    }
    Ok(read.freeze())
}

async fn connect(dialer: &Dialer, url: &Url) -> Result<SendRequest<Upload>, Error> {
    let socket = dialer.connect(url).await.map_err(Error::Dial)?;
    let (sender, connection) = http1::Builder::new()
        .title_case_headers(true)
        .handshake(TokioIo::new(socket))
        .await?;
    tokio::spawn(async move {
        // Whoever waits for an answer gets the error too.
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection to a member ended");
        }
    });
    Ok(sender)
}
