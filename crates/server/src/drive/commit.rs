//! The commit thread: batches into the bolt file, and raft snapshots, which need one.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use node::machine::Token;
use node::member::{self, Installer, Outgoing, Snapshot};
use node::raft::Message;
use storage::backend::Committer;
use storage::datadir::DataDir;
use storage::fs::Fs;
use storage::log::SnapshotMeta;
use tokio::sync::oneshot;

use super::Shared;
use super::core::ToCore;
use super::defrag::Defragmenter;
use super::mailbox::Mailbox;
use super::persist::WalSlot;
use super::post::{Mail, Post};
use super::stop::fatal;
use super::sweep::ToSweep;
use crate::peer::ToPeers;

/// What the commit thread is told.
pub(crate) enum ToCommit {
    /// The open batch has its first writes: commit within the interval.
    Dirty,
    /// The open batch is large: commit at once.
    Full,
    /// Commit, then say so.
    Now(oneshot::Sender<()>),
    /// Commit, then hand out the file as it is.
    Pin(Token),
    /// Defragment the database, in steps beside the commits.
    Defragment(Token),
    /// Pin the database and let the peer thread send it.
    Send(Box<Message>),
    /// Put a received database in place.
    Install(SnapshotMeta),
    /// Write a raft snapshot.
    Snapshot(Snapshot),
    /// Commit and end.
    Stop,
}

pub(crate) struct CommitThread {
    pub(crate) shared: Arc<Shared>,
    pub(crate) inbox: Arc<Mailbox<ToCommit>>,
    pub(crate) committer: Committer,
    pub(crate) wal: Arc<WalSlot>,
    pub(crate) fs: Arc<dyn Fs>,
    pub(crate) dir: DataDir,
    /// `.snap` files and WAL segments to keep; 0 keeps all.
    pub(crate) snaps_max: usize,
    pub(crate) wals_max: usize,
    pub(crate) core: Arc<Mailbox<ToCore>>,
    pub(crate) post: Post,
    /// `--backend-batch-interval`
    pub(crate) interval: Duration,
    pub(crate) defrag: Defragmenter,
    pub(crate) installer: Installer,
}

impl CommitThread {
    pub(crate) fn run(mut self) {
        let mut due: Option<Instant> = None;
        let mut messages = Vec::new();
        loop {
            let step_due = self.defrag.due();
            let wake = due.into_iter().chain(step_due).min();
            if !self.inbox.wait(&mut messages, wake) {
                let now = Instant::now();
                if due.is_some_and(|due| due <= now) {
                    due = None;
                    self.commit();
                }
                if step_due.is_some_and(|due| due <= now) {
                    self.defrag.step(&mut self.committer, &mut self.post);
                }
            }
            for message in messages.drain(..) {
                match message {
                    ToCommit::Dirty => {
                        due.get_or_insert_with(|| Instant::now() + self.interval);
                    }
                    ToCommit::Full => {
                        due = None;
                        self.commit();
                    }
                    ToCommit::Now(done) => {
                        self.commit();
                        // Whoever asked may have given up.
                        let _ = done.send(());
                    }
                    ToCommit::Pin(token) => self.pin(token),
                    ToCommit::Defragment(token) => self.defrag.ask(token),
                    ToCommit::Send(message) => self.send(*message),
                    ToCommit::Install(meta) => self.install(&meta),
                    ToCommit::Snapshot(snapshot) => self.snapshot(&snapshot),
                    ToCommit::Stop => {
                        self.commit();
                        return;
                    }
                }
            }
        }
    }

    fn commit(&mut self) {
        self.shared.commit_due.store(false, Ordering::Release);
        let begin = Instant::now();
        match self.committer.commit() {
            Ok(committed) if committed.ops > 0 => {
                self.defrag.consider(begin);
                let metrics = &self.shared.metrics;
                metrics.backend_commit.observe_seconds(begin.elapsed());
                metrics.commit_rebalance.observe_seconds(committed.changing);
                metrics.commit_spill.observe_seconds(committed.spilling);
                metrics.commit_write.observe_seconds(committed.writing);
            }
            Ok(_) => {}
            Err(error) => fatal("commit to the database", &error),
        }
        self.core.unpark();
    }

    fn pin(&mut self, token: Token) {
        self.commit();
        match self.committer.pin() {
            Ok(pinned) => self.post.put(Mail::Pinned(token, pinned.tx)),
            Err(error) => fatal("commit to the database", &error),
        }
        self.post.deliver();
    }

    fn send(&mut self, message: Message) {
        match Outgoing::pin(&mut self.committer, message) {
            Ok(outgoing) => {
                let outgoing = ToPeers::Database(Box::new(outgoing));
                self.shared.peers.push(outgoing);
            }
            Err(error) => fatal("pin the database for a member", &error),
        }
    }

    fn install(&mut self, meta: &SnapshotMeta) {
        self.shared.metrics.snapshot_applying.set(1);
        let installed = match self.installer.install(meta) {
            Ok(installed) => installed,
            Err(error) => fatal("put a received database in place", &error),
        };
        let machine = installed.map(|installed| {
            self.committer = installed.committer;
            self.defrag.restart();
            self.shared.sweep.push(ToSweep::Replace(installed.sweep));
            Box::new(installed.machine)
        });
        tracing::info!(
            index = meta.index.0,
            term = meta.term.0,
            "applied a received snapshot"
        );
        self.shared.metrics.snapshot_applying.set(0);
        self.core.push(ToCore::Installed(meta.index, machine));
    }

    fn snapshot(&mut self, snapshot: &Snapshot) {
        let begin = Instant::now();
        let saved = snapshot
            .commit(&mut self.committer)
            .and_then(|()| snapshot.save(&*self.fs, &self.dir))
            .and_then(|saved| snapshot.record(&mut self.wal.lock()).map(|()| saved));
        let saved = match saved {
            Ok(saved) => saved,
            Err(error) => fatal("save a snapshot", &error),
        };
        let metrics = &self.shared.metrics;
        metrics.snap_encode.observe_seconds(saved.encoding);
        metrics.snap_fsync.observe_seconds(saved.syncing);
        metrics.snap_save.observe_seconds(begin.elapsed());
        let (index, term) = (snapshot.meta.index.0, snapshot.meta.term.0);
        tracing::info!(index, term, "saved a snapshot");
        match member::purge(&*self.fs, &self.dir, self.snaps_max, self.wals_max) {
            Ok(removed) => removed
                .iter()
                .for_each(|name| tracing::info!(name, "purged a file")),
            // Old files do no harm; the next snapshot tries again.
            Err(error) => tracing::warn!(%error, "cannot purge old files"),
        }
        self.core.push(ToCore::SnapshotTaken(snapshot.meta.index));
    }
}
