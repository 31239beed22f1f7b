//! The disk behind [`SimFs`](super::SimFs): nodes, names, and what of both is durable.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path};

use super::{Faults, Rng};
use crate::fs::{LockKind, Open};

const SECTOR_BYTES: usize = 512;

/// Index into [`Disk::nodes`]; nodes are never removed, only their names are.
pub(super) type NodeId = usize;

const ROOT: NodeId = 0;

#[derive(Clone)]
enum Node {
    File(FileNode),
    Dir(DirNode),
}

#[derive(Clone, Default)]
struct DirNode {
    entries: BTreeMap<String, NodeId>,
    durable: BTreeMap<String, NodeId>,
}

#[derive(Clone, Default)]
struct FileNode {
    /// What readers see.
    data: Vec<u8>,
    /// What a power failure leaves for certain.
    durable: Vec<u8>,
    /// Since the last sync, oldest first.
    pending: Vec<Change>,
    /// Owners of [`LockKind::Record`] and [`LockKind::Flock`].
    locks: [Option<u64>; 2],
    /// Owners of [`LockKind::FlockShared`].
    shared: Vec<u64>,
}

#[derive(Clone)]
enum Change {
    Write {
        offset: usize,
        bytes: Vec<u8>,
        in_doubt: bool,
    },
    SetLen {
        len: usize,
    },
}

/// A change of names that happens as a whole.
#[derive(Clone)]
struct Rewiring {
    /// Directory, name, and what the name stands for from then on.
    edits: Vec<(NodeId, String, Option<NodeId>)>,
}

#[derive(Clone)]
pub(super) struct Disk {
    nodes: Vec<Node>,
    rewirings: Vec<Rewiring>,
    pub(super) faults: Faults,
    pub(super) operations: u64,
    pub(super) syncs: u64,
    handles: u64,
    life: u64,
}

fn error(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

/// The names on the way from the root.
fn names(path: &Path) -> io::Result<Vec<&str>> {
    let mut names = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => names.push(name.to_str().ok_or(error(libc::EILSEQ))?),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(error(libc::EINVAL)),
        }
    }
    Ok(names)
}

impl Disk {
    pub(super) fn new() -> Disk {
        Disk {
            nodes: vec![Node::Dir(DirNode::default())],
            rewirings: Vec::new(),
            faults: Faults::default(),
            operations: 0,
            syncs: 0,
            handles: 0,
            life: 0,
        }
    }

    pub(super) fn alive(&self, life: u64) -> io::Result<()> {
        if life == self.life {
            Ok(())
        } else {
            Err(io::Error::other("the process is dead"))
        }
    }

    pub(super) fn operate(&mut self, life: u64) -> io::Result<()> {
        self.alive(life)?;
        let number = self.operations;
        self.operations += 1;
        if self.faults.halt_at.is_some_and(|at| number >= at) {
            return Err(io::Error::other("the process is halted"));
        }
        Ok(())
    }

    pub(super) fn next_handle(&mut self) -> u64 {
        self.handles += 1;
        self.handles
    }

    pub(super) fn next_life(&mut self) -> u64 {
        for node in &mut self.nodes {
            if let Node::File(file) = node {
                file.unlock_all();
            }
        }
        self.faults = Faults::default();
        self.life += 1;
        self.life
    }

    fn dir(&self, node: NodeId) -> io::Result<&DirNode> {
        match &self.nodes[node] {
            Node::Dir(dir) => Ok(dir),
            Node::File(_) => Err(error(libc::ENOTDIR)),
        }
    }

    fn dir_mut(&mut self, node: NodeId) -> Option<&mut DirNode> {
        match &mut self.nodes[node] {
            Node::Dir(dir) => Some(dir),
            Node::File(_) => None,
        }
    }

    fn file_mut(&mut self, node: NodeId) -> io::Result<&mut FileNode> {
        match &mut self.nodes[node] {
            Node::File(file) => Ok(file),
            Node::Dir(_) => Err(error(libc::EISDIR)),
        }
    }

