//! Who waits for which renewal: a machine without sockets or time.

use std::collections::{BTreeSet, HashMap, VecDeque};

use api::Code;
use tonic::Status;

/// How a stream of renewals ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The connection did; renewals may be asked for again.
    Broken,
    /// The server cannot renew anything now.
    Unavailable,
    /// The server refused one of the renewals, and does not say which.
    Refused,
}

impl End {
    /// What a status means: the texts of the table are a server's.
    pub(super) fn of(status: &Status) -> Self {
        let error = client::Error::from(status.clone());
        let is_server = api::Error::ALL.iter().any(|known| error.is(*known));
        match error.code() {
            Some(Code::Unavailable) if is_server => End::Unavailable,
            Some(Code::Unavailable | Code::Internal) => End::Broken,
            _ => End::Refused,
        }
    }
}

/// Renewals that clients (`W`) wait for. Of each lease at most one is under way.
pub(super) struct Renewals<W> {
    leases: HashMap<i64, Lease<W>>,
    /// Leases to renew, in order; none of them is under way.
    due: VecDeque<i64>,
    /// Leases whose renewal was asked for.
    under_way: BTreeSet<i64>,
    /// While positive, one renewal at a time is under way, to find the one that is refused.
    careful: usize,
}

struct Lease<W> {
    /// Wait for the renewal under way, if there is one.
    served: Vec<W>,
    /// Asked since it began; wait for the next one.
    waiting: Vec<W>,
}

impl<W> Default for Renewals<W> {
    fn default() -> Self {
        Renewals {
            leases: HashMap::new(),
            due: VecDeque::new(),
            under_way: BTreeSet::new(),
            careful: 0,
        }
    }
}

impl<W> Renewals<W> {
    /// Somebody wants a renewal that begins from now on.
    pub(super) fn ask(&mut self, id: i64, who: W) {
        let is_under_way = self.under_way.contains(&id);
        let lease = self.leases.entry(id).or_insert_with(|| Lease {
            served: Vec::new(),
            waiting: Vec::new(),
        });
        if lease.waiting.is_empty() && !is_under_way {
            self.due.push_back(id);
        }
        lease.waiting.push(who);
    }

