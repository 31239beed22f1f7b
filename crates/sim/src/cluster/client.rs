//! Clients, one request at a time each, and what their answers prove.
//!
//! Every answer names a place in the log, by the entry or by the state that it shows. The history
//! is linearizable when each answer is what the replay says at its place, and no request that
//! began after another was answered has an earlier place. That the places are a legal order is no
//! guess: they are the order in which all members apply.

use api::pb::etcdserverpb::RangeRequest;

use super::truth::Truth;
use crate::{Broken, broken};

/// What a client waits for.
#[derive(Clone, Debug)]
pub enum Doing {
    Nothing,
    /// A write of this request id.
    Write {
        id: u64,
    },
    /// A linearizable read.
    Read {
        key: Vec<u8>,
    },
}

#[derive(Clone, Debug)]
pub struct Client {
    pub doing: Doing,
    /// Grows by one per operation; answers to older ones are late.
    pub number: u64,
    /// Where it asks, usually.
    pub site: usize,
    /// The last place in the log that any client had seen when the operation began.
    floor: u64,
    pub since_us: u64,
}

impl Client {
    pub fn new(site: usize) -> Client {
        Client {
            doing: Doing::Nothing,
            number: 0,
            site,
            floor: 0,
            since_us: 0,
        }
    }

    pub fn begin(&mut self, doing: Doing, truth: &Truth, now_us: u64) {
        self.doing = doing;
        self.number += 1;
        self.floor = truth.floor();
        self.since_us = now_us;
    }

    /// Gives up: the operation may still take effect, or never.
    pub fn give_up(&mut self) {
        self.doing = Doing::Nothing;
    }

    /// A write was answered.
    pub fn on_written(&mut self, truth: &mut Truth) -> Result<(), Broken> {
        let Doing::Write { id } = std::mem::replace(&mut self.doing, Doing::Nothing) else {
            return Err(broken!("an answer to nothing"));
        };
        let place = truth
            .place(id)
            .ok_or_else(|| broken!("request {id:x} is answered and was never applied"))?;
        if place <= self.floor {
            return Err(broken!(
                "a write that began after entry {} was seen is entry {place}",
                self.floor
            ));
        }
        truth.on_shown(place);
        Ok(())
    }

    /// A linearizable read may be answered from this state now.
    pub fn on_readable(&mut self, view: &state::View, truth: &mut Truth) -> Result<(), Broken> {
        let Doing::Read { key } = std::mem::replace(&mut self.doing, Doing::Nothing) else {
            return Err(broken!("a read is answered that nobody asked"));
        };
        let place = view.applied().index.0;
        if place < self.floor {
            return Err(broken!(
                "a linearizable read that began after entry {} was seen shows {place}",
                self.floor
            ));
        }
        check_key(view, &key, truth)?;
        truth.on_shown(place);
        Ok(())
    }
}

/// A key as the member shows it, against the replay at the member's place.
pub fn check_key(view: &state::View, key: &[u8], truth: &Truth) -> Result<(), Broken> {
    let place = view.applied().index.0;
    let revision = truth.revision_at(place);
    if view.revision() != revision {
        return Err(broken!(
            "at {place} a read shows revision {}, the replay {revision}",
            view.revision()
        ));
    }
    let request = RangeRequest {
        key: key.to_vec().into(),
        ..Default::default()
    };
    let answer =
        crate::ledger::range(view, request).map_err(|error| broken!("a read fails: {error:?}"))?;
    let found = crate::ledger::items(answer)?;
    let mut wanted = truth.model().at(revision);
    let wanted = wanted.remove(key);
    if found.get(key) != wanted.as_ref() {
        return Err(broken!(
            "at {place} key {} is {:?}, in the replay {wanted:?}",
            String::from_utf8_lossy(key),
            found.get(key)
        ));
    }
    Ok(())
}
