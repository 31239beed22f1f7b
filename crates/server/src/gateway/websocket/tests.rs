use http::Uri;

use super::*;

fn request(headers: &[(&'static str, &'static str)]) -> Request {
    let headers = headers.iter().map(|(name, value)| {
        (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    });
    Request {
        method: Method::GET,
        uri: Uri::from_static("/v3/watch"),
        headers: headers.collect(),
        channel: Default::default(),
    }
}

const ASK: [(&str, &str); 4] = [
    ("connection", "keep-alive, Upgrade"),
    ("upgrade", "WebSocket"),
    ("sec-websocket-version", "13"),
    // The key of RFC 6455 §1.3.
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

#[test]
fn handshakes() {
    let asked = request(&ASK);
    assert!(is_asked_for(&asked.headers));
    let answer = handshake(&asked);
    assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
    let accept = &answer.headers()[SEC_WEBSOCKET_ACCEPT];
    assert_eq!(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert!(!answer.headers().contains_key(SEC_WEBSOCKET_PROTOCOL));
    let mut post = request(&ASK);
    post.method = Method::POST;
    let refused = handshake(&post);
    assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED);
    for missing in 2..4 {
        let mut headers = ASK.to_vec();
        headers.remove(missing);
        let refused = handshake(&request(&headers));
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
        assert_eq!(refused.headers()[SEC_WEBSOCKET_VERSION], "13");
    }
    assert!(!is_asked_for(&request(&ASK[..1]).headers));
    assert!(!is_asked_for(&request(&ASK[1..]).headers));
}

#[test]
fn tokens() {
    let token = |headers: &[(&'static str, &'static str)]| {
        let meant = meant(&request(headers));
        let value = meant.headers.get(AUTHORIZATION)?;
        Some(value.to_str().unwrap().to_owned())
    };
    let protocol = ("sec-websocket-protocol", "Bearer,  abc ");
    let cookie = ("cookie", "a=b; token=xyz");
    assert_eq!(token(&[protocol]).as_deref(), Some("Bearer abc"));
    assert_eq!(token(&[cookie]).as_deref(), Some("Bearer xyz"));
    assert_eq!(token(&[protocol, cookie]).as_deref(), Some("Bearer xyz"));
    assert_eq!(token(&[("authorization", "Bearer q")]), None);
    assert_eq!(token(&[("sec-websocket-protocol", "json")]), None);
    let answer = handshake(&request(&[&ASK[..], &[protocol]].concat()));
    assert_eq!(answer.headers()[SEC_WEBSOCKET_PROTOCOL], "Bearer");
    let meant = meant(&request(&[("origin", "http://o"), ("accept", "x")]));
    assert_eq!(meant.headers["origin"], "http://o");
    assert_eq!((meant.headers.len(), meant.method), (1, Method::POST));
}
