//! A request body into its JSON values, as its bytes come.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::json::{Scanner, Step};

/// The memory that all incomplete bodies together may take.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    used_bytes: Arc<AtomicUsize>,
    bytes_max: usize,
}

impl Budget {
    pub(super) fn new(bytes_max: usize) -> Budget {
        Budget {
            used_bytes: Arc::default(),
            bytes_max,
        }
    }

    fn take(&self, bytes: usize) -> bool {
        let before = self.used_bytes.fetch_add(bytes, Relaxed);
        if before + bytes <= self.bytes_max {
            return true;
        }
        self.give(bytes);
        false
    }

    fn give(&self, bytes: usize) {
        self.used_bytes.fetch_sub(bytes, Relaxed);
    }
}

/// Why a body is not read on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// No JSON, in Go's words.
    Syntax(String),
    /// One value is longer than this many bytes.
    TooLong(usize),
    /// All bodies together are.
    Crowded,
}

/// Collects the bytes of one value at a time.
#[derive(Debug)]
pub(super) struct Splitter {
    scanner: Scanner,
    /// The value under way, without the white space before it.
    value: Vec<u8>,
    charged_bytes: usize,
    value_bytes_max: usize,
    budget: Budget,
}

impl Splitter {
    pub(super) fn new(value_bytes_max: usize, budget: Budget) -> Splitter {
        Splitter {
            scanner: Scanner::default(),
            value: Vec::new(),
            charged_bytes: 0,
            value_bytes_max,
            budget,
        }
    }

    /// Takes bytes up to the end of a value, which is given back, or all of them.
    ///
    /// # Errors
    /// The body cannot be read on.
    pub(super) fn feed(&mut self, bytes: &mut &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        let mut begin = 0;
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            let plain = self.scanner.plain(&bytes[at..]);
            if plain > 0 {
                at += plain;
                continue;
            }
            let outside = !self.scanner.is_inside();
            let step = self.scanner.step(*byte).map_err(Fault::Syntax)?;
            if outside && !self.scanner.is_inside() {
                begin = at + 1;
            }
            match step {
                Step::Inside => at += 1,
                Step::Last | Step::Beyond => {
                    at += usize::from(step == Step::Last);
                    self.keep(&bytes[begin..at])?;
                    *bytes = &bytes[at..];
                    return Ok(Some(self.take()));
                }
            }
        }
        self.keep(&bytes[begin..])?;
        *bytes = &[];
        Ok(None)
    }

    /// The body is over: a number may just have become complete.
    ///
    /// # Errors
    /// A value was begun and not ended.
    pub(super) fn finish(&mut self) -> Result<Option<Vec<u8>>, Fault> {
        match self.scanner.is_inside() {
            false => Ok(None),
            true if self.scanner.may_end() => Ok(Some(self.take())),
            true => Err(Fault::Syntax("unexpected EOF".into())),
        }
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        if self.value.len() + bytes.len() > self.value_bytes_max {
            return Err(Fault::TooLong(self.value_bytes_max));
        }
        if !self.budget.take(bytes.len()) {
            return Err(Fault::Crowded);
        }
        self.charged_bytes += bytes.len();
        self.value.extend_from_slice(bytes);
        Ok(())
    }

    fn take(&mut self) -> Vec<u8> {
        self.scanner = Scanner::default();
        self.budget.give(std::mem::take(&mut self.charged_bytes));
        std::mem::take(&mut self.value)
    }
}

impl Drop for Splitter {
    fn drop(&mut self) {
        self.budget.give(self.charged_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn splitter(value_bytes_max: usize) -> Splitter {
        Splitter::new(value_bytes_max, Budget::new(100))
    }

    /// All values of a body that comes in pieces of `size` bytes.
    fn values(body: &str, size: usize) -> Result<Vec<String>, Fault> {
        let mut splitter = splitter(50);
        let mut values = Vec::new();
        let mut push = |value: Vec<u8>| values.push(String::from_utf8(value).unwrap());
        for mut piece in body.as_bytes().chunks(size) {
            while let Some(value) = splitter.feed(&mut piece)? {
                push(value);
            }
        }
        splitter.finish()?.into_iter().for_each(&mut push);
        Ok(values)
    }

    #[test]
    fn splits_at_any_place() {
        let body = " {\"a\":\"} \\\" {\"}{}\n[1,2] 12 true-3";
        for size in 1..body.len() {
            let want = ["{\"a\":\"} \\\" {\"}", "{}", "[1,2]", "12", "true", "-3"];
            assert_eq!(values(body, size).unwrap(), want, "{size}");
        }
        assert_eq!(values("  \n", 1).unwrap(), Vec::<String>::new());
        let cut = Fault::Syntax("unexpected EOF".into());
        assert_eq!(values("{} {", 2).unwrap_err(), cut);
    }

    #[test]
    fn bounds() {
        let budget = Budget::new(100);
        let mut first = Splitter::new(60, budget.clone());
        let text = format!("\"{}", "a".repeat(58));
        assert_eq!(first.feed(&mut text.as_bytes()), Ok(None));
        assert_eq!(first.feed(&mut &b"aa"[..]), Err(Fault::TooLong(60)));
        let mut second = Splitter::new(60, budget.clone());
        assert_eq!(second.feed(&mut text.as_bytes()), Err(Fault::Crowded));
        drop(first);
        let mut second = Splitter::new(60, budget.clone());
        assert_eq!(second.feed(&mut text.as_bytes()), Ok(None));
        assert!(second.feed(&mut &b"\""[..]).unwrap().is_some());
        assert_eq!(budget.used_bytes.load(Relaxed), 0);
    }
}
