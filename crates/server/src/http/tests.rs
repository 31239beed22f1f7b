//! Endpoints over a real socket, against what etcd 3.7 answers.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;

use http_body_util::BodyExt as _;

use super::*;
use crate::config::{Action, Config, Inputs};

/// A member that is as the test wants it.
#[derive(Default)]
struct Stub {
    alarms: Vec<Alarm>,
    leaderless: bool,
    learner: bool,
    undecided: bool,
    linearizable: Option<&'static str>,
    serializable: Option<&'static str>,
    hang: bool,
    reads: Mutex<Vec<Read>>,
}

impl MemberView for Stub {
    fn cluster_version(&self) -> Option<String> {
        (!self.undecided).then(|| "3.7.0".into())
    }

    fn is_auth_on(&self) -> bool {
        false
    }

    fn storage_version(&self) -> Option<String> {
        (!self.undecided).then(|| "3.7.0".into())
    }

    fn alarms(&self) -> Vec<Alarm> {
        self.alarms.clone()
    }

    fn leader(&self) -> Option<MemberId> {
        (!self.leaderless).then_some(MemberId(0xab))
    }

    fn is_learner(&self) -> bool {
        self.learner
    }

    fn read(&self, read: Read) -> Check<'_> {
        self.reads.lock().unwrap().push(read);
        let failure = match read {
            Read::Serializable => self.serializable,
            Read::Linearizable => self.linearizable,
        };
        let hang = self.hang;
        Box::pin(async move {
            if hang {
                std::future::pending::<()>().await;
            }
            failure.map_or(Ok(()), |why| Err(why.into()))
        })
    }

    fn raft_status(&self) -> RaftStatus {
        let member = MemberId(0xab);
        RaftStatus {
            member,
            term: 2,
            vote: member,
            commit: 4,
            applied: 4,
            leader: member,
            state: RaftState::Leader,
            transferee: MemberId(0),
            progress: vec![Progress {
                member,
                matched: 4,
                next: 5,
                state: "StateReplicate",
            }],
        }
    }

    fn refresh(&self, metrics: &Metrics) {
        metrics.current_revision.set(77);
    }
}

fn config(args: &str) -> Config {
    let args: Vec<String> = args.split_whitespace().map(str::to_owned).collect();
    let outcome = config::read(&Inputs {
        args: &args,
        env: &[],
        read_file: &|_| Err(std::io::ErrorKind::NotFound.into()),
        default_host: &|| None,
    });
    match outcome.result {
        Ok(Action::Serve(config)) => *config,
        other => panic!("{other:?}"),
    }
}

fn server(stub: Stub, args: &str) -> Arc<Server> {
    let config = config(args);
    let metrics = Arc::new(Metrics::new(
        &config.gates,
        config.limits.quota_bytes,
        false,
    ));
    Arc::new(Server::start(Routes::new(Arc::new(stub), metrics, &config)).unwrap())
}

/// A connected pair, the far end served by `server`.
fn connect(server: &Server, read_ahead: usize, request: &[u8]) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut far, _) = listener.accept().unwrap();
    near.write_all(request).unwrap();
    let mut read = vec![0; read_ahead.min(request.len())];
    far.read_exact(&mut read).unwrap();
    server.serve(Stream::Tcp(far), read, None);
    near
}

/// Sends one request and reads the answer; `Date` is left out.
fn ask(server: &Server, method: &str, target: &str, headers: &str) -> String {
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost:1\r\n{headers}Connection: close\r\n\r\n"
    );
    let mut near = connect(server, 14, request.as_bytes());
    let mut answer = Vec::new();
    near.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer).replace("\r\n", "\n");
    let lines = answer.split_inclusive('\n');
    lines
        .filter(|line| !line.starts_with("Date: ") && *line != "Connection: close\n")
        .collect()
}

/// Status line and body.
fn get(server: &Server, target: &str) -> (String, String) {
    let answer = ask(server, "GET", target, "");
    let (head, body) = answer.split_once("\n\n").unwrap();
    let status = head
        .lines()
        .next()
        .unwrap()
        .strip_prefix("HTTP/1.1 ")
        .unwrap();
    (status.to_owned(), body.to_owned())
}

fn sorted_headers(answer: &str) -> Vec<String> {
    let head = answer.split_once("\n\n").unwrap().0;
    let mut headers: Vec<String> = head.lines().skip(1).map(str::to_owned).collect();
    headers.sort();
    headers
}

