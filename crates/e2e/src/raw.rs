//! gRPC calls with bodies as bytes, by a client that shares no code with ours.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use tonic::body::Body;
use tonic::client::{Grpc, GrpcService};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::tokio_stream::{self, StreamExt};
use tonic::codegen::{Body as HttpBody, StdError};
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// Longest wait for an answer.
const LIMIT: Duration = Duration::from_secs(20);

/// A connection to one member.
#[derive(Clone)]
pub struct Connection {
    transport: Transport,
}

#[derive(Clone)]
enum Transport {
    Plain(Box<Endpoint>, Channel),
    /// With certificates: tonic's transport is built without them.
    Secure(Box<client::Config>),
}

/// How a method takes its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Unary,
    /// One request, many answers.
    Answers,
    /// Many requests, many answers.
    Both,
}

impl Connection {
    /// A connection that is made by the first call.
    ///
    /// # Panics
    /// Never: a socket address makes a URL.
    #[must_use]
    pub fn to(address: SocketAddr) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .expect("a socket address makes a URL")
            .timeout(LIMIT);
        Self {
            transport: Transport::Plain(Box::new(endpoint.clone()), endpoint.connect_lazy()),
        }
    }

    /// The same over TLS; each call has a connection of its own.
    #[must_use]
    pub fn secure(config: client::Config) -> Self {
        Self {
            transport: Transport::Secure(Box::new(config)),
        }
    }

    /// Calls `path` (`package.Service/Method`) with an encoded message.
    ///
    /// # Errors
    /// The status of the server, or of the connection.
    pub async fn call(
        &self,
        path: &str,
        metadata: &[(String, String)],
        body: Bytes,
    ) -> Result<Bytes, Status> {
        let answer = self.first(path, Kind::Unary, metadata, body).await?;
        answer.ok_or_else(|| Status::internal("no message"))
    }

    /// The first message that `path` answers to one message, or none when it ends without. A
    /// stream has a connection of its own, which goes with it.
    ///
    /// # Errors
    /// The status of the server, or of the connection.
    pub async fn first(
        &self,
        path: &str,
        kind: Kind,
        metadata: &[(String, String)],
        body: Bytes,
    ) -> Result<Option<Bytes>, Status> {
        match &self.transport {
            Transport::Plain(endpoint, channel) => {
                let channel = match kind {
                    Kind::Unary => channel.clone(),
                    Kind::Answers | Kind::Both => endpoint.connect_lazy(),
                };
                first(Grpc::new(channel), path, kind, metadata, body).await
            }
            Transport::Secure(config) => {
                let channel = client::Channel::new(config)
                    .map_err(|error| Status::internal(error.to_string()))?;
                let call = first(Grpc::new(channel), path, kind, metadata, body);
                tokio::time::timeout(LIMIT, call)
                    .await
                    .map_err(|_| Status::deadline_exceeded("no answer"))?
            }
        }
    }
}

async fn first<T>(
    grpc: Grpc<T>,
    path: &str,
    kind: Kind,
    metadata: &[(String, String)],
    body: Bytes,
) -> Result<Option<Bytes>, Status>
where
    T: GrpcService<Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: HttpBody + Send + 'static,
    <T::ResponseBody as HttpBody>::Error: Into<StdError> + Send,
{
    let path: PathAndQuery = format!("/{path}")
        .parse()
        .map_err(|_| Status::internal("no path"))?;
    let mut head = Request::new(());
    for (name, value) in metadata {
        let name = AsciiMetadataKey::from_bytes(name.as_bytes());
        let value = AsciiMetadataValue::try_from(value.as_bytes());
        let (Ok(name), Ok(value)) = (name, value) else {
            return Err(Status::internal("no metadata"));
        };
        head.metadata_mut().insert(name, value);
    }
    let mut grpc = grpc.max_decoding_message_size(usize::MAX);
    grpc.ready().await.map_err(|error| {
        let error: StdError = error.into();
        Status::unavailable(error.to_string())
    })?;
    let mut answers = match kind {
        Kind::Unary => {
            let answer = grpc.unary(head.map(|()| body), path, Unparsed).await?;
            return Ok(Some(answer.into_inner()));
        }
        Kind::Answers => {
            let request = head.map(|()| body);
            let answer = grpc.server_streaming(request, path, Unparsed).await?;
            answer.into_inner()
        }
        Kind::Both => {
            let goes_on = tokio_stream::once(body).chain(tokio_stream::pending());
            let request = head.map(|()| goes_on);
            grpc.streaming(request, path, Unparsed).await?.into_inner()
        }
    };
    tokio::time::timeout(LIMIT, answers.message())
        .await
        .map_err(|_| Status::deadline_exceeded("no answer"))?
}

/// Bodies pass through as they are.
#[derive(Clone, Copy)]
struct Unparsed;

impl Codec for Unparsed {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Unparsed {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for Unparsed {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, body: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(body.copy_to_bytes(body.remaining())))
    }
}
