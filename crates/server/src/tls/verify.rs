//! Who is believed: chains, names and revocation, by Go's rules.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error as RustlsError, OtherError,
    SignatureScheme,
};
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter, VerifiedPath};

use super::Error;
use super::certificate::{self, Facts, Identity, Validity};

/// What a certificate is shown for. One without extended key usages is good for everything, and
/// so is one with the usage "any", as in Go.
#[derive(Clone, Copy, Debug)]
enum Usage {
    Server,
    Client,
}

const ANY: &[usize] = &[2, 5, 29, 37, 0];

impl Usage {
    fn oid(self) -> &'static [usize] {
        match self {
            Usage::Server => &[1, 3, 6, 1, 5, 5, 7, 3, 1],
            Usage::Client => &[1, 3, 6, 1, 5, 5, 7, 3, 2],
        }
    }

    fn is_among(self, usages: &[String]) -> bool {
        let text = |oid: &[usize]| {
            let numbers: Vec<String> = oid.iter().map(ToString::to_string).collect();
            numbers.join(".")
        };
        let (own, any) = (text(self.oid()), text(ANY));
        usages.iter().any(|usage| *usage == own || *usage == any)
    }
}

impl ExtendedKeyUsageValidator for Usage {
    fn validate(&self, usages: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        let mut empty = true;
        for usage in usages {
            empty = false;
            let usage = usage?.to_decoded_oid();
            if usage == self.oid() || usage == ANY {
                return Ok(());
            }
        }
        if empty {
            return Ok(());
        }
        Err(webpki::Error::RequiredEkuNotFoundContext(
            webpki::RequiredEkuNotFoundContext {
                required: webpki::KeyUsage::required_if_present(match self {
                    Usage::Server => &[43, 6, 1, 5, 5, 7, 3, 1],
                    Usage::Client => &[43, 6, 1, 5, 5, 7, 3, 2],
                }),
                present: Vec::new(),
            },
        ))
    }
}

/// The authorities: every certificate of a file, roots and intermediates alike.
#[derive(Debug)]
pub(super) struct Trust {
    anchors: Vec<TrustAnchor<'static>>,
    /// Of the anchors, in their order. WebPKI does not look at an anchor's dates; Go does.
    validity: Vec<Validity>,
    /// A certificate that is listed here may also stand for itself.
    listed: HashSet<CertificateDer<'static>>,
    subjects: Vec<DistinguishedName>,
}

impl Trust {
    /// The authorities of an operator's file, all of which must be usable.
    ///
    /// # Errors
    /// One of them is not.
    pub(super) fn of(path: &Path, certificates: &[CertificateDer<'static>]) -> Result<Self, Error> {
        let mut trust = Trust::empty();
        for certificate in certificates {
            trust.add(certificate).map_err(|why| Error::Content {
                path: path.to_owned(),
                why: format!("x509: {why}"),
            })?;
        }
        Ok(trust)
    }

    /// The authorities of the system, of which some may be beyond us.
    pub(super) fn of_system(certificates: &[CertificateDer<'static>]) -> Self {
        let mut trust = Trust::empty();
        for certificate in certificates {
            // Nothing is lost but what could not be verified anyhow.
            let _ = trust.add(certificate);
        }
        trust
    }

    fn empty() -> Self {
        Trust {
            anchors: Vec::new(),
            validity: Vec::new(),
            listed: HashSet::new(),
            subjects: Vec::new(),
        }
    }

    fn add(&mut self, certificate: &CertificateDer<'static>) -> Result<(), String> {
        let facts = certificate::facts(certificate)?;
        let anchor = webpki::anchor_from_trusted_cert(certificate)
            .map_err(|error| error.to_string())?
            .to_owned();
        self.subjects
            .push(DistinguishedName::in_sequence(anchor.subject.as_ref()));
        self.anchors.push(anchor);
        self.validity.push(facts.validity);
        self.listed.insert(certificate.clone());
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.anchors.is_empty()
    }

    /// Whether a chain leads from the certificate to an authority that is valid now.
    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        usage: Usage,
        algorithms: &WebPkiSupportedAlgorithms,
        now: UnixTime,
    ) -> Result<(), RustlsError> {
        if self.listed.contains(leaf) {
            return check_alone(&facts(leaf)?, usage, now);
        }
        let anchor_is_valid = |path: &VerifiedPath<'_>| {
            let found = self
                .anchors
                .iter()
                .position(|anchor| anchor == path.anchor());
            let validity = found.and_then(|at| self.validity.get(at));
            match validity {
                Some(it) if it.has_begun(now.as_secs()) && !it.has_ended(now.as_secs()) => Ok(()),
                _ => Err(webpki::Error::UnknownIssuer),
            }
        };
        EndEntityCert::try_from(leaf)
            .and_then(|parsed| {
                let (all, anchors) = (algorithms.all, &self.anchors);
                let check = Some(&anchor_is_valid as &dyn Fn(&VerifiedPath<'_>) -> _);
                let path = parsed.verify_for_usage(all, anchors, others, now, usage, None, check);
                path.map(|_| ())
            })
            .map_err(explain)
    }
}

fn facts(der: &CertificateDer<'_>) -> Result<Facts, RustlsError> {
    certificate::facts(der).map_err(|_| CertificateError::BadEncoding.into())
}

/// A certificate that is listed as an authority needs no chain.
fn check_alone(facts: &Facts, usage: Usage, now: UnixTime) -> Result<(), RustlsError> {
    if !facts.validity.has_begun(now.as_secs()) {
        return Err(CertificateError::NotValidYet.into());
    }
    if facts.validity.has_ended(now.as_secs()) {
        return Err(CertificateError::Expired.into());
    }
    if facts
        .usages
        .as_ref()
        .is_some_and(|usages| !usage.is_among(usages))
    {
        return Err(CertificateError::InvalidPurpose.into());
    }
    Ok(())
}

/// The library's error as the alert that fits it.
fn explain(error: webpki::Error) -> RustlsError {
    use webpki::Error as E;
    let error = match error {
        // Of somebody's own authority, which is called like one of ours.
        E::UnknownIssuer | E::InvalidSignatureForPublicKey => CertificateError::UnknownIssuer,
        E::CertExpired { .. } => CertificateError::Expired,
        E::CertNotValidYet { .. } => CertificateError::NotValidYet,
        E::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        E::BadDer | E::BadDerTime => CertificateError::BadEncoding,
        other => CertificateError::Other(OtherError(Arc::new(other))),
    };
    error.into()
}

/// What a certificate must be called beside being signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Allowed {
    Anybody,
    CommonNames(Vec<String>),
    Hosts(Vec<String>),
}

impl Allowed {
    /// # Errors
    /// Both lists have entries.
    pub(super) fn new(cns: &[String], hostnames: &[String]) -> Result<Self, Error> {
        match (cns.is_empty(), hostnames.is_empty()) {
            (true, true) => Ok(Allowed::Anybody),
            (false, true) => Ok(Allowed::CommonNames(cns.to_vec())),
            (true, false) => Ok(Allowed::Hosts(hostnames.to_vec())),
            (false, false) => Err(Error::BothAllowed {
                cns: cns.to_vec(),
                hostnames: hostnames.to_vec(),
            }),
        }
    }