const CORS: [&str; 3] = [
    "Access-Control-Allow-Headers: accept, content-type, authorization",
    "Access-Control-Allow-Methods: POST, GET, OPTIONS, PUT, DELETE",
    "Access-Control-Allow-Origin: *",
];

#[test]
fn answers_as_etcd_gives_them() {
    let server = server(Stub::default(), "");
    let text = "Content-Type: text/plain; charset=utf-8";
    let nosniff = "X-Content-Type-Options: nosniff";
    let versions = "{\"etcdserver\":\"3.7.1\",\"etcdcluster\":\"3.7.0\",\"storage\":\"3.7.0\"}";
    let ready = "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n\
                 [+]non_learner ok\nok\n";
    let not_allowed = "Method Not Allowed\n";
    let cases: &[(&str, &str, &str, &[&str], &str)] = &[
        (
            "GET",
            "/version",
            "200 OK",
            &["Content-Type: application/json"],
            versions,
        ),
        (
            "GET",
            "/health",
            "200 OK",
            &[text],
            "{\"health\":\"true\",\"reason\":\"\"}",
        ),
        ("GET", "/livez", "200 OK", &[text, nosniff], "ok\n"),
        (
            "GET",
            "/livez?verbose",
            "200 OK",
            &[text, nosniff],
            "[+]serializable_read ok\nok\n",
        ),
        ("GET", "/readyz", "200 OK", &[text, nosniff], "ok\n"),
        (
            "GET",
            "/readyz?verbose=1",
            "200 OK",
            &[text, nosniff],
            ready,
        ),
        (
            "GET",
            "/readyz/non_learner?verbose&exclude=non_learner",
            "200 OK",
            &[text, nosniff],
            "[+]non_learner ok\nok\n",
        ),
        (
            "GET",
            "/readyz/nope",
            "404 Not Found",
            &[text, nosniff],
            "404 page not found\n",
        ),
        (
            "GET",
            "/livez/",
            "404 Not Found",
            &[text, nosniff],
            "404 page not found\n",
        ),
        (
            "GET",
            "/",
            "404 Not Found",
            &[text, nosniff],
            "404 page not found\n",
        ),
        (
            "GET",
            "/v2/keys",
            "404 Not Found",
            &[text, nosniff],
            "404 page not found\n",
        ),
        (
            "POST",
            "/health",
            "405 Method Not Allowed",
            &["Allow: GET", text, nosniff],
            not_allowed,
        ),
        (
            "HEAD",
            "/version",
            "405 Method Not Allowed",
            &["Allow: GET", text, nosniff],
            "",
        ),
        (
            "PUT",
            "/livez",
            "405 Method Not Allowed",
            &["Allow: GET", text, nosniff],
            not_allowed,
        ),
        (
            "POST",
            "/debug/vars",
            "405 Method Not Allowed",
            &["Allow: GET", text, nosniff],
            not_allowed,
        ),
        ("OPTIONS", "/anything", "200 OK", &[], ""),
    ];
    for (method, target, status, headers, body) in cases {
        let answer = ask(&server, method, target, "");
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}\n")),
            "{method} {target}: {answer}"
        );
        assert!(
            answer.ends_with(&format!("\n\n{body}")),
            "{method} {target}: {answer}"
        );
        let length = if *method == "HEAD" {
            not_allowed.len()
        } else {
            body.len()
        };
        let mut want: Vec<String> = CORS
            .iter()
            .chain(headers.iter())
            .map(|header| (*header).to_owned())
            .collect();
        want.push(format!("Content-Length: {length}"));
        want.sort();
        assert_eq!(sorted_headers(&answer), want, "{method} {target}");
    }
}

