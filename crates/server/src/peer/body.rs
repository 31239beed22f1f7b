//! The endless body of a stream: what waits for the member that asked, and a sign of life.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use node::peer::stream::{self, AppendWriter};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::Net;
use super::link::{Lane, Link};

/// One connection that carries a stream; dropped with it.
pub(super) struct StreamBody {
    net: Arc<Net>,
    link: Arc<Link>,
    lane: Lane,
    number: u64,
    writer: AppendWriter,
    pulse: Interval,
}

impl StreamBody {
    /// Takes over the stream from whoever had it.
    pub(super) fn attach(net: Arc<Net>, link: Arc<Link>, lane: Lane) -> StreamBody {
        let number = link.attach(lane);
        tracing::info!(
            "local-member-id" = %net.identity.member,
            "remote-peer-id" = %link.id,
            "stream-writer-type" = lane.name(),
            "established TCP streaming connection with remote peer"
        );
        link.on_active();
        // A reader gives up after three times that.
        let every = net.read_limit / 3;
        let mut pulse = interval_at(Instant::now() + every, every);
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        StreamBody {
            net,
            link,
            lane,
            number,
            writer: AppendWriter::default(),
            pulse,
        }
    }
}

impl Body for StreamBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        let mut out = Vec::new();
        let waker = context.waker();
        if !this
            .link
            .fill(this.lane, this.number, waker, &mut this.writer, &mut out)
        {
            return Poll::Ready(None);
        }
        if this.pulse.poll_tick(context).is_ready() {
            match this.lane {
                Lane::Append => AppendWriter::put_heartbeat(&mut out),
                Lane::Other => stream::put_message_heartbeat(&mut out),
            }
        }
        if out.is_empty() {
            return Poll::Pending;
        }
        this.link.meters.sent_bytes.add(out.len() as u64);
        Poll::Ready(Some(Ok(Frame::data(out.into()))))
    }
}

impl Drop for StreamBody {
    fn drop(&mut self) {
        if self.link.detach(self.lane, self.number) {
            self.link.meters.sent_failures.inc();
            self.net.report_unreachable(self.link.id);
        }
        tracing::info!(
            "local-member-id" = %self.net.identity.member,
            "remote-peer-id" = %self.link.id,
            "stream-writer-type" = self.lane.name(),
            "closed TCP streaming connection with remote peer"
        );
    }
}
