//! A hierarchical timer wheel: items fall due at a tick, in constant time each, however many wait.
//!
//! Level 0 has a slot for each of the next 64 ticks, level 1 for each of the next 64 spans of 64
//! ticks, and so on. An item lies on the level of the highest digit (base 64) in which its tick
//! differs from the present, and comes down a level when that digit is reached.

use std::mem;

const DIGIT_BITS: u32 = 6;
const SLOTS: usize = 1 << DIGIT_BITS;
/// 64⁶ ticks; an item beyond is looked at again on the way.
const LEVELS: usize = 6;

/// Items by the tick at which they fall due. Nothing is ever taken out early: whoever changes its
/// mind tells from the tick that an item brings back whether it still counts.
#[derive(Debug)]
pub(super) struct Wheel<T> {
    now: u64,
    len: usize,
    slots: Vec<Vec<(u64, T)>>,
}

impl<T> Wheel<T> {
    /// An empty wheel at this tick.
    pub(super) fn new(now: u64) -> Wheel<T> {
        Wheel {
            now,
            len: 0,
            slots: (0..LEVELS * SLOTS).map(|_| Vec::new()).collect(),
        }
    }

    /// Puts an item in; a tick that is not in the future becomes the next one. Returns the tick at
    /// which it will fall due.
    pub(super) fn insert(&mut self, at: u64, item: T) -> u64 {
        let at = at.max(self.now + 1);
        let slot = self.slot(at);
        self.slots[slot].push((at, item));
        self.len += 1;
        at
    }

    /// The slot of a tick in the future.
    fn slot(&self, at: u64) -> usize {
        let highest = (at ^ self.now).ilog2();
        let level = ((highest / DIGIT_BITS) as usize).min(LEVELS - 1);
        level * SLOTS + digit(at, level)
    }

    /// Moves on to the tick `to` and appends what falls due on the way.
    pub(super) fn advance(&mut self, to: u64, due: &mut Vec<(u64, T)>) {
        while self.now < to {
            if self.len == 0 {
                self.now = to;
                return;
            }
            self.now += 1;
            let zeros = (self.now.trailing_zeros() / DIGIT_BITS) as usize;
            for level in (0..=zeros.min(LEVELS - 1)).rev() {
                self.empty(level * SLOTS + digit(self.now, level), due);
            }
        }
    }

    fn empty(&mut self, slot: usize, due: &mut Vec<(u64, T)>) {
        for (at, item) in mem::take(&mut self.slots[slot]) {
            if at <= self.now {
                self.len -= 1;
                due.push((at, item));
            } else {
                let slot = self.slot(at);
                self.slots[slot].push((at, item));
            }
        }
    }
}

fn digit(tick: u64, level: usize) -> usize {
    (tick >> (level as u32 * DIGIT_BITS)) as usize % SLOTS
}

#[cfg(test)]
mod tests;