#[test]
fn health_reasons() {
    let cases: Vec<(Stub, &str, &str)> = vec![
        (
            Stub {
                alarms: vec![Alarm::NoSpace],
                ..Stub::default()
            },
            "/health",
            "ALARM NOSPACE",
        ),
        (
            Stub {
                alarms: vec![Alarm::Corrupt],
                ..Stub::default()
            },
            "/health",
            "ALARM CORRUPT",
        ),
        (
            Stub {
                alarms: vec![Alarm::Unknown(9)],
                ..Stub::default()
            },
            "/health",
            "ALARM UNKNOWN",
        ),
        (
            Stub {
                alarms: vec![Alarm::NoSpace, Alarm::Corrupt],
                ..Stub::default()
            },
            "/health?exclude=NOSPACE",
            "ALARM CORRUPT",
        ),
        (
            Stub {
                leaderless: true,
                ..Stub::default()
            },
            "/health",
            "RAFT NO LEADER",
        ),
        (
            Stub {
                linearizable: Some("a < b"),
                ..Stub::default()
            },
            "/health",
            "RANGE ERROR:a \\u003c b",
        ),
    ];
    for (stub, target, reason) in cases {
        let want = format!("{{\"health\":\"false\",\"reason\":\"{reason}\"}}\n");
        assert_eq!(
            get(&server(stub, ""), target),
            ("503 Service Unavailable".into(), want)
        );
    }
    let healthy = (
        "200 OK".to_owned(),
        "{\"health\":\"true\",\"reason\":\"\"}".to_owned(),
    );
    let stub = Stub {
        alarms: vec![Alarm::NoSpace],
        ..Stub::default()
    };
    assert_eq!(
        get(&server(stub, ""), "/health?exclude=NOSPACE&exclude=x"),
        healthy
    );
    let stub = Stub {
        leaderless: true,
        linearizable: Some("x"),
        ..Stub::default()
    };
    let server = server(stub, "");
    assert_eq!(get(&server, "/health?serializable=true"), healthy);
    assert_eq!(
        get(&server, "/health?serializable=1").0,
        "503 Service Unavailable"
    );
    assert!(
        get(&server, "/metrics")
            .1
            .contains("\netcd_server_health_failures 1\n")
    );
}

#[test]
fn failed_checks() {
    let stub = Stub {
        alarms: vec![Alarm::NoSpace, Alarm::Corrupt],
        learner: true,
        linearizable: Some("no quorum"),
        ..Stub::default()
    };
    let server = server(stub, "");
    let want = "[-]data_corruption failed: alarm activated: CORRUPT\n[+]serializable_read ok\n\
                [-]linearizable_read failed: no quorum\n\
                [-]non_learner failed: not supported for learner\n\n";
    assert_eq!(
        get(&server, "/readyz"),
        ("503 Service Unavailable".into(), want.into())
    );
    let rest = "/readyz?exclude=data_corruption&exclude=linearizable_read&exclude=non_learner\
                &exclude=unknown&verbose";
    let want = "[+]serializable_read ok\nok\n";
    assert_eq!(get(&server, rest), ("200 OK".into(), want.into()));
    assert_eq!(get(&server, "/livez"), ("200 OK".into(), "ok\n".into()));
    let page = get(&server, "/metrics").1;
    for want in [
        "etcd_server_healthcheck{name=\"non_learner\",type=\"readyz\"} 0\n",
        "etcd_server_healthcheck{name=\"serializable_read\",type=\"livez\"} 1\n",
        "etcd_server_healthchecks_total{name=\"serializable_read\",status=\"success\",\
         type=\"readyz\"} 2\n",
        "etcd_debugging_mvcc_current_revision 77\n",
    ] {
        assert!(page.contains(want), "{want}");
    }
}

#[test]
fn a_read_that_hangs_is_given_up() {
    let stub = Stub {
        hang: true,
        ..Stub::default()
    };
    let view = Arc::new(stub);
    let config = config("");
    let metrics = Arc::new(Metrics::new(&config.gates, None, false));
    let routes = Routes::new(view.clone(), metrics, &config);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    let request = Request {
        method: Method::GET,
        uri: Uri::from_static("/health"),
        headers: HeaderMap::new(),
        channel: Channel::default(),
    };
    let (status, body) = runtime.unwrap().block_on(async {
        let tail = Tail::of(RequestBody::Whole(Bytes::new()));
        let answer = routes.answer(&request, tail, Listener::Metrics).await;
        let status = answer.status();
        (
            status,
            answer.into_body().collect().await.unwrap().to_bytes(),
        )
    });
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let body = String::from_utf8_lossy(&body);
    assert!(
        body.contains("RANGE ERROR:context deadline exceeded"),
        "{body}"
    );
    assert_eq!(*view.reads.lock().unwrap(), [Read::Linearizable]);
}

#[test]
fn versions_before_they_are_known() {
    let server = server(
        Stub {
            undecided: true,
            ..Stub::default()
        },
        "",
    );
    let want = "{\"etcdserver\":\"3.7.1\",\"etcdcluster\":\"not_decided\",\"storage\":\"unknown\"}";
    assert_eq!(get(&server, "/version").1, want);
}

#[test]
fn variables() {
    let server = server(Stub::default(), "");
    let body = get(&server, "/debug/vars").1;
    let value: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert!(value["cmdline"].is_array() && value["file_descriptor_limit"].is_u64());
    assert!(body.contains(
        "\n\"raft.status\": {\"id\":\"ab\",\"term\":2,\"vote\":\"ab\",\"commit\":4,\
         \"lead\":\"ab\",\"raftState\":\"StateLeader\",\"applied\":4,\
         \"progress\":{\"ab\":{\"match\":4,\"next\":5,\"state\":\"StateReplicate\"}},\
         \"leadtransferee\":\"0\"}\n}\n"
    ));
}

