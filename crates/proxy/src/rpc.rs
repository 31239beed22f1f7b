//! gRPC calls that the proxy answers itself: framing and status are tonic's.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use prost::Message;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::codegen::tokio_stream::Stream;
use tonic::codegen::{BoxFuture, Service};
use tonic::server::Grpc;
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;

use crate::below::Caller;
use crate::pass;

/// The largest request that is taken, in bytes: gRPC's default, which etcd's proxy has too.
const REQUEST_BYTES_MAX: usize = 4 << 20;

/// A function as tonic's service.
struct Handler<F>(Option<F>, Caller);

impl<F, Q, A, T> Service<tonic::Request<Q>> for Handler<F>
where
    F: FnOnce(Caller, Q) -> T,
    T: Future<Output = Result<A, Status>> + Send + 'static,
{
    type Response = tonic::Response<A>;
    type Error = Status;
    type Future = BoxFuture<Self::Response, Status>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: tonic::Request<Q>) -> Self::Future {
        let handler = self.0.take().expect("tonic calls a service once a request");
        let answer = handler(self.1.clone(), request.into_inner());
        Box::pin(async move { answer.await.map(tonic::Response::new) })
    }
}

fn grpc<Q, A>() -> Grpc<ProstCodec<A, Q>>
where
    Q: Message + Default + Send + 'static,
    A: Message + Send + 'static,
{
    Grpc::new(ProstCodec::default())
        .accept_compressed(CompressionEncoding::Gzip)
        // What it says of too large requests is not gRPC's text; they do not get so far, unless
        // they become so large only when they are unpacked.
        .max_decoding_message_size(REQUEST_BYTES_MAX)
        .max_encoding_message_size(usize::MAX)
}

/// Answers a call of one request and one answer.
pub async fn unary<Q, A, F, T>(request: Request<Body>, handler: F) -> Response<Body>
where
    Q: Message + Default + Send + 'static,
    A: Message + Send + 'static,
    F: FnOnce(Caller, Q) -> T,
    T: Future<Output = Result<A, Status>> + Send + 'static,
{
    let caller = Caller::of(request.headers());
    let handler = Handler(Some(handler), caller);
    let request = pass::limited(request, REQUEST_BYTES_MAX);
    grpc().unary(handler, request).await
}

/// The answers of a call that streams.
pub type Answers<A> = Pin<Box<dyn Stream<Item = Result<A, Status>> + Send>>;

/// Answers a call that streams both ways.
pub async fn streaming<Q, A, F, T>(request: Request<Body>, handler: F) -> Response<Body>
where
    Q: Message + Default + Send + 'static,
    A: Message + Send + 'static,
    F: FnOnce(Caller, Streaming<Q>) -> T + Send,
    T: Future<Output = Result<Answers<A>, Status>> + Send + 'static,
{
    let caller = Caller::of(request.headers());
    let handler = Handler(Some(handler), caller);
    let request = pass::limited(request, REQUEST_BYTES_MAX);
    grpc().streaming(handler, request).await
}

#[cfg(test)]
mod tests {
    use api::pb::etcdserverpb::{RangeRequest, RangeResponse};
    use tonic::codec::EncodeBody;
    use tonic::codegen::tokio_stream;

    use super::*;

    /// What a call with a packed key of so many bytes comes to.
    async fn packed(bytes: usize) -> tonic::Code {
        let message = RangeRequest {
            key: vec![0; bytes].into(),
            ..RangeRequest::default()
        };
        let body = EncodeBody::new_client(
            tonic_prost::ProstEncoder::<RangeRequest>::default(),
            tokio_stream::once(Ok(message)),
            Some(CompressionEncoding::Gzip),
            None,
        );
        let request = Request::builder()
            .header("grpc-encoding", "gzip")
            .body(Body::new(body))
            .unwrap();
        let handler = |_, _: RangeRequest| async { Ok(RangeResponse::default()) };
        let answer = unary(request, handler).await;
        let status = answer.headers().get("grpc-status");
        status.map_or(tonic::Code::Ok, |it| tonic::Code::from_bytes(it.as_bytes()))
    }

    #[tokio::test]
    async fn what_is_unpacked_has_the_same_limit() {
        assert_eq!(packed(REQUEST_BYTES_MAX / 2).await, tonic::Code::Ok);
        let refusal = packed(REQUEST_BYTES_MAX * 2).await;
        assert_eq!(refusal, tonic::Code::ResourceExhausted);
    }
}
