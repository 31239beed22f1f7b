//! Who may use the client listeners over HTTP: names of hosts, and CORS for browsers.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, HOST,
    ORIGIN,
};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::{Answer, Request, error};
use crate::config;

/// The lists of the operator; an empty list or one with `*` allows everybody.
pub(super) struct Access {
    origins: Option<Vec<String>>,
    hosts: Option<Vec<String>>,
}

impl Access {
    pub(super) fn new(config: &config::Http) -> Access {
        let list = |words: &[String]| {
            let all = words.is_empty() || words.iter().any(|word| word == "*");
            (!all).then(|| words.to_vec())
        };
        Access {
            origins: list(&config.cors),
            hosts: list(&config.host_whitelist),
        }
    }

    /// Refuses unencrypted requests under a foreign name: a web page whose name was bound to
    /// this machine's address must not reach the store.
    pub(super) fn refusal(&self, request: &Request) -> Option<Answer> {
        let hosts = self.hosts.as_ref().filter(|_| !request.channel.secure)?;
        let host = match request.headers.get(HOST) {
            Some(value) => value.to_str().unwrap_or_default(),
            None => request
                .uri
                .authority()
                .map_or("", |authority| authority.as_str()),
        };
        let name = without_port(host);
        if hosts.iter().any(|allowed| allowed == name) {
            return None;
        }
        tracing::warn!(
            host = name,
            "rejecting HTTP request to prevent DNS rebinding attacks"
        );
        let text = format!(
            "The Host header {name:?} is not allowed here (protection against DNS rebinding, \
             CVE-2018-5702).\nUse TLS, or add the name to --host-whitelist."
        );
        Some(error(StatusCode::MISDIRECTED_REQUEST, &text))
    }

    pub(super) fn add_headers(&self, request: &Request, headers: &mut HeaderMap) {
        let origin = match &self.origins {
            None => HeaderValue::from_static("*"),
            Some(allowed) => {
                let Some(origin) = request.headers.get(ORIGIN) else {
                    return;
                };
                if !allowed
                    .iter()
                    .any(|word| word.as_bytes() == origin.as_bytes())
                {
                    return;
                }
                origin.clone()
            }
        };
        let fixed = [
            (
                ACCESS_CONTROL_ALLOW_METHODS,
                "POST, GET, OPTIONS, PUT, DELETE",
            ),
            (
                ACCESS_CONTROL_ALLOW_HEADERS,
                "accept, content-type, authorization",
            ),
        ];
        for (name, value) in fixed {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
}

/// The host in `host:port`; IPv6 addresses lose their brackets with the port.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, _)) if name.starts_with('[') && name.ends_with(']') => &name[1..name.len() - 1],
        Some((name, _)) if !name.contains(':') => name,
        _ => host,
    }
}
