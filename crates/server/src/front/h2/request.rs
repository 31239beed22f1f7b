//! From header fields to a request: the rules of RFC 9113 §8 and of gRPC's request headers.

use api::{Code, Status};
use bytes::Bytes;

use super::super::call::{MethodKind, RequestHead};
use super::super::grpc;
use super::hpack::{Field, Fields, Name};
use super::routes::{NO_ROUTE, Routes};
use super::stream::{BridgeHead, Kind};

/// What counts beyond name and value against the header list limit (RFC 9113 §6.5.2).
const FIELD_OVERHEAD: usize = 32;

#[derive(Default, PartialEq, Eq)]
enum Content {
    #[default]
    Absent,
    Grpc,
    Other,
}

#[derive(Default)]
enum Encoding {
    #[default]
    Identity,
    Gzip,
    Unknown(Bytes),
}

/// Pseudo-headers that were seen, as bits.
const METHOD: u8 = 1;
const PATH: u8 = 2;
const SCHEME: u8 = 4;
const AUTHORITY: u8 = 8;

/// A header block while it is being decoded.
pub(crate) struct Draft<'a> {
    routes: &'a Routes,
    list_bytes_max: usize,
    bridging: bool,
    list_bytes: usize,
    seen: u8,
    fields_seen: bool,
    malformed: bool,
    post: bool,
    http_method: Option<Bytes>,
    /// Kept only when it is no known method.
    path: Option<Bytes>,
    content: Content,
    content_type: Option<Bytes>,
    encoding: Encoding,
    bad_timeout: Option<String>,
    content_length: Option<u64>,
    head: RequestHead,
    /// All fields, while the request may have to go to the bridge.
    fields: Vec<(Bytes, Bytes)>,
}

/// What a complete header block asks for.
pub(crate) enum Verdict {
    /// Reset the stream: the request breaks a rule of HTTP.
    Malformed,
    /// Reset the stream: the header list is longer than we said we take.
    TooLarge,
    /// Answer with this HTTP status and gRPC status.
    Refuse(u16, Status),
    Accept(Accepted),
}

pub(crate) struct Accepted {
    pub(crate) kind: Kind,
    pub(crate) head: RequestHead,
    pub(crate) gzip: bool,
    pub(crate) content_length: Option<u64>,
    pub(crate) bridge: Option<Box<BridgeHead>>,
}

impl Accepted {
    /// Bytes of header values that stay with the request.
    pub(crate) fn kept_bytes(&self) -> usize {
        let head = &self.head;
        let values = [
            &head.token,
            &head.authorization,
            &head.client_api_version,
            &head.traceparent,
        ];
        let values = values.into_iter().flatten().map(Bytes::len).sum::<usize>();
        let fields = self.bridge.iter().flat_map(|bridge| &bridge.fields);
        values
            + fields
                .map(|(name, value)| name.len() + value.len())
                .sum::<usize>()
    }
}

impl<'a> Draft<'a> {
    pub(crate) fn new(routes: &'a Routes, list_bytes_max: usize, bridging: bool) -> Self {
        Draft {
            routes,
            list_bytes_max,
            bridging,
            list_bytes: 0,
            seen: 0,
            fields_seen: false,
            malformed: false,
            post: false,
            http_method: None,
            path: None,
            content: Content::Absent,
            content_type: None,
            encoding: Encoding::Identity,
            bad_timeout: None,
            content_length: None,
            head: RequestHead {
                method: NO_ROUTE,
                ..RequestHead::default()
            },
            fields: Vec::new(),
        }
    }

    fn pseudo(&mut self, bit: u8) {
        if self.seen & bit != 0 || self.fields_seen {
            self.malformed = true;
        }
        self.seen |= bit;
    }

    fn pseudo_field(&mut self, field: &Field<'_>) {
        match field.kind {
            Name::Method => {
                self.pseudo(METHOD);
                self.post = field.value.as_slice() == b"POST";
                if !self.post {
                    self.http_method = Some(field.value.to_bytes());
                }
            }
            Name::Path => {
                self.pseudo(PATH);
                self.malformed |= field.value.as_slice().is_empty();
                self.head.method = field.route;
                if field.route == NO_ROUTE {
                    self.path = Some(field.value.to_bytes());
                }
            }
            Name::Scheme => self.pseudo(SCHEME),
            Name::Authority => self.pseudo(AUTHORITY),
            _ => self.malformed = true,
        }
    }

