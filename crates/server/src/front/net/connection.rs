//! The connections of one net thread, in slots with generations.

use super::super::call::CallId;
use super::super::h2::Conn;
use super::super::socket::Socket;
use super::Peer;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The first bytes have not told the protocol.
    Sniffing,
    Http2,
    /// The output is being written out; what the peer sends is thrown away until it closes too,
    /// so that unread bytes do not turn our farewell into a reset.
    Lingering,
}

pub(super) struct Connection {
    pub(super) socket: Socket,
    /// The TLS handshake is not complete, or it is not known whether there will be one.
    pub(super) handshaking: bool,
    pub(super) peer: Peer,
    pub(super) h2: Conn,
    pub(super) stage: Stage,
    /// Bytes that are no whole frame yet.
    pub(super) partial: Vec<u8>,
    /// Listed in [`super::Net`]'s `dirty`.
    pub(super) dirty: bool,
    /// What epoll watches for.
    pub(super) reading: bool,
    pub(super) writing: bool,
    /// When the connection was accepted or began to linger.
    pub(super) since_ms: u64,
    /// When something was last written, or there was nothing to write.
    pub(super) progress_ms: u64,
    pub(super) write_shut: bool,
}

struct Slot {
    generation: u32,
    connection: Option<Box<Connection>>,
}

#[derive(Default)]
pub(super) struct Connections {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl Connections {
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Stores a connection; its index and generation. `None` when no index is left.
    pub(super) fn insert(&mut self, connection: Connection) -> Option<(u32, u32)> {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                let index = self.slots.len() as u32;
                if index >= CallId::CONNECTIONS_MAX {
                    return None;
                }
                self.slots.push(Slot {
                    generation: 0,
                    connection: None,
                });
                index
            }
        };
        let slot = &mut self.slots[index as usize];
        slot.connection = Some(Box::new(connection));
        Some((index, slot.generation))
    }

    pub(super) fn remove(&mut self, index: u32) -> Option<Box<Connection>> {
        let slot = self.slots.get_mut(index as usize)?;
        let connection = slot.connection.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
        Some(connection)
    }

    pub(super) fn at_mut(&mut self, index: u32) -> Option<&mut Connection> {
        self.slots
            .get_mut(index as usize)?
            .connection
            .as_deref_mut()
    }

    pub(super) fn is_handshaking(&self, index: u32, generation: u32) -> bool {
        let slot = self.slots.get(index as usize);
        slot.filter(|slot| slot.generation == generation)
            .and_then(|slot| slot.connection.as_ref())
            .is_some_and(|connection| connection.handshaking)
    }

    pub(super) fn generation(&self, index: u32) -> Option<u32> {
        let slot = self.slots.get(index as usize)?;
        slot.connection.as_ref().map(|_| slot.generation)
    }

    pub(super) fn get(&self, call: CallId) -> Option<&Connection> {
        let slot = self.slots.get(call.connection() as usize)?;
        if slot.generation != call.generation() {
            return None;
        }
        slot.connection.as_deref()
    }

    pub(super) fn get_mut(&mut self, call: CallId) -> Option<&mut Connection> {
        let slot = self.slots.get_mut(call.connection() as usize)?;
        if slot.generation != call.generation() {
            return None;
        }
        slot.connection.as_deref_mut()
    }

    /// One more than the highest index in use.
    pub(super) fn index_end(&self) -> u32 {
        self.slots.len() as u32
    }
}
