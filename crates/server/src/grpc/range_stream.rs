//! `etcdserverpb.KV/RangeStream`: a Range in messages that merge into its answer.

use std::time::Instant;

use api::pb::etcdserverpb as pb;
use api::pb::etcdserverpb::range_request::{SortOrder, SortTarget};
use api::{Code, Status, validate};
use bytes::Bytes;
use state::{Header, RangeParts};

use super::kv::Chunks;
use super::pending::{Read, Waiting};
use super::{Services, decode, refused};
use crate::front::{Drawn, MessageSource, Net};

/// Keys of the first message.
const FIRST_KEYS: u64 = 10;

impl Services {
    pub(super) fn range_stream(
        &mut self,
        net: &mut Net,
        waiting: Waiting,
        message: Bytes,
    ) -> Result<(), Status> {
        let request: pb::RangeRequest = decode(message)?;
        validate::range(&request)?;
        let in_key_order = request.sort_order == SortOrder::None as i32
            || request.sort_order == SortOrder::Ascend as i32
                && request.sort_target == SortTarget::Key as i32;
        if !in_key_order {
            let text = "RangeStream does not support custom sort orders";
            return Err(Status::new(Code::Unimplemented, text));
        }
        let is_filtered = request.min_mod_revision != 0
            || request.max_mod_revision != 0
            || request.min_create_revision != 0
            || request.max_create_revision != 0;
        if is_filtered {
            let text = "RangeStream does not support revision filters";
            return Err(Status::new(Code::Unimplemented, text));
        }
        let local = request.serializable;
        self.read(net, waiting, Read::RangeStream(request), local);
        Ok(())
    }

    pub(super) fn serve_range_stream(
        &mut self,
        net: &mut Net,
        waiting: &Waiting,
        request: pb::RangeRequest,
    ) -> Result<(), Status> {
        let request = self.authorise(waiting, request)?;
        let begin = Instant::now();
        let parts = self.shared.view.range_parts(&request);
        self.times.range(parts.is_ok(), begin.elapsed());
        let parts = parts.map_err(refused)?;
        self.shared.metrics.ranges.inc();
        let messages = Parts {
            parts,
            header: self.header(),
            keys: FIRST_KEYS,
            target_bytes: self.shared.limits.request_bytes_max as u64,
        };
        self.send_stream(net, waiting, messages);
        Ok(())
    }
}

/// The messages of one call.
struct Parts {
    parts: RangeParts,
    header: Header,
    /// Keys of the next message: twice as many as long as messages stay well below the target,
    /// half when they are far above it, as in etcd.
    keys: u64,
    target_bytes: u64,
}

impl MessageSource for Parts {
    fn next_message(&mut self) -> Result<Option<Drawn>, Status> {
        let bytes_max = self.target_bytes.saturating_mul(2);
        let next = self.parts.next_part(self.keys, bytes_max);
        let Some(part) = next.map_err(refused)? else {
            return Ok(None);
        };
        let mut response = Vec::new();
        if part.is_last {
            self.header.write(self.parts.revision(), &mut response);
        }
        let length = response.len() as u64 + part.answer.encoded_len();
        if length < self.target_bytes / 2 {
            self.keys = self.keys.saturating_mul(2);
        } else if length > bytes_max {
            self.keys = (self.keys / 2).max(1);
        }
        let mut begin = Vec::with_capacity(response.len() + 8);
        prost::encoding::encode_key(1, prost::encoding::WireType::LengthDelimited, &mut begin);
        prost::encoding::encode_varint(length, &mut begin);
        begin.extend_from_slice(&response);
        Ok(Some(Drawn {
            length: (begin.len() - response.len()) as u64 + length,
            content: Box::new(Chunks::new(begin, part.answer)),
        }))
    }
}
