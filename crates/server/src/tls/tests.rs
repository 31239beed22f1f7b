//! Handshakes in memory, with certificates like those of the first deployment.

use std::fs;
use std::io::Cursor;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SerialNumber,
};
use tempfile::TempDir;

use super::*;
use crate::config::Tls;

type Issuer = CertifiedIssuer<'static, KeyPair>;

const CLIENT: ExtendedKeyUsagePurpose = ExtendedKeyUsagePurpose::ClientAuth;
const SERVER: ExtendedKeyUsagePurpose = ExtendedKeyUsagePurpose::ServerAuth;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A root, an intermediate, and a directory for what they sign.
pub(in crate::tls) struct Pki {
    pub(in crate::tls) dir: TempDir,
    root: Issuer,
    intermediate: Issuer,
}

fn authority(name: &str, days: (i64, i64)) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    limit(&mut params, days);
    params
}

fn limit(params: &mut CertificateParams, (begin, end): (i64, i64)) {
    let at = |days: i64| {
        let distance = DAY * u32::try_from(days.abs()).unwrap();
        match days < 0 {
            true => SystemTime::now() - distance,
            false => SystemTime::now() + distance,
        }
    };
    params.not_before = at(begin).into();
    params.not_after = at(end).into();
}

impl Pki {
    pub(in crate::tls) fn new() -> Pki {
        Pki::valid((-1, 1))
    }

    fn valid(days: (i64, i64)) -> Pki {
        let root = authority("root", days);
        let root = Issuer::self_signed(root, KeyPair::generate().unwrap()).unwrap();
        let intermediate = authority("intermediate", (-1, 1));
        let key = KeyPair::generate().unwrap();
        let intermediate = Issuer::signed_by(intermediate, key, &root).unwrap();
        let pki = Pki {
            dir: tempfile::tempdir().unwrap(),
            root,
            intermediate,
        };
        pki.write("root.pem", &pki.root.pem());
        pki.write("intermediate.pem", &pki.intermediate.pem());
        pki.write("chain.pem", &(pki.intermediate.pem() + &pki.root.pem()));
        pki
    }

    pub(in crate::tls) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(in crate::tls) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// A leaf without digitalSignature, whose key identifier names the issuer.
    pub(in crate::tls) fn leaf(&self, name: &str, serial: u64, usages: &[ExtendedKeyUsagePurpose]) {
        self.leaf_with(name, serial, usages, |_| {});
    }

    fn leaf_with(
        &self,
        name: &str,
        serial: u64,
        usages: &[ExtendedKeyUsagePurpose],
        change: impl FnOnce(&mut CertificateParams),
    ) {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![
            KeyUsagePurpose::KeyEncipherment,
            KeyUsagePurpose::DataEncipherment,
        ];
        params.extended_key_usages = usages.to_vec();
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(SerialNumber::from(serial));
        limit(&mut params, (-1, 1));
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.intermediate).unwrap();
        self.write(&format!("{name}.pem"), &certificate.pem());
        self.write(&format!("{name}-key.pem"), &key.serialize_pem());
    }

    pub(in crate::tls) fn revoke(&self, serials: &[u64]) {
        let mut params = CertificateRevocationListParams {
            this_update: (SystemTime::now() - DAY).into(),
            next_update: (SystemTime::now() + DAY).into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        for serial in serials {
            params.revoked_certs.push(RevokedCertParams {
                serial_number: SerialNumber::from(*serial),
                revocation_time: SystemTime::now().into(),
                reason_code: None,
                invalidity_date: None,
            });
        }
        let list = params.signed_by(&self.intermediate).unwrap();
        fs::write(self.path("crl"), list.der()).unwrap();
    }

    /// Settings with this certificate and authority.
    pub(in crate::tls) fn tls(&self, name: &str, authority: &str) -> Tls {
        Tls {
            cert_file: Some(self.path(&format!("{name}.pem"))),
            key_file: Some(self.path(&format!("{name}-key.pem"))),
            trusted_ca_file: Some(self.path(authority)),
            ..Tls::default()
        }
    }
}