    pub(super) fn data(&self, node: NodeId) -> &[u8] {
        match &self.nodes[node] {
            Node::File(file) => &file.data,
            Node::Dir(_) => &[],
        }
    }

    fn walk(&self, names: &[&str]) -> io::Result<NodeId> {
        let mut node = ROOT;
        for name in names {
            node = *self
                .dir(node)?
                .entries
                .get(*name)
                .ok_or(error(libc::ENOENT))?;
        }
        Ok(node)
    }

    /// The directory of a path and the last name in it.
    fn parent<'p>(&self, path: &'p Path) -> io::Result<(NodeId, &'p str)> {
        let names = names(path)?;
        let (last, way) = names.split_last().ok_or(error(libc::EINVAL))?;
        let parent = self.walk(way)?;
        self.dir(parent)?;
        Ok((parent, last))
    }

    pub(super) fn exists(&self, path: &Path) -> bool {
        names(path).and_then(|names| self.walk(&names)).is_ok()
    }

    /// All files and directories are private to their owner.
    pub(super) fn mode(&self, path: &Path) -> io::Result<u32> {
        match self.nodes[self.walk(&names(path)?)?] {
            Node::File(_) => Ok(0o600),
            Node::Dir(_) => Ok(0o700),
        }
    }

    pub(super) fn file(&self, path: &Path) -> io::Result<NodeId> {
        let node = self.walk(&names(path)?)?;
        match self.nodes[node] {
            Node::File(_) => Ok(node),
            Node::Dir(_) => Err(error(libc::EISDIR)),
        }
    }

    fn rewire(&mut self, edits: Vec<(NodeId, String, Option<NodeId>)>) {
        for (dir, name, target) in &edits {
            let dir = self
                .dir_mut(*dir)
                .expect("names are looked up in directories only");
            set(&mut dir.entries, name, *target);
        }
        self.rewirings.push(Rewiring { edits });
    }

    pub(super) fn open(&mut self, path: &Path, how: Open) -> io::Result<NodeId> {
        let (dir, name) = self.parent(path)?;
        let found = self.dir(dir)?.entries.get(name).copied();
        match (how, found) {
            (Open::CreateNew { .. }, Some(_)) => Err(error(libc::EEXIST)),
            (Open::Read | Open::ReadWrite, None) => Err(error(libc::ENOENT)),
            (_, Some(node)) => {
                self.file_mut(node)?;
                Ok(node)
            }
            (_, None) => {
                let node = self.nodes.len();
                self.nodes.push(Node::File(FileNode::default()));
                self.rewire(vec![(dir, name.to_owned(), Some(node))]);
                Ok(node)
            }
        }
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (from_dir, from_name) = self.parent(from)?;
        let (to_dir, to_name) = self.parent(to)?;
        let node = *self
            .dir(from_dir)?
            .entries
            .get(from_name)
            .ok_or(error(libc::ENOENT))?;
        if let Some(&old) = self.dir(to_dir)?.entries.get(to_name)
            && let Node::Dir(old) = &self.nodes[old]
            && !old.entries.is_empty()
        {
            return Err(error(libc::ENOTEMPTY));
        }
        self.rewire(vec![
            (from_dir, from_name.to_owned(), None),
            (to_dir, to_name.to_owned(), Some(node)),
        ]);
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path, is_dir: bool) -> io::Result<()> {
        let (dir, name) = self.parent(path)?;
        let node = *self
            .dir(dir)?
            .entries
            .get(name)
            .ok_or(error(libc::ENOENT))?;
        match (&self.nodes[node], is_dir) {
            (Node::File(_), true) => return Err(error(libc::ENOTDIR)),
            (Node::Dir(_), false) => return Err(error(libc::EISDIR)),
            _ => {}
        }
        self.rewire(vec![(dir, name.to_owned(), None)]);
        Ok(())
    }

    pub(super) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let mut node = ROOT;
        for name in names(path)? {
            node = match self.dir(node)?.entries.get(name) {
                Some(&next) => next,
                None => {
                    let next = self.nodes.len();
                    self.nodes.push(Node::Dir(DirNode::default()));
                    self.rewire(vec![(node, name.to_owned(), Some(next))]);
                    next
                }
            };
        }
        self.dir(node).map(|_| ())
    }

    pub(super) fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let node = self.walk(&names(dir)?)?;
        Ok(self.dir(node)?.entries.keys().cloned().collect())
    }

    fn count_sync(&mut self) -> io::Result<()> {
        let number = self.syncs;
        self.syncs += 1;
        if self.faults.fail_sync_at == Some(number) {
            Err(error(libc::EIO))
        } else {
            Ok(())
        }
    }

    pub(super) fn sync_dir(&mut self, dir: &Path) -> io::Result<()> {
        let node = self.walk(&names(dir)?)?;
        self.dir(node)?;
        self.count_sync()?;
        let touches = |r: &Rewiring| r.edits.iter().any(|(dir, _, _)| *dir == node);
        let (durable, pending) = std::mem::take(&mut self.rewirings)
            .into_iter()
            .partition(touches);
        self.rewirings = pending;
        self.make_durable(durable);
        Ok(())
    }

    fn make_durable(&mut self, rewirings: Vec<Rewiring>) {
        for (dir, name, target) in rewirings.into_iter().flat_map(|r| r.edits) {
            if let Some(dir) = self.dir_mut(dir) {
                set(&mut dir.durable, &name, target);
            }
        }
    }

    /// Fails when the files together would grow beyond the capacity.
    fn check_space(&self, node: NodeId, end: usize) -> io::Result<()> {
        let Some(capacity) = self.faults.capacity_bytes else {
            return Ok(());
        };
        let grown = end.saturating_sub(self.data(node).len());
        let used: usize = self.reachable().iter().map(|&n| self.data(n).len()).sum();
        if grown > 0 && (used + grown) as u64 > capacity {
            return Err(error(libc::ENOSPC));
        }
        Ok(())
    }

    fn reachable(&self) -> BTreeSet<NodeId> {
        let mut found = BTreeSet::from([ROOT]);
        let mut todo = vec![ROOT];
        while let Some(node) = todo.pop() {
            if let Node::Dir(dir) = &self.nodes[node] {
                todo.extend(dir.entries.values().copied().filter(|&n| found.insert(n)));
            }
        }
        found
    }

    pub(super) fn write(&mut self, node: NodeId, bytes: &[u8], offset: u64) -> io::Result<()> {
        let offset = usize::try_from(offset).map_err(|_| error(libc::EFBIG))?;
        let end = offset.checked_add(bytes.len()).ok_or(error(libc::EFBIG))?;
        self.check_space(node, end)?;
        let file = self.file_mut(node)?;
        write_into(&mut file.data, offset, bytes);
        file.pending.push(Change::Write {
            offset,
            bytes: bytes.to_vec(),
            in_doubt: false,
        });
        Ok(())
    }

    pub(super) fn set_len(&mut self, node: NodeId, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(|_| error(libc::EFBIG))?;
        self.check_space(node, len)?;
        let file = self.file_mut(node)?;
        file.data.resize(len, 0);
        file.pending.push(Change::SetLen { len });
        Ok(())
    }

    pub(super) fn sync_file(&mut self, node: NodeId) -> io::Result<()> {
        let outcome = self.count_sync();
        let file = self.file_mut(node)?;
        match outcome {
            Ok(()) => file.sync(),
            Err(_) => {
                for change in &mut file.pending {
                    if let Change::Write { in_doubt, .. } = change {
                        *in_doubt = true;
                    }
                }
            }
        }
        outcome
    }

    pub(super) fn try_lock(&mut self, node: NodeId, kind: LockKind, handle: u64) -> bool {
        let Ok(file) = self.file_mut(node) else {
            return false;
        };
        let is_own = |owner: &u64| *owner == handle;
        let slot = usize::from(kind != LockKind::Record);
        let free = file.locks[slot].as_ref().is_none_or(is_own)
            && (kind != LockKind::Flock || file.shared.iter().all(is_own));
        match kind {
            _ if !free => {}
            LockKind::FlockShared => file.shared.push(handle),
            LockKind::Record | LockKind::Flock => file.locks[slot] = Some(handle),
        }
        free
    }

    pub(super) fn unlock(&mut self, node: NodeId, handle: u64) {
        if let Ok(file) = self.file_mut(node) {
            file.shared.retain(|owner| *owner != handle);
            for lock in &mut file.locks {
                if *lock == Some(handle) {
                    *lock = None;
                }
            }
        }
    }

    pub(super) fn plant(&mut self, path: &Path, contents: &[u8]) -> io::Result<()> {
        let (dir, name) = self.parent(path)?;
        let node = match self.dir(dir)?.entries.get(name) {
            Some(&node) => node,
            None => {
                let node = self.nodes.len();
                self.nodes.push(Node::File(FileNode::default()));
                let edits = vec![(dir, name.to_owned(), Some(node))];
                if let Some(dir) = self.dir_mut(dir) {
                    set(&mut dir.entries, name, Some(node));
                }
                self.make_durable(vec![Rewiring { edits }]);
                node
            }
        };
        let file = self.file_mut(node)?;
        file.data = contents.to_vec();
        file.durable = contents.to_vec();
        file.pending.clear();
        Ok(())
    }

    /// The disk after a power failure.
    pub(super) fn crashed(&self, rng: &mut Rng) -> Disk {
        let mut disk = self.clone();
        let fate = Fate::draw(rng);
        let kept = std::mem::take(&mut disk.rewirings);
        let kept = kept.into_iter().filter(|_| fate.keeps(rng)).collect();
        disk.make_durable(kept);
        for node in &mut disk.nodes {
            match node {
                Node::Dir(dir) => dir.entries = dir.durable.clone(),
                Node::File(file) => file.crash(fate, rng),
            }
        }
        disk.faults = Faults::default();
        disk.life = 0;
        disk
    }
}

