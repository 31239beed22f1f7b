//! Certificates of `--auto-tls` and `--peer-auto-tls`: encryption without verification.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};

use super::Error;
use crate::config::{Tls, Url};

/// The pair in `dir`, made for the hosts of `urls` when it is not there.
///
/// # Errors
/// It cannot be made or stored.
pub(super) fn pair(dir: &Path, urls: &[Url], years: u64) -> Result<Tls, Error> {
    if years == 0 {
        return Err(Error::Validity);
    }
    let write_error = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Write { path, source }
    };
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(dir).map_err(write_error(dir))?;
    let dir = fs::canonicalize(dir).map_err(write_error(dir))?;
    let (cert_file, key_file) = (dir.join("cert.pem"), dir.join("key.pem"));
    if !(cert_file.exists() && key_file.exists()) {
        let (cert, key) = generate(urls, years).map_err(Error::Generate)?;
        write(&key_file, &key, 0o600).map_err(write_error(&key_file))?;
        tracing::info!(path = %key_file.display(), "created key file");
        write(&cert_file, &cert, 0o644).map_err(write_error(&cert_file))?;
        tracing::info!(path = %cert_file.display(), "created cert file");
    }
    Ok(Tls {
        client_cert_file: Some(cert_file.clone()),
        client_key_file: Some(key_file.clone()),
        cert_file: Some(cert_file),
        key_file: Some(key_file),
        ..Tls::default()
    })
}

fn write(path: &Path, text: &str, mode: u32) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(mode);
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Certificate and key as PEM, with etcd's parameters.
fn generate(urls: &[Url], years: u64) -> Result<(String, String), rcgen::Error> {
    let now = SystemTime::now();
    // Beyond the calendar of a certificate there is no point in being exact.
    let days = years.saturating_mul(365).min(1_000_000);
    let end = now + Duration::from_secs(days * 24 * 60 * 60);
    let mut params = CertificateParams::default();
    params.not_before = now.into();
    params.not_after = end.into();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "etcd");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyEncipherment,
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::CrlSign,
    ];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    for url in urls.iter().filter(|url| !url.scheme().is_unix()) {
        params
            .subject_alt_names
            .push(match url.host().parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(url.host().try_into()?),
            });
    }
    tracing::warn!(
        "certificate-validity-days" = days,
        "automatically generate certificates"
    );
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512)?;
    let cert = params.self_signed(&key)?;
    Ok((cert.pem(), key.serialize_pem()))
}
