//! One place where a member may run: its disk, and, while it lives, its parts and what is under
//! way between them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use api::ids::MemberId;
use node::machine::{Input, Output, Persist, Token};
use node::member::{Config, Member, Snapshot};
use node::raft::Message;
use state::LeaseClock;
use storage::fs::Fs;
use storage::log::{LogIndex, SnapshotMeta};
use storage::simfs::SimFs;

/// Who waits for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// A client, by number; its operation has this number.
    Client(usize, u64),
    /// A keeper of a lease, and its request.
    Keeper(usize, u64),
    /// Nobody in particular.
    Nobody,
}

/// Stages of a snapshot of the member's own.
pub enum Stage {
    Commit(Box<Snapshot>),
    Save(Box<Snapshot>),
    Record(Box<Snapshot>),
    Purge(LogIndex),
}

/// What the commit thread is asked for.
pub enum Chore {
    Send(Box<Message>),
    Install(SnapshotMeta),
}

/// A member that runs.
pub struct Running {
    pub member: Member,
    pub clock: LeaseClock,
    /// What arrived for the core's next turn.
    pub inbox: Vec<Input>,
    pub core: VecDeque<Output>,
    pub wal: VecDeque<Box<Persist>>,
    pub stage: Option<Stage>,
    pub chores: VecDeque<Chore>,
    pub waiting: BTreeMap<Token, Who>,
    pub next_token: u64,
    pub published: bool,
    pub sole_leader: bool,
    /// Whether an event for the queue is on its way.
    pub turn_due: bool,
    pub core_due: bool,
    pub wal_due: bool,
    pub chores_due: bool,
}

impl Running {
    pub fn new(member: Member) -> Running {
        Running {
            clock: super::lease::clock(&member.view),
            member,
            inbox: Vec::new(),
            core: VecDeque::new(),
            wal: VecDeque::new(),
            stage: None,
            chores: VecDeque::new(),
            waiting: BTreeMap::new(),
            next_token: 0,
            published: false,
            sole_leader: false,
            turn_due: false,
            core_due: false,
            wal_due: false,
            chores_due: false,
        }
    }

    pub fn token(&mut self, who: Who) -> Token {
        self.next_token += 1;
        let token = Token(self.next_token);
        self.waiting.insert(token, who);
        token
    }

    /// Whether nothing is under way on any thread.
    pub fn is_idle(&self) -> bool {
        self.inbox.is_empty()
            && self.core.is_empty()
            && self.wal.is_empty()
            && self.stage.is_none()
            && self.chores.is_empty()
    }
}

/// A place with a disk.
pub struct Site {
    pub config: Config,
    pub disk: SimFs,
    pub fs: Arc<dyn Fs>,
    /// Known once it has booted or was added.
    pub id: MemberId,
    pub running: Option<Running>,
    /// Grows with every start and end, so that events of the life before are passed over.
    pub life: u64,
    /// Nothing happens here before.
    pub paused_until_us: u64,
    /// Syncs take long before.
    pub stalled_until_us: u64,
    /// Operations on the disk after which it fails.
    pub doomed: bool,
    /// Never starts again: removed, or not yet added.
    pub retired: bool,
    pub joined: bool,
}

impl Site {
    pub fn new(config: Config, id: MemberId) -> Site {
        let disk = SimFs::new();
        Site {
            config,
            fs: Arc::new(disk.clone()),
            disk,
            id,
            running: None,
            life: 0,
            paused_until_us: 0,
            stalled_until_us: 0,
            doomed: false,
            retired: false,
            joined: true,
        }
    }

    pub fn set_disk(&mut self, disk: SimFs) {
        self.fs = Arc::new(disk.clone());
        self.disk = disk;
    }
}
