use super::*;

#[test]
fn plain_and_chunked_bodies_are_read() {
    let plain = parse("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nok\n").unwrap();
    assert_eq!((plain.status, plain.body.as_str()), (200, "ok\n"));
    assert_eq!(plain.header("content-type"), Some("text/plain"));
    let head = "HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunked = parse(&format!("{head}3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")).unwrap();
    assert_eq!((chunked.status, chunked.body.as_str()), (503, "abcde"));
}

#[test]
fn what_is_cut_off_is_no_answer() {
    assert_eq!(parse("HTTP/1.1 200 OK\r\n"), None);
    assert_eq!(
        parse("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nab"),
        None
    );
}

#[test]
fn trailers_are_headers_too() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let answer = parse(&format!("{head}1\r\na\r\n0\r\nX-End: yes\r\n\r\n")).unwrap();
    assert_eq!(
        (answer.body.as_str(), answer.header("x-end")),
        ("a", Some("yes"))
    );
}
