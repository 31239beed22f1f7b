//! TLS of the listeners, and of dialing other members, on rustls.
//!
//! [`Credentials`] are what one kind of listener (client, peer) shows and asks for: a certificate
//! with its key, the authorities it trusts, a revocation list, and limits on names. They come from
//! files, and [`Watch`] takes changed files up without a restart. A handshake uses what is current
//! when it begins; connections that stand are left alone.
//!
//! Verification follows Go's rules where WebPKI's are others (`verify`): every certificate of the
//! trusted file is an anchor, roots expire too, and a trusted certificate may stand for itself.
//! Sessions are not resumed: a resumed one would not show its certificate again.
//!
//! Nothing here does I/O on a socket: [`Session`] is used by the event loop of the front end
//! (`front::socket`), by [`Stream`] beside tokio, and by whoever dials other members.

mod certificate;
mod error;
mod file;
mod reload;
mod san;
mod self_signed;
mod stream;
mod suites;
mod verify;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::pki_types::ServerName;
use rustls::server::NoServerSessionStorage;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

pub use certificate::Identity;
pub use error::Error;
pub(crate) use error::refusal;
pub(crate) use file::identity_in;
pub(crate) use reload::Source;
pub use reload::Watch;
pub use san::{NotThere, check_address};
pub(crate) use stream::identity;
pub use stream::{HandshakeError, Stream};

use crate::config::{self, Security, Url};
use file::Files;
use suites::Protocol;
use verify::{Allowed, Asked, Shown};

/// Ciphertext that one connection may hold for its socket.
const CIPHERTEXT_BYTES_MAX: usize = 320 * 1024;

/// The server's half of a connection.
pub type Session = ServerConnection;

/// What one kind of listener shows and asks for; always current.
pub struct Credentials {
    settings: Settings,
    current: RwLock<Current>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.settings.fmt(f)
    }
}

/// What the files say, ready for handshakes.
#[derive(Clone)]
struct Current {
    server: Arc<ServerConfig>,
    /// The same without HTTP/2.
    server_http1: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

/// Where everything is and what it must be like; does not change.
#[derive(Clone, Debug)]
struct Settings {
    cert: PathBuf,
    key: PathBuf,
    /// Shown when dialing.
    client_pair: Option<(PathBuf, PathBuf)>,
    trusted_ca: Option<PathBuf>,
    crl: Option<PathBuf>,
    /// Whether the other side of an accepted connection must have a certificate.
    asks: bool,
    allowed: Allowed,
    protocol: Protocol,
    /// Made by this member, or by another one in the same way: who dials cannot verify it.
    self_signed: bool,
    skip_san_check: bool,
}

impl Settings {
    /// # Errors
    /// Names that do not fit together, or suites that do not exist.
    fn new(tls: &config::Tls, security: &Security, self_signed: bool) -> Result<Self, Error> {
        let (Some(cert), Some(key)) = (&tls.cert_file, &tls.key_file) else {
            return Err(Error::Pair {
                key: tls.key_file.clone().unwrap_or_default(),
                cert: tls.cert_file.clone().unwrap_or_default(),
            });
        };
        let client_pair = match (&tls.client_cert_file, &tls.client_key_file) {
            (None, None) => None,
            (Some(cert), Some(key)) => Some((cert.clone(), key.clone())),
            (cert, key) => {
                return Err(Error::ClientPair {
                    key: key.clone().unwrap_or_default(),
                    cert: cert.clone().unwrap_or_default(),
                });
            }
        };
        Ok(Settings {
            cert: cert.clone(),
            key: key.clone(),
            client_pair,
            trusted_ca: tls.trusted_ca_file.clone(),
            crl: tls.crl_file.clone(),
            asks: tls.client_cert_auth || tls.trusted_ca_file.is_some(),
            allowed: Allowed::new(&tls.allowed_cns, &tls.allowed_hostnames)?,
            protocol: Protocol::new(security)?,
            self_signed,
            skip_san_check: tls.skip_san_check,
        })
    }

    /// Every file whose change matters.
    fn paths(&self) -> impl Iterator<Item = &Path> {
        let pair = self.client_pair.iter().flat_map(|(cert, key)| [cert, key]);
        let others = self.trusted_ca.iter().chain(&self.crl);
        let all = [&self.cert, &self.key].into_iter().chain(pair);
        all.chain(others).map(PathBuf::as_path)
    }

    /// # Errors
    /// A file that cannot be used.
    fn load(&self) -> Result<Current, Error> {
        let files = Files::read(self)?;
        let server = self.server_config(&files)?;
        let mut server_http1 = server.clone();
        server_http1.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Current {
            server: Arc::new(server),
            server_http1: Arc::new(server_http1),
            client: Arc::new(self.client_config(&files)?),
        })
    }

    fn server_config(&self, files: &Files) -> Result<ServerConfig, Error> {
        let provider = self.protocol.provider();
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(self.protocol.versions())
            .map_err(Error::Setup)?;
        let builder = match &files.trust {
            Some(trust) if self.asks => builder.with_client_cert_verifier(Arc::new(Asked::new(
                Arc::clone(trust),
                files.revoked.clone(),
                self.allowed.clone(),
                &provider,
            ))),
            _ => builder.with_no_client_auth(),
        };
        let pair = SingleCertAndKey::from(Arc::clone(&files.pair));
        let mut config = builder.with_cert_resolver(Arc::new(pair));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    fn client_config(&self, files: &Files) -> Result<ClientConfig, Error> {
        let provider = self.protocol.provider();
        let verifier = match &files.trust {
            Some(trust) if !self.self_signed => {
                Shown::trusted(Arc::clone(trust), self.allowed.clone(), &provider)
            }
            _ => Shown::anybody(&provider),
        };
        let pair = files.client_pair.as_ref().unwrap_or(&files.pair);
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(self.protocol.versions())
            .map_err(Error::Setup)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(pair))));
        // Members speak HTTP/1.1. etcd's listener would choose h2 if it were offered, and then
        // not speak it.
        config.alpn_protocols = Vec::new();
        config.resumption = rustls::client::Resumption::disabled();
        Ok(config)
    }
}