/// What becomes of changes that were not synced: one rule for a whole crash, so that the extremes
/// are as common as the mixtures.
#[derive(Clone, Copy)]
enum Fate {
    LoseAll,
    KeepAll,
    Mixed,
}

impl Fate {
    fn draw(rng: &mut Rng) -> Fate {
        match rng.below(4) {
            0 => Fate::LoseAll,
            1 => Fate::KeepAll,
            _ => Fate::Mixed,
        }
    }

    fn keeps(self, rng: &mut Rng) -> bool {
        match self {
            Fate::LoseAll => false,
            Fate::KeepAll => true,
            Fate::Mixed => rng.one_in(2),
        }
    }

    /// How many of `n` changes in a row took effect.
    fn prefix(self, n: usize, rng: &mut Rng) -> usize {
        match self {
            Fate::LoseAll => 0,
            Fate::KeepAll => n,
            Fate::Mixed => rng.below(n as u64 + 1) as usize,
        }
    }
}

impl FileNode {
    /// All that is not in doubt becomes durable, by whole sectors as readers see them; what failed
    /// before is no longer in doubt where it was written again.
    fn sync(&mut self) {
        let mut in_doubt: Vec<Change> = Vec::new();
        let mut changed = false;
        for change in std::mem::take(&mut self.pending) {
            let settled = match change {
                Change::Write { in_doubt: true, .. } => {
                    in_doubt.push(change);
                    continue;
                }
                Change::Write { offset, bytes, .. } => {
                    let start = (offset / SECTOR_BYTES * SECTOR_BYTES).min(self.data.len());
                    let end = (offset + bytes.len()).next_multiple_of(SECTOR_BYTES);
                    let end = end.min(self.data.len());
                    write_into(&mut self.durable, start, &self.data[start..end]);
                    start..end
                }
                Change::SetLen { len } => {
                    self.durable.truncate(len);
                    len..usize::MAX
                }
            };
            changed = true;
            in_doubt = in_doubt
                .into_iter()
                .flat_map(|change| change.outside(&settled))
                .collect();
        }
        if changed {
            self.durable.resize(self.data.len(), 0);
        }
        self.pending = in_doubt;
    }

