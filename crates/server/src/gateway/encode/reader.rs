//! The tokens of a JSON value that the scanner found well-formed.

use std::borrow::Cow;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// `{`
    Object,
    /// `[`
    Array,
    Text,
    Number,
    /// `true`, `false` or `null`
    Word,
    /// `}`, `]`, `,` or `:`
    Mark,
    End,
}

/// A token and where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lexeme<'a> {
    pub(super) kind: Token,
    /// As written, a text with its quotes.
    pub(super) raw: &'a str,
    at: usize,
}

pub(super) struct Reader<'a> {
    json: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(json: &'a [u8]) -> Self {
        Reader { json, at: 0 }
    }

    /// `(line 1:8): …`, the place in characters.
    fn place(&self, at: usize) -> String {
        let before = &self.json[..at];
        let lines = before.iter().filter(|byte| **byte == b'\n').count();
        let line = before.rsplit(|byte| *byte == b'\n').next();
        let column = String::from_utf8_lossy(line.unwrap_or_default())
            .chars()
            .count();
        format!("(line {}:{})", lines + 1, column + 1)
    }

    /// The text of a refusal.
    pub(super) fn fault(&self, lexeme: Lexeme<'_>, why: &str) -> String {
        format!("proto: {}: {why}", self.place(lexeme.at))
    }

    fn syntax(&self, at: usize, why: &str) -> String {
        format!("proto: syntax error {}: {why}", self.place(at))
    }

    /// The refusal of a token of the wrong kind.
    pub(super) fn unexpected(&self, lexeme: Lexeme<'_>) -> String {
        if lexeme.kind == Token::End {
            return "proto: unexpected EOF".into();
        }
        self.syntax(lexeme.at, &format!("unexpected token {}", lexeme.raw))
    }

    fn skip_space(&mut self) -> Option<u8> {
        while let Some(byte) = self.json.get(self.at) {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => self.at += 1,
                byte => return Some(*byte),
            }
        }
        None
    }

    fn skip_comma(&mut self) -> Option<u8> {
        let next = self.skip_space();
        if next != Some(b',') {
            return next;
        }
        self.at += 1;
        self.skip_space()
    }

    /// The next token.
    ///
    /// # Errors
    /// A text that is not Unicode.
    pub(super) fn token(&mut self) -> Result<Lexeme<'a>, String> {
        let next = self.skip_space();
        let at = self.at;
        let rest = &self.json[at..];
        let (kind, length) = match next {
            None => (Token::End, 0),
            Some(b'{') => (Token::Object, 1),
            Some(b'[') => (Token::Array, 1),
            Some(b'"') => (Token::Text, text_length(rest)),
            Some(b'-' | b'0'..=b'9') => (Token::Number, word_length(rest)),
            Some(b'a'..=b'z') => (Token::Word, word_length(rest)),
            Some(_) => (Token::Mark, 1),
        };
        self.at += length;
        let raw = std::str::from_utf8(&rest[..length])
            .map_err(|_| self.syntax(at, "invalid UTF-8 in string"))?;
        let lexeme = Lexeme { kind, raw, at };
        if kind == Token::Text {
            self.text(lexeme)?;
        }
        Ok(lexeme)
    }

    /// The next key of an object and its token, with the colon; none at the end of the object.
    pub(super) fn key(&mut self) -> Result<Option<(Cow<'a, str>, Lexeme<'a>)>, String> {
        if self.skip_comma() == Some(b'}') {
            self.at += 1;
            return Ok(None);
        }
        let lexeme = self.token()?;
        if lexeme.kind != Token::Text {
            return Err(self.unexpected(lexeme));
        }
        let name = self.text(lexeme)?;
        let colon = self.token()?;
        match colon.raw {
            ":" => Ok(Some((name, lexeme))),
            _ => Err(self.unexpected(colon)),
        }
    }

    /// Whether an array has another item.
    pub(super) fn item(&mut self) -> Result<bool, String> {
        match self.skip_comma() {
            Some(b']') => {
                self.at += 1;
                Ok(false)
            }
            Some(_) => Ok(true),
            None => Err("proto: unexpected EOF".into()),
        }
    }

    /// Passes over a `null`.
    pub(super) fn take_null(&mut self) -> Result<bool, String> {
        self.skip_space();
        let null = self.json[self.at..].starts_with(b"null");
        if null {
            self.token()?;
        }
        Ok(null)
    }

    /// Passes over a whole value.
    pub(super) fn skip(&mut self) -> Result<(), String> {
        let mut depth = 0_usize;
        loop {
            let lexeme = self.token()?;
            match (lexeme.kind, lexeme.raw) {
                (Token::Object | Token::Array, _) => depth += 1,
                (Token::Mark, "}" | "]") => depth = depth.saturating_sub(1),
                (Token::End, _) => return Err(self.unexpected(lexeme)),
                _ => {}
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }

    /// The characters of a text.
    pub(super) fn text(&self, lexeme: Lexeme<'a>) -> Result<Cow<'a, str>, String> {
        let raw = lexeme
            .raw
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'));
        let raw = raw.ok_or("proto: unexpected EOF")?;
        if !raw.contains('\\') {
            return Ok(Cow::Borrowed(raw));
        }
        match unescape(raw) {
            Ok(text) => Ok(Cow::Owned(text)),
            Err(offset) => {
                // Go looks at the next six bytes, whether the text ends before them or not.
                let rest = &self.json[lexeme.at + 1 + offset..];
                let code = rest.get(..6).ok_or("proto: unexpected EOF")?;
                let code = String::from_utf8_lossy(code);
                let why = format!("invalid escape code {code:?} in string");
                Err(self.syntax(lexeme.at, &why))
            }
        }
    }
}

fn text_length(rest: &[u8]) -> usize {
    let mut escaped = false;
    for (index, byte) in rest.iter().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return index + 1,
            _ => {}
        }
    }
    rest.len()
}

