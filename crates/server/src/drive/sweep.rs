//! The sweep thread: physical compaction in paced steps.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use node::machine::Token;
use state::{Step, Sweep};
use tokio::sync::oneshot;

use super::Shared;
use super::commit::ToCommit;
use super::mailbox::Mailbox;
use super::post::{Mail, Post};
use super::stop::fatal;

/// How long to wait for readers that still need what is to be deleted.
const BLOCKED_PAUSE: Duration = Duration::from_millis(50);

/// How long, twice over, a reader may take nothing before a compaction no longer waits for it.
const READER_PATIENCE: Duration = Duration::from_secs(5);

/// What the sweep thread is told.
pub(crate) enum ToSweep {
    /// A compaction was accepted.
    Scheduled,
    /// Send `answer` once the compaction at `revision` is carried out and committed.
    Await {
        revision: i64,
        token: Token,
        answer: Vec<u8>,
    },
    /// The cluster agreed on this version, or had it at boot.
    Migrate(String),
    /// The state was replaced; this is the sweep of the new one.
    Replace(Sweep),
    Stop,
}

pub(crate) struct SweepThread {
    shared: Arc<Shared>,
    inbox: Arc<Mailbox<ToSweep>>,
    sweep: Sweep,
    commits: Arc<Mailbox<ToCommit>>,
    post: Post,
    pause: Duration,
    /// Revision, asker and answer of those who wait for the deletions.
    waiting: Vec<(i64, Token, Vec<u8>)>,
    /// When readers that take nothing are next looked for, while they are in the way.
    impatient_at: Option<Instant>,
    /// Last compaction that is carried out and committed; -1 for none since the start.
    finished: i64,
}

impl SweepThread {
    /// `pause` is `--compaction-sleep-interval`.
    pub(crate) fn new(
        shared: &Arc<Shared>,
        sweep: Sweep,
        post: Post,
        pause: Duration,
    ) -> SweepThread {
        SweepThread {
            shared: Arc::clone(shared),
            inbox: Arc::clone(&shared.sweep),
            sweep,
            commits: Arc::clone(&shared.commits),
            post,
            pause,
            waiting: Vec::new(),
            impatient_at: None,
            finished: -1,
        }
    }

    pub(crate) fn run(mut self) {
        let mut messages = Vec::new();
        // A compaction that a crash interrupted goes on at once.
        let mut next_step = Some(Instant::now());
        let mut began: Option<Instant> = None;
        loop {
            if !self.inbox.wait(&mut messages, next_step) {
                next_step = self.step(&mut began);
            }
            for message in messages.drain(..) {
                match message {
                    ToSweep::Scheduled => next_step = next_step.or_else(|| Some(Instant::now())),
                    ToSweep::Await {
                        revision,
                        token,
                        answer,
                    } => {
                        self.waiting.push((revision, token, answer));
                        self.answer();
                    }
                    ToSweep::Migrate(version) => self.migrate(&version),
                    ToSweep::Replace(sweep) => {
                        self.sweep = sweep;
                        next_step = Some(Instant::now());
                    }
                    ToSweep::Stop => return,
                }
            }
        }
    }

    /// Does one step; returns when the next one is due, or `None` when there is none.
    fn step(&mut self, began: &mut Option<Instant>) -> Option<Instant> {
        let now = Instant::now();
        began.get_or_insert(now);
        match self.sweep.step() {
            Ok(Step::Idle) => {
                *began = None;
                None
            }
            Ok(Step::Blocked) => {
                self.lose_patience(now);
                Some(now + BLOCKED_PAUSE)
            }
            Ok(Step::Indexed) => {
                self.impatient_at = None;
                self.shared
                    .metrics
                    .index_compaction_pause
                    .observe(now.elapsed().as_secs_f64() * 1e3);
                self.after_pause(now)
            }
            Ok(Step::Worked { deleted }) => {
                self.impatient_at = None;
                self.shared.metrics.compaction_keys.add(deleted as u64);
                self.shared
                    .metrics
                    .compaction_pause
                    .observe(now.elapsed().as_secs_f64() * 1e3);
                self.shared.hand_to_commit();
                self.after_pause(now)
            }
            Ok(Step::Finished { revision, .. }) => {
                self.commit();
                self.finished = revision;
                let since = SystemTime::now().duration_since(UNIX_EPOCH);
                let seconds = since.unwrap_or_default().as_secs();
                self.shared.metrics.compaction_last.set_u64(seconds);
                if let Some(began) = began.take() {
                    self.shared
                        .metrics
                        .compaction_total
                        .observe(began.elapsed().as_secs_f64() * 1e3);
                }
                tracing::info!(revision, "finished a compaction");
                self.answer();
                Some(Instant::now())
            }
            Err(error) => fatal("compact the database", &error),
        }
    }

    /// When the step after one that began at `begun` is due: where processors are short, so that
    /// steps take long, others have half of the time at least.
    fn after_pause(&self, begun: Instant) -> Option<Instant> {
        let now = Instant::now();
        Some(now + self.pause.max(now - begun))
    }

    /// Goes on without readers that took nothing in two looks.
    fn lose_patience(&mut self, now: Instant) {
        let at = *self.impatient_at.get_or_insert(now + READER_PATIENCE);
        if now < at {
            return;
        }
        self.impatient_at = Some(now + READER_PATIENCE);
        let readers = self.sweep.drop_idle_readers();
        if readers > 0 {
            tracing::warn!(
                readers,
                "a compaction goes on without readers that do not read"
            );
        }
    }

    fn migrate(&mut self, version: &str) {
        match self.sweep.migrate(version) {
            Ok(true) => {
                self.commit();
                tracing::info!("storage-version" = version, "updated storage version");
                if let Some(target) = self.shared.downgrade() {
                    tracing::info!(
                        "target-version" = target,
                        "server-version" = api::version::SERVER,
                        "The server is ready to downgrade"
                    );
                }
            }
            Ok(false) => {}
            Err(error) => fatal("update the storage version", &error),
        }
    }

    fn commit(&self) {
        let (done, committed) = oneshot::channel();
        self.commits.push(ToCommit::Now(done));
        // The commit thread outlives this one; should it be gone, so is the process.
        let _ = committed.blocking_recv();
    }

    fn answer(&mut self) {
        let finished = self.finished;
        let (ready, waiting) = self
            .waiting
            .drain(..)
            .partition(|(revision, ..)| *revision <= finished);
        self.waiting = waiting;
        let ready: Vec<(i64, Token, Vec<u8>)> = ready;
        for (_, token, answer) in ready {
            self.post.put(Mail::Answer(token, Ok(answer)));
        }
        self.post.deliver();
    }
}
