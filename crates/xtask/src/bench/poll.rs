//! Waiting for many sockets at once.

use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::time::Timespec;

use super::transport::Transport;

/// How long somebody waits who has nothing else to do.
pub(super) const TICK: Duration = Duration::from_millis(50);
/// At most this many sockets are named at a time.
const BATCH: usize = 1024;

/// An epoll instance, whose sockets are known by the caller's numbers.
pub(super) struct Poll {
    epoll: OwnedFd,
}

impl Poll {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
        })
    }

    pub(super) fn add(&self, transport: &Transport, index: usize) -> std::io::Result<()> {
        let data = EventData::new_u64(index as u64);
        Ok(epoll::add(
            &self.epoll,
            transport.socket(),
            data,
            EventFlags::IN,
        )?)
    }

    /// Writes what is queued. A socket that is full is also watched for room.
    pub(super) fn flush(&self, transport: &mut Transport, index: usize) -> std::io::Result<()> {
        let done = transport.flush()?;
        if transport.blocked == done {
            transport.blocked = !done;
            let wanted = if done {
                EventFlags::IN
            } else {
                EventFlags::IN | EventFlags::OUT
            };
            let data = EventData::new_u64(index as u64);
            epoll::modify(&self.epoll, transport.socket(), data, wanted)?;
        }
        Ok(())
    }

    /// The sockets that have something, after at most `limit`, which is below a second.
    pub(super) fn wait(&self, limit: Duration) -> std::io::Result<Vec<usize>> {
        let limit = Timespec {
            tv_sec: 0,
            tv_nsec: i64::from(limit.subsec_nanos()),
        };
        let mut events = Vec::with_capacity(BATCH);
        epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&limit))?;
        let index = |event: &epoll::Event| event.data.u64() as usize;
        Ok(events.iter().map(index).collect())
    }
}
