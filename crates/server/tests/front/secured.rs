//! Certificates for the tests, and clients that use them.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use server::config::{Security, Tls};
use server::front::Listener;
use server::tls::Credentials;

pub(crate) type SecureStream = StreamOwned<ClientConnection, TcpStream>;

/// What a server with TLS has, and what its clients need.
pub(crate) struct Secured {
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) client: Arc<ClientConfig>,
    pub(crate) stranger: Arc<ClientConfig>,
}

impl Secured {
    /// A server that wants certificates.
    pub(crate) fn new() -> Secured {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let leaf = |usage: ExtendedKeyUsagePurpose| {
            let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
            params.extended_key_usages = vec![usage];
            let key = KeyPair::generate().unwrap();
            (params.signed_by(&key, &authority).unwrap(), key)
        };
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            Some(path)
        };
        let (certificate, key) = leaf(ExtendedKeyUsagePurpose::ServerAuth);
        let tls = Tls {
            cert_file: write("cert", certificate.pem()),
            key_file: write("key", key.serialize_pem()),
            trusted_ca_file: write("authority", authority.pem()),
            ..Tls::default()
        };
        let credentials = Credentials::load(&tls, &Security::default()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let (certificate, key) = leaf(ExtendedKeyUsagePurpose::ClientAuth);
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let chain = vec![certificate.der().clone()];
        let mut client = builder.clone().with_client_auth_cert(chain, key).unwrap();
        client.alpn_protocols = vec![b"h2".to_vec()];
        Secured {
            credentials,
            client: Arc::new(client),
            stranger: Arc::new(builder.with_no_client_auth()),
        }
    }

    /// A listener on a free port, for TLS alone or for both.
    pub(crate) fn listener(&self, plain_too: bool) -> (Listener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let inner = Box::new(Listener::Tcp(listener));
        let credentials = Arc::clone(&self.credentials);
        let listener = match plain_too {
            true => Listener::Either(inner, credentials),
            false => Listener::Secure(inner, credentials),
        };
        (listener, address)
    }

    pub(crate) fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> SecureStream {
        let socket = TcpStream::connect(address).unwrap();
        let limit = Some(Duration::from_secs(20));
        socket.set_read_timeout(limit).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let session = ClientConnection::new(Arc::clone(config), name).unwrap();
        StreamOwned::new(session, socket)
    }
}
