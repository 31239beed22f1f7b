//! What a certificate and a revocation list say.

use std::collections::HashSet;
use std::net::IpAddr;

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

/// Who the other side is, by its verified certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The last common name of the subject; empty when there is none.
    pub common_name: String,
    pub dns_names: Vec<String>,
    pub ip_addresses: Vec<IpAddr>,
}

/// A certificate's content beside its identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) identity: Identity,
    pub(super) validity: Validity,
    /// Object identifiers of extended key usage; `None` when the certificate does not restrict.
    pub(super) usages: Option<Vec<String>>,
}

/// Seconds since 1970, both ends inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    begin: i64,
    end: i64,
}

impl Validity {
    pub(super) fn has_begun(self, now_s: u64) -> bool {
        i64::try_from(now_s).is_ok_and(|now_s| self.begin <= now_s)
    }

    pub(super) fn has_ended(self, now_s: u64) -> bool {
        i64::try_from(now_s).is_ok_and(|now_s| now_s > self.end)
    }
}

/// Reads a certificate.
///
/// # Errors
/// It is malformed.
pub(super) fn facts(der: &[u8]) -> Result<Facts, String> {
    let certificate = parse(der)?;
    let mut identity = Identity::default();
    // Go keeps the last one.
    if let Some(name) = certificate.subject().iter_common_name().last() {
        let text = name.as_str().map_err(|error| error.to_string())?;
        identity.common_name = text.to_owned();
    }
    let names = certificate.subject_alternative_name();
    let names = names.map_err(|error| error.to_string())?;
    for name in names.iter().flat_map(|names| &names.value.general_names) {
        match name {
            GeneralName::DNSName(name) => identity.dns_names.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => {
                let address = address(bytes).ok_or("an IP address has a wrong length")?;
                identity.ip_addresses.push(address);
            }
            _ => {}
        }
    }
    let mut extensions = certificate.extensions().iter();
    let usages = extensions
        .find(|extension| {
            extension.oid == x509_parser::oid_registry::OID_X509_EXT_EXTENDED_KEY_USAGE
        })
        .map(|extension| usages_of(extension.value))
        .transpose()?;
    Ok(Facts {
        identity,
        validity: Validity {
            begin: certificate.validity().not_before.timestamp(),
            end: certificate.validity().not_after.timestamp(),
        },
        usages,
    })
}

fn usages_of(der: &[u8]) -> Result<Vec<String>, String> {
    use x509_parser::asn1_rs::{Oid, Sequence};
    let (_, sequence) = Sequence::from_der(der).map_err(|error| error.to_string())?;
    let oids: Vec<Oid<'_>> = sequence
        .der_sequence_of::<Oid<'_>, x509_parser::asn1_rs::Error>()
        .map_err(|error| error.to_string())?;
    Ok(oids.iter().map(Oid::to_id_string).collect())
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(<[u8; 4]>::try_from(bytes).ok()?.into()),
        16 => Some(<[u8; 16]>::try_from(bytes).ok()?.into()),
        _ => None,
    }
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, String> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
    Ok(certificate)
}

/// The serial number without leading zeros.
///
/// # Errors
/// The certificate is malformed.
pub(super) fn serial(der: &[u8]) -> Result<Vec<u8>, String> {
    Ok(bare(parse(der)?.raw_serial()))
}

fn bare(serial: &[u8]) -> Vec<u8> {
    let zeros = serial.iter().take_while(|byte| **byte == 0).count();
    serial.get(zeros..).unwrap_or_default().to_vec()
}

/// Serial numbers that a revocation list names. Like Go's etcd this looks at nothing else: not at
/// the issuer, the signature or the dates of the list.
///
/// # Errors
/// The list is malformed.
pub(super) fn revoked(der: &[u8]) -> Result<HashSet<Vec<u8>>, String> {
    let (rest, list) =
        CertificateRevocationList::from_der(der).map_err(|error| error.to_string())?;
    if !rest.is_empty() {
        return Err("trailing data".into());
    }
    let entries = list.iter_revoked_certificates();
    Ok(entries.map(|entry| bare(entry.raw_serial())).collect())
}

impl Identity {
    /// Reads the identity out of a certificate.
    ///
    /// # Errors
    /// The certificate is malformed.
    pub(super) fn of(der: &[u8]) -> Result<Identity, String> {
        Ok(facts(der)?.identity)
    }

    /// Whether the certificate is valid for a host name or address. The common name does not
    /// count.
    pub(super) fn is_for(&self, host: &str) -> bool {
        let bare = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        if let Ok(address) = bare.unwrap_or(host).parse::<IpAddr>() {
            return self.ip_addresses.iter().any(|own| same(*own, address));
        }
        self.dns_names.iter().any(|pattern| matches(pattern, host))
    }
}

/// Equality of addresses, where IPv4 may be written as IPv6.
fn same(a: IpAddr, b: IpAddr) -> bool {
    a.to_canonical() == b.to_canonical()
}

/// Whether a name fits a pattern, whose first label may be a star for any one label.
fn matches(pattern: &str, host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.is_empty() || pattern.is_empty() {
        return false;
    }
    if let (Some(rest), Some((label, tail))) = (pattern.strip_prefix("*."), host.split_once('.')) {
        return !label.is_empty() && rest.eq_ignore_ascii_case(tail);
    }
    pattern.eq_ignore_ascii_case(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let cases = [
            ("a.b", "A.b", true),
            ("a.b", "a.b.", true),
            ("*.b", "a.b", true),
            ("*.b", "x.a.b", false),
            ("*.b", ".b", false),
            ("*.b", "b", false),
            ("", "", false),
        ];
        for (pattern, host, want) in cases {
            assert_eq!(matches(pattern, host), want, "{pattern} {host}");
        }
        let identity = Identity {
            ip_addresses: vec!["127.0.0.1".parse().unwrap()],
            common_name: "cn".into(),
            dns_names: vec!["n".into()],
        };
        for (host, want) in [
            ("127.0.0.1", true),
            ("[::ffff:127.0.0.1]", true),
            ("127.0.0.2", false),
            ("n", true),
            ("cn", false),
        ] {
            assert_eq!(identity.is_for(host), want, "{host}");
        }
    }

    #[test]
    fn malformed_input_is_refused() {
        for der in [&b""[..], b"\x30", b"\x30\x03\x02\x01\x01", &[0x30; 64]] {
            assert!(facts(der).is_err());
            assert!(serial(der).is_err());
            assert!(revoked(der).is_err());
        }
    }
}
