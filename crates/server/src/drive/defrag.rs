//! Defragmentation on the commit thread: one small step after the other, beside the commits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use api::{Code, Status};
use node::machine::Token;
use storage::backend::Committer;
use storage::bolt::Defrag;

use super::Shared;
use super::post::{Mail, Post};
use super::stop::fatal;

/// Steps are this many times as far apart as one takes, when somebody waits for the end, and when
/// nobody does.
const PAUSE_ASKED: f64 = 1.0;
const PAUSE_UNASKED: f64 = 4.0;
/// Free bytes from which on, and for how long, the database is defragmented without being asked.
const FREE_BYTES_MIN: u64 = 64 << 20;
const FREE_FOR: Duration = Duration::from_secs(600);

/// Runs of defragmentation.
pub(crate) struct Defragmenter {
    shared: Arc<Shared>,
    run: Option<Run>,
    /// Since when more than half of the file is free.
    loose_since: Option<Instant>,
}

struct Run {
    defrag: Defrag,
    /// Whoever waits for its end.
    askers: Vec<Token>,
    begun: Instant,
    /// When the next step is due.
    next: Instant,
    bytes_before: u64,
}

impl Defragmenter {
    pub(crate) fn new(shared: Arc<Shared>) -> Defragmenter {
        Defragmenter {
            shared,
            run: None,
            loose_since: None,
        }
    }

    /// Begins a run, or joins the one under way; `asker` is answered at its end.
    pub(crate) fn ask(&mut self, asker: Token) {
        self.begin(Instant::now()).askers.push(asker);
    }

    fn begin(&mut self, now: Instant) -> &mut Run {
        let shared = &self.shared;
        self.run.get_or_insert_with(|| {
            let (bytes_before, bytes_in_use) = shared.view.db_sizes();
            shared.metrics.defrag_inflight.set(1);
            tracing::info!(
                "current-db-size-bytes" = bytes_before,
                "current-db-size-in-use-bytes" = bytes_in_use,
                "defragmenting"
            );
            Run {
                defrag: Defrag::default(),
                askers: Vec::new(),
                begun: now,
                next: now,
                bytes_before,
            }
        })
    }

    /// The database is another one now: a run under way begins anew.
    pub(crate) fn restart(&mut self) {
        if let Some(run) = &mut self.run {
            run.defrag = Defrag::default();
        }
    }

    /// When the next step is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.run.as_ref().map(|run| run.next)
    }

    /// Begins a run unasked when much has been free for long: what is free for a short time will
    /// be used again.
    pub(crate) fn consider(&mut self, now: Instant) {
        let (size, in_use) = self.shared.view.db_sizes();
        let free = size - in_use;
        if free < FREE_BYTES_MIN || free < size / 2 || self.run.is_some() {
            self.loose_since = None;
            return;
        }
        let since = *self.loose_since.get_or_insert(now);
        if now - since >= FREE_FOR {
            self.begin(now);
        }
    }

    /// Makes the next step.
    pub(crate) fn step(&mut self, committer: &mut Committer, post: &mut Post) {
        let Some(run) = &mut self.run else {
            return;
        };
        let begin = Instant::now();
        match committer.defragment(&mut run.defrag) {
            Ok(step) if !step.done => {
                let pause = if run.askers.is_empty() {
                    PAUSE_UNASKED
                } else {
                    PAUSE_ASKED
                };
                run.next = Instant::now() + begin.elapsed().mul_f64(pause);
            }
            Ok(_) => self.end(post, &Ok(Vec::new())),
            Err(error) if committer.has_failed() => fatal("defragment the database", &error),
            Err(error) => {
                tracing::warn!(%error, "failed to defragment");
                let source = std::error::Error::source(&error);
                let text = source.map_or_else(|| error.to_string(), ToString::to_string);
                self.end(post, &Err(Status::new(Code::Unknown, text)));
            }
        }
    }

    fn end(&mut self, post: &mut Post, answer: &Result<Vec<u8>, Status>) {
        let Some(run) = self.run.take() else {
            return;
        };
        let took = run.begun.elapsed();
        let (bytes, _) = self.shared.view.db_sizes();
        self.loose_since = None;
        self.shared.metrics.defrag_inflight.set(0);
        self.shared.metrics.defrag.observe_seconds(took);
        tracing::info!(
            "current-db-size-bytes-diff" = bytes as i64 - run.bytes_before as i64,
            "current-db-size-bytes" = bytes,
            ?took,
            "finished defragmenting"
        );
        for asker in run.askers {
            post.put(Mail::Answer(asker, answer.clone()));
        }
        post.deliver();
    }
}
