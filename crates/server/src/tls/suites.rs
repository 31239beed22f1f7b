//! Versions and cipher suites, by Go's names.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite};
use rustls::version::{TLS12, TLS13};
use rustls::{SupportedCipherSuite, SupportedProtocolVersion};

use super::Error;
use crate::config::{Security, TlsVersion};

/// Suites of TLS 1.2 that can be chosen; those of TLS 1.3 are always on, as in Go.
const TLS12_SUITES: &[(&str, SupportedCipherSuite)] = &[
    (
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
        cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
        cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
];

const TLS13_NAMES: &[&str] = &[
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
];

/// Suites that Go has and we do not: no forward secrecy, or not authenticated.
const WEAK_NAMES: &[&str] = &[
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_RSA_WITH_RC4_128_SHA",
];

/// Versions and suites of handshakes.
#[derive(Clone, Debug)]
pub(super) struct Protocol {
    provider: Arc<CryptoProvider>,
    versions: Vec<&'static SupportedProtocolVersion>,
}

impl Protocol {
    /// # Errors
    /// A name that no suite has, or names and versions of which nothing remains.
    pub(super) fn new(security: &Security) -> Result<Protocol, Error> {
        let max = security.max_version.unwrap_or(TlsVersion::Tls13);
        let mut versions = Vec::new();
        if security.min_version == TlsVersion::Tls12 {
            versions.push(&TLS12);
        }
        if max == TlsVersion::Tls13 {
            versions.push(&TLS13);
        }
        let mut provider = aws_lc_rs::default_provider();
        if !security.cipher_suites.is_empty() {
            let chosen = choose(&security.cipher_suites)?;
            let suites = &mut provider.cipher_suites;
            suites.retain(|suite| suite.tls13().is_some());
            suites.extend(chosen);
        }
        versions.retain(|version| {
            let mut suites = provider.cipher_suites.iter();
            suites.any(|suite| suite.version().version == version.version)
        });
        if versions.is_empty() {
            return Err(Error::NoSuite);
        }
        Ok(Protocol {
            provider: Arc::new(provider),
            versions,
        })
    }

    pub(super) fn provider(&self) -> Arc<CryptoProvider> {
        Arc::clone(&self.provider)
    }

    pub(super) fn versions(&self) -> &[&'static SupportedProtocolVersion] {
        &self.versions
    }
}

/// The chosen suites of TLS 1.2. A weak one that we lack is left out with a warning: the others
/// of the list are what the operator allowed too.
fn choose(names: &[String]) -> Result<Vec<SupportedCipherSuite>, Error> {
    let mut chosen: Vec<SupportedCipherSuite> = Vec::new();
    let mut missing = Vec::new();
    for name in names {
        let known = TLS12_SUITES.iter().find(|(known, _)| known == name);
        match known {
            Some((_, suite)) if !chosen.contains(suite) => chosen.push(*suite),
            Some(_) => {}
            None if TLS13_NAMES.contains(&name.as_str()) => {}
            None if WEAK_NAMES.contains(&name.as_str()) => missing.push(name.clone()),
            None => return Err(Error::Suite(name.clone())),
        }
    }
    if !missing.is_empty() {
        tracing::warn!(
            "cipher-suites" = %crate::log::strings(&missing),
            "leaving out cipher suites that are too weak to be supported"
        );
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn protocol(
        min: TlsVersion,
        max: Option<TlsVersion>,
        suites: &[&str],
    ) -> Result<(usize, usize), String> {
        let security = Security {
            min_version: min,
            max_version: max,
            cipher_suites: suites.iter().map(ToString::to_string).collect(),
            ..Security::default()
        };
        let protocol = Protocol::new(&security).map_err(|error| error.to_string())?;
        let suites = &protocol.provider.cipher_suites;
        let newer = suites.iter().filter(|suite| suite.tls13().is_some());
        Ok((protocol.versions.len(), suites.len() - newer.count()))
    }

    #[test]
    fn go_names() {
        let (old, new) = (TlsVersion::Tls12, TlsVersion::Tls13);
        assert_eq!(protocol(old, None, &[]), Ok((2, 6)));
        assert_eq!(protocol(new, None, &[]), Ok((1, 6)));
        assert_eq!(protocol(old, Some(old), &[]), Ok((1, 6)));
        let one = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256";
        let weak = "TLS_RSA_WITH_AES_128_CBC_SHA";
        assert_eq!(protocol(old, None, &[one, weak, one]), Ok((2, 1)));
        // What is left for TLS 1.2 decides whether it is spoken.
        assert_eq!(protocol(old, None, &["TLS_AES_128_GCM_SHA256"]), Ok((1, 0)));
        assert_eq!(
            protocol(old, Some(old), &[weak]),
            Err(Error::NoSuite.to_string())
        );
        let unknown = "unexpected TLS cipher suite \"TLS_NO\"";
        assert_eq!(protocol(old, None, &["TLS_NO"]), Err(unknown.into()));
    }
}
