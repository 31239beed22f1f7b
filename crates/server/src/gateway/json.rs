//! The first look at a request's JSON: where a value ends, and whether it is JSON at all.
//!
//! The texts are those of Go's `encoding/json`, which etcd's gateway runs before it looks at
//! what the value means.

mod go;

pub(super) use go::quote_rune;

/// Arrays and objects in one another; Go stops here too.
const DEPTH_MAX: usize = 10_000;

/// What a byte did to the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The value goes on.
    Inside,
    /// This byte ended the value.
    Last,
    /// The value was complete before this byte.
    Beyond,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// At the beginning of any value.
    Value,
    /// Behind `[`: a value or `]`.
    FirstItem,
    /// Behind `{`: a key or `}`.
    FirstKey,
    /// Behind a comma in an object.
    Key,
    /// Behind a key.
    Colon,
    /// Behind a value, inside an object or array.
    After,
    Text,
    Escape,
    /// Hexadecimal digits that are still to come.
    Hex(u8),
    Minus,
    Zero,
    Digits,
    Dot,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
    /// In `true`, `false` or `null`, behind that many of its bytes.
    Word(&'static str, usize),
    /// A value that is no number ended at the top level.
    Done,
}

/// Finds the end of one JSON value, byte by byte.
#[derive(Debug)]
pub(super) struct Scanner {
    state: State,
    /// True for each open object, false for each open array.
    open: Vec<bool>,
    /// The text under way is the key of an object.
    key: bool,
}

