//! What a watcher saw, checked as it comes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::Value;

use crate::Error;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) revision: i64,
    pub(super) deleted: bool,
    pub(super) key: Bytes,
    pub(super) value: Bytes,
    pub(super) lease: i64,
}

/// The events of one watcher in the order in which they came.
#[derive(Debug, Clone, Default)]
pub(super) struct Log {
    events: Vec<Event>,
    answers: usize,
}

impl Log {
    /// Adds the events of one answer.
    ///
    /// # Errors
    /// A revision that does not follow the one before, or one that is spread over two answers.
    pub(super) fn push(&mut self, events: Vec<Event>) -> Result<(), Error> {
        let before = self.events.last().map(|event| event.revision);
        let mut last = before;
        for event in &events {
            let follows = match last {
                None => true,
                // Only events of one answer share a revision.
                Some(last) if Some(last) == before => event.revision == last + 1,
                Some(last) => event.revision == last || event.revision == last + 1,
            };
            if !follows {
                return Err(Error(format!(
                    "revision {} came after {last:?}: {:?}",
                    event.revision, event.key
                )));
            }
            last = Some(event.revision);
        }
        self.answers += 1;
        self.events.extend(events);
        Ok(())
    }

    pub(super) fn events(&self) -> &[Event] {
        &self.events
    }

    /// How many answers brought events.
    pub(super) fn answers(&self) -> usize {
        self.answers
    }

    pub(super) fn first(&self) -> Option<i64> {
        self.events.first().map(|event| event.revision)
    }

    /// The last revision seen, 0 before the first.
    pub(super) fn last(&self) -> i64 {
        self.events.last().map_or(0, |event| event.revision)
    }

    /// The first pair of events that differ; a missing one is `None`.
    pub(super) fn first_difference(&self, other: &Log) -> Option<(Option<Event>, Option<Event>)> {
        let count = self.events.len().max(other.events.len());
        (0..count)
            .map(|at| (self.events.get(at), other.events.get(at)))
            .find(|(mine, theirs)| mine != theirs)
            .map(|(mine, theirs)| (mine.cloned(), theirs.cloned()))
    }
}

/// The events of one answer in JSON, as the gateway and etcdctl print them.
///
/// # Errors
/// A field that is missing or of another kind.
pub(super) fn parse_events(events: &Value) -> Result<Vec<Event>, Error> {
    let Some(events) = events.as_array() else {
        return Ok(Vec::new());
    };
    events
        .iter()
        .map(|event| parse_event(event).ok_or_else(|| Error(format!("no event: {event}"))))
        .collect()
}

fn parse_event(event: &Value) -> Option<Event> {
    // etcdctl prints the number of the type, the gateway its name; the first is left out.
    let deleted = match event.get("type") {
        None => false,
        Some(Value::String(name)) => name == "DELETE",
        Some(number) => number.as_i64()? == 1,
    };
    let kv = event.get("kv")?;
    Some(Event {
        revision: number(kv.get("mod_revision"))?,
        deleted,
        key: bytes(kv.get("key"))?,
        value: bytes(kv.get("value"))?,
        lease: number(kv.get("lease"))?,
    })
}

/// The gateway prints 64-bit numbers as strings; a field that is zero may be missing.
pub(super) fn number(value: Option<&Value>) -> Option<i64> {
    match value {
        None => Some(0),
        Some(Value::String(text)) => text.parse().ok(),
        Some(other) => other.as_i64(),
    }
}

fn bytes(value: Option<&Value>) -> Option<Bytes> {
    match value {
        None => Some(Bytes::new()),
        Some(text) => STANDARD.decode(text.as_str()?).ok().map(Bytes::from),
    }
}

#[cfg(test)]
mod tests;