impl Credentials {
    /// Reads the files that `tls` names.
    ///
    /// # Errors
    /// Whatever would keep every handshake from succeeding.
    pub fn load(tls: &config::Tls, security: &Security) -> Result<Arc<Credentials>, Error> {
        Credentials::open(Settings::new(tls, security, false)?)
    }

    fn open(settings: Settings) -> Result<Arc<Credentials>, Error> {
        let current = RwLock::new(settings.load()?);
        Ok(Arc::new(Credentials { settings, current }))
    }

    fn current(&self) -> Current {
        let current = self.current.read();
        current.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, current: Current) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = current;
    }

    /// The server's half of a new connection that may speak HTTP/2.
    ///
    /// # Errors
    /// The library refuses the settings; the same for every connection.
    pub fn accept(&self) -> Result<Session, rustls::Error> {
        let mut session = Session::new(self.current().server)?;
        session.set_buffer_limit(Some(CIPHERTEXT_BYTES_MAX));
        Ok(session)
    }

    /// The server's half of a new connection that is for HTTP/1.1 alone.
    ///
    /// # Errors
    /// As [`Credentials::accept`].
    pub fn accept_http1(&self) -> Result<Session, rustls::Error> {
        let mut session = Session::new(self.current().server_http1)?;
        session.set_buffer_limit(Some(CIPHERTEXT_BYTES_MAX));
        Ok(session)
    }

    /// The client's half of a new connection to another member, whose certificate must name
    /// `host`.
    ///
    /// # Errors
    /// The host cannot be a server's name.
    pub fn dial(&self, host: &str) -> Result<ClientConnection, rustls::Error> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| rustls::Error::General(format!("{host:?} cannot be a server's name")))?;
        let mut session = ClientConnection::new(self.current().client, name)?;
        session.set_buffer_limit(Some(CIPHERTEXT_BYTES_MAX));
        Ok(session)
    }

    /// Whether a certificate's names are compared with the address that it came from
    /// ([`check_address`]); on peer and metrics listeners.
    #[must_use]
    pub fn checks_address(&self) -> bool {
        !self.settings.skip_san_check
    }
}

/// The credentials of a member, and the thread that keeps them current.
#[derive(Debug, Default)]
pub struct Setup {
    /// Of client and metrics listeners; `None` when there is no certificate.
    pub client: Option<Arc<Credentials>>,
    /// Of peer listeners and of dialing members.
    pub peer: Option<Arc<Credentials>>,
}

impl Setup {
    /// Makes the certificates that `--auto-tls` asks for, and reads all files.
    ///
    /// # Errors
    /// Whatever would keep every handshake from succeeding.
    pub fn open(config: &config::Config) -> Result<Setup, Error> {
        let security = &config.security;
        let dir = &config.data_dir;
        Ok(Setup {
            client: open(
                &security.client,
                security,
                dir,
                "client",
                &config.listen.client,
            )?,
            peer: open(&security.peer, security, dir, "peer", &config.listen.peer)?,
        })
    }

    /// Starts to watch the files.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn watch(&self) -> std::io::Result<Watch> {
        let all = self.client.iter().chain(&self.peer);
        Watch::start(all.map(|one| Arc::clone(one) as Arc<dyn Source>).collect())
    }
}

/// Credentials of one kind of listener; `None` when there is no certificate, and none is to be
/// made for `urls` in the data directory.
///
/// # Errors
/// Whatever would keep every handshake from succeeding.
pub(crate) fn open(
    tls: &config::Tls,
    security: &Security,
    data_dir: &Path,
    kind: &str,
    urls: &[Url],
) -> Result<Option<Arc<Credentials>>, Error> {
    let mut tls = tls.clone();
    let mut self_signed = false;
    if tls.auto && tls.has_pair() {
        tracing::warn!("ignoring {kind} auto TLS since certs given");
    } else if tls.auto {
        let dir = data_dir.join("fixtures").join(kind);
        let crl_file = tls.crl_file.take();
        tls = self_signed::pair(&dir, urls, security.self_signed_years)?;
        tls.crl_file = crl_file;
        self_signed = true;
    }
    if !tls.has_pair() {
        return Ok(None);
    }
    let credentials = Credentials::open(Settings::new(&tls, security, self_signed)?)?;
    announce(kind, &credentials.settings, &security.cipher_suites);
    Ok(Some(credentials))
}

fn announce(kind: &str, settings: &Settings, suites: &[String]) {
    let text = |path: Option<&PathBuf>| path.map_or(String::new(), |it| it.display().to_string());
    let info = format!(
        "cert = {}, key = {}, client-cert={}, client-key={}, trusted-ca = {}, \
         client-cert-auth = {}, crl-file = {}",
        settings.cert.display(),
        settings.key.display(),
        text(settings.client_pair.as_ref().map(|(cert, _)| cert)),
        text(settings.client_pair.as_ref().map(|(_, key)| key)),
        text(settings.trusted_ca.as_ref()),
        settings.asks,
        text(settings.crl.as_ref()),
    );
    tracing::info!(
        "tls-info" = info,
        "cipher-suites" = %crate::log::strings(suites),
        "starting with {kind} TLS"
    );
}

#[cfg(test)]
mod tests;