pub(in crate::tls) fn open(tls: &Tls) -> Result<Arc<Credentials>, String> {
    Credentials::load(tls, &Security::default()).map_err(|error| error.to_string())
}

/// What each side says of a handshake: the server's view of the client, or the first error.
pub(in crate::tls) fn shake(
    server: &Credentials,
    client: &Credentials,
) -> Result<Option<Arc<Identity>>, String> {
    shake_as(server, client, "localhost")
}

fn shake_as(
    server: &Credentials,
    client: &Credentials,
    name: &str,
) -> Result<Option<Arc<Identity>>, String> {
    let mut session = server.accept().unwrap();
    let mut dialer = client.dial(name).unwrap();
    for _ in 0..8 {
        let mut bytes = Vec::new();
        while dialer.wants_write() {
            dialer.write_tls(&mut bytes).unwrap();
        }
        let mut bytes = Cursor::new(bytes);
        while session.read_tls(&mut bytes).unwrap() > 0 {
            let taken = session.process_new_packets();
            taken.map_err(|error| format!("server: {error}"))?;
        }
        let mut bytes = Vec::new();
        while session.wants_write() {
            session.write_tls(&mut bytes).unwrap();
        }
        let mut bytes = Cursor::new(bytes);
        while dialer.read_tls(&mut bytes).unwrap() > 0 {
            let taken = dialer.process_new_packets();
            taken.map_err(|error| format!("client: {error}"))?;
        }
    }
    assert!(!session.is_handshaking() && !dialer.is_handshaking());
    Ok(identity(&session))
}

fn assert_refused<T: std::fmt::Debug>(outcome: Result<T, String>, why: &str) {
    let error = outcome.unwrap_err();
    assert!(error.contains(why), "{error} is not about {why}");
}

#[test]
fn every_certificate_of_the_file_is_an_anchor() {
    let pki = Pki::new();
    pki.leaf("server", 1, &[SERVER]);
    pki.leaf("user", 2, &[CLIENT, SERVER]);
    let user = open(&pki.tls("user", "chain.pem")).unwrap();
    for authority in ["chain.pem", "intermediate.pem"] {
        let server = open(&pki.tls("server", authority)).unwrap();
        let seen = shake(&server, &user).unwrap().expect("a certificate");
        assert_eq!(seen.common_name, "user");
        assert_eq!(seen.dns_names, ["localhost"]);
        assert_eq!(
            seen.ip_addresses,
            ["127.0.0.1".parse::<std::net::IpAddr>().unwrap()]
        );
    }
    // The root alone does not lead to a leaf that comes without its intermediate.
    let server = open(&pki.tls("server", "root.pem")).unwrap();
    assert_refused(
        shake(&server, &user),
        "server: invalid peer certificate: UnknownIssuer",
    );
    let both = fs::read_to_string(pki.path("user.pem")).unwrap() + &pki.intermediate.pem();
    pki.write("user.pem", &both);
    let user = open(&pki.tls("user", "chain.pem")).unwrap();
    assert!(shake(&server, &user).unwrap().is_some());
    // A listed certificate may stand for itself.
    let server = open(&pki.tls("server", "user.pem")).unwrap();
    assert!(shake(&server, &user).unwrap().is_some());
}

