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
    /// Those that arrived since the round before it was asked.
    reads: Vec<Read>,
}

/// Every read that is under way, in one of three stages.
#[derive(Default)]
pub(super) struct Reads {
    /// Arrived, no round yet.
    waiting: Vec<Read>,
    /// What arrives while a round is under way forms the next. A round without an answer in time is
    /// followed by another, not forgotten: where answers take longer than that, it must count.
    rounds: VecDeque<Round>,
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
        !self.rounds.is_empty() || !self.waiting.is_empty()
    }

    /// Confirms everything that waits: for a member that is its own quorum.
    pub(super) fn confirm_all(&mut self, index: LogIndex) {
        let asked = self.rounds.drain(..).flat_map(|round| round.reads);
        let mut reads: Vec<Read> = asked.collect();
        reads.append(&mut self.waiting);
        self.push_confirmed(index, reads);
    }

    /// Whether a round should be asked for now: there are reads and no round, or the last round was
    /// asked for `retry_ticks` ago and may have been lost.
    pub(super) fn wants_round(&self, tick: u64, retry_ticks: u64) -> bool {
        match self.rounds.back() {
            Some(round) => tick >= round.asked_tick + retry_ticks,
            None => !self.waiting.is_empty(),
        }
    }

    /// Begins a round with what waits, beside those that have no answer yet.
    pub(super) fn begin_round(&mut self, context: Bytes, tick: u64) {
        self.rounds.push_back(Round {
            context,
            asked_tick: tick,
            reads: std::mem::take(&mut self.waiting),
        });
    }

    /// The engine confirmed a round, and with it all that were asked for before; an answer to none
    /// of them is ignored.
    pub(super) fn on_confirmed(&mut self, context: &[u8], index: LogIndex) {
        let confirmed = self.rounds.iter().position(|one| one.context == context);
        if let Some(last) = confirmed {
            let rounds = self.rounds.drain(..=last);
            let reads = rounds.flat_map(|round| round.reads).collect();
            self.push_confirmed(index, reads);
            self.drop_empty_rounds();
        }
    }

    /// Rounds for which nobody waits any more, but for those behind others: their answer counts
    /// for what was asked before them.
    fn drop_empty_rounds(&mut self) {
        let is_empty = |round: &Round| round.reads.is_empty();
        while self.rounds.front().is_some_and(is_empty) {
            self.rounds.pop_front();
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

    /// Gives up the rounds that were asked of a leader which is no longer.
    pub(super) fn abandon_rounds(&mut self) -> Vec<Token> {
        let reads = self.rounds.drain(..).flat_map(|round| round.reads);
        reads.map(|read| read.token).collect()
    }

    /// Gives up all of them.
    pub(super) fn abandon_all(&mut self) -> Vec<Token> {
        let mut tokens = self.abandon_rounds();
        let confirmed = std::mem::take(&mut self.confirmed);
        let rest = confirmed.into_iter().flat_map(|(_, reads)| reads);
        let waiting = std::mem::take(&mut self.waiting);
        tokens.extend(waiting.into_iter().chain(rest).map(|read| read.token));
        tokens
    }

    /// Removes those that have waited since `deadline` or longer.
    pub(super) fn expire(&mut self, deadline: u64) -> Vec<Token> {
        let mut expired = Vec::new();
        let mut sift = |reads: &mut Vec<Read>| {
            reads.retain(|read| {
                let keep = read.since_tick > deadline;
                if !keep {
                    expired.push(read.token);
                }
                keep
            });
        };
        sift(&mut self.waiting);
        for round in &mut self.rounds {
            sift(&mut round.reads);
        }
        for (_, reads) in &mut self.confirmed {
            sift(reads);
        }
        self.drop_empty_rounds();
        self.confirmed.retain(|(_, reads)| !reads.is_empty());
        expired
    }
}

#[cfg(test)]
mod tests;
