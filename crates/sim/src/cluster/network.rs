//! The network: who reaches whom, and when what was said arrives.

use std::collections::BTreeSet;

use storage::simfs::Rng;

/// How the links behave for a while.
#[derive(Clone, Debug, Default)]
pub struct Network {
    /// Directed links that carry nothing.
    blocked: BTreeSet<(usize, usize)>,
    /// One message in so many is lost; 0 for none.
    pub lose_one_in: u64,
    /// One message in so many arrives twice; 0 for none.
    pub repeat_one_in: u64,
    /// Longest time on the way, in microseconds. Messages overtake each other.
    pub delay_us_max: u64,
}

/// A way to cut links.
#[derive(Clone, Copy, Debug)]
pub enum Cut {
    /// Nobody reaches the site, and it nobody.
    Alone(usize),
    /// The site is heard by nobody, or hears nobody.
    Deaf(usize),
    Mute(usize),
    /// Sites below the number and the others.
    Halves(usize),
    /// All but the site are cut from each other.
    Bridge(usize),
    /// One link, one way.
    Link(usize, usize),
}

impl Cut {
    pub fn draw(sites: usize, leader: Option<usize>, rng: &mut Rng) -> Cut {
        let any = rng.below(sites as u64) as usize;
        let one = leader.filter(|_| rng.one_in(2)).unwrap_or(any);
        match rng.below(7) {
            0 | 1 => Cut::Alone(one),
            2 => Cut::Deaf(one),
            3 => Cut::Mute(one),
            4 => Cut::Halves(1 + any),
            5 => Cut::Bridge(one),
            _ => Cut::Link(one, rng.below(sites as u64) as usize),
        }
    }

    fn cuts(self, from: usize, to: usize) -> bool {
        match self {
            Cut::Alone(site) => from == site || to == site,
            Cut::Deaf(site) => to == site,
            Cut::Mute(site) => from == site,
            Cut::Halves(at) => (from < at) != (to < at),
            Cut::Bridge(site) => from != site && to != site,
            Cut::Link(one, other) => (from, to) == (one, other),
        }
    }
}

impl Network {
    pub fn cut(&mut self, cut: Cut, sites: usize) {
        for from in 0..sites {
            for to in 0..sites {
                if from != to && cut.cuts(from, to) {
                    self.blocked.insert((from, to));
                }
            }
        }
    }

    /// Heals everything.
    pub fn heal(&mut self) {
        *self = Network {
            delay_us_max: DELAY_US,
            ..Network::default()
        };
    }

    /// Only the cut links are whole again.
    pub fn join(&mut self) {
        self.blocked.clear();
    }

    pub fn reaches(&self, from: usize, to: usize) -> bool {
        !self.blocked.contains(&(from, to))
    }

    /// Times on the way of each copy that arrives; none when the message is lost.
    pub fn travel(&self, from: usize, to: usize, may_repeat: bool, rng: &mut Rng) -> Vec<u64> {
        let lost = self.lose_one_in > 0 && rng.one_in(self.lose_one_in);
        if lost || !self.reaches(from, to) {
            return Vec::new();
        }
        let twice = may_repeat && self.repeat_one_in > 0 && rng.one_in(self.repeat_one_in);
        let time = |rng: &mut Rng| 50 + rng.below(self.delay_us_max.max(1));
        (0..1 + u64::from(twice)).map(|_| time(rng)).collect()
    }
}

/// Usual longest time on the way, in microseconds.
pub const DELAY_US: u64 = 2000;
