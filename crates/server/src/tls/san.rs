//! Whether a certificate belongs to the address that it came from.

use std::fmt;
use std::net::{IpAddr, ToSocketAddrs};

use super::Identity;

/// The certificate of somebody else.
#[derive(Debug)]
pub struct NotThere {
    address: IpAddr,
    names: Vec<String>,
}

impl fmt::Display for NotThere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.names.iter().map(|name| format!("{name:?}")).collect();
        let (address, names) = (self.address.to_string(), names.join(" "));
        write!(
            f,
            "tls: {address:?} does not match any of DNSNames [{names}]"
        )
    }
}

impl std::error::Error for NotThere {}

/// Compares the certificate of a member, or of whoever reads metrics, with its address, as etcd
/// does: one without names and addresses is good anywhere; else one of its addresses is the
/// peer's, or one of its names leads there or back. Asks the system's resolver and may block for
/// as long as that takes.
///
/// # Errors
/// Nothing fits.
pub fn check_address(identity: &Identity, address: IpAddr) -> Result<(), NotThere> {
    check(identity, address, &forward, &reverse)
}

fn check(
    identity: &Identity,
    address: IpAddr,
    forward: &dyn Fn(&str) -> Vec<IpAddr>,
    reverse: &dyn Fn(IpAddr) -> Option<String>,
) -> Result<(), NotThere> {
    if identity.ip_addresses.is_empty() && identity.dns_names.is_empty() {
        return Ok(());
    }
    let address = address.to_canonical();
    if identity
        .ip_addresses
        .iter()
        .any(|own| own.to_canonical() == address)
    {
        return Ok(());
    }
    let (wild, plain): (Vec<&String>, Vec<&String>) = identity
        .dns_names
        .iter()
        .partition(|name| name.starts_with("*."));
    let leads_here = |name: &&String| {
        let mut found = forward(name).into_iter();
        found.any(|found| found.to_canonical() == address)
    };
    let back = if identity.dns_names.is_empty() {
        None
    } else {
        reverse(address)
    };
    let fits = back.is_some_and(|name| {
        let name = name.strip_suffix('.').unwrap_or(&name);
        wild.iter().any(|pattern| name.ends_with(&pattern[1..]))
            || plain.iter().any(|own| *own == name)
    });
    if fits || plain.iter().any(leads_here) {
        return Ok(());
    }
    Err(NotThere {
        address,
        names: identity.dns_names.clone(),
    })
}

/// The addresses of a name; none when it has none or nobody answers.
fn forward(name: &str) -> Vec<IpAddr> {
    let found = (name, 0).to_socket_addrs();
    found.map_or_else(|_| Vec::new(), |found| found.map(|it| it.ip()).collect())
}

fn reverse(address: IpAddr) -> Option<String> {
    dns_lookup::lookup_addr(&address).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names() {
        let here: IpAddr = "10.0.0.2".parse().unwrap();
        let forward = |name: &str| match name {
            "here" => vec!["10.0.0.9".parse().unwrap(), here],
            _ => Vec::new(),
        };
        let reverse = |address: IpAddr| (address == here).then(|| "n.kube.demo.".to_owned());
        let identity = |addresses: &[&str], names: &[&str]| Identity {
            common_name: "here".into(),
            dns_names: names.iter().map(ToString::to_string).collect(),
            ip_addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        };
        let cases: &[(&[&str], &[&str], bool)] = &[
            (&[], &[], true),
            (&["10.0.0.2"], &[], true),
            (&["::ffff:10.0.0.2"], &[], true),
            (&["10.0.0.3"], &[], false),
            (&["10.0.0.3"], &["here"], true),
            (&[], &["there", "n.kube.demo"], true),
            (&[], &["*.kube.demo"], true),
            (&[], &["*.kube"], false),
            (&[], &["there"], false),
        ];
        for (addresses, names, want) in cases {
            let got = check(&identity(addresses, names), here, &forward, &reverse);
            assert_eq!(got.is_ok(), *want, "{addresses:?} {names:?}");
        }
        let error = check(&identity(&[], &["a", "b"]), here, &forward, &reverse).unwrap_err();
        let want = "tls: \"10.0.0.2\" does not match any of DNSNames [\"a\" \"b\"]";
        assert_eq!(error.to_string(), want);
    }
}