    fn regular_field(&mut self, field: &Field<'_>) {
        self.fields_seen = true;
        let value = field.value.as_slice();
        let head = &mut self.head;
        match field.kind {
            Name::ContentType => {
                if grpc::is_grpc_content_type(value) {
                    self.content = Content::Grpc;
                    self.fields = Vec::new();
                } else {
                    self.content = Content::Other;
                    self.content_type = Some(field.value.to_bytes());
                }
            }
            Name::ContentLength => {
                let length = std::str::from_utf8(value)
                    .ok()
                    .and_then(|text| text.parse().ok());
                self.malformed |= length.is_none();
                self.content_length = length;
            }
            Name::Te => self.malformed |= !value.eq_ignore_ascii_case(b"trailers"),
            Name::GrpcTimeout => match grpc::timeout(value) {
                Some(timeout) => head.timeout = Some(timeout),
                None => self.bad_timeout = Some(grpc::timeout_fault(value)),
            },
            Name::GrpcEncoding => {
                self.encoding = match value {
                    b"identity" | b"" => Encoding::Identity,
                    b"gzip" => Encoding::Gzip,
                    _ => Encoding::Unknown(field.value.to_bytes()),
                }
            }
            Name::Token => keep_first(&mut head.token, field),
            Name::Authorization => keep_first(&mut head.authorization, field),
            Name::ClientApiVersion => keep_first(&mut head.client_api_version, field),
            Name::Traceparent => keep_first(&mut head.traceparent, field),
            Name::HasLeader => head.needs_leader |= value == b"true",
            Name::GatewayAccept => head.from_gateway = true,
            Name::Other => {}
            _ => self.malformed = true,
        }
    }

    /// The verdict on the whole block.
    pub(crate) fn finish(mut self) -> Verdict {
        if self.list_bytes > self.list_bytes_max {
            return Verdict::TooLarge;
        }
        let required = METHOD | PATH | SCHEME;
        if self.malformed || self.seen & required != required {
            return Verdict::Malformed;
        }
        if self.content != Content::Grpc && self.bridging {
            return Verdict::Accept(Accepted {
                kind: Kind::Bridge,
                head: self.head,
                gzip: false,
                content_length: self.content_length,
                bridge: Some(Box::new(BridgeHead {
                    fields: std::mem::take(&mut self.fields),
                })),
            });
        }
        if let Some((http, status)) = self.refusal() {
            return Verdict::Refuse(http, status);
        }
        let kind = match self.routes.method(self.head.method).kind {
            MethodKind::Unary => Kind::Unary,
            MethodKind::Streaming => Kind::Streaming,
        };
        let gzip = matches!(self.encoding, Encoding::Gzip);
        let content_length = self.content_length;
        Verdict::Accept(Accepted {
            kind,
            head: self.head,
            gzip,
            content_length,
            bridge: None,
        })
    }

    /// In the order in which Go's server looks: content type, timeout, HTTP method, method name,
    /// encoding.
    fn refusal(&self) -> Option<(u16, Status)> {
        if self.content != Content::Grpc {
            let given = self.content_type.as_deref().unwrap_or_default();
            let given = String::from_utf8_lossy(given);
            let text = format!("invalid gRPC request content-type {given:?}");
            return Some((415, Status::new(Code::InvalidArgument, text)));
        }
        if let Some(given) = &self.bad_timeout {
            let text = format!("malformed grpc-timeout: {given}");
            return Some((400, Status::new(Code::Internal, text)));
        }
        if !self.post {
            let given = self.http_method.as_deref().unwrap_or_default();
            let given = String::from_utf8_lossy(given);
            let text =
                format!("Received a HEADERS frame with :method {given:?} which should be POST");
            return Some((405, Status::new(Code::Internal, text)));
        }
        if self.head.method == NO_ROUTE {
            let path = self.path.as_deref().unwrap_or_default();
            return Some((200, self.routes.refusal(path)));
        }
        if let Encoding::Unknown(given) = &self.encoding {
            let given = String::from_utf8_lossy(given);
            let text = format!("grpc: Decompressor is not installed for grpc-encoding {given:?}");
            return Some((200, Status::new(Code::Unimplemented, text)));
        }
        None
    }
}

fn keep_first(kept: &mut Option<Bytes>, field: &Field<'_>) {
    if kept.is_none() {
        *kept = Some(field.value.to_bytes());
    }
}

impl Fields for Draft<'_> {
    fn field(&mut self, field: Field<'_>) {
        let (name, value) = (field.name.as_slice(), field.value.as_slice());
        self.list_bytes += name.len() + value.len() + FIELD_OVERHEAD;
        if self.list_bytes > self.list_bytes_max {
            return;
        }
        if self.bridging && self.content != Content::Grpc {
            self.fields
                .push((field.name.to_bytes(), field.value.to_bytes()));
        }
        match field.kind {
            Name::Method | Name::Path | Name::Scheme | Name::Authority | Name::UnknownPseudo => {
                self.pseudo_field(&field);
            }
            _ => {
                self.malformed |= !field.clean;
                self.regular_field(&field);
            }
        }
    }

    fn resolve(&self, path: &[u8]) -> u16 {
        self.routes.find(path)
    }
}

/// Takes a block whose fields do not matter (trailers, refused streams) to keep the decoder in step.
pub(crate) struct Ignored<'a>(pub(crate) &'a Routes);

impl Fields for Ignored<'_> {
    fn field(&mut self, _: Field<'_>) {}
    fn resolve(&self, path: &[u8]) -> u16 {
        self.0.find(path)
    }
}
