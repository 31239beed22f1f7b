//! The thread that sends spans to the collector: batches over one HTTP/2 connection, which is
//! made anew when it broke. A batch that cannot be sent is lost.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use api::Code;
use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use http::header::{CONTENT_TYPE, TE};
use http::{HeaderValue, Method, Request, Uri};
use prost::Message;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::Ended;
use super::otlp::{
    EXPORT, ExportTraceServiceRequest, KIND_SERVER, Resource, ResourceSpans, STATUS_ERROR, Scope,
    ScopeSpans, Span, SpanStatus, number, text,
};
use crate::config;

/// Spans of one batch.
const BATCH_SPANS: usize = 512;
/// Longest time for which a span waits for company.
const BATCH_DELAY: Duration = Duration::from_secs(5);
/// Bound of one export.
const EXPORT_LIMIT: Duration = Duration::from_secs(10);
/// Time between two warnings of a collector that takes nothing.
const WARNING_PAUSE: Duration = Duration::from_secs(60);
/// The name of what makes the spans.
const SCOPE: &str = "quorate/server";

pub(super) struct Exporter {
    address: String,
    resource: Resource,
    lost: Arc<AtomicU64>,
    sender: Option<SendRequest<Bytes>>,
    warned: Option<Instant>,
}

impl Exporter {
    pub(super) fn new(settings: &config::Tracing, lost: Arc<AtomicU64>) -> Exporter {
        let mut attributes = vec![text("service.name", &settings.service)];
        if !settings.instance.is_empty() {
            attributes.push(text("service.instance.id", &settings.instance));
        }
        Exporter {
            address: settings.address.clone(),
            resource: Resource { attributes },
            lost,
            sender: None,
            warned: None,
        }
    }

    /// Runs until nobody makes spans any more.
    pub(super) fn run(mut self, spans: &Receiver<Ended>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => {
                tracing::warn!(%error, "traces are not exported");
                return;
            }
        };
        let mut batch = Vec::new();
        let mut due: Option<Instant> = None;
        loop {
            let now = Instant::now();
            let wait = due.map_or(BATCH_DELAY, |due| due.saturating_duration_since(now));
            match spans.recv_timeout(wait) {
                Ok(span) => {
                    batch.push(span);
                    due.get_or_insert(now + BATCH_DELAY);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    self.export(&runtime, &mut batch);
                    return;
                }
            }
            let is_due = due.is_some_and(|due| due <= Instant::now());
            if is_due || batch.len() >= BATCH_SPANS {
                self.export(&runtime, &mut batch);
                due = None;
            }
        }
    }

    fn export(&mut self, runtime: &Runtime, batch: &mut Vec<Ended>) {
        if batch.is_empty() {
            return;
        }
        let request = request(&self.resource, batch);
        batch.clear();
        let sent = runtime.block_on(async {
            let sent = timeout(EXPORT_LIMIT, self.send(&request)).await;
            sent.unwrap_or_else(|_| Err("no answer in time".into()))
        });
        if let Err(error) = sent {
            self.sender = None;
            let spans = request.resource_spans.iter().flat_map(|of| &of.scope_spans);
            let spans: usize = spans.map(|of| of.spans.len()).sum();
            self.lost.fetch_add(spans as u64, Relaxed);
            self.warn(&error);
        }
    }

    /// One warning a minute: a collector may be away for long.
    fn warn(&mut self, error: &str) {
        let quiet = self.warned.is_some_and(|at| at.elapsed() < WARNING_PAUSE);
        if !quiet {
            self.warned = Some(Instant::now());
            let lost = self.lost.swap(0, Relaxed);
            let address = self.address.as_str();
            tracing::warn!(error, address, lost, "failed to export traces");
        }
    }

    async fn send(&mut self, request: &ExportTraceServiceRequest) -> Result<(), String> {
        let broken = |error: h2::Error| error.to_string();
        let sender = match self.sender.take() {
            Some(sender) => sender.ready().await.ok(),
            None => None,
        };
        let mut sender = match sender {
            Some(sender) => sender,
            None => {
                let made = self.connect().await?;
                made.ready().await.map_err(broken)?
            }
        };
        let (answer, mut body) = sender
            .send_request(head(&self.address)?, false)
            .map_err(broken)?;
        body.send_data(framed(request), true).map_err(broken)?;
        let answer = answer.await.map_err(broken)?;
        self.sender = Some(sender);
        let (parts, mut body) = answer.into_parts();
        let mut status = parts.headers.get("grpc-status").cloned();
        if status.is_none() {
            while let Some(data) = body.data().await {
                let data = data.map_err(broken)?;
                let released = body.flow_control().release_capacity(data.len());
                released.map_err(broken)?;
            }
            let trailers = body.trailers().await.map_err(broken)?;
            status = trailers.and_then(|trailers| trailers.get("grpc-status").cloned());
        }
        match status {
            Some(code) if code == "0" => Ok(()),
            Some(code) => Err(format!("the collector answered with status {code:?}")),
            None => Err(format!("the collector answered with HTTP {}", parts.status)),
        }
    }

    async fn connect(&self) -> Result<SendRequest<Bytes>, String> {
        let refused = |error: io::Error| error.to_string();
        let socket = TcpStream::connect(&self.address).await.map_err(refused)?;
        let made = h2::client::handshake(socket).await;
        let (sender, connection) = made.map_err(|error| error.to_string())?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to the collector of traces ended");
            }
        });
        Ok(sender)
    }
}

