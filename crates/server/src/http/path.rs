//! Paths as Go's router sees them: escapes decoded, and a detour to the clean form.

use http::header::LOCATION;
use http::{HeaderValue, Method, StatusCode};

use super::{Answer, Request, respond};

/// Decodes `%41`; `None` for a broken escape. Bytes that are not UTF-8 are replaced: no path or
/// name of ours holds such.
pub(super) fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let high = (rest.next()? as char).to_digit(16)?;
                let low = (rest.next()? as char).to_digit(16)?;
                u8::try_from(high * 16 + low).expect("two hexadecimal digits are below 256")
            }
            byte => byte,
        });
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The path without empty, `.` and `..` segments, if that differs; a last slash stays.
pub(super) fn clean(path: &str) -> Option<String> {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    let slash = if path.ends_with('/') && !segments.is_empty() {
        "/"
    } else {
        ""
    };
    let clean = format!("/{}{slash}", segments.join("/"));
    (clean != path).then_some(clean)
}

/// The answer that sends a client to the clean path.
pub(super) fn redirect(request: &Request, clean: &str) -> Answer {
    let mut target: String = clean.bytes().map(escape).collect();
    if let Some(query) = request.uri.query() {
        target.push('?');
        target.push_str(query);
    }
    let get = request.method == Method::GET;
    let kind = (get || request.method == Method::HEAD).then_some("text/html; charset=utf-8");
    let link = target
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    let link = link.replace('"', "&#34;").replace('\'', "&#39;");
    let body = match get {
        true => format!("<a href=\"{link}\">Temporary Redirect</a>.\n\n"),
        false => String::new(),
    };
    let mut answer = respond(StatusCode::TEMPORARY_REDIRECT, kind, body);
    if let Ok(location) = HeaderValue::from_str(&target) {
        answer.headers_mut().insert(LOCATION, location);
    }
    answer
}

/// A byte of a path in the form that may stand in a header.
fn escape(byte: u8) -> String {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => (byte as char).to_string(),
        b'-' | b'_' | b'.' | b'~' | b'/' | b'$' | b'&' | b'+' | b',' | b':' | b';' | b'='
        | b'@' => (byte as char).to_string(),
        _ => format!("%{byte:02X}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let cases = [
            ("/version", None),
            ("/", None),
            ("/a/", None),
            ("//version", Some("/version")),
            ("/a/../version", Some("/version")),
            ("/./a//b/", Some("/a/b/")),
            ("/..", Some("/")),
            ("", Some("/")),
            ("*", Some("/*")),
        ];
        for (path, want) in cases {
            assert_eq!(clean(path).as_deref(), want, "{path}");
        }
        assert_eq!(unescape("/%76x").as_deref(), Some("/vx"));
        assert_eq!(unescape("/%7"), None);
    }
}
