//! One connection of the load generator, which keeps a fixed number of operations outstanding.
//!
//! An operation is one unary call, or several one after the other, or one message and its answer
//! on a stream that stays open. A call succeeded when its stream delivered a message before it
//! ended, since an error answer of gRPC has no body.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::histogram::Histogram;
use super::request::Requests;
use super::transport::{Arrived, LARGEST_WINDOW, Transport};

/// A gRPC message begins with a flag and its length.
pub(super) const PREFIX: usize = 5;

/// What the operations of all connections came to.
pub(crate) struct Outcomes {
    pub(crate) latencies: Histogram,
    pub(crate) completed: u64,
    pub(crate) failed: u64,
}

impl Outcomes {
    pub(crate) fn new() -> Self {
        Self {
            latencies: Histogram::new(),
            completed: 0,
            failed: 0,
        }
    }

    pub(crate) fn clear(&mut self) {
        self.latencies.clear();
        self.completed = 0;
        self.failed = 0;
    }
}

/// What a client wants done, and how far it is.
#[derive(Clone, Copy)]
struct Operation {
    number: u64,
    step: usize,
    /// Nanoseconds of the loop's clock.
    started: u64,
}

/// A stream with an operation under way, or an open one that waits for the next.
struct Call {
    operation: Operation,
    answer: Answer,
    /// What the peer takes on this stream.
    window: i64,
}

/// The part of an answer that has arrived.
#[derive(Default)]
struct Answer {
    bytes: usize,
    prefix: [u8; PREFIX],
    tail: [u8; 2],
}

impl Answer {
    /// Moves into the message and returns what follows it.
    fn take<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let wanted = match self.bytes {
            have @ 0..PREFIX => PREFIX - have,
            have => PREFIX + self.message_len() - have,
        };
        let (part, rest) = bytes.split_at(bytes.len().min(wanted));
        for (at, byte) in (self.bytes..PREFIX).zip(part) {
            self.prefix[at] = *byte;
        }
        for byte in &part[part.len().saturating_sub(2)..] {
            self.tail = [self.tail[1], *byte];
        }
        self.bytes += part.len();
        rest
    }

    fn message_len(&self) -> usize {
        let [_, length @ ..] = self.prefix;
        u32::from_be_bytes(length) as usize
    }

    fn is_whole(&self) -> bool {
        self.bytes >= PREFIX && self.bytes == PREFIX + self.message_len()
    }
}

pub(crate) struct Connection {
    pub(super) transport: Transport,
    streams: Streams,
}

struct Streams {
    /// In the order of their streams.
    calls: VecDeque<Option<Call>>,
    /// Stream id of the first of `calls`.
    oldest: u32,
    next: u32,
    /// Open streams without an operation.
    idle: Vec<u32>,
    /// Operations that wait for the peer's window.
    waiting: VecDeque<Operation>,
    /// Steps whose paths are in the peer's header table.
    introduced: Vec<usize>,
    outstanding: usize,
}

impl Connection {
    /// Connects and sends the preface.
    pub(crate) fn open(address: SocketAddr) -> std::io::Result<Self> {
        Ok(Self {
            transport: Transport::open(address, LARGEST_WINDOW)?,
            streams: Streams {
                calls: VecDeque::new(),
                oldest: 1,
                next: 1,
                idle: Vec::new(),
                waiting: VecDeque::new(),
                introduced: Vec::new(),
                outstanding: 0,
            },
        })
    }

    pub(crate) fn outstanding(&self) -> usize {
        self.streams.outstanding
    }

    /// Starts `count` operations, and goes on with those that wait, as far as the peer's window
    /// lets them go.
    pub(crate) fn start(&mut self, count: usize, requests: &mut Requests, now: u64) {
        self.streams.outstanding += count;
        for _ in 0..count {
            let number = requests.next_number();
            self.streams.waiting.push_back(Operation {
                number,
                step: 0,
                started: now,
            });
        }
        while let Some(&operation) = self.streams.waiting.front() {
            if !self.streams.send(operation, requests, &mut self.transport) {
                return;
            }
            self.streams.waiting.pop_front();
        }
    }