    fn unlock_all(&mut self) {
        self.locks = [None; 2];
        self.shared.clear();
    }

    fn crash(&mut self, fate: Fate, rng: &mut Rng) {
        let pending = std::mem::take(&mut self.pending);
        self.unlock_all();
        if !pending.is_empty() {
            let len = self.surviving_len(&pending, fate, rng);
            let mut sectors: BTreeMap<usize, Vec<&Change>> = BTreeMap::new();
            let mut end = self.durable.len().max(self.data.len());
            for change in &pending {
                let (from, to) = match change {
                    Change::Write { offset, bytes, .. } => (*offset, offset + bytes.len()),
                    Change::SetLen { len } => (*len, end),
                };
                end = end.max(to);
                for sector in from / SECTOR_BYTES..to.div_ceil(SECTOR_BYTES) {
                    sectors.entry(sector).or_default().push(change);
                }
            }
            for (sector, changes) in sectors {
                for change in &changes[..fate.prefix(changes.len(), rng)] {
                    change.apply_to_sector(&mut self.durable, sector);
                }
            }
            self.durable.resize(len, 0);
        }
        self.data = self.durable.clone();
    }

    /// One of the lengths since the last sync.
    fn surviving_len(&self, pending: &[Change], fate: Fate, rng: &mut Rng) -> usize {
        let mut lens = vec![self.durable.len()];
        for change in pending {
            let before = lens[lens.len() - 1];
            let after = match change {
                Change::Write { offset, bytes, .. } => before.max(offset + bytes.len()),
                Change::SetLen { len } => *len,
            };
            if after != before {
                lens.push(after);
            }
        }
        lens[fate.prefix(lens.len() - 1, rng)]
    }
}

