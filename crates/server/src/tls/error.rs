//! Why there are no credentials.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// What keeps credentials from being used. The texts are Go's where it has one.
#[derive(Debug)]
pub enum Error {
    /// A certificate without its key, or the other way round.
    Pair { key: PathBuf, cert: PathBuf },
    /// The same of the pair for dialing.
    ClientPair { key: PathBuf, cert: PathBuf },
    /// Both kinds of limits on names.
    BothAllowed {
        cns: Vec<String>,
        hostnames: Vec<String>,
    },
    /// No such cipher suite.
    Suite(String),
    /// Nothing is left of the cipher suites and versions.
    NoSuite,
    /// A file cannot be read.
    Read { path: PathBuf, source: io::Error },
    /// A file was read and cannot be used.
    Content { path: PathBuf, why: String },
    /// Nobody to verify certificates by.
    NoAuthority,
    /// The validity of a certificate to be made.
    Validity,
    /// A certificate could not be made.
    Generate(rcgen::Error),
    /// A made certificate could not be stored.
    Write { path: PathBuf, source: io::Error },
    /// The library refuses the settings.
    Setup(rustls::Error),
    /// A listener with encryption, and nothing to encrypt with.
    MissingForClient { url: String },
    /// The same of a metrics listener.
    MissingForMetrics,
    /// The same of a peer listener.
    MissingForPeer { address: String },
}

/// The system's reason in Go's words.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".into(),
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        _ => error.to_string(),
    }
}

fn quoted(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    format!("[{}]", words.join(" "))
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Pair { key, cert } => write!(
                f,
                "KeyFile and CertFile must both be present[key: {}, cert: {}]",
                key.display(),
                cert.display()
            ),
            Error::ClientPair { key, cert } => write!(
                f,
                "ClientKeyFile and ClientCertFile must both be present or both absent: \
                 key: {}, cert: {}]",
                key.display(),
                cert.display()
            ),
            Error::BothAllowed { cns, hostnames } => write!(
                f,
                "AllowedCNs and AllowedHostnames are mutually exclusive (cns={}, hostnames={})",
                quoted(cns),
                quoted(hostnames)
            ),
            Error::Suite(name) => write!(f, "unexpected TLS cipher suite {name:?}"),
            Error::NoSuite => f.write_str(
                "none of the cipher suites in --cipher-suites is supported with these TLS versions",
            ),
            Error::Read { path, source } => {
                write!(f, "open {}: {}", path.display(), reason(source))
            }
            Error::Content { path, why } => write!(f, "{why} ({})", path.display()),
            Error::NoAuthority => f.write_str(
                "certificates are asked for, but there is no --trusted-ca-file and the system \
                 has no authorities",
            ),
            Error::Validity => {
                f.write_str("selfSignedCertValidity is invalid,it should be greater than 0")
            }
            Error::Generate(_) => f.write_str("cannot generate x509 certificate"),
            Error::Write { path, source } => {
                write!(f, "write {}: {}", path.display(), reason(source))
            }
            Error::Setup(_) => f.write_str("set up TLS"),
            Error::MissingForClient { url } => write!(
                f,
                "TLS key/cert (--cert-file, --key-file) must be provided for client url {url} \
                 with HTTPS scheme"
            ),
            Error::MissingForMetrics => f.write_str(
                "client TLS key/cert (--cert-file, --key-file) must be provided for metrics \
                 secure url",
            ),
            Error::MissingForPeer { address } => write!(
                f,
                "cannot listen on TLS for {address}: KeyFile and CertFile are not presented"
            ),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Generate(source) => Some(source),
            Error::Setup(source) => Some(source),
            // The others name their cause already, in Go's words.
            _ => None,
        }
    }
}

/// Why a connection was refused, for the log, in Go's words where it has some.
pub(crate) fn refusal(error: &rustls::Error) -> String {
    use rustls::{CertificateError as C, Error as E, InvalidMessage};
    let why = match error {
        E::NoCertificatesPresented => "tls: client didn't provide a certificate",
        E::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "tls: first record does not look like a TLS handshake"
        }
        E::InvalidCertificate(C::UnknownIssuer) => {
            "tls: failed to verify certificate: x509: certificate signed by unknown authority"
        }
        E::InvalidCertificate(C::Expired | C::NotValidYet) => {
            "tls: failed to verify certificate: x509: certificate has expired or is not yet valid"
        }
        E::InvalidCertificate(C::InvalidPurpose) => {
            "tls: failed to verify certificate: x509: certificate specifies an incompatible key \
             usage"
        }
        E::InvalidCertificate(C::Revoked) => "transport: certificate revoked",
        E::InvalidCertificate(C::Other(other)) => {
            return format!("tls: failed to verify certificate: {}", other.0);
        }
        other => return format!("tls: {other}"),
    };
    why.to_owned()
}