    /// Reads once; returns how many operations ended.
    pub(crate) fn read(
        &mut self,
        buffer: &mut [u8],
        requests: &Requests,
        now: u64,
        outcomes: &mut Outcomes,
    ) -> std::io::Result<usize> {
        let before = self.streams.outstanding;
        let streams = &mut self.streams;
        self.transport
            .read(buffer, |stream, arrived| match arrived {
                Arrived::Data(bytes) => streams.on_data(stream, bytes, requests, now, outcomes),
                Arrived::End => streams.on_end(stream, requests, now, outcomes),
                Arrived::Reset => streams.settle(stream, false, requests, now, outcomes),
                Arrived::Credit(bytes) => {
                    if let Some(call) = streams.call(stream) {
                        call.window += i64::from(bytes);
                    }
                }
            })?;
        Ok(before - self.streams.outstanding)
    }
}

impl Streams {
    fn call(&mut self, stream: u32) -> Option<&mut Call> {
        let at = stream.checked_sub(self.oldest)? / 2;
        self.calls.get_mut(at as usize)?.as_mut()
    }

    /// False when the peer's window has no room for it.
    fn send(
        &mut self,
        operation: Operation,
        requests: &mut Requests,
        transport: &mut Transport,
    ) -> bool {
        let length = requests.body_len(operation.step) as i64;
        if transport.window < length {
            return false;
        }
        if let Some(&stream) = self.idle.last() {
            let call = self.call(stream).expect("an idle stream is open");
            if call.window < length {
                return false;
            }
            call.window -= length;
            call.operation = operation;
            call.answer = Answer::default();
            self.idle.pop();
            requests.append_body(&mut transport.out, stream, operation.step, operation.number);
        } else {
            let stream = self.next;
            self.next += 2;
            let step = operation.step;
            requests.append_headers(&mut transport.out, stream, step, &mut self.introduced);
            requests.append_body(&mut transport.out, stream, step, operation.number);
            self.calls.push_back(Some(Call {
                operation,
                answer: Answer::default(),
                window: transport.stream_window - length,
            }));
        }
        transport.window -= length;
        true
    }

    fn on_data(
        &mut self,
        stream: u32,
        mut bytes: &[u8],
        requests: &Requests,
        now: u64,
        outcomes: &mut Outcomes,
    ) {
        while !bytes.is_empty() {
            let Some(call) = self.call(stream) else {
                return;
            };
            bytes = call.answer.take(bytes);
            if requests.streams && call.answer.is_whole() {
                let succeeded = requests.is_answer(0, call.answer.bytes, call.answer.tail);
                let operation = call.operation;
                call.answer = Answer::default();
                self.idle.push(stream);
                self.outcome(operation, succeeded, now, outcomes);
            }
        }
    }

    fn on_end(&mut self, stream: u32, requests: &Requests, now: u64, outcomes: &mut Outcomes) {
        let Some(call) = self.call(stream) else {
            return;
        };
        let answer = &call.answer;
        let succeeded =
            answer.is_whole() && requests.is_answer(call.operation.step, answer.bytes, answer.tail);
        self.settle(stream, succeeded, requests, now, outcomes);
    }

    /// A stream is over; its operation too, unless it has another step.
    fn settle(
        &mut self,
        stream: u32,
        succeeded: bool,
        requests: &Requests,
        now: u64,
        outcomes: &mut Outcomes,
    ) {
        let Some(call) = self.call(stream) else {
            return;
        };
        let mut operation = call.operation;
        let at = (stream - self.oldest) / 2;
        self.calls[at as usize] = None;
        while let Some(None) = self.calls.front() {
            self.calls.pop_front();
            self.oldest += 2;
        }
        operation.step += 1;
        if succeeded && operation.step < requests.steps() {
            self.waiting.push_back(operation);
            return;
        }
        self.outcome(operation, succeeded, now, outcomes);
    }

    fn outcome(
        &mut self,
        operation: Operation,
        succeeded: bool,
        now: u64,
        outcomes: &mut Outcomes,
    ) {
        self.outstanding -= 1;
        if succeeded {
            outcomes.completed += 1;
            outcomes.latencies.record(now - operation.started);
        } else {
            outcomes.failed += 1;
        }
    }
}

#[cfg(test)]
mod tests;