#[test]
fn who_is_refused() {
    let (pki, other) = (Pki::new(), Pki::new());
    pki.leaf("server", 1, &[SERVER]);
    pki.leaf("user", 2, &[CLIENT]);
    pki.leaf("revoked", 0x80, &[CLIENT]);
    pki.leaf_with("old", 4, &[CLIENT], |params| limit(params, (-3, -2)));
    pki.leaf_with("young", 5, &[CLIENT], |params| limit(params, (2, 3)));
    pki.revoke(&[7, 0x80]);
    other.leaf("stranger", 2, &[CLIENT]);
    let crl_file = Some(pki.path("crl"));
    let server = open(&Tls {
        crl_file,
        ..pki.tls("server", "chain.pem")
    })
    .unwrap();
    let client = |of: &Pki, name: &str| {
        let trusted_ca_file = Some(pki.path("chain.pem"));
        open(&Tls {
            trusted_ca_file,
            ..of.tls(name, "")
        })
        .unwrap()
    };
    shake(&server, &client(&pki, "user")).unwrap();
    for (of, name, why) in [
        (&other, "stranger", "UnknownIssuer"),
        (&pki, "revoked", "Revoked"),
        (&pki, "old", "Expired"),
        (&pki, "young", "NotValidYet"),
        (&pki, "server", "InvalidPurpose"),
    ] {
        assert_refused(shake(&server, &client(of, name)), why);
    }
}

#[test]
fn authorities_expire() {
    let pki = Pki::valid((-3, -2));
    pki.leaf("server", 1, &[SERVER]);
    pki.leaf("user", 2, &[CLIENT]);
    let user = open(&pki.tls("user", "chain.pem")).unwrap();
    // The intermediate is good, and listed.
    let server = open(&pki.tls("server", "chain.pem")).unwrap();
    shake(&server, &user).unwrap();
    // Behind an intermediate that is not, the root counts.
    let both = fs::read_to_string(pki.path("user.pem")).unwrap() + &pki.intermediate.pem();
    pki.write("user.pem", &both);
    let user = open(&pki.tls("user", "chain.pem")).unwrap();
    let server = open(&pki.tls("server", "root.pem")).unwrap();
    assert_refused(shake(&server, &user), "UnknownIssuer");
}

#[test]
fn usages_may_be_absent_or_any() {
    let pki = Pki::new();
    pki.leaf("server", 1, &[]);
    let server = open(&pki.tls("server", "chain.pem")).unwrap();
    for usages in [&[][..], &[ExtendedKeyUsagePurpose::Any]] {
        pki.leaf("user", 2, usages);
        shake(&server, &open(&pki.tls("user", "chain.pem")).unwrap()).unwrap();
    }
}

#[test]
fn names_are_limited() {
    let pki = Pki::new();
    pki.leaf("server", 1, &[SERVER]);
    pki.leaf("user", 2, &[CLIENT]);
    let user = open(&pki.tls("user", "chain.pem")).unwrap();
    let words = |words: &[&str]| words.iter().map(ToString::to_string).collect();
    let cases: &[(&[&str], &[&str], bool)] = &[
        (&["root", "user"], &[], true),
        (&["root"], &[], false),
        (&[], &["other", "localhost"], true),
        (&[], &["127.0.0.1"], true),
        (&[], &["user"], false),
    ];
    for (cns, hostnames, want) in cases {
        let tls = Tls {
            allowed_cns: words(cns),
            allowed_hostnames: words(hostnames),
            ..pki.tls("server", "chain.pem")
        };
        let outcome = shake(&open(&tls).unwrap(), &user);
        assert_eq!(outcome.is_ok(), *want, "{cns:?} {hostnames:?}: {outcome:?}");
    }
    let tls = Tls {
        allowed_cns: words(&["a", "b"]),
        allowed_hostnames: words(&["c"]),
        ..pki.tls("server", "chain.pem")
    };
    let want = "AllowedCNs and AllowedHostnames are mutually exclusive (cns=[\"a\" \"b\"], \
                hostnames=[\"c\"])";
    assert_eq!(open(&tls).unwrap_err(), want);
}