fn word_length(rest: &[u8]) -> usize {
    rest.iter()
        .position(|byte| !in_word(*byte))
        .unwrap_or(rest.len())
}

fn in_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.' | b'_')
}

/// Resolves escapes; the error is where one stands that means nothing.
fn unescape(raw: &str) -> Result<String, usize> {
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((before, after)) = rest.split_once('\\') {
        text.push_str(before);
        let at = raw.len() - after.len() - 1;
        let code = after.chars().next().unwrap_or_default();
        rest = after.get(code.len_utf8()..).unwrap_or_default();
        text.push(match code {
            '"' | '\\' | '/' => code,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let (character, length) = unicode(rest).map_err(|ahead| at + ahead)?;
                rest = &rest[length..];
                character
            }
            _ => return Err(at),
        });
    }
    text.push_str(rest);
    Ok(text)
}

/// The character of the digits behind `\u`, of a second escape too where it takes two, and how
/// many bytes that was. The error counts from the backslash.
fn unicode(rest: &str) -> Result<(char, usize), usize> {
    let digits = |from: usize| {
        let digits = rest.get(from..from + 4)?;
        u16::from_str_radix(digits, 16).ok()
    };
    let first = digits(0).ok_or(0_usize)?;
    if let Some(character) = char::from_u32(u32::from(first)) {
        return Ok((character, 4));
    }
    let second = rest.get(4..6).filter(|escape| *escape == "\\u");
    let second = second.and_then(|_| digits(6)).ok_or(6_usize)?;
    match char::decode_utf16([first, second]).next() {
        Some(Ok(character)) => Ok((character, 10)),
        _ => Err(6),
    }
}

/// The number that a text holds: no white space around it; what follows behind a delimiter does
/// not count, as in Go.
pub(super) fn number_in(text: &str) -> Option<&str> {
    if text.trim() != text {
        return None;
    }
    let digits = &text[..word_length(text.as_bytes())];
    let unsigned = digits.strip_prefix('-').unwrap_or(digits);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let sound = all_digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(all_digits)
        && exponent.is_none_or(|text| all_digits(text.strip_prefix(['+', '-']).unwrap_or(text)));
    sound.then_some(digits)
}

/// The value of a JSON number, if it is a whole one of at most twenty digits.
pub(super) fn integer(number: &str) -> Option<i128> {
    let (negative, unsigned) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number),
    };
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let (whole, fraction) = (
        whole.trim_start_matches('0'),
        fraction.trim_end_matches('0'),
    );
    if whole.is_empty() && fraction.is_empty() {
        return Some(0);
    }
    let exponent: i64 = exponent.parse::<i32>().ok()?.into();
    let shift = exponent - fraction.len() as i64;
    let digits = format!("{whole}{fraction}");
    let digits = match usize::try_from(shift) {
        Ok(zeros) if digits.len() + zeros <= 20 => format!("{digits}{}", "0".repeat(zeros)),
        Ok(_) => return None,
        // What is moved behind the point must be zeros.
        Err(_) => {
            let kept = digits.len().checked_sub(usize::try_from(-shift).ok()?)?;
            if digits[kept..].bytes().any(|digit| digit != b'0') {
                return None;
            }
            digits[..kept].to_owned()
        }
    };
    let value: i128 = if digits.is_empty() {
        0
    } else {
        digits.parse().ok()?
    };
    Some(if negative { -value } else { value })
}
