//! The endpoints behind the gateway, and whose turn it is.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Mutex, PoisonError};

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remote {
    host: String,
    port: u16,
    /// Those with the lowest are used while one of them is active.
    priority: u16,
    /// The share of connections among those of a priority; those without one take turns.
    weight: u16,
    is_active: bool,
}

impl Remote {
    pub(super) fn new(host: &str, port: u16, priority: u16, weight: u16) -> Self {
        Remote {
            host: host.to_owned(),
            port,
            priority,
            weight,
            is_active: true,
        }
    }

    /// Reads `host:port` or a URL with both.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("error parsing endpoint {text:?}");
        let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
        let rest = rest.split('/').next().unwrap_or_default();
        let (host, port) = rest.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().map_err(|_| wrong())?;
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        match bare {
            None if host.is_empty() || host.contains(':') => Err(wrong()),
            _ => Ok(Self::new(bare.unwrap_or(host), port, 0, 0)),
        }
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn address(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

/// All endpoints. The lock is held for a look or a change, never across a wait.
pub(super) struct Remotes {
    state: Mutex<State>,
}

struct State {
    remotes: Vec<Remote>,
    /// Counts picks among those without weights.
    turn: usize,
    random: RandomState,
}

impl Remotes {
    pub(super) fn new(remotes: Vec<Remote>) -> Self {
        Remotes {
            state: Mutex::new(State {
                remotes,
                turn: 0,
                random: RandomState::new(),
            }),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose turn it is: place and address; `None` while no endpoint is active.
    pub(super) fn pick(&self) -> Option<(usize, String)> {
        let mut state = self.state();
        let at = state.pick()?;
        Some((at, state.remotes[at].address()))
    }

    pub(super) fn set_active(&self, at: usize, is_active: bool) {
        self.state().remotes[at].is_active = is_active;
    }

    /// Those that failed: place and address.
    pub(super) fn inactive(&self) -> Vec<(usize, String)> {
        let state = self.state();
        let remotes = state.remotes.iter().enumerate();
        remotes
            .filter(|(_, remote)| !remote.is_active)
            .map(|(at, remote)| (at, remote.address()))
            .collect()
    }
}

impl State {
    fn pick(&mut self) -> Option<usize> {
        let active = self.remotes.iter().filter(|remote| remote.is_active);
        let best = active.map(|remote| remote.priority).min()?;
        let class = |weighted: bool| -> Vec<usize> {
            let all = self.remotes.iter().enumerate();
            all.filter(|(_, one)| one.is_active && one.priority == best)
                .filter(|(_, one)| (one.weight > 0) == weighted)
                .map(|(at, _)| at)
                .collect()
        };
        let (weighted, unweighted) = (class(true), class(false));
        // Beside weighted ones, those of weight 0 are meant to be chosen hardly ever.
        let takes_turn = weighted.is_empty() || (!unweighted.is_empty() && self.random(100) == 0);
        if takes_turn {
            let at = unweighted[self.turn % unweighted.len()];
            self.turn = self.turn.wrapping_add(1);
            return Some(at);
        }
        let sum = weighted
            .iter()
            .map(|at| u64::from(self.remotes[*at].weight))
            .sum();
        let mut chosen = self.random(sum);
        weighted.into_iter().find(|at| {
            let weight = u64::from(self.remotes[*at].weight);
            let is_here = chosen < weight;
            chosen = chosen.saturating_sub(weight);
            is_here
        })
    }

    /// A number below `end`, not for secrets.
    fn random(&mut self, end: u64) -> u64 {
        let mut hasher = self.random.build_hasher();
        self.turn = self.turn.wrapping_add(1);
        hasher.write_usize(self.turn);
        hasher.finish() % end.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_lose_their_scheme() {
        for (text, address) in [
            ("127.0.0.1:2379", "127.0.0.1:2379"),
            ("https://a.example:2379/x", "a.example:2379"),
            ("[::1]:2379", "[::1]:2379"),
        ] {
            let remote = Remote::parse(text).expect(text);
            assert_eq!(remote.address(), address);
        }
        for text in ["", "a", ":1", "::1:1", "a:b", "a:70000"] {
            assert!(Remote::parse(text).is_err(), "{text}");
        }
    }

    fn remotes(classes: &[(u16, u16)]) -> Remotes {
        let each = classes.iter().zip(1..);
        Remotes::new(
            each.map(|((priority, weight), port)| Remote::new("h", port, *priority, *weight))
                .collect(),
        )
    }

    #[test]
    fn active_ones_of_the_best_priority_take_turns() {
        let remotes = remotes(&[(0, 0), (0, 0), (1, 0)]);
        let picked: Vec<_> = (0..4)
            .filter_map(|_| remotes.pick())
            .map(|(at, _)| at)
            .collect();
        assert_eq!(picked, [0, 1, 0, 1]);
        remotes.set_active(0, false);
        assert_eq!(remotes.pick().map(|(at, _)| at), Some(1));
        remotes.set_active(1, false);
        assert_eq!(remotes.pick().map(|(at, _)| at), Some(2));
        remotes.set_active(2, false);
        assert_eq!(remotes.pick(), None);
        assert_eq!(remotes.inactive().len(), 3);
        remotes.set_active(0, true);
        assert_eq!(remotes.pick().map(|(at, _)| at), Some(0));
    }

    #[test]
    fn weights_are_shares() {
        let remotes = remotes(&[(0, 3), (0, 1)]);
        let first = (0..4000)
            .filter(|_| remotes.pick().is_some_and(|(at, _)| at == 0))
            .count();
        assert!((2700..3300).contains(&first), "{first}");
    }
}
