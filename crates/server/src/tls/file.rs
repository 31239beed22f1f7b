//! Files to keys, authorities and revocation lists.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error as RustlsError, InconsistentKeys};

use super::verify::{Revoked, Trust};
use super::{Error, Settings, certificate};

/// What the files of [`Settings`] hold.
pub(super) struct Files {
    pub(super) pair: Arc<CertifiedKey>,
    pub(super) client_pair: Option<Arc<CertifiedKey>>,
    /// Who may sign the certificates of others; `None` when none are looked at.
    pub(super) trust: Option<Arc<Trust>>,
    pub(super) revoked: Option<Arc<Revoked>>,
}

impl Files {
    /// # Errors
    /// The first file that cannot be used.
    pub(super) fn read(settings: &Settings) -> Result<Files, Error> {
        let pair = read_pair(settings, &settings.cert, &settings.key)?;
        let client_pair = match &settings.client_pair {
            Some((cert, key)) => Some(read_pair(settings, cert, key)?),
            None => None,
        };
        let trust = match &settings.trusted_ca {
            Some(path) => Some(Trust::of(path, &certificates(path)?)?),
            None if settings.self_signed => None,
            None => Some(Trust::of_system(&client::system_roots())),
        };
        let trust = trust.map(Arc::new);
        if settings.asks && trust.as_ref().is_none_or(|trust| trust.is_empty()) {
            return Err(Error::NoAuthority);
        }
        let revoked = match &settings.crl {
            Some(path) if settings.asks => Some(Arc::new(read_revoked(path)?)),
            _ => None,
        };
        Ok(Files {
            pair,
            client_pair,
            trust,
            revoked,
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })
}

fn content(path: &Path, why: impl Into<String>) -> Error {
    Error::Content {
        path: path.to_owned(),
        why: why.into(),
    }
}

/// The parts of a PEM file that have a known kind.
fn sections(path: &Path) -> Result<Vec<(SectionKind, Vec<u8>)>, Error> {
    let text = read(path)?;
    <(SectionKind, Vec<u8>)>::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| content(path, format!("malformed PEM: {error}")))
}

/// The certificates of a file that authorities are listed in.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Vec<_> = sections(path)?
        .into_iter()
        .filter(|(kind, _)| *kind == SectionKind::Certificate)
        .map(|(_, der)| CertificateDer::from(der))
        .collect();
    if found.is_empty() {
        return Err(content(
            path,
            "tls: no certificate in the file of trusted authorities",
        ));
    }
    Ok(found)
}

/// Whom the first certificate of a file names.
///
/// # Errors
/// The file cannot be read, or begins with no certificate.
pub(crate) fn identity_in(path: &Path) -> Result<super::Identity, Error> {
    let found = certificates(path)?;
    let first = found.first().map(|der| super::Identity::of(der));
    let first = first.unwrap_or_else(|| Err("no certificate".to_owned()));
    first.map_err(|why| content(path, format!("x509: {why}")))
}

/// A certificate with its intermediates and its key.
fn read_pair(settings: &Settings, cert: &Path, key: &Path) -> Result<Arc<CertifiedKey>, Error> {
    let cert_sections = sections(cert)?;
    let key_sections = sections(key)?;
    let chain: Vec<CertificateDer<'static>> = cert_sections
        .iter()
        .filter(|(kind, _)| *kind == SectionKind::Certificate)
        .map(|(_, der)| CertificateDer::from(der.clone()))
        .collect();
    let Some(first) = chain.first() else {
        let why = match cert_sections.is_empty() {
            true => "tls: failed to find any PEM data in certificate input",
            false => {
                "tls: failed to find certificate PEM data in certificate input, but did find a \
                 private key; PEM inputs may have been switched"
            }
        };
        return Err(content(cert, why));
    };
    certificate::facts(first).map_err(|why| content(cert, format!("x509: {why}")))?;
    let private = private_key(key, &key_sections)?;
    let provider = settings.protocol.provider();
    let pair = CertifiedKey::from_der(chain, private, &provider).map_err(|error| match error {
        RustlsError::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            content(key, "tls: private key does not match public key")
        }
        RustlsError::InvalidCertificate(why) => content(cert, format!("x509: {why:?}")),
        _ => content(key, "tls: failed to parse private key"),
    })?;
    Ok(Arc::new(pair))
}

fn private_key(
    path: &Path,
    sections: &[(SectionKind, Vec<u8>)],
) -> Result<PrivateKeyDer<'static>, Error> {
    for (kind, der) in sections {
        match kind {
            SectionKind::RsaPrivateKey => {
                return Ok(PrivateKeyDer::Pkcs1(der.clone().into()));
            }
            SectionKind::EcPrivateKey => return Ok(PrivateKeyDer::Sec1(der.clone().into())),
            SectionKind::PrivateKey => {
                return Ok(PrivatePkcs8KeyDer::from(der.clone()).into());
            }
            _ => {}
        }
    }
    let why = if sections.is_empty() {
        "tls: failed to find any PEM data in key input"
    } else if sections
        .iter()
        .any(|(kind, _)| *kind == SectionKind::Certificate)
    {
        "tls: found a certificate rather than a key in the PEM for the private key"
    } else {
        "tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input"
    };
    Err(content(path, why))
}

/// A revocation list: DER as etcd wants it, or PEM.
fn read_revoked(path: &Path) -> Result<Revoked, Error> {
    let bytes = read(path)?;
    let pem = <(SectionKind, Vec<u8>)>::pem_slice_iter(&bytes)
        .filter_map(Result::ok)
        .filter(|(kind, _)| *kind == SectionKind::Crl);
    let mut lists: Vec<Vec<u8>> = pem.map(|(_, der)| der).collect();
    if lists.is_empty() {
        lists.push(bytes);
    }
    let mut serials = std::collections::HashSet::new();
    for list in lists {
        let more = certificate::revoked(&list)
            .map_err(|why| content(path, format!("x509: malformed crl: {why}")))?;
        serials.extend(more);
    }
    Ok(Revoked::new(serials))
}
