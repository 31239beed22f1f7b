//! Linearizable reads: wait for a round that began after they arrived, then for apply.

use std::collections::VecDeque;

use bytes::Bytes;
use storage::log::LogIndex;

use super::Token;

#[derive(Clone, Copy, Debug)]
struct Read {
    token: Token,
    since_tick: u64,
}

/// Reads for which the engine was asked.
struct Round {
    /// Unique, so that an answer can only belong to a question asked after the reads arrived.
    context: Bytes,
    asked_tick: u64,
    reads: Vec<Read>,
}

/// Every read that is under way, in one of three stages.
#[derive(Default)]
pub(super) struct Reads {
    /// Arrived, no round yet.
    waiting: Vec<Read>,
    /// At most one round at a time; what arrives meanwhile forms the next.
    round: Option<Round>,
    /// Confirmed; answered once the index is applied. Indexes never decrease.
    confirmed: VecDeque<(LogIndex, Vec<Read>)>,
}

impl Reads {
    pub(super) fn arrive(&mut self, tokens: Vec<Token>, since_tick: u64) {
        self.waiting
            .extend(tokens.into_iter().map(|token| Read { token, since_tick }));
    }

    /// Whether any read has no confirmed index yet.
    pub(super) fn is_unconfirmed(&self) -> bool {
        self.round.is_some() || !self.waiting.is_empty()
    }

    /// Confirms everything that waits: for a member that is its own quorum.
    pub(super) fn confirm_all(&mut self, index: LogIndex) {
        let mut reads = self.round.take().map_or_else(Vec::new, |round| round.reads);
        reads.append(&mut self.waiting);
        self.push_confirmed(index, reads);
    }

    /// Whether a round should be asked for now: there are reads and no round, or the round that
    /// is under way was asked for `retry_ticks` ago and may have been lost.
    pub(super) fn wants_round(&self, tick: u64, retry_ticks: u64) -> bool {
        match &self.round {
            Some(round) => tick >= round.asked_tick + retry_ticks,
            None => !self.waiting.is_empty(),
        }
    }

    /// Begins a round, or begins the present one anew with another context.
    pub(super) fn begin_round(&mut self, context: Bytes, tick: u64) {
        let mut reads = self.round.take().map_or_else(Vec::new, |round| round.reads);
        reads.append(&mut self.waiting);
        self.round = Some(Round {
            context,
            asked_tick: tick,
            reads,
        });
    }

    /// The engine confirmed a round; an answer to a round that was given up is ignored.
    pub(super) fn on_confirmed(&mut self, context: &[u8], index: LogIndex) {
        if self
            .round
            .as_ref()
            .is_some_and(|round| round.context == context)
        {
            let reads = self.round.take().map_or_else(Vec::new, |round| round.reads);
            self.push_confirmed(index, reads);
        }
    }

    fn push_confirmed(&mut self, index: LogIndex, mut reads: Vec<Read>) {
        if reads.is_empty() {
            return;
        }
        match self.confirmed.back_mut() {
            Some((last, same)) if *last >= index => same.append(&mut reads),
            _ => self.confirmed.push_back((index, reads)),
        }
    }

    /// Reads whose index is applied.
    pub(super) fn take_ready(&mut self, applied: LogIndex) -> Option<(LogIndex, Vec<Token>)> {
        let (index, _) = self
            .confirmed
            .front()
            .filter(|(index, _)| *index <= applied)?;
        let index = *index;
        let (_, reads) = self.confirmed.pop_front()?;
        Some((index, reads.into_iter().map(|read| read.token).collect()))
    }

    /// Gives up the round that was asked of a leader which is no longer.
    pub(super) fn abandon_round(&mut self) -> Vec<Token> {
        let reads = self.round.take().map_or_else(Vec::new, |round| round.reads);
        reads.into_iter().map(|read| read.token).collect()
    }

    /// Gives up all of them.
    pub(super) fn abandon_all(&mut self) -> Vec<Token> {
        let mut tokens = self.abandon_round();
        let confirmed = std::mem::take(&mut self.confirmed);
        let rest = confirmed.into_iter().flat_map(|(_, reads)| reads);
        let waiting = std::mem::take(&mut self.waiting);
        tokens.extend(waiting.into_iter().chain(rest).map(|read| read.token));
        tokens
    }

    /// Removes those that have waited since `deadline` or longer.
    pub(super) fn expire(&mut self, deadline: u64) -> Vec<(Token, u64)> {
        let mut expired = Vec::new();
        let mut sift = |reads: &mut Vec<Read>| {
            reads.retain(|read| {
                let keep = read.since_tick > deadline;
                if !keep {
                    expired.push((read.token, read.since_tick));
                }
                keep
            });
        };
        sift(&mut self.waiting);
        if let Some(round) = &mut self.round {
            sift(&mut round.reads);
        }
        for (_, reads) in &mut self.confirmed {
            sift(reads);
        }
        self.round.take_if(|round| round.reads.is_empty());
        self.confirmed.retain(|(_, reads)| !reads.is_empty());
        expired
    }
}