#[test]
fn who_dials_looks_at_names_and_usages() {
    let pki = Pki::new();
    pki.leaf("server", 1, &[SERVER]);
    pki.leaf("user", 2, &[CLIENT]);
    let server = open(&pki.tls("server", "chain.pem")).unwrap();
    let user = open(&pki.tls("user", "chain.pem")).unwrap();
    shake_as(&server, &user, "127.0.0.1").unwrap();
    for name in ["127.0.0.2", "server", "local"] {
        assert_refused(
            shake_as(&server, &user, name),
            "client: invalid peer certificate",
        );
    }
    assert_refused(
        shake(&user, &user),
        "client: invalid peer certificate: InvalidPurpose",
    );
    // The pair for dialing may be another one.
    let (client_cert_file, client_key_file) = (pki.path("user.pem"), pki.path("user-key.pem"));
    let both = Tls {
        client_cert_file: Some(client_cert_file),
        client_key_file: Some(client_key_file),
        ..pki.tls("server", "chain.pem")
    };
    let seen = shake(&server, &open(&both).unwrap()).unwrap();
    assert_eq!(seen.expect("a certificate").common_name, "user");
}

#[test]
fn nobody_is_asked_without_authorities() {
    let pki = Pki::new();
    pki.leaf("server", 1, &[SERVER]);
    let trusted_ca_file = None;
    let server = open(&Tls {
        trusted_ca_file,
        ..pki.tls("server", "")
    })
    .unwrap();
    let user = open(&pki.tls("server", "chain.pem")).unwrap();
    assert_eq!(shake(&server, &user).unwrap(), None);
}

#[test]
fn bad_files_are_named() {
    let pki = Pki::new();
    pki.leaf("a", 1, &[SERVER]);
    pki.leaf("b", 2, &[SERVER]);
    pki.write("empty.pem", "nothing\n");
    pki.write(
        "broken.pem",
        "-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n",
    );
    let check = |change: &dyn Fn(&mut Tls), want: &str| {
        let mut tls = pki.tls("a", "chain.pem");
        change(&mut tls);
        assert_refused(open(&tls), want);
    };
    let path = |name: &str| Some(pki.path(name));
    check(
        &|tls| tls.key_file = None,
        "KeyFile and CertFile must both be present[key: , cert: ",
    );
    check(
        &|tls| tls.client_key_file = path("a"),
        "ClientKeyFile and ClientCertFile must both be",
    );
    check(
        &|tls| tls.cert_file = path("none"),
        "none: no such file or directory",
    );
    check(
        &|tls| tls.key_file = path("b-key.pem"),
        "tls: private key does not match public key",
    );
    check(
        &|tls| tls.cert_file = path("empty.pem"),
        "find any PEM data in certificate input",
    );
    check(
        &|tls| tls.key_file = path("empty.pem"),
        "find any PEM data in key input",
    );
    check(
        &|tls| tls.key_file = path("a.pem"),
        "tls: found a certificate rather than a key",
    );
    check(
        &|tls| tls.cert_file = path("a-key.pem"),
        "PEM inputs may have been switched",
    );
    check(&|tls| tls.cert_file = path("broken.pem"), "x509: ");
    check(&|tls| tls.trusted_ca_file = path("broken.pem"), "x509: ");
    check(
        &|tls| tls.trusted_ca_file = path("empty.pem"),
        "no certificate in the file of trusted",
    );
    check(&|tls| tls.crl_file = path("a.pem"), "malformed crl");
}

#[test]
fn certificates_made_at_start() {
    let dir = tempfile::tempdir().unwrap();
    let urls: Vec<Url> = ["https://127.0.0.1:0", "https://localhost:0", "unixs:/s"]
        .iter()
        .map(|text| Url::parse(text).unwrap())
        .collect();
    let fixtures = dir.path().join("data").join("fixtures").join("peer");
    let tls = self_signed::pair(&fixtures, &urls, 2).unwrap();
    let key = tls.key_file.clone().unwrap();
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&key), mode(&dir.path().join("data"))), (0o600, 0o700));
    let settings = Settings::new(&tls, &Security::default(), true).unwrap();
    let credentials = Credentials::open(settings).unwrap();
    assert_eq!(shake(&credentials, &credentials), Ok(None));
    let before = fs::read(&key).unwrap();
    self_signed::pair(&fixtures, &urls, 2).unwrap();
    assert_eq!(fs::read(&key).unwrap(), before);
    assert!(matches!(
        self_signed::pair(&fixtures, &urls, 0),
        Err(Error::Validity)
    ));
}
