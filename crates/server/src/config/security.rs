//! Certificates, keys and TLS versions that the operator named; no file is opened here.

use std::path::PathBuf;

use super::raw::{Raw, Source};

/// Everything about TLS.
#[derive(Clone, Debug)]
pub struct Security {
    /// Of the client and metrics listeners.
    pub client: Tls,
    /// Of the peer listeners, and of dialing other members.
    pub peer: Tls,
    pub min_version: TlsVersion,
    /// `None`: the newest.
    pub max_version: Option<TlsVersion>,
    /// Go's names; empty for the default choice.
    pub cipher_suites: Vec<String>,
    /// Validity of certificates made at start, in years of 365 days.
    pub self_signed_years: u64,
}

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}

/// The files of one kind of listener, and what is asked of the certificates of others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    /// Shown when this member is the client; the pair above when absent.
    pub client_cert_file: Option<PathBuf>,
    pub client_key_file: Option<PathBuf>,
    /// Its presence asks others for a certificate, as `client_cert_auth` does.
    pub trusted_ca_file: Option<PathBuf>,
    pub crl_file: Option<PathBuf>,
    pub client_cert_auth: bool,
    /// Common names of which a certificate must carry one; empty for any.
    pub allowed_cns: Vec<String>,
    /// Host names or addresses of which a certificate must be valid for one; empty for any.
    pub allowed_hostnames: Vec<String>,
    /// Do not compare a certificate's names with the address that it came from.
    pub skip_san_check: bool,
    /// Make a certificate at start when none is named.
    pub auto: bool,
}

impl Tls {
    /// Whether a certificate or a key is named.
    #[must_use]
    pub fn has_pair(&self) -> bool {
        self.cert_file.is_some() || self.key_file.is_some()
    }
}

impl Default for Security {
    fn default() -> Security {
        Security {
            client: Tls::default(),
            peer: Tls::default(),
            min_version: TlsVersion::Tls12,
            max_version: None,
            cipher_suites: Vec::new(),
            self_signed_years: 1,
        }
    }
}

impl Security {
    /// Takes the settings over and checks the versions.
    ///
    /// # Errors
    /// The reason in etcd's words.
    pub(super) fn read(raw: &Raw) -> Result<Security, String> {
        let min = version(raw.text("tls-min-version"))?;
        let max = version(raw.text("tls-max-version"))?;
        if max.is_some() && min > max {
            return Err(format!(
                "min version ({}) is greater than max version ({})",
                raw.text("tls-min-version"),
                raw.text("tls-max-version")
            ));
        }
        let cipher_suites = raw.list("cipher-suites").to_vec();
        if min == Some(TlsVersion::Tls13) && !cipher_suites.is_empty() {
            return Err("cipher suites cannot be configured when only TLS1.3 is enabled".into());
        }
        Ok(Security {
            client: client(raw),
            peer: peer(raw),
            min_version: min.unwrap_or(TlsVersion::Tls12),
            max_version: max,
            cipher_suites,
            self_signed_years: self_signed_years(raw),
        })
    }
}

/// Zero in a file means the default; on the command line it is refused when it matters.
fn self_signed_years(raw: &Raw) -> u64 {
    let name = "self-signed-cert-validity";
    match (raw.uint(name), raw.source(name)) {
        (0, Some(Source::File)) => 1,
        (years, _) => years,
    }
}

fn version(text: &str) -> Result<Option<TlsVersion>, String> {
    match text {
        "" => Ok(None),
        "TLS1.2" => Ok(Some(TlsVersion::Tls12)),
        "TLS1.3" => Ok(Some(TlsVersion::Tls13)),
        other => Err(format!(
            "unexpected TLS version {other:?} (must be one of: TLS1.2, TLS1.3)"
        )),
    }
}

fn path(raw: &Raw, name: &str) -> Option<PathBuf> {
    Some(raw.text(name))
        .filter(|text| !text.is_empty())
        .map(PathBuf::from)
}

/// The words of a list; an empty word stands for none, as in Go.
fn words(raw: &Raw, name: &str) -> Vec<String> {
    let words = raw.list(name).iter();
    words.filter(|word| !word.is_empty()).cloned().collect()
}

fn client(raw: &Raw) -> Tls {
    Tls {
        cert_file: path(raw, "cert-file"),
        key_file: path(raw, "key-file"),
        client_cert_file: path(raw, "client-cert-file"),
        client_key_file: path(raw, "client-key-file"),
        trusted_ca_file: path(raw, "trusted-ca-file"),
        crl_file: path(raw, "client-crl-file"),
        client_cert_auth: raw.bool("client-cert-auth"),
        allowed_cns: Vec::new(),
        allowed_hostnames: words(raw, "client-cert-allowed-hostname"),
        skip_san_check: false,
        auto: raw.bool("auto-tls"),
    }
}

fn peer(raw: &Raw) -> Tls {
    Tls {
        cert_file: path(raw, "peer-cert-file"),
        key_file: path(raw, "peer-key-file"),
        client_cert_file: path(raw, "peer-client-cert-file"),
        client_key_file: path(raw, "peer-client-key-file"),
        trusted_ca_file: path(raw, "peer-trusted-ca-file"),
        crl_file: path(raw, "peer-crl-file"),
        client_cert_auth: raw.bool("peer-client-cert-auth"),
        allowed_cns: words(raw, "peer-cert-allowed-cn"),
        allowed_hostnames: words(raw, "peer-cert-allowed-hostname"),
        skip_san_check: raw.bool("peer-skip-client-san-verification"),
        auto: raw.bool("peer-auto-tls"),
    }
}