    fn check(&self, leaf: &CertificateDer<'_>) -> Result<(), RustlsError> {
        if *self == Allowed::Anybody {
            return Ok(());
        }
        let identity = facts(leaf)?.identity;
        if self.admits(&identity) {
            return Ok(());
        }
        let refused = CertificateError::Other(OtherError(Arc::new(NotAllowed)));
        Err(refused.into())
    }

    fn admits(&self, identity: &Identity) -> bool {
        match self {
            Allowed::Anybody => true,
            Allowed::CommonNames(names) => names.contains(&identity.common_name),
            Allowed::Hosts(hosts) => hosts.iter().any(|host| identity.is_for(host)),
        }
    }
}

/// The certificate is good, its names are not on the list.
#[derive(Debug)]
pub(super) struct NotAllowed;

impl fmt::Display for NotAllowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("client certificate authentication failed")
    }
}

impl std::error::Error for NotAllowed {}

/// Serial numbers of certificates that do not count any more, whoever signed them.
#[derive(Debug)]
pub(super) struct Revoked(HashSet<Vec<u8>>);

impl Revoked {
    pub(super) fn new(serials: HashSet<Vec<u8>>) -> Self {
        Revoked(serials)
    }

    /// Looks at everything that was shown, as etcd does, not only at the chain.
    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
    ) -> Result<(), RustlsError> {
        for shown in std::iter::once(leaf).chain(others) {
            let serial = certificate::serial(shown).map_err(|_| CertificateError::BadEncoding)?;
            if self.0.contains(&serial) {
                return Err(CertificateError::Revoked.into());
            }
        }
        Ok(())
    }
}

/// Verifies those who connect to us.
#[derive(Debug)]
pub(super) struct Asked {
    trust: Arc<Trust>,
    revoked: Option<Arc<Revoked>>,
    allowed: Allowed,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Asked {
    pub(super) fn new(
        trust: Arc<Trust>,
        revoked: Option<Arc<Revoked>>,
        allowed: Allowed,
        provider: &CryptoProvider,
    ) -> Self {
        Asked {
            trust,
            revoked,
            allowed,
            algorithms: provider.signature_verification_algorithms,
        }
    }
}

impl ClientCertVerifier for Asked {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.trust.subjects
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, RustlsError> {
        self.trust
            .check(leaf, others, Usage::Client, &self.algorithms, now)?;
        self.allowed.check(leaf)?;
        if let Some(revoked) = &self.revoked {
            revoked.check(leaf, others)?;
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        verify_tls12_signature(message, cert, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        verify_tls13_signature(message, cert, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Verifies those whom we dial.
#[derive(Debug)]
pub(super) struct Shown {
    /// `None`: certificates made at start, which nobody can verify.
    rules: Option<(Arc<Trust>, Allowed)>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Shown {
    pub(super) fn trusted(trust: Arc<Trust>, allowed: Allowed, provider: &CryptoProvider) -> Self {
        Shown {
            rules: Some((trust, allowed)),
            algorithms: provider.signature_verification_algorithms,
        }
    }

    /// Whoever answers is believed, as with `--peer-auto-tls` in etcd.
    pub(super) fn anybody(provider: &CryptoProvider) -> Self {
        Shown {
            rules: None,
            algorithms: provider.signature_verification_algorithms,
        }
    }
}

impl ServerCertVerifier for Shown {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, RustlsError> {
        let Some((trust, allowed)) = &self.rules else {
            return Ok(ServerCertVerified::assertion());
        };
        trust.check(leaf, others, Usage::Server, &self.algorithms, now)?;
        if !facts(leaf)?.identity.is_for(&name.to_str()) {
            return Err(CertificateError::NotValidForName.into());
        }
        allowed.check(leaf)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        verify_tls12_signature(message, cert, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        verify_tls13_signature(message, cert, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