    /// The lease whose renewal is to be asked for now, if any.
    pub(super) fn next(&mut self) -> Option<i64> {
        if self.careful > 0 && !self.under_way.is_empty() {
            return None;
        }
        let id = self.due.pop_front()?;
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.served.append(&mut lease.waiting);
        }
        self.under_way.insert(id);
        Some(id)
    }

    /// A renewal was answered. Returns who waited for it.
    pub(super) fn on_answer(&mut self, id: i64) -> Vec<W> {
        if !self.under_way.remove(&id) {
            return Vec::new();
        }
        self.careful = self.careful.saturating_sub(1);
        self.finish(id)
    }

    /// The stream ended with renewals under way. Returns who must be told.
    pub(super) fn on_end(&mut self, end: End) -> Vec<W> {
        let is_known = end == End::Refused && self.under_way.len() == 1;
        if end == End::Unavailable || is_known {
            self.careful = self.careful.saturating_sub(1);
            let refused = std::mem::take(&mut self.under_way);
            return refused.into_iter().flat_map(|id| self.finish(id)).collect();
        }
        if end == End::Refused {
            self.careful = self.under_way.len();
        }
        while let Some(id) = self.under_way.pop_last() {
            if let Some(lease) = self.leases.get_mut(&id) {
                lease.waiting.append(&mut lease.served);
            }
            self.due.push_front(id);
        }
        Vec::new()
    }

    /// Leaves out who waits no more, and the renewals that nobody waits for.
    pub(super) fn retain(&mut self, mut waits: impl FnMut(&W) -> bool) {
        let under_way = &self.under_way;
        self.leases.retain(|id, lease| {
            lease.served.retain(&mut waits);
            lease.waiting.retain(&mut waits);
            under_way.contains(id) || !lease.waiting.is_empty()
        });
        self.due.retain(|id| self.leases.contains_key(id));
    }

    /// Takes those out who waited for a renewal, and makes the next one due if somebody wants it.
    fn finish(&mut self, id: i64) -> Vec<W> {
        let Some(lease) = self.leases.get_mut(&id) else {
            return Vec::new();
        };
        let served = std::mem::take(&mut lease.served);
        if lease.waiting.is_empty() {
            self.leases.remove(&id);
        } else {
            self.due.push_back(id);
        }
        served
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(renewals: &mut Renewals<char>) -> Vec<i64> {
        std::iter::from_fn(|| renewals.next()).collect()
    }

    #[test]
    fn requests_share_a_renewal_that_begins_after_them() {
        let mut renewals = Renewals::default();
        renewals.ask(1, 'a');
        renewals.ask(1, 'b');
        assert_eq!(all(&mut renewals), [1]);
        // Too late for the one under way.
        renewals.ask(1, 'c');
        renewals.ask(1, 'd');
        renewals.ask(2, 'e');
        assert_eq!(all(&mut renewals), [2]);
        assert_eq!(renewals.on_answer(1), ['a', 'b']);
        assert_eq!(all(&mut renewals), [1]);
        assert_eq!(renewals.on_answer(1), ['c', 'd']);
        assert_eq!(renewals.on_answer(2), ['e']);
        assert_eq!(renewals.on_answer(2), []);
        assert!(all(&mut renewals).is_empty());
        assert!(renewals.leases.is_empty());
    }

    #[test]
    fn a_broken_connection_costs_nobody_an_answer() {
        let mut renewals = Renewals::default();
        renewals.ask(1, 'a');
        renewals.ask(2, 'b');
        all(&mut renewals);
        renewals.ask(1, 'c');
        assert_eq!(renewals.on_end(End::Broken), []);
        assert_eq!(all(&mut renewals), [1, 2]);
        // The renewal is a new one, so it serves whoever came since.
        let mut served = renewals.on_answer(1);
        served.sort_unstable();
        assert_eq!(served, ['a', 'c']);
        assert_eq!(renewals.on_answer(2), ['b']);
    }

    #[test]
    fn nothing_is_renewed_for_who_has_gone() {
        let mut renewals = Renewals::default();
        for (id, who) in [(1, 'a'), (1, 'b'), (2, 'a'), (3, 'b')] {
            renewals.ask(id, who);
        }
        assert_eq!(renewals.next(), Some(1));
        renewals.retain(|who| *who != 'a');
        assert_eq!(all(&mut renewals), [3]);
        assert_eq!(renewals.on_answer(1), ['b']);
        renewals.on_end(End::Broken);
        renewals.retain(|who| *who != 'b');
        assert!(all(&mut renewals).is_empty());
        assert!(renewals.leases.is_empty());
        renewals.ask(2, 'c');
        assert_eq!(all(&mut renewals), [2]);
    }

    #[test]
    fn one_that_is_refused_does_not_cost_others_theirs() {
        let mut renewals = Renewals::default();
        for (id, who) in [(1, 'a'), (2, 'b'), (3, 'c')] {
            renewals.ask(id, who);
        }
        assert_eq!(all(&mut renewals), [1, 2, 3]);
        assert_eq!(renewals.on_end(End::Refused), []);
        assert_eq!(all(&mut renewals), [1]);
        assert_eq!(renewals.on_answer(1), ['a']);
        assert_eq!(all(&mut renewals), [2]);
        assert_eq!(renewals.on_end(End::Refused), ['b']);
        assert_eq!(all(&mut renewals), [3]);
        assert_eq!(renewals.on_answer(3), ['c']);
        renewals.ask(4, 'd');
        renewals.ask(5, 'e');
        assert_eq!(all(&mut renewals), [4, 5]);
    }

    #[test]
    fn without_a_leader_everybody_is_told_so() {
        let mut renewals = Renewals::default();
        renewals.ask(1, 'a');
        renewals.ask(2, 'b');
        all(&mut renewals);
        renewals.ask(2, 'c');
        assert_eq!(renewals.on_end(End::Unavailable), ['a', 'b']);
        assert_eq!(all(&mut renewals), [2]);
    }

    #[test]
    fn ends_by_their_status() {
        let refused = crate::below::refused;
        for (status, end) in [
            (
                Status::unavailable("error reading from server: EOF"),
                End::Broken,
            ),
            (Status::internal("h2 protocol error"), End::Broken),
            (refused(api::Error::NoLeader), End::Unavailable),
            (refused(api::Error::PermissionDenied), End::Refused),
            (refused(api::Error::InvalidAuthToken), End::Refused),
        ] {
            assert_eq!(End::of(&status), end, "{status:?}");
        }
    }
}