#[test]
fn metrics_may_be_compressed() {
    let server = server(Stub::default(), "");
    let answer = ask(
        &server,
        "HEAD",
        "/metrics",
        "Accept-Encoding: deflate, gzip;q=1.0\r\n",
    );
    assert!(
        sorted_headers(&answer).contains(&"Content-Encoding: gzip".to_owned()),
        "{answer}"
    );
    let answer = ask(&server, "POST", "/metrics", "Accept-Encoding: gzip;q=0\r\n");
    assert!(
        answer.contains(&format!("\nContent-Type: {}\n", metrics::CONTENT_TYPE)),
        "{answer}"
    );
    assert!(answer.contains("# TYPE etcd_server_has_leader gauge\n"));
}

#[test]
fn access_control() {
    let server = server(
        Stub::default(),
        "--host-whitelist=localhost,a --cors=http://a:1",
    );
    let answer = ask(&server, "GET", "/version", "Origin: http://a:1\r\n");
    assert!(
        answer.contains("\nAccess-Control-Allow-Origin: http://a:1\n"),
        "{answer}"
    );
    let answer = ask(&server, "GET", "/version", "Origin: http://b:1\r\n");
    assert!(
        answer.starts_with("HTTP/1.1 200") && !answer.contains("Access-Control"),
        "{answer}"
    );
    let request = b"GET /version HTTP/1.1\r\nHost: evil:1\r\nConnection: close\r\n\r\n";
    let mut near = connect(&server, 0, request);
    let mut answer = String::new();
    near.read_to_string(&mut answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 421 Misdirected Request\r\n"),
        "{answer}"
    );
    assert!(answer.contains("CVE-2018-5702"));
    for names in ["Host: a\r\nHost: evil\r\n", ""] {
        let request = format!("GET /version HTTP/1.1\r\n{names}\r\n");
        let mut near = connect(&server, 0, request.as_bytes());
        let mut answer = String::new();
        near.read_to_string(&mut answer).unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 400 Bad Request\r\n"),
            "{answer}"
        );
    }
}

#[test]
fn unclean_paths_are_redirected() {
    let server = server(Stub::default(), "");
    let answer = ask(&server, "GET", "//livez/../version?a&b=%27", "");
    assert!(
        answer.starts_with("HTTP/1.1 307 Temporary Redirect\n"),
        "{answer}"
    );
    assert!(
        answer.contains("\nLocation: /version?a&b=%27\n"),
        "{answer}"
    );
    let body = "\n\n<a href=\"/version?a&amp;b=%27\">Temporary Redirect</a>.\n\n";
    assert!(answer.ends_with(body), "{answer}");
    assert_eq!(get(&server, "/%6civez"), ("200 OK".into(), "ok\n".into()));
}

#[test]
fn metrics_listener_and_stop() {
    let server = server(Stub::default(), "");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    server.listen_metrics(listener, None).unwrap();
    for (target, status) in [("/health", "200 OK"), ("/version", "404 Not Found")] {
        let mut near = TcpStream::connect(address).unwrap();
        let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        near.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        near.read_to_string(&mut answer).unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{answer}"
        );
        assert!(!answer.contains("Access-Control"));
    }
    // An idle connection does not hold up the stop.
    let mut idle = connect(&server, 0, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut byte = [0];
    idle.read_exact(&mut byte).unwrap();
    server.stop();
    let mut rest = String::new();
    idle.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with("ok\n"), "{rest}");
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn bad_requests() {
    let server = server(Stub::default(), "");
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(2 * 64 * 1024));
    let cases: [(&[u8], &str); 3] = [
        (b"\0\0\0\0\0\0\r\n\r\n", "HTTP/1.1 400"),
        (b"GET / HTTP/9\r\n\r\n", "HTTP/1.1 400"),
        (long.as_bytes(), "HTTP/1.1 4"),
    ];
    for (request, want) in cases {
        let mut near = connect(&server, 4, request);
        let mut answer = Vec::new();
        // The server may reset the connection when it does not read the request to its end.
        let _ = near.read_to_end(&mut answer);
        assert!(
            answer.is_empty() || answer.starts_with(want.as_bytes()),
            "{answer:?}"
        );
    }
    assert_eq!(get(&server, "/livez").0, "200 OK");
}
