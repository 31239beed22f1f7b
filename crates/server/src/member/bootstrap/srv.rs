//! Founders that DNS names: SRV records of a domain, `etcd-server-ssl` and `etcd-server`.

use std::io;

use api::url::Url;
use client::srv::Record;

use super::urls::Lookup;

/// Asks for records: service, domain.
type Ask<'a> = &'a dyn Fn(&str, &str) -> Result<Vec<Record>, String>;

/// What to look for.
pub(super) struct Wanted<'a> {
    /// `--discovery-srv`
    pub(super) domain: &'a str,
    /// `--discovery-srv-name`
    pub(super) suffix: &'a str,
    /// This member, which is known by its address.
    pub(super) name: &'a str,
    pub(super) advertised: &'a [Url],
}

/// `--initial-cluster` by the records of both services; members whose names nobody knows are
/// numbered.
///
/// # Errors
/// There are no records, or none that can be used, in etcd's words.
pub(super) fn initial_cluster(wanted: &Wanted, ask: Ask, lookup: Lookup) -> Result<String, String> {
    let mut parts = Vec::new();
    let mut failures = Vec::new();
    for (service, scheme) in [("etcd-server-ssl", "https"), ("etcd-server", "http")] {
        let service = match wanted.suffix {
            "" => service.to_owned(),
            suffix => format!("{service}-{suffix}"),
        };
        let found = members(wanted, &service, scheme, ask, lookup);
        tracing::info!(
            "service-scheme" = scheme,
            "service-name" = service,
            "server-name" = wanted.name,
            "discovery-srv" = wanted.domain,
            "found-cluster" = found.as_ref().map_or("", |found| found.as_str()),
            error = found.as_ref().err(),
            "get cluster for {service} SRV"
        );
        match found {
            Ok(found) if found.is_empty() => {}
            Ok(found) => parts.push(found),
            Err(why) => failures.push(why),
        }
    }
    let failures = failures.join("\n");
    if !failures.is_empty() {
        tracing::warn!(error = failures, "failed to resolve during SRV discovery");
    }
    if parts.is_empty() {
        return Err(failures);
    }
    for part in parts.iter().flat_map(|part| part.split(',')) {
        tracing::info!(node = part, "got bootstrap from DNS for etcd-server");
    }
    Ok(parts.join(","))
}

/// The members of one service.
fn members(
    wanted: &Wanted,
    service: &str,
    scheme: &str,
    ask: Ask,
    lookup: Lookup,
) -> Result<String, String> {
    let failed = |why: String| format!("error querying DNS SRV records for _{service} {why}");
    let mut own = Vec::new();
    for url in wanted.advertised {
        let port = url.port().parse().unwrap_or(0);
        let address = lookup(url.host(), port).map_err(|error| not_found(url.host(), &error))?;
        own.push((address, url));
    }
    let records = ask(service, wanted.domain).map_err(failed)?;
    let mut parts = Vec::new();
    let mut numbered = 0;
    let mut last = None;
    for record in records {
        let address = match lookup(&record.host, record.port) {
            Ok(address) => address,
            Err(error) => {
                last = Some(not_found(&record.host, &error));
                continue;
            }
        };
        let is_own = own.iter().find(|(known, _)| *known == address);
        let name = match is_own {
            Some(_) => wanted.name.to_owned(),
            None => {
                numbered += 1;
                (numbered - 1).to_string()
            }
        };
        let url = format!("{scheme}://{}:{}", record.host, record.port);
        match is_own {
            Some((_, expected)) if expected.scheme().as_str() != scheme => {
                last = Some(format!(
                    "bootstrap at {url} from DNS for {service} has scheme mismatch with expected \
                     peer {expected}"
                ));
            }
            _ => parts.push(format!("{name}={url}")),
        }
    }
    match last {
        Some(why) if parts.is_empty() => Err(failed(why)),
        _ => Ok(parts.join(",")),
    }
}

fn not_found(host: &str, error: &io::Error) -> String {
    format!("lookup {host}: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    fn known(host: &str, port: u16) -> io::Result<SocketAddr> {
        let last = match host {
            "a" | "10.0.0.1" => 1,
            "b" => 2,
            "c" => 3,
            _ => return Err(io::Error::other("no such host")),
        };
        Ok(([10, 0, 0, last], port).into())
    }

    fn found(own: &str, suffix: &str, records: &[(&str, &str, u16)]) -> Result<String, String> {
        let wanted = Wanted {
            domain: "example",
            suffix,
            name: "me",
            advertised: &api::url::parse_list(own).unwrap(),
        };
        let ask = |service: &str, domain: &str| {
            let of = records.iter().filter(|(of, ..)| *of == service);
            let of = of.map(|(_, target, port)| Record {
                priority: 0,
                weight: 0,
                host: (*target).to_owned(),
                port: *port,
            });
            match of.collect::<Vec<_>>() {
                none if none.is_empty() => {
                    Err(format!("lookup _{service}._tcp.{domain}: no such host"))
                }
                some => Ok(some),
            }
        };
        initial_cluster(&wanted, &ask, known)
    }

    #[test]
    fn members_are_named_by_address_or_numbered() {
        let plain = |target, port| ("etcd-server", target, port);
        let three = [plain("b", 1), plain("a", 1), plain("c", 2)];
        let want = "0=http://b:1,me=http://a:1,1=http://c:2";
        assert_eq!(found("http://10.0.0.1:1", "", &three).unwrap(), want);
        // Another port is another member.
        let want = "0=http://b:1,1=http://a:1,2=http://c:2";
        assert_eq!(found("http://a:7", "", &three).unwrap(), want);
        let both = [
            ("etcd-server-ssl", "a", 1),
            plain("b", 2),
            plain("nobody", 3),
        ];
        let want = "me=https://a:1,0=http://b:2";
        assert_eq!(found("https://a:1", "", &both).unwrap(), want);
        let named = [("etcd-server-x", "a", 1)];
        assert_eq!(found("http://a:1", "x", &named).unwrap(), "me=http://a:1");
    }

    #[test]
    fn refusals() {
        let nobody = "error querying DNS SRV records for _etcd-server-ssl lookup \
                      _etcd-server-ssl._tcp.example: no such host\n";
        let cases = [
            (
                "http://a:1",
                vec![],
                "error querying DNS SRV records for _etcd-server lookup \
                 _etcd-server._tcp.example: no such host",
            ),
            (
                "https://a:1",
                vec![("etcd-server", "a", 1)],
                "error querying DNS SRV records for _etcd-server bootstrap at http://a:1 from DNS \
                 for etcd-server has scheme mismatch with expected peer https://a:1",
            ),
            (
                "http://a:1",
                vec![("etcd-server", "nobody", 1)],
                "error querying DNS SRV records for _etcd-server lookup nobody: no such host",
            ),
        ];
        for (own, records, want) in cases {
            assert_eq!(found(own, "", &records), Err(format!("{nobody}{want}")));
        }
    }
}
