//! Answers that are streams of messages drawn as the client takes them.

use std::sync::Arc;
use std::time::Instant;

use api::{Code, Status};

use super::Services;
use super::pending::Waiting;
use crate::drive::Shared;
use crate::front::{Drawn, MessageSource, Net};
use crate::metrics::Method as Meter;
use crate::trace::Begun;

impl Services {
    /// Answers a call with a stream, and counts what is sent of it.
    pub(super) fn send_stream(
        &self,
        net: &mut Net,
        waiting: &Waiting,
        messages: impl MessageSource + 'static,
    ) {
        let counted = Counted {
            messages,
            shared: Arc::clone(&self.shared),
            meter: waiting.meter,
            begun: waiting.begun,
            path: waiting.rpc.path(),
            span: waiting.span.as_deref().copied(),
            outcome: Code::Canceled,
        };
        net.reply_messages(waiting.call, Box::new(counted));
    }
}

/// A stream in the counters of its method; dropped before its end it was cancelled.
struct Counted<M> {
    messages: M,
    shared: Arc<Shared>,
    meter: Option<Meter>,
    begun: Instant,
    path: &'static str,
    span: Option<Begun>,
    outcome: Code,
}

impl<M: MessageSource> MessageSource for Counted<M> {
    fn next_message(&mut self) -> Result<Option<Drawn>, Status> {
        let next = self.messages.next_message();
        match &next {
            Ok(Some(_)) => {
                if let Some(meter) = self.meter {
                    self.shared.metrics.grpc.sent(meter, 1);
                }
            }
            Ok(None) => self.outcome = Code::Ok,
            Err(status) => self.outcome = status.code,
        }
        next
    }
}

impl<M> Drop for Counted<M> {
    fn drop(&mut self) {
        if let (Some(span), Some(tracer)) = (self.span, &self.shared.tracer) {
            tracer.end(span, self.path, self.begun, self.outcome);
        }
        if let Some(meter) = self.meter {
            let grpc = &self.shared.metrics.grpc;
            grpc.handled(meter, self.outcome, 1);
            grpc.took(meter, self.begun);
        }
    }
}