impl Change {
    /// The parts of a write before and after a range.
    fn outside(self, range: &std::ops::Range<usize>) -> Vec<Change> {
        let Change::Write {
            offset,
            bytes,
            in_doubt,
        } = self
        else {
            return vec![self];
        };
        let end = offset + bytes.len();
        let part = |from: usize, to: usize| {
            (from < to).then(|| Change::Write {
                offset: from,
                bytes: bytes[from - offset..to - offset].to_vec(),
                in_doubt,
            })
        };
        let before = part(offset, end.min(range.start));
        let after = part(offset.max(range.end), end);
        before.into_iter().chain(after).collect()
    }

    fn apply_to_sector(&self, data: &mut Vec<u8>, sector: usize) {
        let (begin, end) = (sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES);
        match self {
            Change::Write { offset, bytes, .. } => {
                let from = begin.max(*offset);
                let to = end.min(offset + bytes.len());
                if from < to {
                    write_into(data, from, &bytes[from - offset..to - offset]);
                }
            }
            Change::SetLen { len } => {
                let from = begin.max(*len).min(data.len());
                let to = end.min(data.len()).max(from);
                data[from..to].fill(0);
            }
        }
    }
}

fn set(names: &mut BTreeMap<String, NodeId>, name: &str, target: Option<NodeId>) {
    match target {
        Some(node) => {
            names.insert(name.to_owned(), node);
        }
        None => {
            names.remove(name);
        }
    }
}

fn write_into(data: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if data.len() < end {
        data.resize(end, 0);
    }
    data[offset..end].copy_from_slice(bytes);
}
