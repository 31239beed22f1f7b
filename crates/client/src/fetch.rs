//! Pages that servers offer beside gRPC, such as `/metrics`.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::channel;
use crate::config::Config;
use crate::connection;
use crate::error::Error;

/// The largest page that is read, in bytes.
const PAGE_BYTES_MAX: u64 = 16 << 20;

/// Gets a page of the first endpoint by HTTP/1.0, whose answers end with the connection.
///
/// # Errors
/// The endpoint cannot be reached or does not answer with a page.
pub async fn fetch(config: &Config, path: &str) -> Result<Vec<u8>, Error> {
    let (endpoints, options) = channel::prepare(config)?;
    let Some(endpoint) = endpoints.first() else {
        return Err(Error::Config("no endpoint to ask".to_owned()));
    };
    let tls = options.tls_for(endpoint).map(|tls| {
        let mut tls = (**tls).clone();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(tls)
    });
    let exchange = async {
        let mut stream = connection::open(endpoint, &options, tls).await?;
        let request = format!(
            "GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n",
            endpoint.authority
        );
        let text = |error: std::io::Error| error.to_string();
        stream.write_all(request.as_bytes()).await.map_err(text)?;
        let mut answer = Vec::new();
        stream
            .take(PAGE_BYTES_MAX)
            .read_to_end(&mut answer)
            .await
            .map_err(text)?;
        body(answer).ok_or_else(|| "the answer is no page".to_owned())
    };
    let wait = options.dial_timeout * 5;
    match tokio::time::timeout(wait, exchange).await {
        Ok(answer) => answer.map_err(Error::Recipe),
        Err(_) => Err(Error::Deadline { cause: None }),
    }
}

/// Connects to the first endpoint, TLS included, and hangs up.
///
/// # Errors
/// The endpoint cannot be reached, or its certificate is not trusted.
pub async fn greet(config: &Config) -> Result<(), Error> {
    let (endpoints, options) = channel::prepare(config)?;
    let Some(endpoint) = endpoints.first() else {
        return Err(Error::Config("no endpoint to greet".to_owned()));
    };
    let tls = options.tls_for(endpoint).cloned();
    let opened = connection::open(endpoint, &options, tls);
    match tokio::time::timeout(options.dial_timeout, opened).await {
        Ok(opened) => opened.map(|_| ()).map_err(Error::Recipe),
        Err(_) => Err(Error::Deadline { cause: None }),
    }
}

fn body(mut answer: Vec<u8>) -> Option<Vec<u8>> {
    let status = answer.split(|byte| *byte == b' ').nth(1)?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    (status == b"200").then(|| answer.split_off(end + 4))
}
