use super::*;

/// The first value of a text and what follows it, or why there is none.
fn split(text: &[u8]) -> Result<(usize, bool), String> {
    let mut scanner = Scanner::default();
    for (index, byte) in text.iter().enumerate() {
        match scanner.step(*byte)? {
            Step::Inside => {}
            Step::Last => return Ok((index + 1, true)),
            Step::Beyond => return Ok((index, true)),
        }
    }
    Ok((text.len(), scanner.may_end()))
}

#[test]
fn ends() {
    let cases: [(&str, usize, bool); 14] = [
        ("{}", 2, true),
        (" {\"a\" : [1, 2.5e+3,-0]} {}", 23, true),
        ("{\"a\":\"}\\\"\"}x", 11, true),
        ("\"\\u00e4\"", 8, true),
        ("[]]", 2, true),
        ("[[],{}]", 7, true),
        ("12 ", 2, true),
        ("12", 2, true),
        ("1e5", 3, true),
        ("true", 4, true),
        ("null,", 4, true),
        ("{\"a\"", 4, false),
        ("-", 1, false),
        ("", 0, false),
    ];
    for (text, end, complete) in cases {
        assert_eq!(split(text.as_bytes()), Ok((end, complete)), "{text}");
    }
}

#[test]
fn refusals() {
    let cases: [(&[u8], &str); 18] = [
        (
            b"{key",
            "invalid character 'k' looking for beginning of object key string",
        ),
        (b"{\"a\" 1", "invalid character '1' after object key"),
        (
            b"{\"a\":1]",
            "invalid character ']' after object key:value pair",
        ),
        (b"[1}", "invalid character '}' after array element"),
        (b"}", "invalid character '}' looking for beginning of value"),
        (
            b"{\"a\":,",
            "invalid character ',' looking for beginning of value",
        ),
        (
            b"{\"a\":1,}",
            "invalid character '}' looking for beginning of object key string",
        ),
        (
            b"[1,]",
            "invalid character ']' looking for beginning of value",
        ),
        (b"\"\n", "invalid character '\\n' in string literal"),
        (b"\"\x01", "invalid character '\\x01' in string literal"),
        (b"\"\\x", "invalid character 'x' in string escape code"),
        (
            b"\"\\u00g",
            "invalid character 'g' in \\u hexadecimal character escape",
        ),
        (b"-a", "invalid character 'a' in numeric literal"),
        (
            b"1.e",
            "invalid character 'e' after decimal point in numeric literal",
        ),
        (
            b"1e+x",
            "invalid character 'x' in exponent of numeric literal",
        ),
        (
            b"trux",
            "invalid character 'x' in literal true (expecting 'e')",
        ),
        (
            b"\xff",
            "invalid character 'ÿ' looking for beginning of value",
        ),
        (
            b"'",
            "invalid character '\\'' looking for beginning of value",
        ),
    ];
    for (text, want) in cases {
        assert_eq!(split(text).unwrap_err(), want, "{text:?}");
    }
}

#[test]
fn depth_is_bounded() {
    assert_eq!(split(&[b'['; 10_000]), Ok((10_000, false)));
    assert_eq!(
        split(&[b'['; 10_001]).unwrap_err(),
        "invalid character '[' exceeded max depth"
    );
}
