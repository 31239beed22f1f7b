//! Reading the bolt file and both batches as one.

use std::sync::Arc;

use super::layer::Write;
use crate::bolt;

use super::{Applied, Bucket, Error, Shared, Value};

/// Writes of one batch in a range; true if more follow.
type Part = (Vec<Write>, bool);

/// Reads the newest state; cheap to clone.
#[derive(Clone)]
pub struct Reader {
    shared: Arc<Shared>,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>) -> Reader {
        Reader { shared }
    }

    /// How far the state was applied.
    #[must_use]
    pub fn applied(&self) -> Applied {
        self.shared.overlay.read().applied
    }

    /// Bytes of the file, and bytes of it in use, both as of the last commit.
    #[must_use]
    pub fn file_sizes(&self) -> (u64, u64) {
        self.shared.db.sizes()
    }

    /// Bytes in use: allocated pages less free ones, and the overlay.
    #[must_use]
    pub fn size_in_use(&self) -> u64 {
        self.shared.size_in_use()
    }

    /// Read transactions that are open on the file.
    #[must_use]
    pub fn open_readers(&self) -> usize {
        self.shared.db.open_readers()
    }

    /// The value of a key.
    ///
    /// # Errors
    /// The file cannot be read or is damaged.
    pub fn get(&self, bucket: Bucket, key: &[u8]) -> Result<Option<Value>, Error> {
        {
            let overlay = self.shared.overlay.read();
            if let Some(write) = overlay.open.get(bucket, key) {
                return Ok(write);
            }
            if let Some(committing) = &overlay.committing
                && let Some(write) = committing.get(bucket, key)
            {
                return Ok(write);
            }
        }
        // No batch had the key, so the file had its value then; what a commit adds from here on
        // is only newer.
        let at = |source| Error::Read { bucket, source };
        let tx = self.shared.db.begin_read();
        let value = tx.get(bucket.name(), key).map_err(at)?;
        Ok(value.map(|bytes| Arc::from(&bytes[..])))
    }

    /// The file and at most `limit` writes of each batch, all of one moment.
    fn layers(
        &self,
        bucket: Bucket,
        begin: &[u8],
        end: Option<&[u8]>,
        limit: usize,
    ) -> (bolt::ReadTx, Part, Part) {
        let overlay = self.shared.overlay.read();
        let tx = self.shared.db.begin_read();
        let open = overlay.open.copy_range(bucket, begin, end, limit);
        let committing = match &overlay.committing {
            Some(layer) => layer.copy_range(bucket, begin, end, limit),
            None => (Vec::new(), false),
        };
        (tx, open, committing)
    }

    /// Calls `each` for at most `limit` records with `begin <= key < end`, in key order, all of
    /// one moment. Returns where to go on, or `None` when the range is done.
    ///
    /// # Errors
    /// The file cannot be read or is damaged.
    pub fn scan(
        &self,
        bucket: Bucket,
        begin: &[u8],
        end: Option<&[u8]>,
        limit: usize,
        mut each: impl FnMut(&[u8], &[u8]),
    ) -> Result<Option<Vec<u8>>, Error> {
        let at = |source| Error::Read { bucket, source };
        let (tx, open, committing) = self.layers(bucket, begin, end, limit);
        // Beyond the last copied write of a layer that has more, the layer is unknown.
        let known_to = [&open, &committing]
            .into_iter()
            .filter(|layer| layer.1)
            .filter_map(|layer| layer.0.last().map(|write| write.0.clone()))
            .min();
        let mut writes = Merged::new(open.0, committing.0);
        let mut cursor = tx.cursor(bucket.name()).map_err(at)?;
        let mut record = cursor.seek(begin).map_err(at)?;
        let mut left = limit;
        loop {
            if let Some((key, _)) = &record
                && end.is_some_and(|end| &key[..] >= end)
            {
                record = None;
            }
            let write_key = writes.peek().map(|write| &write.0[..]);
            let from_file = match (write_key, &record) {
                (None, None) if known_to.is_none() => return Ok(None),
                (None, None) => return Ok(known_to.map(|key| after(&key))),
                (Some(write), Some((key, _))) => key[..] < *write,
                (Some(_), None) => false,
                (None, Some(_)) => true,
            };
            let key: &[u8] = match (&record, write_key) {
                (Some((key, _)), _) if from_file => key,
                (_, Some(key)) => key,
                _ => unreachable!("one of the two has a record"),
            };
            if let Some(known) = known_to.as_ref().filter(|known| key > &known[..]) {
                return Ok(Some(after(known)));
            }
            if left == 0 {
                return Ok(Some(key.to_vec()));
            }
            if from_file {
                if let Some((key, value)) = &record {
                    each(key, value);
                    left -= 1;
                }
                record = cursor.next().map_err(at)?;
                continue;
            }
            if let Some((key, value)) = writes.next() {
                if record
                    .as_ref()
                    .is_some_and(|record| record.0[..] == key[..])
                {
                    record = cursor.next().map_err(at)?;
                }
                if let Some(value) = value {
                    each(&key, &value);
                    left -= 1;
                }
            }
        }
    }
}

fn after(key: &[u8]) -> Vec<u8> {
    let mut next = key.to_vec();
    next.push(0);
    next
}

/// Two sorted lists of writes as one; the upper list wins.
struct Merged {
    upper: std::iter::Peekable<std::vec::IntoIter<Write>>,
    lower: std::iter::Peekable<std::vec::IntoIter<Write>>,
}

impl Merged {
    fn new(upper: Vec<Write>, lower: Vec<Write>) -> Merged {
        Merged {
            upper: upper.into_iter().peekable(),
            lower: lower.into_iter().peekable(),
        }
    }

    fn peek(&mut self) -> Option<&Write> {
        match (self.upper.peek(), self.lower.peek()) {
            (Some(a), Some(b)) if b.0 < a.0 => self.lower.peek(),
            (Some(_), _) => self.upper.peek(),
            (None, _) => self.lower.peek(),
        }
    }

    fn next(&mut self) -> Option<Write> {
        match (self.upper.peek(), self.lower.peek()) {
            (Some(a), Some(b)) if b.0 < a.0 => self.lower.next(),
            (Some(a), Some(b)) => {
                if a.0 == b.0 {
                    self.lower.next();
                }
                self.upper.next()
            }
            (Some(_), None) => self.upper.next(),
            (None, _) => self.lower.next(),
        }
    }
}
