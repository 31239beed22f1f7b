//! `etcdserverpb.KV`.

use std::time::Instant;

use api::pb::etcdserverpb as pb;
use api::{Status, validate};
use bytes::Bytes;
use state::{Authorised, RangeAnswer, Reply, Root, quota};

use super::pending::{Pending, Read, Waiting};
use super::{Services, decode, refused};
use crate::drive::entry;
use crate::drive::post::token;
use crate::drive::sweep::ToSweep;
use crate::front::{BodySource, Net};

/// An answer up to this many bytes is put together at once; a longer one is drawn in chunks as
/// the client takes it. Above the allocator's threshold for mappings (128 KiB) each answer would
/// cost a page fault for every 4 KiB, two fifths of the time of a range of 1,000 keys.
const WHOLE_BYTES_MAX: u64 = 64 << 10;
/// Size of such a chunk.
const CHUNK_BYTES: usize = 64 << 10;

impl Services {
    pub(super) fn range(
        &mut self,
        net: &mut Net,
        waiting: Waiting,
        message: Bytes,
    ) -> Result<(), Status> {
        let request: pb::RangeRequest = decode(message)?;
        validate::range(&request)?;
        let local = request.serializable;
        self.read(net, waiting, Read::Range(request), local);
        Ok(())
    }

    pub(super) fn serve_range(
        &mut self,
        net: &mut Net,
        waiting: &Waiting,
        request: pb::RangeRequest,
    ) -> Result<(), Status> {
        let request = self.authorise(waiting, request)?;
        let begin = Instant::now();
        let answer = self.shared.view.range(&request);
        let took = begin.elapsed();
        self.times.range(answer.is_ok(), took);
        let waited = net.now().saturating_duration_since(waiting.begun);
        let times = &mut self.times;
        times.request(waiting.rpc, answer.is_ok(), waited + took);
        let mut answer = answer.map_err(refused)?;
        self.shared.metrics.ranges.inc();
        self.scratch.clear();
        self.header().write(answer.revision(), &mut self.scratch);
        let length = self.scratch.len() as u64 + answer.encoded_len();
        if length > WHOLE_BYTES_MAX {
            let source = Chunks::new(self.scratch.clone(), answer);
            net.reply_body(waiting.call, length, Box::new(source));
            self.count_sent(waiting);
            self.note_slow(net, waiting, length);
            return Ok(());
        }
        while answer
            .write_chunk(&mut self.scratch, CHUNK_BYTES)
            .map_err(refused)?
        {}
        self.send_scratch(net, waiting);
        Ok(())
    }

    pub(super) fn put(&mut self, waiting: Waiting, message: Bytes) -> Result<(), Status> {
        let request: pb::PutRequest = decode(message.clone())?;
        validate::put(&request)?;
        self.check_space(quota::put_cost(&request))?;
        self.propose(waiting, entry::PUT, &message, Pending::Write)
    }

    pub(super) fn delete_range(&mut self, waiting: Waiting, message: Bytes) -> Result<(), Status> {
        let request: pb::DeleteRangeRequest = decode(message.clone())?;
        validate::delete_range(&request)?;
        self.propose(waiting, entry::DELETE_RANGE, &message, Pending::Write)
    }

    pub(super) fn txn(
        &mut self,
        net: &mut Net,
        waiting: Waiting,
        message: Bytes,
    ) -> Result<(), Status> {
        let request: pb::TxnRequest = decode(message.clone())?;
        validate::txn(&request, self.shared.limits.txn_ops_max)?;
        if state::is_read_only(&request) {
            let local = state::is_serializable(&request);
            self.read(net, waiting, Read::Txn(request), local);
            return Ok(());
        }
        self.check_space(quota::txn_cost(&request))?;
        self.propose(waiting, entry::TXN, &message, Pending::Write)
    }

    pub(super) fn serve_txn(
        &mut self,
        net: &mut Net,
        waiting: &Waiting,
        request: pb::TxnRequest,
    ) -> Result<(), Status> {
        let request = self.authorise(waiting, request)?;
        let reply = self.shared.view.txn(&request);
        self.times.read_txn(reply.is_ok(), waiting.begun.elapsed());
        let reply = reply.map_err(refused)?;
        self.send_reply(net, waiting, &reply);
        Ok(())
    }

    pub(super) fn compact(
        &mut self,
        _: &Authorised<Root>,
        waiting: Waiting,
        message: Bytes,
    ) -> Result<(), Status> {
        let request: pb::CompactionRequest = decode(message.clone())?;
        self.propose(waiting, entry::COMPACTION, &message, |waiting| {
            if request.physical {
                Pending::Compact(waiting, request.revision)
            } else {
                Pending::Write(waiting)
            }
        })
    }

    /// The compaction was accepted; its sender is answered when the deletions are committed.
    pub(super) fn await_compaction(&mut self, waiting: Waiting, revision: i64, reply: &Reply) {
        let mut answer = Vec::new();
        reply.encode(&self.header(), &mut answer);
        let slot = self.slots.insert(Pending::Answer(waiting));
        let token = token(self.thread, slot);
        self.shared.sweep.push(ToSweep::Await {
            revision,
            token,
            answer,
        });
    }

    /// Refuses what does not fit under the quota, and raises this member's alarm for it.
    pub(super) fn check_space(&mut self, cost: u64) -> Result<(), Status> {
        self.shared.view.check_space(cost).map_err(|error| {
            self.shared.raise_no_space();
            error.into()
        })
    }
}

/// A long answer on its way: the header first, then the keys as they are reached.
pub(super) struct Chunks {
    begin: Option<Vec<u8>>,
    answer: RangeAnswer,
    done: bool,
}

impl Chunks {
    /// `begin`, then the answer.
    pub(super) fn new(begin: Vec<u8>, answer: RangeAnswer) -> Chunks {
        Chunks {
            begin: Some(begin),
            answer,
            done: false,
        }
    }
}

impl BodySource for Chunks {
    fn next_chunk(&mut self, bytes_max: usize) -> Result<Option<Bytes>, Status> {
        if self.done {
            return Ok(None);
        }
        let mut chunk = self.begin.take().unwrap_or_default();
        let room = bytes_max.saturating_sub(chunk.len()).clamp(1, CHUNK_BYTES);
        // The last record may reach beyond the room.
        chunk.reserve(room + 1024);
        // A step that passed nothing but deleted keys leaves the chunk empty, which would be
        // taken for the end.
        loop {
            let more = self.answer.write_chunk(&mut chunk, room).map_err(refused)?;
            self.done = !more;
            if self.done || !chunk.is_empty() {
                break;
            }
        }
        Ok(Some(chunk.into()))
    }
}
