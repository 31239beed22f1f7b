//! Unary gRPC calls with bodies as bytes, by a client that shares no code with ours.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// Longest wait for an answer.
const LIMIT: Duration = Duration::from_secs(20);

/// A connection to one member.
#[derive(Clone)]
pub struct Connection {
    channel: Channel,
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
            channel: endpoint.connect_lazy(),
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
        let path: PathAndQuery = format!("/{path}")
            .parse()
            .map_err(|_| Status::internal("no path"))?;
        let mut request = Request::new(body);
        for (name, value) in metadata {
            let name = AsciiMetadataKey::from_bytes(name.as_bytes());
            let value = AsciiMetadataValue::try_from(value.as_bytes());
            let (Ok(name), Ok(value)) = (name, value) else {
                return Err(Status::internal("no metadata"));
            };
            request.metadata_mut().insert(name, value);
        }
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(usize::MAX);
        grpc.ready()
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(grpc.unary(request, path, Unparsed).await?.into_inner())
    }
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
