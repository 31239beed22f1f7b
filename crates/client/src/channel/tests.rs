use std::net::TcpListener;

use tokio::task::JoinSet;

use super::*;
use crate::config::TlsConfig;

#[test]
fn requests_share_an_attempt_to_connect() {
    // Connections are made, and nobody shakes hands.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("it is bound");
    let tls = TlsConfig {
        skip_verify: true,
        ..TlsConfig::default()
    };
    let config = Config {
        tls: Some(tls),
        dial_timeout: Duration::from_millis(100),
        connect_limit: Some(Duration::ZERO),
        ..Config::new(vec![format!("https://{address}")])
    };
    let channel = Channel::new(&config).expect("an address");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let failed = runtime.block_on(async {
        let mut requests = JoinSet::new();
        for _ in 0..8 {
            let channel = channel.clone();
            requests.spawn(async move { channel.send(Request::new(Body::empty())).await.is_err() });
        }
        requests.join_all().await
    });
    assert_eq!(failed, [true; 8]);
    silent.set_nonblocking(true).expect("a socket");
    let attempts = silent.incoming().take_while(Result::is_ok).count();
    assert_eq!(attempts, 1);
}

#[tokio::test]
async fn a_channel_apart_has_connections_of_its_own() {
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap().to_string();
    let channel = Channel::new(&Config::new(vec![address])).unwrap();
    let apart = channel.apart();
    let ask = |mut channel: Channel| {
        let request = Request::new(Body::default());
        // Nobody answers; that it is sent opens the connection.
        tokio::spawn(async move { channel.call(request).await.map(drop) })
    };
    let calls = [ask(channel.clone()), ask(channel), ask(apart)];
    let mut accepted = Vec::new();
    for _ in 0..2 {
        let accept = tokio::time::timeout(Duration::from_secs(10), server.accept());
        accepted.push(accept.await.unwrap().unwrap());
    }
    calls.iter().for_each(tokio::task::JoinHandle::abort);
}