fn head(address: &str) -> Result<Request<()>, String> {
    let uri = Uri::builder()
        .scheme("http")
        .authority(address)
        .path_and_query(EXPORT)
        .build()
        .map_err(|error| error.to_string())?;
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    Ok(request)
}

/// gRPC's prefix, then the message.
fn framed(request: &ExportTraceServiceRequest) -> Bytes {
    let length = request.encoded_len();
    let mut frame = BytesMut::with_capacity(5 + length);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length).expect("a batch has few spans"));
    request.encode(&mut frame).expect("a buffer grows");
    frame.freeze()
}

fn request(resource: &Resource, batch: &[Ended]) -> ExportTraceServiceRequest {
    let scope = Scope {
        name: SCOPE.into(),
        version: api::version::QUORATE.into(),
    };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource.clone()),
            scope_spans: vec![ScopeSpans {
                scope: Some(scope),
                spans: batch.iter().map(span).collect(),
            }],
        }],
    }
}

fn span(ended: &Ended) -> Span {
    let name = ended.path.trim_start_matches('/');
    let (service, method) = name.split_once('/').unwrap_or((name, ""));
    let nanos = |time: SystemTime| {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    };
    let start = nanos(ended.began);
    let took = u64::try_from(ended.took.as_nanos()).unwrap_or(u64::MAX);
    let parent = ended.begun.parent;
    Span {
        trace_id: ended.begun.trace.to_be_bytes().to_vec(),
        span_id: ended.begun.id.to_be_bytes().to_vec(),
        parent_span_id: match parent {
            0 => Vec::new(),
            parent => parent.to_be_bytes().to_vec(),
        },
        name: name.to_owned(),
        kind: KIND_SERVER,
        start_time_unix_nano: start,
        end_time_unix_nano: start.saturating_add(took),
        attributes: vec![
            text("rpc.system", "grpc"),
            text("rpc.service", service),
            text("rpc.method", method),
            number("rpc.grpc.status_code", ended.code as i64),
        ],
        status: is_fault(ended.code).then(|| SpanStatus {
            message: String::new(),
            code: STATUS_ERROR,
        }),
    }
}

/// Whether the server is to blame, by OpenTelemetry's rule for gRPC: who asks for what is not
/// there, or goes away, gets no error.
fn is_fault(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}