impl Default for Scanner {
    fn default() -> Self {
        Scanner {
            state: State::Value,
            open: Vec::new(),
            key: false,
        }
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

fn unexpected(byte: u8, where_: &str) -> String {
    format!("invalid character {} {where_}", quote_rune(byte))
}

impl Scanner {
    /// Whether a value has begun.
    pub(super) fn is_inside(&self) -> bool {
        self.state != State::Value || !self.open.is_empty()
    }

    /// Whether the input may end here: behind a number, which has no end of its own.
    pub(super) fn may_end(&self) -> bool {
        let number = matches!(
            self.state,
            State::Zero | State::Digits | State::Fraction | State::ExponentDigits
        );
        number && self.open.is_empty()
    }

    /// How many of the leading bytes cannot change the state: the plain part of a text.
    pub(super) fn plain(&self, bytes: &[u8]) -> usize {
        if self.state != State::Text {
            return 0;
        }
        let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
        bytes.iter().position(special).unwrap_or(bytes.len())
    }

    /// Takes the next byte.
    ///
    /// # Errors
    /// Why this is no JSON.
    pub(super) fn step(&mut self, byte: u8) -> Result<Step, String> {
        match self.state {
            State::Value if is_space(byte) => {}
            State::Value => self.begin(byte)?,
            State::FirstItem if is_space(byte) => {}
            State::FirstItem if byte == b']' => return Ok(self.close()),
            State::FirstItem => self.begin(byte)?,
            State::FirstKey | State::Key if is_space(byte) => {}
            State::FirstKey if byte == b'}' => return Ok(self.close()),
            State::FirstKey | State::Key => match byte {
                b'"' => {
                    self.key = true;
                    self.state = State::Text;
                }
                _ => {
                    return Err(unexpected(
                        byte,
                        "looking for beginning of object key string",
                    ));
                }
            },
            State::Colon if is_space(byte) => {}
            State::Colon if byte == b':' => self.state = State::Value,
            State::Colon => return Err(unexpected(byte, "after object key")),
            State::After => return self.after(byte),
            State::Text | State::Escape | State::Hex(_) => return self.text(byte),
            State::Word(word, at) => return self.word(word, at, byte),
            State::Done => return Ok(Step::Beyond),
            _ => return self.number(byte),
        }
        Ok(Step::Inside)
    }

    fn begin(&mut self, byte: u8) -> Result<(), String> {
        self.state = match byte {
            b'{' => self.nest(true)?,
            b'[' => self.nest(false)?,
            b'"' => {
                self.key = false;
                State::Text
            }
            b'-' => State::Minus,
            b'0' => State::Zero,
            b'1'..=b'9' => State::Digits,
            b't' => State::Word("true", 1),
            b'f' => State::Word("false", 1),
            b'n' => State::Word("null", 1),
            _ => return Err(unexpected(byte, "looking for beginning of value")),
        };
        Ok(())
    }

    fn nest(&mut self, object: bool) -> Result<State, String> {
        if self.open.len() >= DEPTH_MAX {
            return Err(unexpected(
                if object { b'{' } else { b'[' },
                "exceeded max depth",
            ));
        }
        self.open.push(object);
        Ok(match object {
            true => State::FirstKey,
            false => State::FirstItem,
        })
    }

    fn close(&mut self) -> Step {
        self.open.pop();
        self.ended()
    }

    /// A value that has an end of its own is complete.
    fn ended(&mut self) -> Step {
        if self.open.is_empty() {
            self.state = State::Done;
            return Step::Last;
        }
        self.state = State::After;
        Step::Inside
    }

    fn after(&mut self, byte: u8) -> Result<Step, String> {
        let object = self.open.last() == Some(&true);
        match (byte, object) {
            _ if is_space(byte) => Ok(Step::Inside),
            (b',', true) => {
                self.state = State::Key;
                Ok(Step::Inside)
            }
            (b',', false) => {
                self.state = State::Value;
                Ok(Step::Inside)
            }
            (b'}', true) | (b']', false) => Ok(self.close()),
            (_, true) => Err(unexpected(byte, "after object key:value pair")),
            (_, false) => Err(unexpected(byte, "after array element")),
        }
    }

    fn text(&mut self, byte: u8) -> Result<Step, String> {
        self.state = match (self.state, byte) {
            (State::Text, b'"') if self.key => State::Colon,
            (State::Text, b'"') => return Ok(self.ended()),
            (State::Text, b'\\') => State::Escape,
            (State::Text, 0..0x20) => return Err(unexpected(byte, "in string literal")),
            (State::Text, _) => State::Text,
            (State::Escape, b'u') => State::Hex(4),
            (State::Escape, b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"') => State::Text,
            (State::Escape, _) => return Err(unexpected(byte, "in string escape code")),
            (State::Hex(1), _) if byte.is_ascii_hexdigit() => State::Text,
            (State::Hex(left), _) if byte.is_ascii_hexdigit() => State::Hex(left - 1),
            _ => return Err(unexpected(byte, "in \\u hexadecimal character escape")),
        };
        Ok(Step::Inside)
    }

    fn word(&mut self, word: &'static str, at: usize, byte: u8) -> Result<Step, String> {
        let wanted = word.as_bytes()[at];
        if byte != wanted {
            let place = format!("in literal {word} (expecting {})", quote_rune(wanted));
            return Err(unexpected(byte, &place));
        }
        if at + 1 == word.len() {
            return Ok(self.ended());
        }
        self.state = State::Word(word, at + 1);
        Ok(Step::Inside)
    }

    fn number(&mut self, byte: u8) -> Result<Step, String> {
        self.state = match (self.state, byte) {
            (State::Minus, b'0') => State::Zero,
            (State::Minus, b'1'..=b'9') => State::Digits,
            (State::Minus, _) => return Err(unexpected(byte, "in numeric literal")),
            (State::Digits, b'0'..=b'9') => State::Digits,
            (State::Zero | State::Digits, b'.') => State::Dot,
            (State::Zero | State::Digits | State::Fraction, b'e' | b'E') => State::Exponent,
            (State::Dot | State::Fraction, b'0'..=b'9') => State::Fraction,
            (State::Dot, _) => {
                return Err(unexpected(byte, "after decimal point in numeric literal"));
            }
            (State::Exponent, b'+' | b'-') => State::ExponentSign,
            (State::Exponent | State::ExponentSign | State::ExponentDigits, b'0'..=b'9') => {
                State::ExponentDigits
            }
            (State::Exponent | State::ExponentSign, _) => {
                return Err(unexpected(byte, "in exponent of numeric literal"));
            }
            _ if self.open.is_empty() => {
                self.state = State::Done;
                return Ok(Step::Beyond);
            }
            _ => return self.after(byte),
        };
        Ok(Step::Inside)
    }
}

#[cfg(test)]
mod tests;
